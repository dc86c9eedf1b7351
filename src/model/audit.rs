//! Audit events: what is remembered of each mutation.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::{AuditStep, Kind, Timestamp};

/// That a mutation began, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditEvent {
    /// Grows from event to event, from 1.
    pub sequence: i64,
    pub time: Timestamp,
    pub status: AuditStatus,
    pub kind: AuditKind,
    pub subject: String,
    pub request_id: String,
    /// The address that the request came from, as far as it is known.
    pub peer: String,
    pub folder_id: String,
    pub operation_id: String,
    pub image_id: String,
    /// The cause of an error; none of other events.
    pub message: Option<String>,
    /// Fields that an update or a new limit sets to another value.
    pub changes: Vec<FieldChange>,
}

impl AuditEvent {
    /// The events that a row tells of, where this is the first of them, as one that has started.
    pub(crate) fn of_step(self, step: AuditStep) -> Vec<Self> {
        let ended = |event: &Self, status| Self {
            sequence: event.sequence + 1,
            status,
            ..event.clone()
        };
        match step {
            AuditStep::Started => vec![self],
            AuditStep::Done => vec![ended(&self, AuditStatus::Done)],
            AuditStep::Error => vec![ended(&self, AuditStatus::Error)],
            AuditStep::Cancelled => vec![ended(&self, AuditStatus::Cancelled)],
            AuditStep::StartedAndDone => {
                let done = ended(&self, AuditStatus::Done);
                vec![self, done]
            }
        }
    }
}

/// The mutation that an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditKind {
    /// One that an operation carries out.
    Operation(Kind),
    /// Somebody asked an operation of this kind to stop.
    Cancel(Kind),
    /// A limit was set, or taken away.
    SetQuota,
    Identity(IdentityAction),
}

impl AuditKind {
    const SET_QUOTA: i64 = 101;
    /// Added to the number of the kind that is cancelled.
    const CANCEL: i64 = 300;

    /// The number under which events of this kind are stored.
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Operation(kind) => kind as i64,
            Self::Cancel(kind) => Self::CANCEL + kind as i64,
            Self::SetQuota => Self::SET_QUOTA,
            Self::Identity(action) => action as i64,
        }
    }

    /// The kind stored under this number.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        let cancel = || Kind::from_number(number - Self::CANCEL).map(Self::Cancel);
        match number {
            Self::SET_QUOTA => Some(Self::SetQuota),
            number => Kind::from_number(number)
                .map(Self::Operation)
                .or_else(|| IdentityAction::from_number(number).map(Self::Identity))
                .or_else(cancel),
        }
    }

    /// The kind of the operation that events of this kind name; None where they name none.
    pub(crate) fn operation(self) -> Option<Kind> {
        match self {
            Self::Operation(kind) | Self::Cancel(kind) => Some(kind),
            Self::SetQuota | Self::Identity(_) => None,
        }
    }
}

/// Defines the changes of identity rows, with the numbers that their audit events are stored under.
macro_rules! identity_actions {
    ($($name:ident = $number:literal,)+) => {
        /// A change of the rows that say who callers are, and what they may do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum IdentityAction {
            $($name = $number,)+
        }

        impl IdentityAction {
            /// The one stored under this number.
            pub(crate) fn from_number(number: i64) -> Option<Self> {
                [$(Self::$name),+].into_iter().find(|it| *it as i64 == number)
            }

            /// The name that readers of audit events know it by.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

identity_actions! {
    CreateToken = 201,
    RevokeToken = 202,
    IssueToken = 203,
    CreateServiceAccount = 204,
    DeleteServiceAccount = 205,
    CreateServiceAccountKey = 206,
    DeleteServiceAccountKey = 207,
    GrantAccess = 208,
    RevokeAccess = 209,
    CreateUrlKey = 210,
    RevokeUrlKey = 211,
}

/// A field that is set to another value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FieldChange {
    pub field: String,
    pub old: String,
    pub new: String,
}

impl FieldChange {
    /// Adds the change of a field, if it is one.
    pub(crate) fn note<T: PartialEq + ?Sized>(
        changes: &mut Vec<Self>,
        field: &str,
        old: &T,
        new: Option<&T>,
        text: impl Fn(&T) -> String,
    ) {
        if let Some(new) = new.filter(|new| *new != old) {
            changes.push(Self {
                field: field.to_owned(),
                old: text(old),
                new: text(new),
            });
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditStatus {
    Started,
    Done,
    Error,
    Cancelled,
}

/// Which events are asked for, the oldest first.
#[derive(Debug, Clone)]
pub(crate) struct AuditQuery {
    /// Those after this sequence number; 0 for all.
    pub after: i64,
    pub folder_id: Option<String>,
    /// About how many at the most: the two events of a mutation that was done at once are never
    /// parted.
    pub limit: NonZeroUsize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_stored_under_a_number_of_its_own() {
        let kinds: Vec<AuditKind> = (-10..1000).filter_map(AuditKind::from_number).collect();
        for kind in Kind::ALL {
            assert!(kinds.contains(&AuditKind::Operation(*kind)));
            assert!(kinds.contains(&AuditKind::Cancel(*kind)));
        }
        assert!(kinds.contains(&AuditKind::SetQuota));
        assert!(kinds.contains(&AuditKind::Identity(IdentityAction::RevokeUrlKey)));
        for kind in kinds {
            assert_eq!(AuditKind::from_number(kind.number()), Some(kind));
        }
    }
}
