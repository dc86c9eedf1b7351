//! Limits as the audit log tells of them: none was exceeded by what was granted after it was set. The events of
//! transactions that count in the same folder are in the order in which these were committed.

use std::collections::BTreeMap;

use desktop_images::contract::desktopimages::v1::AuditEvent;
use desktop_images::contract::desktopimages::v1::audit_event::Status;
use test_support::number;

use crate::model::{Model, Request, Standing};
use crate::quotas::{COMPUTE_COUNT, COMPUTE_SIZE, DESKTOP_COUNT, DESKTOP_SIZE, LIMITED};
use crate::request::Action;

/// Limits by folder and name.
pub type Limits = BTreeMap<(String, String), i64>;

/// The images of the folder, and the limits that stand.
#[derive(Default)]
struct Ledger {
    limits: Limits,
    /// By id: whether it is a desktop image, and its size where that is known.
    images: BTreeMap<String, (bool, Option<i64>)>,
}

/// Goes through the log, and returns the limits that stand at its end.
pub fn held(events: &[AuditEvent], model: &Model) -> Limits {
    let found = |request: &Request| match &request.standing {
        Standing::Found(image) => Some(image.clone()),
        _ => None,
    };
    let found: BTreeMap<String, &Request> = model
        .requests
        .iter()
        .filter_map(|request| Some((found(request)?, request)))
        .collect();
    let mut ledger = Ledger::default();
    for event in events {
        if event.event_type.ends_with(".quota.SetQuota") {
            ledger.set(event);
            continue;
        }
        if event.folder_id != LIMITED {
            continue;
        }
        let image = &event.image_id;
        let desktop = event.event_type.contains("DesktopImage");
        let is_of = |what: &str| {
            let (_, name) = event.event_type.rsplit_once('.').expect("a type");
            name.starts_with(what)
        };
        match event.status() {
            Status::Started if is_of("Create") || is_of("Copy") => {
                let request = model.of_operation(&event.operation_id);
                let request = request.or(found.get(image).copied());
                let source = request.and_then(|request| match &request.action {
                    Action::Copy { source, .. } | Action::Derive { source, .. } => Some(source),
                    _ => None,
                });
                let size = source.map(|source| size_of(model, source));
                ledger.grant(event, desktop, 1, size);
                ledger.images.insert(image.clone(), (desktop, size));
            }
            // An import, whose size only its end tells.
            Status::Done if is_of("Create") && ledger.images[image].1.is_none() => {
                let size = Some(size_of(model, image));
                ledger.grant(event, desktop, 0, size);
                ledger.images.insert(image.clone(), (desktop, size));
            }
            Status::Error | Status::Cancelled if is_of("Create") || is_of("Copy") => {
                ledger.images.remove(image);
            }
            Status::Done if is_of("Delete") => {
                let removed = ledger.images.remove(image);
                assert!(removed.is_some(), "deleted twice: {event:?}");
            }
            _ => {}
        }
    }
    ledger.limits
}

fn size_of(model: &Model, image: &str) -> i64 {
    let image = model.images.get(image);
    let image = image.unwrap_or_else(|| panic!("no request made an image of {LIMITED}"));
    number(&image.resource, "storageSize")
}

impl Ledger {
    fn set(&mut self, event: &AuditEvent) {
        for change in &event.changes {
            let of = (event.folder_id.clone(), change.field.clone());
            match change.new_value.parse() {
                Ok(limit) => drop(self.limits.insert(of, limit)),
                Err(_) => {
                    assert_eq!(change.new_value, "none", "{event:?}");
                    self.limits.remove(&of);
                }
            }
        }
    }

    /// Checks what was granted: so many images more, of a size that may not be known yet.
    fn grant(&self, event: &AuditEvent, desktop: bool, count: i64, size: Option<i64>) {
        let names = match desktop {
            true => [DESKTOP_COUNT, DESKTOP_SIZE],
            false => [COMPUTE_COUNT, COMPUTE_SIZE],
        };
        let limits = names.map(|name| self.limits.get(&(LIMITED.to_owned(), name.to_owned())));
        let counted = self.images.values().filter(|(kind, _)| *kind == desktop);
        let used = counted.clone().count() as i64;
        let bytes: i64 = counted.filter_map(|(_, size)| *size).sum();
        let [count_limit, size_limit] = limits;
        if count > 0 {
            let is_held = count_limit.is_none_or(|limit| used + count <= *limit);
            assert!(
                is_held,
                "{used} images of {count_limit:?}, and one more: {event:?}"
            );
        }
        let is_held = size_limit.is_none_or(|limit| match size {
            // It will take at least something.
            None => bytes < *limit,
            Some(0) => true,
            Some(more) => bytes + more <= *limit,
        });
        assert!(
            is_held,
            "{bytes} bytes of {size_limit:?}, and {size:?} more: {event:?}"
        );
    }
}
