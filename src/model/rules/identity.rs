//! Rules of identity rows: who may add and remove them, and what is removed with one.

use super::draft::Draft;
use crate::model::{
    AuditKind, AuditRow, AuditStep, Command, Decision, Effect, FieldChange, Fresh, IdentityAction,
    IdentityKey, IdentityKind, IdentityRow, Lookup, Refusal, RequestContext, Role, Timestamp,
    WorkingSet,
};

/// The most tokens of one credential at a time: each is a row, and a client needs one an hour.
const MOST_EXCHANGED: usize = 1000;

/// Adds an identity row, or removes one with all rows that hang on it.
#[derive(Debug, Clone)]
pub(crate) struct ChangeIdentity {
    pub request: RequestContext,
    pub change: IdentityChange,
}

#[derive(Debug, Clone)]
pub(crate) enum IdentityChange {
    /// Adds a row. A grant takes the place of the one that its holder had in the folder.
    Put(Box<IdentityRow>),
    /// Adds a token that was exchanged for another credential, which was found to be good.
    Issue(Box<IdentityRow>),
    Remove(IdentityKey),
    /// Ends a token that was exchanged, for somebody who holds it.
    End(IdentityKey),
}

impl Command for ChangeIdentity {
    type Reply = ();

    fn request(&self) -> Option<&RequestContext> {
        Some(&self.request)
    }

    fn lookups(&self) -> Vec<Lookup> {
        match &self.change {
            IdentityChange::Put(row) | IdentityChange::Issue(row) => {
                let mut lookups = vec![Lookup::Identity(row.key())];
                lookups.extend(row.parent().map(Lookup::Identity));
                if matches!(self.change, IdentityChange::Issue(_)) {
                    lookups.extend(row.parent().map(Lookup::IdentityChildren));
                }
                lookups
            }
            IdentityChange::Remove(key) | IdentityChange::End(key) => vec![
                Lookup::Identity(key.clone()),
                Lookup::IdentityChildren(key.clone()),
            ],
        }
    }

    fn rows(&self, found: &WorkingSet) -> Vec<Lookup> {
        match &self.change {
            IdentityChange::Put(_) | IdentityChange::Issue(_) => Vec::new(),
            // Keys of an account have tokens of their own; nothing hangs on those.
            IdentityChange::Remove(key) | IdentityChange::End(key) => found
                .identity_children(key)
                .into_iter()
                .map(|child| Lookup::IdentityChildren(child.key()))
                .collect(),
        }
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<()>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        match &self.change {
            IdentityChange::Put(row) => {
                self.demand_admin(&row_folder(row))?;
                self.put(&mut draft, row)?;
            }
            IdentityChange::Issue(row) => {
                if let Some(parent) = row.parent() {
                    let children = facts.identity_children(&parent).into_iter();
                    let live = children.filter(|it| it.expires_at().is_some_and(|at| at > now));
                    if live.count() >= MOST_EXCHANGED {
                        return Err(Refusal::TooManyTokens);
                    }
                }
                self.put(&mut draft, row)?;
            }
            IdentityChange::Remove(key) => {
                self.demand_admin(&key_folder(key))?;
                self.remove(&mut draft, key)?;
            }
            IdentityChange::End(key) => self.remove(&mut draft, key)?,
        }
        draft.decide(())
    }
}

impl ChangeIdentity {
    fn demand_admin(&self, folder_id: &str) -> Result<(), Refusal> {
        self.request.rights.demand_in(Role::Admin, folder_id)
    }

    fn put(&self, draft: &mut Draft<'_>, row: &IdentityRow) -> Result<(), Refusal> {
        if let Some(parent) = row.parent() {
            let known = draft.facts.identity(&parent);
            // An expired token is as good as gone.
            let has_expired =
                known.is_some_and(|it| it.expires_at().is_some_and(|at| at <= draft.now));
            if known.is_none() || has_expired {
                return Err(missing(&parent));
            }
        }
        let old = draft.facts.identity(&row.key()).cloned();
        self.audit(draft, action(row, &self.change), Some(row), old.as_ref());
        draft.add(Effect::PutIdentity(Box::new(row.clone())));
        Ok(())
    }

