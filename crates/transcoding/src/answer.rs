//! How far the answer to a request is: a future that is not boxed where nothing has to be waited for but the call.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;
use tonic::body::Body;

use super::{
    body::ResponseBody,
    response::Asked,
    shared::{Later, Opened, Shared},
};

pin_project! {
    /// The future of the response of a [`Transcoder`](crate::Transcoder).
    pub struct ResponseFuture<F> {
        #[pin]
        pub(super) answer: Answer<F>,
    }
}

pin_project! {
    /// How far an answer is.
    #[project = Step]
    pub(crate) enum Answer<F> {
        Now { response: Option<Response<ResponseBody>> },
        /// Of a request that was gRPC already nothing is asked, and its reply passes as it is.
        Called { #[pin] call: F, asked: Option<(Arc<Shared>, Opened, Asked)> },
        Later { later: Later },
    }
}

impl<F> Answer<F> {
    pub(super) fn now(response: Response<ResponseBody>) -> Self {
        let response = Some(response);
        Self::Now { response }
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for ResponseFuture<F> {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = self.project().answer;
        loop {
            let later = match answer.as_mut().project() {
                Step::Now { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    // Nobody polls what was ready.
                    None => return Poll::Pending,
                },
                Step::Later { later } => return later.as_mut().poll(context).map(Ok),
                Step::Called { call, asked } => {
                    let Ok(reply) = ready!(call.poll(context));
                    let Some((shared, opened, asked)) = asked.take() else {
                        return Poll::Ready(Ok(reply.map(ResponseBody::from)));
                    };
                    match shared.respond(reply, opened, asked) {
                        Ok(response) => return Poll::Ready(Ok(response)),
                        Err(later) => later,
                    }
                }
            };
            answer.set(Answer::Later { later });
        }
    }
}
