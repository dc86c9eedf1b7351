//! The requests to the server and its replies: the state that must hold whatever happens to it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use test_support::{Refusal, image_id, text};
use tonic::Code;

use crate::disks::{Bytes, Disks, Facts};
use crate::request::{Action, Sendable};

/// Numbers a request.
pub type Number = usize;

/// A question about a request: the request itself, or a look at its operation.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    pub number: Number,
    /// Whether the operation was known to have ended when the question was asked.
    ended: bool,
}

/// The knowledge of a caller about the fate of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Sent, and no reply came: it was done, or it was not.
    Unknown,
    /// The request was refused: it never happens.
    Refused,
    /// Acknowledged: the operation as it was last seen.
    Accepted(Value),
    /// Done under no key: no one knows its operation, but the image that it made.
    Found(String),
}

pub struct Request {
    pub action: Action,
    /// The description of the image that it makes; no other request has it.
    pub marker: String,
    pub key: Option<String>,
    pub standing: Standing,
    /// Whether its operation was to be cancelled.
    pub cancel_sent: bool,
    /// Whether it is an upload that was seen to be accepted, and was ended then, because its server was gone or had lost
    /// the database for longer than its lease. It is sent again.
    pub cut_short: bool,
    pub round: u64,
}

impl Request {
    /// The id of its operation, and whether that was seen to be done.
    pub fn operation(&self) -> Option<(&str, bool)> {
        match &self.standing {
            Standing::Accepted(operation) => Some((text(operation, "id"), is_done(operation))),
            _ => None,
        }
    }
}

/// An image that was made, as the last acknowledged change left it.
#[derive(Debug, Clone)]
pub struct Image {
    pub desktop: bool,
    pub folder: &'static str,
    pub bytes: Bytes,
    /// As the server shows it.
    pub resource: Value,
    pub round: u64,
    /// Someone may get to know that it is not there.
    pub delete_sent: bool,
    pub deleted: bool,
}

/// All that is known of one data folder.
pub struct Model {
    pub disks: Disks,
    pub requests: Vec<Request>,
    /// By id, also the deleted ones.
    pub images: BTreeMap<String, Image>,
    by_operation: HashMap<String, Number>,
    pub round: u64,
    /// Whether the server of this round has been killed.
    pub killed: bool,
    /// Whether a server of this round stands still, and will go on.
    pub stands_still: bool,
}

impl Model {
    pub fn new(disks: Disks) -> Self {
        Self {
            disks,
            requests: Vec::new(),
            images: BTreeMap::new(),
            by_operation: HashMap::new(),
            round: 0,
            killed: false,
            stands_still: false,
        }
    }

    /// Notes a request that is about to be sent. None once the server was killed.
    pub fn send(&mut self, action: Action, key: Option<String>) -> Option<(Number, Sendable)> {
        if self.killed {
            return None;
        }
        if let Action::Delete { image, .. } = &action {
            self.image_mut(image).delete_sent = true;
        }
        let number = self.requests.len();
        self.requests.push(Request {
            action,
            marker: format!("round-{}-request-{number}", self.round),
            key,
            standing: Standing::Unknown,
            cancel_sent: false,
            cut_short: false,
            round: self.round,
        });
        Some((number, self.again(number)))
    }

    /// A question that is about to be asked.
    pub fn question(&self, number: Number) -> Question {
        let operation = self.requests[number].operation();
        Question {
            number,
            ended: operation.is_some_and(|(_, done)| done),
        }
    }

    /// The same request once more.
    pub fn again(&self, number: Number) -> Sendable {
        let request = &self.requests[number];
        Sendable::new(
            request.action.clone(),
            request.marker.clone(),
            request.key.clone(),
            &self.disks,
        )
    }

    /// Notes a reply to a request, which must agree with all that was known before.
    pub fn replied(&mut self, question: Question, reply: Result<Value, Refusal>) {
        let number = question.number;
        let request = &self.requests[number];
        let what = format!("{:?} {}", request.action, request.marker);
        match reply {
            Ok(operation) => {
                assert_ne!(
                    request.standing,
                    Standing::Refused,
                    "refused before, and now: {operation}; {what}"
                );
                self.seen(question, operation);
            }
            Err(refusal) => {
                assert!(
                    matches!(request.standing, Standing::Unknown | Standing::Refused),
                    "{:?} before, and now refused: {refusal:?}; {what}",
                    request.standing
                );
                self.check_refusal(request, &refusal);
                self.requests[number].standing = Standing::Refused;
            }
        }
    }

