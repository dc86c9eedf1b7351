//! Random commands, for tests: each is one of all commands, about what the ones before it left.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use super::*;
use crate::model::*;

/// A command of any kind.
#[derive(Debug, Clone)]
pub(crate) enum AnyCommand {
    Accept(Accept),
    Claim(Claim),
    Renew(Renew),
    Release(Release),
    Retry(Retry),
    Complete(Complete),
    CompleteImport(CompleteImport),
    StartRollback(StartRollback),
    RolledBack(RolledBack),
    RequestCancel(RequestCancel),
    TieKey(TieKey),
    Supersede(Supersede),
    ChangeIdentity(ChangeIdentity),
}

impl AnyCommand {
    /// The kind of the command, and of a change that is accepted.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Accept(accept) => format!("{:?}", accept.change.kind()),
            command => {
                let words = format!("{command:?}");
                words.split('(').next().unwrap_or_default().to_owned()
            }
        }
    }
}

/// The reply to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnyReply {
    Accepted(Accepted),
    Claimed(Claimed),
    Renewed(Renewed),
    Retried(bool),
    Operation(Operation),
    Lease(Lease),
    CancelRequested(CancelRequested),
    Superseded(Option<String>),
    Nothing,
}

macro_rules! each {
    ($self:ident, $command:ident => $call:expr) => {
        match $self {
            AnyCommand::Accept($command) => $call,
            AnyCommand::Claim($command) => $call,
            AnyCommand::Renew($command) => $call,
            AnyCommand::Release($command) => $call,
            AnyCommand::Retry($command) => $call,
            AnyCommand::Complete($command) => $call,
            AnyCommand::CompleteImport($command) => $call,
            AnyCommand::StartRollback($command) => $call,
            AnyCommand::RolledBack($command) => $call,
            AnyCommand::RequestCancel($command) => $call,
            AnyCommand::TieKey($command) => $call,
            AnyCommand::Supersede($command) => $call,
            AnyCommand::ChangeIdentity($command) => $call,
        }
    };
}

fn replying<R>(
    decided: Result<Decision<R>, Refusal>,
    reply: impl FnOnce(R) -> AnyReply,
) -> Result<Decision<AnyReply>, Refusal> {
    decided.map(|decision| Decision {
        reply: reply(decision.reply),
        effects: decision.effects,
    })
}

impl Command for AnyCommand {
    type Reply = AnyReply;

    fn room(&self) -> Room {
        each!(self, command => command.room())
    }

    fn lookups(&self) -> Vec<Lookup> {
        each!(self, command => command.lookups())
    }

