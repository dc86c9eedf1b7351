//! A decision in the making.

use crate::model::{
    Decision, Effect, FieldChange, Fresh, Id, Labels, Refusal, Resource, Timestamp, WorkingSet,
};

/// A decision in the making: the facts that it rests on, and the effects so far.
pub(super) struct Draft<'a> {
    pub(super) facts: &'a WorkingSet,
    pub(super) fresh: &'a Fresh,
    pub(super) now: Timestamp,
    pub(super) effects: Vec<Effect>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(fresh: &'a Fresh, facts: &'a WorkingSet, now: Timestamp) -> Self {
        Self {
            facts,
            fresh,
            now,
            effects: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn decide<R>(self, reply: R) -> Result<Decision<R>, Refusal> {
        Ok(Decision {
            reply,
            effects: self.effects,
        })
    }

    /// Keeps a name that an image gives up, for the page tokens that refer to it.
    pub(super) fn note_former_name(&mut self, image_id: &str, name: &str) {
        if !name.is_empty() {
            self.add(Effect::NoteFormerName {
                image_id: image_id.to_owned(),
                name: name.to_owned(),
                at: self.now,
            });
        }
    }
}

/// The result of a change so far.
pub(super) struct Applied {
    pub(super) folder_id: String,
    pub(super) image: Id,
    /// The image, if the change is done and leaves one.
    pub(super) resource: Option<Resource>,
    /// The fields that an update sets to another value.
    pub(super) changes: Vec<FieldChange>,
}

pub(super) fn note_text(
    all: &mut Vec<FieldChange>,
    field: &str,
    old: &String,
    new: Option<&String>,
) {
    FieldChange::note(all, field, old, new, String::clone);
}

pub(super) fn note_labels(all: &mut Vec<FieldChange>, old: &Labels, new: Option<&Labels>) {
    let text = |labels: &Labels| serde_json::Value::from_iter(labels.clone()).to_string();
    FieldChange::note(all, "labels", old, new, text);
}