    /// Notes the replies to callers that asked for the same at once. What refused one may have passed when
    /// the next was heard: a quota, say, that an operation was about to release. So refusals count only
    /// where nobody was accepted.
    pub fn replied_at_once(&mut self, question: Question, replies: Vec<Result<Value, Refusal>>) {
        // Of several senders of an upload the last that came has it, and the others are told so.
        let is_upload = matches!(self.requests[question.number].action, Action::Upload { .. });
        let sent = replies.len();
        let replies: Vec<_> = replies
            .into_iter()
            .filter(|reply| !is_upload || !reply.as_ref().is_ok_and(is_superseded))
            .collect();
        assert!(!replies.is_empty(), "all of {sent} senders were superseded");
        let accepted = replies.iter().any(Result::is_ok);
        for reply in replies {
            match reply {
                Err(refusal) if accepted => {
                    self.check_refusal(&self.requests[question.number], &refusal);
                }
                reply => self.replied(question, reply),
            }
        }
    }

    /// Notes what an operation looks like, which must agree with what it looked like before.
    pub fn seen(&mut self, question: Question, operation: Value) {
        let number = question.number;
        let request = &mut self.requests[number];
        let id = text(&operation, "id").to_owned();
        let kind = text(&operation["metadata"], "@type");
        assert!(kind.ends_with(request.action.metadata()), "{operation}");
        // Stock clients give up at the first sight of an error.
        assert!(
            is_done(&operation) || operation.get("error").is_none(),
            "{operation}"
        );
        let first = *self.by_operation.entry(id.clone()).or_insert(number);
        assert_eq!(first, number, "an operation of two requests: {operation}");
        let mut done_before = false;
        if let Standing::Accepted(before) = &request.standing {
            let marker = &request.marker;
            assert_eq!(
                before["id"], operation["id"],
                "a request done twice: {marker}"
            );
            assert_eq!(before["metadata"], operation["metadata"], "{marker}");
            done_before = is_done(before);
            if done_before && !is_done(&operation) {
                // The answer to an earlier question may come later.
                assert!(
                    !question.ended,
                    "an operation lost its end: {before} {operation}"
                );
                return;
            }
            if done_before {
                assert_eq!(before, &operation, "an operation changed after its end");
            }
        }
        let ends = is_done(&operation) && !done_before;
        request.standing = Standing::Accepted(operation.clone());
        if ends {
            self.ended(number, &operation);
        }
    }

    fn ended(&mut self, number: Number, operation: &Value) {
        let (killed, round) = (self.killed, self.round);
        let request = &mut self.requests[number];
        if let Some(error) = operation.get("error") {
            let code = Code::from(error["code"].as_i64().expect("a code") as i32);
            let is_upload = matches!(request.action, Action::Upload { .. });
            if is_upload
                && matches!(code, Code::Aborted | Code::Unavailable)
                && killed
                && request.round == round
            {
                // Where its whole body had come, its key stays with it.
                if !request.cut_short {
                    request.cut_short = true;
                    request.standing = Standing::Unknown;
                }
                return;
            }
            let bearable = match (&request.action, code) {
                (_, Code::Cancelled) => request.cancel_sent,
                // Taken between acceptance and end.
                (Action::Update { .. }, Code::AlreadyExists) => request.action.is_contended(),
                // Only the end tells how large it is.
                (Action::Upload { .. } | Action::Import { .. }, Code::ResourceExhausted) => {
                    request.action.is_limited()
                }
                _ => false,
            };
            assert!(
                bearable,
                "{:?} {}: {operation}",
                request.action, request.marker
            );
            return;
        }
        let image = image_id(operation);
        match request.action.clone() {
            Action::Update {
                image: asked,
                name,
                labels,
                ..
            } => {
                assert_eq!(image, asked);
                let image = self.image_mut(&image);
                image.resource["name"] = json!(name);
                image.resource["labels"] = labels;
                assert_eq!(without_type(&operation["response"]), image.resource);
            }
            Action::Delete { image: asked, .. } => {
                assert_eq!(image, asked);
                self.image_mut(&image).deleted = true;
            }
            _ => self.made(number, without_type(&operation["response"])),
        }
    }

