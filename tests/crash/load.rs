//! The callers: each has images of its own, and knows what they should look like.

use std::panic::resume_unwind;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use test_support::{Caller, Clients, Method, NoReply, Refusal, Transport, text};
use tokio::time::sleep;
use tonic::Code;

use crate::disks::{Bytes, LONG, SHARED};
use crate::kill::Progress;
use crate::model::{Model, Number, Standing};
use crate::quotas::LIMITED;
use crate::request::{Action, CONTENDED, Place, Sendable};

pub const FOLDERS: [&str; 3] = ["alpha", "beta", LIMITED];
/// How many callers there are.
pub const CALLERS: usize = 8;
/// How many images a caller has before it would rather delete some.
const MANY: usize = 7;
/// The longest pause between two requests of a caller, in milliseconds.
const PAUSE: u64 = 24;

/// The model, shared by the callers.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Model>>);

impl Shared {
    pub fn new(model: Model) -> Self {
        Self(Arc::new(Mutex::new(model)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Model> {
        // Quietly: what matters is why the other one panicked.
        let poisoned = |_| resume_unwind(Box::new(AnotherPanicked));
        self.0.lock().unwrap_or_else(poisoned)
    }

    /// Tells the callers that the server is about to be gone.
    pub fn kill(&self) {
        // A caller that panicked is told of once all have ended.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).killed = true;
    }
}

/// Why a caller ends in the middle when another found something wrong.
pub struct AnotherPanicked;

pub struct Load {
    pub random: StdRng,
    pub clients: Clients,
    pub model: Shared,
    pub progress: Arc<Progress>,
    /// The images that no one else changes.
    pub own: Vec<String>,
    /// Compute images of all callers.
    pub sources: Vec<String>,
    /// Whether this one begins with bytes that take a while.
    pub large: bool,
    /// Whether this one waits for what is not done at once.
    pub patient: bool,
    /// The requests that this one has sent.
    pub sent: Vec<Number>,
}

/// The server is gone.
struct Killed;

impl Load {
    /// Sends requests until the server is killed.
    pub async fn run(mut self) {
        while self.step().await.is_ok() {
            let pause = self.random.random_range(0..=PAUSE);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn step(&mut self) -> Result<(), Killed> {
        if std::mem::take(&mut self.large) {
            return match self.random.random_bool(0.5) {
                true => self.import(Bytes::Large).await,
                false => {
                    let number = self.random.random_range(0..LONG);
                    self.upload(Bytes::Long(number)).await
                }
            };
        }
        let crowded = self.own.len() >= MANY;
        match self.random.random_range(0..100) {
            0..40 if !crowded => self.make_from_source().await,
            40..50 if !crowded => {
                let bytes = Bytes::Small(self.random.random_range(0..SHARED));
                self.import(bytes).await
            }
            50..62 if !crowded => self.upload_small().await,
            0..30 | 62..75 => self.update().await,
            30..62 | 75..90 => self.delete().await,
            90..95 => self.repeat().await,
            _ => self.read().await,
        }
    }

    async fn make_from_source(&mut self) -> Result<(), Killed> {
        let Some(source) = self.sources.choose(&mut self.random).cloned() else {
            return self.upload_small().await;
        };
        let place = self.place();
        let action = match self.random.random_bool(0.8) {
            true => Action::Copy { place, source },
            false => Action::Derive { place, source },
        };
        // Most callers know no keys.
        let keyed = self.random.random_bool(0.7);
        self.change(action, keyed).await.map(drop)
    }

    async fn upload_small(&mut self) -> Result<(), Killed> {
        let number = match self.random.random_bool(0.5) {
            true => self.random.random_range(0..SHARED),
            // Bytes that no other image has.
            false => self.random.random_range(SHARED..u64::MAX / 2),
        };
        self.upload(Bytes::Small(number)).await
    }

    async fn upload(&mut self, bytes: Bytes) -> Result<(), Killed> {
        let place = self.place();
        let slow = self.random.random_bool(0.3);
        let action = Action::Upload { place, bytes, slow };
        self.change(action, true).await.map(drop)
    }

    /// Imports a file, and cancels that, waits for it, or leaves it alone.
    async fn import(&mut self, bytes: Bytes) -> Result<(), Killed> {
        let place = self.place();
        let action = Action::Import { place, bytes };
        let Some(number) = self.send(action, true).await? else {
            return Ok(());
        };
        match self.random.random_range(0..3) {
            0 => {
                let longest = if bytes == Bytes::Large { 300 } else { 8 };
                let pause = self.random.random_range(0..longest);
                sleep(Duration::from_millis(pause)).await;
                self.cancel(number).await?;
                self.finish(number).await
            }
            1 => self.finish(number).await,
            _ => Ok(()),
        }
    }

    async fn update(&mut self) -> Result<(), Killed> {
        let Some(image) = self.own.choose(&mut self.random).cloned() else {
            return Ok(());
        };
        let desktop = self.model.lock().images[&image].desktop;
        let action = Action::Update {
            desktop,
            image,
            name: self.name(),
            labels: self.labels(),
        };
        self.change(action, true).await
    }

    async fn delete(&mut self) -> Result<(), Killed> {
        if self.own.is_empty() {
            return Ok(());
        }
        let chosen = self.random.random_range(0..self.own.len());
        let image = self.own.swap_remove(chosen);
        let desktop = self.model.lock().images[&image].desktop;
        self.change(Action::Delete { desktop, image }, true).await
    }

    /// Sends again what has been answered: the answer is the same operation.
    async fn repeat(&mut self) -> Result<(), Killed> {
        let Some(number) = self.sent.choose(&mut self.random).copied() else {
            return Ok(());
        };
        let request = {
            let model = self.model.lock();
            let request = &model.requests[number];
            let accepted = matches!(request.standing, Standing::Accepted(_));
            if !accepted || request.key.is_none() {
                return Ok(());
            }
            model.again(number)
        };
        let grpc = self.random.random_bool(0.5);
        self.ask(number, &request, grpc).await
    }

    /// Looks at an image of its own, which is as it should be.
    async fn read(&mut self) -> Result<(), Killed> {
        let Some(id) = self.own.choose(&mut self.random).cloned() else {
            return Ok(());
        };
        let image = self.model.lock().images[&id].clone();
        let method = match image.desktop {
            true => Method::DesktopGet,
            false => Method::ComputeGet,
        };
        let caller = self.caller();
        let read = caller.attempt(method, json!({"imageId": id}), &[]).await;
        let read = self.alive(read)?;
        assert_eq!(self.available(read)?, Ok(image.resource));
        Ok(())
    }

    /// Sends a request and sees it done. What is not done at once is cancelled now and then.
    async fn change(&mut self, action: Action, keyed: bool) -> Result<(), Killed> {
        let changed = action.changed().map(str::to_owned);
        let Some(number) = self.send(action, keyed).await? else {
            return Ok(());
        };
        let operation = |model: &Model| model.requests[number].operation().map(|(_, done)| done);
        if operation(&self.model.lock()) == Some(true) {
            return self.finish(number).await;
        }
        if self.random.random_bool(0.2) {
            self.cancel(number).await?;
        }
        if self.patient {
            return self.finish(number).await;
        }
        // The image is left alone until the next round.
        self.own.retain(|own| Some(own) != changed.as_ref());
        Ok(())
    }

    /// Sends a request, maybe several times at once. None when it was refused.
    async fn send(&mut self, action: Action, keyed: bool) -> Result<Option<Number>, Killed> {
        // What refuses one try may be gone at the next, and of several senders of an upload only one has it.
        let once =
            action.is_contended() || action.is_limited() || matches!(action, Action::Upload { .. });
        let times = match keyed && !once && self.random.random_bool(0.15) {
            true => self.random.random_range(2..=4),
            false => 1,
        };
        let key = keyed.then(|| {
            let bytes = uuid::Builder::from_random_bytes(self.random.random());
            bytes.into_uuid().to_string()
        });
        let (number, request) = self.model.lock().send(action, key).ok_or(Killed)?;
        self.sent.push(number);
        let transports: Vec<bool> = (0..times).map(|_| self.random.random_bool(0.5)).collect();
        let asked = transports
            .into_iter()
            .map(|grpc| self.ask(number, &request, grpc));
        for answered in join_all(asked).await {
            answered?;
        }
        let accepted = self.model.lock().requests[number].operation().is_some();
        Ok(accepted.then_some(number))
    }

    /// Sends a request once, and notes the reply.
    async fn ask(&self, number: Number, request: &Sendable, grpc: bool) -> Result<(), Killed> {
        let transport = if grpc {
            Transport::Grpc
        } else {
            Transport::Rest
        };
        let caller = self.clients.caller(transport);
        let question = self.model.lock().question(number);
        self.progress.sent.fetch_add(1, Relaxed);
        let reply = self.alive(request.send(&caller).await)?;
        let reply = self.available(reply)?;
        self.progress.replied.fetch_add(1, Relaxed);
        self.model.lock().replied(question, reply);
        Ok(())
    }

    async fn cancel(&mut self, number: Number) -> Result<(), Killed> {
        let id = {
            let mut model = self.model.lock();
            let request = &mut model.requests[number];
            request.cancel_sent = true;
            let (id, _) = request.operation().expect("an accepted request");
            id.to_owned()
        };
        let method = match self.random.random_bool(0.5) {
            true => Method::OperationCancel,
            false => Method::OperationCancelByPost,
        };
        self.look(number, method, &id).await.map(drop)
    }

    /// Waits until an accepted request is done; the image that it made is this caller's.
    async fn finish(&mut self, number: Number) -> Result<(), Killed> {
        loop {
            let (id, done) = {
                let model = self.model.lock();
                let (id, done) = model.requests[number].operation().expect("accepted");
                (id.to_owned(), done)
            };
            if done {
                break;
            }
            self.look(number, Method::OperationGet, &id).await?;
            sleep(Duration::from_millis(5)).await;
        }
        let model = self.model.lock();
        let request = &model.requests[number];
        let Standing::Accepted(operation) = &request.standing else {
            unreachable!("it was accepted");
        };
        if request.action.place().is_some() && operation.get("error").is_none() {
            self.own
                .push(text(&operation["metadata"], "imageId").to_owned());
        }
        Ok(())
    }

    async fn look(&mut self, number: Number, method: Method, id: &str) -> Result<(), Killed> {
        let caller = self.caller();
        let request = json!({"operationId": id});
        let question = self.model.lock().question(number);
        let seen = caller.attempt(method, request, &[]).await;
        let seen = self.alive(seen)?;
        let seen = self.available(seen)?;
        let operation = seen.expect("an accepted operation is there");
        self.model.lock().seen(question, operation);
        Ok(())
    }

    /// The reply to a call. A server that was not killed answers every one.
    fn alive<T>(&self, reply: Result<T, NoReply>) -> Result<T, Killed> {
        reply.map_err(|NoReply(why)| {
            assert!(
                self.model.lock().killed,
                "no reply, though nobody killed the server: {why}"
            );
            Killed
        })
    }

    /// The reply of a server that can do its work. One that has lost its database may not know what became of a
    /// request, and an upload whose lease ran out meanwhile is to be sent again: another server has ended it.
    fn available(&self, reply: Result<Value, Refusal>) -> Result<Result<Value, Refusal>, Killed> {
        let code = match &reply {
            Err(refusal) => refusal.code,
            Ok(operation) => operation["error"]["code"]
                .as_i64()
                .map_or(Code::Ok, |code| Code::from(code as i32)),
        };
        match code {
            Code::Unavailable | Code::Aborted if self.model.lock().killed => Err(Killed),
            _ => Ok(reply),
        }
    }

    fn caller(&mut self) -> Caller {
        let transport = match self.random.random_bool(0.5) {
            true => Transport::Grpc,
            false => Transport::Rest,
        };
        self.clients.caller(transport)
    }

    fn place(&mut self) -> Place {
        Place {
            folder: FOLDERS.choose(&mut self.random).expect("folders"),
            name: self.name(),
            labels: self.labels(),
        }
    }

    fn name(&mut self) -> String {
        match self.random.random_bool(0.1) {
            true => format!("{CONTENDED}{}", self.random.random_range(0..3)),
            false => format!("name-{:016x}", self.random.random::<u64>()),
        }
    }

    fn labels(&mut self) -> Value {
        let labels = (0..self.random.random_range(0..3)).map(|number| {
            (
                format!("label-{number}"),
                self.random.random::<u32>().to_string(),
            )
        });
        Value::Object(labels.map(|(name, value)| (name, value.into())).collect())
    }
}
