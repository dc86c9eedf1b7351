//! After a kill: getting to know what became of the requests that were not answered, and seeing
//! all that was accepted to its end.

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use test_support::{Clients, Method, NoReply, Transport, eventually, text};

use crate::load::Shared;
use crate::model::{Number, Standing, is_done};

/// How many questions are under way at a time.
pub const AT_ONCE: usize = 8;

/// Sends every request again that was not answered. Afterwards nothing is unknown, but for requests without a key that a
/// server which stands still may have.
pub async fn ask_again(clients: &Clients, model: &Shared, random: &mut StdRng) {
    let unknown = model.lock().unknown();
    for number in unknown {
        let (keyed, request) = {
            let model = model.lock();
            (model.requests[number].key.is_some(), model.again(number))
        };
        if !keyed {
            look_for(clients, model, number).await;
            continue;
        }
        // At once, by callers that do not know of each other.
        let callers: Vec<_> = (0..random.random_range(1..=3))
            .map(|_| clients.caller(transport(random)))
            .collect();
        let question = model.lock().question(number);
        let replies = join_all(callers.iter().map(|caller| request.send(caller))).await;
        let whole = |reply: Result<_, NoReply>| reply.expect("a reply of a server that runs");
        let replies: Vec<_> = replies.into_iter().map(whole).collect();
        let accepted = replies.iter().any(Result::is_ok);
        model.lock().replied_at_once(question, replies);
        if accepted {
            // Requests from now on are not refused.
            let reply = request.send(&clients.caller(transport(random))).await;
            model.lock().replied(question, whole(reply));
        }
    }
}

/// Looks whether a request under no key made its image.
async fn look_for(clients: &Clients, model: &Shared, number: Number) {
    let (place, marker, desktop) = {
        let model = model.lock();
        let request = &model.requests[number];
        let place = request
            .action
            .place()
            .expect("only new images come without keys");
        (
            place.clone(),
            request.marker.clone(),
            request.action.is_desktop(),
        )
    };
    let found = eventually("an image that was begun is whole", || async {
        let found: Vec<Value> = list(clients, place.folder, desktop)
            .await
            .into_iter()
            .filter(|image| image["description"] == marker)
            .collect();
        let whole = found.iter().all(|image| image["status"] != "CREATING");
        whole.then_some(found)
    })
    .await;
    assert!(found.len() < 2, "done twice: {found:?}");
    let mut model = model.lock();
    match found.into_iter().next() {
        Some(image) => {
            let id = text(&image, "id").to_owned();
            model.made(number, image);
            model.requests[number].standing = Standing::Found(id);
        }
        // The server that stands still may have the request, and carry it out when it goes on: it is looked for again in
        // the next round.
        None if model.stands_still && model.requests[number].round == model.round => {}
        None => model.requests[number].standing = Standing::Refused,
    }
}

/// Waits until every accepted operation is done.
pub async fn all_done(clients: &Clients, model: &Shared) {
    let unfinished = model.lock().unfinished();
    for number in unfinished {
        let id = {
            let model = model.lock();
            let (id, _) = model.requests[number].operation().expect("accepted");
            id.to_owned()
        };
        let what = format!("the operation {id} ends");
        let done = eventually(&what, || async {
            let request = json!({"operationId": id});
            let operation = clients.ask(Method::OperationGet, request).await;
            is_done(&operation).then_some(operation)
        });
        let question = model.lock().question(number);
        let done = done.await;
        model.lock().seen(question, done);
    }
}

/// Looks again at operations that have ended: they stay as they were.
pub async fn unchanged(clients: &Clients, model: &Shared, numbers: Vec<Number>) {
    let looks = numbers.into_iter().map(|number| {
        let id = model.lock().requests[number]
            .operation()
            .map(|(id, _)| id.to_owned());
        let question = model.lock().question(number);
        async move {
            let Some(id) = id else { return };
            let request = json!({"operationId": id});
            let operation = clients.ask(Method::OperationGet, request).await;
            model.lock().seen(question, operation);
        }
    });
    stream::iter(looks)
        .buffer_unordered(AT_ONCE)
        .for_each(async |()| ())
        .await;
}

/// All images of a folder.
pub async fn list(clients: &Clients, folder: &str, desktop: bool) -> Vec<Value> {
    let (method, field) = match desktop {
        true => (Method::DesktopList, "desktopImages"),
        false => (Method::ComputeList, "images"),
    };
    let mut images = Vec::new();
    let mut token = String::new();
    loop {
        let request = json!({"folderId": folder, "pageSize": 100, "pageToken": token});
        let page = clients.ask(method, request).await;
        images.extend(page[field].as_array().expect("a list").iter().cloned());
        match page["nextPageToken"].as_str() {
            Some(next) if !next.is_empty() => token = next.to_owned(),
            _ => return images,
        }
    }
}

fn transport(random: &mut StdRng) -> Transport {
    match random.random_bool(0.5) {
        true => Transport::Grpc,
        false => Transport::Rest,
    }
}