    /// Notes an image that a request made.
    pub fn made(&mut self, number: Number, resource: Value) {
        let request = &self.requests[number];
        let action = request.action.clone();
        let place = action.place().expect("a request that makes an image");
        let bytes = match &action {
            Action::Import { bytes, .. } | Action::Upload { bytes, .. } => *bytes,
            _ => self.images[action.source().expect("a source")].bytes,
        };
        let facts = self.disks.facts(bytes);
        let status = if action.is_desktop() {
            "ACTIVE"
        } else {
            "READY"
        };
        for (field, expected) in [
            ("folderId", json!(place.folder)),
            ("name", json!(place.name)),
            ("labels", place.labels.clone()),
            ("description", json!(request.marker)),
            ("status", json!(status)),
        ] {
            assert_eq!(resource[field], expected, "{field}: {resource}");
        }
        assert_eq!(
            test_support::number(&resource, "storageSize"),
            facts.stored_size
        );
        assert_eq!(test_support::number(&resource, "minDiskSize"), facts.size);
        let id = text(&resource, "id").to_owned();
        let image = Image {
            desktop: action.is_desktop(),
            folder: place.folder,
            bytes,
            resource,
            round: self.round,
            delete_sent: false,
            deleted: false,
        };
        let before = self.images.insert(id.clone(), image);
        assert!(before.is_none(), "an id was given twice: {id}");
    }

    /// Whether a request may have been refused like this.
    fn check_refusal(&self, request: &Request, refusal: &Refusal) {
        let bearable = match refusal.code {
            Code::AlreadyExists => request.action.is_contended(),
            Code::ResourceExhausted => {
                request.action.is_limited() && refusal.message.starts_with("Quota limit ")
            }
            // The source is gone, or about to go.
            Code::NotFound | Code::FailedPrecondition => {
                let source = request.action.source();
                source.is_some_and(|source| self.images[source].delete_sent)
            }
            _ => false,
        };
        let Request { action, marker, .. } = request;
        assert!(bearable, "{action:?} {marker}: {refusal:?}");
    }

    /// The request that an operation is known to be of.
    pub fn of_operation(&self, id: &str) -> Option<&Request> {
        let number = *self.by_operation.get(id)?;
        Some(&self.requests[number])
    }

    /// The requests of which nobody knows whether they were done.
    pub fn unknown(&self) -> Vec<Number> {
        self.with_standing(|standing| *standing == Standing::Unknown)
    }

    /// Whether there is a request of which nobody knows, and that nobody can ask for again.
    pub fn has_unknown_without_key(&self) -> bool {
        let unknown = self.unknown();
        unknown
            .iter()
            .any(|number| self.requests[*number].key.is_none())
    }

    /// The requests whose operations were not seen to end.
    pub fn unfinished(&self) -> Vec<Number> {
        self.with_standing(
            |standing| matches!(standing, Standing::Accepted(operation) if !is_done(operation)),
        )
    }

    fn with_standing(&self, is_meant: impl Fn(&Standing) -> bool) -> Vec<Number> {
        let requests = self.requests.iter().enumerate();
        requests
            .filter(|(_, request)| is_meant(&request.standing))
            .map(|(number, _)| number)
            .collect()
    }

    /// The images that are there.
    pub fn living(&self) -> impl Iterator<Item = (&String, &Image)> {
        self.images.iter().filter(|(_, image)| !image.deleted)
    }

    /// Facts of all bytes that images have, by their SHA-256.
    pub fn living_bytes(&mut self) -> BTreeMap<[u8; 32], Facts> {
        let bytes: Vec<Bytes> = self.living().map(|(_, image)| image.bytes).collect();
        let facts = bytes.into_iter().map(|bytes| self.disks.facts(bytes));
        facts.map(|facts| (facts.sha256, facts)).collect()
    }

    fn image_mut(&mut self, id: &str) -> &mut Image {
        let image = self.images.get_mut(id);
        image.unwrap_or_else(|| panic!("no request made the image {id}"))
    }
}

pub fn is_done(operation: &Value) -> bool {
    operation["done"] == true
}

/// Whether an upload was begun again while its body still arrived.
fn is_superseded(operation: &Value) -> bool {
    operation["error"]["message"] == "superseded by a retry"
}

/// A resource as Get shows it, of one in an operation.
fn without_type(response: &Value) -> Value {
    let mut resource = response.clone();
    if let Some(fields) = resource.as_object_mut() {
        fields.remove("@type");
    }
    resource
}