    fn remove(&self, draft: &mut Draft<'_>, key: &IdentityKey) -> Result<(), Refusal> {
        let facts = draft.facts;
        let row = facts.identity(key).ok_or_else(|| missing(key))?;
        self.audit(draft, action(row, &self.change), None, Some(row));
        for child in facts.identity_children(key) {
            for grandchild in facts.identity_children(&child.key()) {
                draft.add(Effect::DeleteIdentity(grandchild.key()));
            }
            draft.add(Effect::DeleteIdentity(child.key()));
        }
        draft.add(Effect::DeleteIdentity(key.clone()));
        Ok(())
    }

    fn audit(
        &self,
        draft: &mut Draft<'_>,
        action: IdentityAction,
        new: Option<&IdentityRow>,
        old: Option<&IdentityRow>,
    ) {
        let Some(row) = new.or(old) else { return };
        let (field, _) = told(row);
        let value = |row: Option<&IdentityRow>| row.map_or_else(String::new, |row| told(row).1);
        let change = FieldChange {
            field,
            old: value(old),
            new: value(new),
        };
        draft.add(Effect::InsertAuditEvent(AuditRow {
            time: draft.now,
            step: AuditStep::StartedAndDone,
            kind: AuditKind::Identity(action),
            subject: self.request.subject.clone(),
            request_id: self.request.request_id.clone(),
            peer: self.request.peer_text(),
            folder_id: row_folder(row),
            operation: None,
            image: None,
            message: None,
            changes: vec![change],
        }));
    }
}

/// The folder whose admins change a row; empty where it takes one of all folders.
fn row_folder(row: &IdentityRow) -> String {
    match row {
        IdentityRow::Grant(grant) => grant.folder_id.clone(),
        _ => String::new(),
    }
}

fn key_folder(key: &IdentityKey) -> String {
    match (key.kind, key.id.split_once('\n')) {
        (IdentityKind::Grant, Some((_, folder_id))) => folder_id.to_owned(),
        _ => String::new(),
    }
}

/// The name and the value of a row, as audit events tell of it. No secret is in them.
fn told(row: &IdentityRow) -> (String, String) {
    match row {
        IdentityRow::Token(it) => ("token".to_owned(), it.id.clone()),
        IdentityRow::ServiceAccount(it) => ("service_account".to_owned(), it.id.clone()),
        IdentityRow::ServiceAccountKey(it) => (
            "service_account_key".to_owned(),
            format!("{} of {}", it.id, it.service_account_id),
        ),
        IdentityRow::Grant(it) => (it.holder.clone(), it.role.name().to_owned()),
        IdentityRow::UrlKey(it) => ("url_key".to_owned(), it.id.clone()),
    }
}

fn action(row: &IdentityRow, change: &IdentityChange) -> IdentityAction {
    use IdentityAction as A;
    let is_put = matches!(change, IdentityChange::Put(_) | IdentityChange::Issue(_));
    match (row, is_put) {
        (IdentityRow::Token(token), true) if token.parent.is_some() => A::IssueToken,
        (IdentityRow::Token(_), true) => A::CreateToken,
        (IdentityRow::Token(_), false) => A::RevokeToken,
        (IdentityRow::ServiceAccount(_), true) => A::CreateServiceAccount,
        (IdentityRow::ServiceAccount(_), false) => A::DeleteServiceAccount,
        (IdentityRow::ServiceAccountKey(_), true) => A::CreateServiceAccountKey,
        (IdentityRow::ServiceAccountKey(_), false) => A::DeleteServiceAccountKey,
        (IdentityRow::Grant(_), true) => A::GrantAccess,
        (IdentityRow::Grant(_), false) => A::RevokeAccess,
        (IdentityRow::UrlKey(_), true) => A::CreateUrlKey,
        (IdentityRow::UrlKey(_), false) => A::RevokeUrlKey,
    }
}

fn missing(key: &IdentityKey) -> Refusal {
    Refusal::IdentityNotFound {
        kind: key.kind,
        id: key.id.replace('\n', " in "),
    }
}