    fn rows(&self, found: &WorkingSet) -> Vec<Lookup> {
        each!(self, command => command.rows(found))
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<AnyReply>, Refusal> {
        match self {
            Self::Accept(it) => replying(it.decide(fresh, facts, now), AnyReply::Accepted),
            Self::Claim(it) => replying(it.decide(fresh, facts, now), AnyReply::Claimed),
            Self::Renew(it) => replying(it.decide(fresh, facts, now), AnyReply::Renewed),
            Self::Release(it) => replying(it.decide(fresh, facts, now), |()| AnyReply::Nothing),
            Self::Retry(it) => replying(it.decide(fresh, facts, now), AnyReply::Retried),
            Self::Complete(it) => replying(it.decide(fresh, facts, now), AnyReply::Operation),
            Self::CompleteImport(it) => replying(it.decide(fresh, facts, now), AnyReply::Operation),
            Self::StartRollback(it) => replying(it.decide(fresh, facts, now), AnyReply::Lease),
            Self::RolledBack(it) => replying(it.decide(fresh, facts, now), AnyReply::Operation),
            Self::RequestCancel(it) => {
                replying(it.decide(fresh, facts, now), AnyReply::CancelRequested)
            }
            Self::TieKey(it) => replying(it.decide(fresh, facts, now), |()| AnyReply::Nothing),
            Self::Supersede(it) => replying(it.decide(fresh, facts, now), AnyReply::Superseded),
            Self::ChangeIdentity(it) => {
                replying(it.decide(fresh, facts, now), |()| AnyReply::Nothing)
            }
        }
    }
}

/// Ids that are the same for the same seed.
pub(crate) fn ids(clock: std::sync::Arc<dyn Clock>, seed: u64) -> IdGenerator {
    let random = std::sync::Mutex::new(StdRng::seed_from_u64(seed));
    IdGenerator::new(clock, 0).with_random(move || random.lock().unwrap().random())
}

pub(crate) const FOLDERS: [&str; 2] = ["f", "g"];
const NAMES: [&str; 4] = ["a", "b", "c", ""];
pub(crate) const LEASE: Duration = Duration::from_secs(10);
pub(crate) const HORIZON: Duration = Duration::from_secs(61);

/// The world that the commands so far have left, as far as callers know it.
pub(crate) struct World {
    pub random: StdRng,
    pub desktop_images: Vec<String>,
    pub compute_images: Vec<String>,
    pub operations: Vec<String>,
    candidates: Vec<Candidate>,
    /// Also those that are lost.
    leases: Vec<Lease>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            desktop_images: vec!["e3v00000000000000000".to_owned(), "no id".to_owned()],
            compute_images: vec!["fd800000000000000000".to_owned()],
            operations: vec!["e3v00000000000000000".to_owned()],
            candidates: Vec::new(),
            leases: Vec::new(),
        }
    }

    /// Takes note of what a command was answered.
    pub(crate) fn learn(&mut self, reply: &AnyReply) {
        match reply {
            AnyReply::Accepted(accepted) => {
                let operation = &accepted.operation;
                self.operations.push(operation.id.clone());
                self.candidates.push(Candidate {
                    id: Id::parse(OPERATION_PREFIX, &operation.id).expect("an id"),
                    folder_id: operation.folder_id.clone(),
                });
                match operation.kind.image_prefix() {
                    COMPUTE_IMAGE_PREFIX => self.compute_images.push(operation.image_id.clone()),
                    _ => self.desktop_images.push(operation.image_id.clone()),
                }
                self.leases.extend(accepted.lease.as_deref().cloned());
            }
            AnyReply::Claimed(Claimed::Lease(lease)) => self.leases.push(*lease.clone()),
            AnyReply::Lease(lease) => self.leases.push(lease.clone()),
            _ => {}
        }
    }

    /// A command that may or may not be in order.
    pub(crate) fn command(&mut self) -> AnyCommand {
        let position = match self.leases.len() {
            0 => None,
            // Mostly the last.
            count if self.random.random_bool(0.7) => Some(count - 1),
            count => Some(self.random.random_range(0..count)),
        };
        let lease = position.map(|position| {
            // Some are kept, though they may be lost by then.
            if self.random.random_bool(0.6) {
                self.leases.remove(position)
            } else {
                self.leases[position].clone()
            }
        });
        let Some(lease) = lease.filter(|_| self.random.random_bool(0.6)) else {
            return match self.random.random_range(0..12) {
                10 | 11 => AnyCommand::ChangeIdentity(ChangeIdentity {
                    request: self.request(),
                    change: self.identity_change(),
                }),
                0 => AnyCommand::RequestCancel(RequestCancel {
                    request: self.request(),
                    operation_id: self.pick(|world| &world.operations),
                }),
                1 => AnyCommand::Supersede(Supersede(self.request())),
                2 | 3 if !self.candidates.is_empty() => {
                    let candidate = self.candidates.choose(&mut self.random);
                    AnyCommand::Claim(Claim {
                        candidate: candidate.expect("some").clone(),
                        lease: LEASE,
                        horizon: HORIZON,
                    })
                }
                _ => AnyCommand::Accept(Accept {
                    request: self.request(),
                    change: self.change(),
                    start: *[Start::Now, Start::After(Duration::ZERO), Start::Here(LEASE)]
                        .choose(&mut self.random)
                        .expect("some"),
                }),
            };
        };
        let reasons = [Reason::Invalid, Reason::Aborted, Reason::Internal];
        let reason = *reasons.choose(&mut self.random).expect("some");
        let failure = Failure::new(reason, "a failure");
        match self.random.random_range(0..14) {
            0 => AnyCommand::Renew(Renew::new(
                &lease,
                LEASE,
                Progress {
                    done: self.random.random_range(0..3),
                    total: Some(3),
                },
            )),
            1 => AnyCommand::Release(Release(lease)),
            2 => AnyCommand::Retry(Retry {
                lease,
                failure,
                pause: Duration::from_secs(self.random.random_range(0..3)),
                patience: Duration::from_secs(4),
            }),
            3 => AnyCommand::TieKey(TieKey(lease)),
            4 => AnyCommand::StartRollback(StartRollback { lease, failure }),
            5 => AnyCommand::RolledBack(RolledBack { lease, failure }),
            _ if lease.change.brings_bytes() => AnyCommand::CompleteImport(CompleteImport {
                facts: facts(self.random.random_range(0..4)),
                lease,
                checksums: vec![self.random.random()],
            }),
            _ => AnyCommand::Complete(Complete(lease)),
        }
    }

    fn request(&mut self) -> RequestContext {
        let subjects = ["somebody", "another"];
        RequestContext {
            rights: self.rights(),
            request_id: "a request".to_owned(),
            idempotency: self.random.random_bool(0.4).then(|| Idempotency {
                key: [self.random.random_range(0..3); 16],
                request_hash: [u8::from(self.random.random_bool(0.1)); 32],
            }),
            ..RequestContext::internal(subjects[self.random.random_range(0..2)])
        }
    }

    /// Mostly all rights, else those of a role in one of the folders or in all.
    fn rights(&mut self) -> Rights {
        if self.random.random_bool(0.9) {
            return Rights::All;
        }
        Rights::Granted {
            holders: ["sa:s".to_owned()].into(),
            permissions: std::sync::Arc::new(Permissions::new([self.grant("sa:s")])),
        }
    }

    fn grant(&mut self, holder: &str) -> Grant {
        Grant {
            holder: holder.to_owned(),
            folder_id: match self.random.random_bool(0.7) {
                true => self.folder(),
                false => String::new(),
            },
            role: *Role::ALL.choose(&mut self.random).expect("some"),
            import_uris: Vec::new(),
            created_at: Some(Timestamp(1)),
            created_by: "somebody".to_owned(),
        }
    }

    /// A change of an identity row, which may hang on others.
    fn identity_change(&mut self) -> IdentityChange {
        let id = |world: &mut Self| world.random.random_range(0..3).to_string();
        let token = |world: &mut Self| Token {
            id: id(world),
            sha256: String::new(),
            subject: "token:x".to_owned(),
            description: String::new(),
            created_at: Timestamp(1),
            created_by: "somebody".to_owned(),
            expires_at: None,
            parent: None,
        };
        let kinds = [
            IdentityKind::Token,
            IdentityKind::ServiceAccount,
            IdentityKind::ServiceAccountKey,
        ];
        let row = match self.random.random_range(0..7) {
            0 => IdentityRow::Token(token(self)),
            1 => IdentityRow::ServiceAccount(ServiceAccount {
                id: id(self),
                name: self.name(),
                description: String::new(),
                created_at: Timestamp(1),
                created_by: "somebody".to_owned(),
            }),
            2 => IdentityRow::ServiceAccountKey(ServiceAccountKey {
                id: id(self),
                service_account_id: id(self),
                description: String::new(),
                public_key: String::new(),
                created_at: Timestamp(1),
                created_by: "somebody".to_owned(),
            }),
            3 => {
                let holder = format!(
                    "{}:{}",
                    ["token", "sa", "oidc:o"][self.random.random_range(0..3)],
                    id(self)
                );
                IdentityRow::Grant(self.grant(&holder))
            }
            4 => {
                let kind = *kinds.choose(&mut self.random).expect("some");
                let issued = Token {
                    id: format!("issued {}", id(self)),
                    parent: Some(IdentityKey::new(kind, id(self))),
                    ..token(self)
                };
                return IdentityChange::Issue(Box::new(IdentityRow::Token(issued)));
            }
            _ => {
                let kind = *kinds.choose(&mut self.random).expect("some");
                return IdentityChange::Remove(IdentityKey::new(kind, id(self)));
            }
        };
        IdentityChange::Put(Box::new(row))
    }

    fn change(&mut self) -> Change {
        match self.random.random_range(0..10) {
            0..3 => Change::CopyDesktopImage(NewDesktopImage {
                folder_id: self.folder(),
                name: self.name(),
                description: "copied".to_owned(),
                labels: Labels::new(),
                compute_image_id: self.pick(|world| &world.compute_images),
            }),
            3 => Change::UpdateDesktopImage {
                id: self.pick(|world| &world.desktop_images),
                changes: DesktopImageChanges {
                    name: Some(self.name()),
                    description: Some("changed".to_owned()),
                    labels: Some([("key".to_owned(), self.name())].into()),
                },
            },
            4 => Change::DeleteDesktopImage {
                id: self.pick(|world| &world.desktop_images),
            },
            5 => Change::UpdateComputeImage {
                id: self.pick(|world| &world.compute_images),
                changes: ComputeImageChanges {
                    name: Some(self.name()),
                    min_disk_size: Some(self.random.random_range(0..4) * 4096),
                    ..ComputeImageChanges::default()
                },
            },
            6 => Change::DeleteComputeImage {
                id: self.pick(|world| &world.compute_images),
            },
            _ => Change::CreateComputeImage {
                origin: match self.random.random_range(0..3) {
                    0 => Origin::Uri("file:///disk".to_owned()),
                    1 => Origin::Upload,
                    _ => Origin::ComputeImage(self.pick(|world| &world.compute_images)),
                },
                new: NewComputeImage {
                    folder_id: self.folder(),
                    name: self.name(),
                    description: String::new(),
                    labels: Labels::new(),
                    family: "family".to_owned(),
                    min_disk_size: self.random.random_range(0..3) * 4096,
                    product_ids: vec!["product".to_owned()],
                    os: None,
                    pooled: false,
                    hardware_generation: None,
                },
            },
        }
    }

    fn folder(&mut self) -> String {
        FOLDERS[self.random.random_range(0..FOLDERS.len())].to_owned()
    }

    fn name(&mut self) -> String {
        NAMES[self.random.random_range(0..NAMES.len())].to_owned()
    }

    /// One of them, mostly of the last.
    fn pick(&mut self, from: impl Fn(&Self) -> &Vec<String>) -> String {
        let count = from(self).len();
        let least = if self.random.random_bool(0.8) {
            count.saturating_sub(4)
        } else {
            0
        };
        let position = self.random.random_range(least..count);
        from(self)[position].clone()
    }
}

/// Facts of bytes that are told apart by `seed`.
fn facts(seed: u8) -> BlobFacts {
    BlobFacts {
        format: "raw".to_owned(),
        size: 8192,
        stored_size: 1000 + i64::from(seed),
        virtual_size: 8192,
        sha256: Sha256::digest([seed]).into(),
    }
}
