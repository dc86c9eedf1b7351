//! Properties of the rules, without a store: whatever is asked in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, any, proptest};
use rand::Rng;

use super::random::{AnyReply, FOLDERS, World, ids};
use crate::model::*;

const START: Timestamp = Timestamp(1_800_000_000_000_000);

/// How often each operation was told to have started and ended.
#[derive(Default)]
struct Told {
    started: BTreeMap<Id, usize>,
    ended: BTreeMap<Id, usize>,
}

impl Told {
    fn note(&mut self, event: &AuditRow) {
        let AuditKind::Operation(_) = event.kind else {
            return;
        };
        let Some(id) = event.operation else { return };
        if matches!(event.step, AuditStep::Started | AuditStep::StartedAndDone) {
            *self.started.entry(id).or_default() += 1;
        }
        if event.step != AuditStep::Started {
            *self.ended.entry(id).or_default() += 1;
        }
    }
}

/// The promises that hold after every command.
fn check(facts: &WorkingSet, told: &Told, before: &BTreeMap<Id, Operation>) {
    let mut names = BTreeSet::new();
    let mut used = BTreeMap::<(QuotaScope, i64), i64>::new();
    let mut count = |folder_id: &str, metrics: [Metric; 2], size: i64| {
        for scope in [QuotaScope::Total, QuotaScope::Folder(folder_id.to_owned())] {
            *used.entry((scope.clone(), metrics[0] as i64)).or_default() += 1;
            *used.entry((scope, metrics[1] as i64)).or_default() += size;
        }
    };
    for row in facts.all_desktop_images() {
        let image = &row.image;
        let name = ("desktop", image.folder_id.clone(), image.name.clone());
        assert!(names.insert(name), "a name is taken twice: {image:?}");
        let blob = facts.blob(row.blob).expect("an image has its blob");
        assert!(blob.facts().is_some(), "the blob of an image is live");
        let metrics = [Metric::DesktopImagesCount, Metric::DesktopImagesSize];
        count(&image.folder_id, metrics, image.storage_size);
    }
    for row in facts.all_compute_images() {
        let image = &row.image;
        let name = ("compute", image.folder_id.clone(), image.name.clone());
        assert!(
            image.name.is_empty() || names.insert(name),
            "a name is taken twice: {image:?}"
        );
        match row.blob {
            Some(blob) => {
                let blob = facts.blob(blob).expect("an image has its blob");
                let known = blob.facts().expect("the blob of an image is live");
                assert!(image.min_disk_size >= known.virtual_size);
            }
            None => assert_eq!(image.status, ComputeImageStatus::Creating),
        }
        let metrics = [Metric::ComputeImagesCount, Metric::ComputeImagesSize];
        count(&image.folder_id, metrics, image.storage_size);
    }
    for quota in facts.all_quotas() {
        let key = (quota.scope.clone(), quota.metric as i64);
        assert_eq!(
            quota.used,
            used.get(&key).copied().unwrap_or(0),
            "{quota:?}"
        );
    }
    for row in facts.all_operations() {
        let is_done = row.state.phase.is_done();
        assert_eq!(is_done, row.task == Task::None, "{row:?}");
        assert_eq!(is_done, row.claimable_at.is_none(), "{row:?}");
        assert_eq!(
            row.state.phase == Phase::Succeeded,
            is_done && row.failure.is_none()
        );
        assert!(!is_done || row.lease_token.is_none());
        assert!(!is_done || facts.pending_blobs(row.id).next().is_none());
        assert_eq!(told.started.get(&row.id), Some(&1), "{row:?}");
        assert_eq!(told.ended.get(&row.id), is_done.then_some(&1), "{row:?}");
        let operation = row.operation();
        if let Some(before) = before.get(&row.id) {
            assert!(operation.modified_at >= before.modified_at);
            assert!(before.outcome.is_none() || *before == operation);
        }
    }
}

fn run(seed: u64, length: usize) {
    let clock = Arc::new(ManualClock::new(START));
    let ids = ids(clock.clone(), seed);
    let (mut world, mut facts, mut told) =
        (World::new(seed), WorkingSet::complete(), Told::default());
    for scope in [QuotaScope::Total, QuotaScope::Folder(FOLDERS[0].to_owned())] {
        let limits = [
            (Metric::DesktopImagesCount, 3),
            (Metric::ComputeImagesSize, 2500),
        ];
        let quotas = limits.map(|(metric, limit)| Quota {
            scope: scope.clone(),
            metric,
            limit,
            used: 0,
        });
        facts.put_quotas(scope, quotas.into());
    }
    for _ in 0..length {
        let before = facts.all_operations().map(|row| (row.id, row.operation()));
        let before: BTreeMap<Id, Operation> = before.collect();
        let command = world.command();
        match command.decide(&ids.fresh(), &facts, clock.now()) {
            Ok(decision) => {
                for effect in decision.effects {
                    if let Effect::InsertAuditEvent(event) = &effect {
                        told.note(event);
                    }
                    facts.apply(effect);
                }
                if let AnyReply::Accepted(accepted) = &decision.reply {
                    let id = Id::parse(OPERATION_PREFIX, &accepted.operation.id).expect("an id");
                    assert_eq!(accepted.repeated, before.contains_key(&id));
                }
                world.learn(&decision.reply);
            }
            Err(refusal) => assert!(!refusal.to_string().is_empty()),
        }
        check(&facts, &told, &before);
        clock.set(
            clock
                .now()
                .after(Duration::from_millis(world.random.random_range(0..6000))),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_asked_the_rows_keep_their_promises(seed in any::<u64>()) {
        run(seed, 60);
    }
}

/// The other properties are worth something only if this holds.
#[test]
fn random_commands_of_every_kind_are_admitted_and_refused() {
    let clock = Arc::new(ManualClock::new(START));
    let (mut admitted, mut refused) = (BTreeMap::new(), BTreeMap::new());
    for seed in 0..200 {
        let ids = ids(clock.clone(), seed);
        let (mut world, mut facts) = (World::new(seed), WorkingSet::complete());
        for _ in 0..60 {
            let command = world.command();
            match command.decide(&ids.fresh(), &facts, clock.now()) {
                Ok(decision) => {
                    *admitted.entry(command.name()).or_insert(0) += 1;
                    decision.effects.into_iter().for_each(|it| facts.apply(it));
                    world.learn(&decision.reply);
                }
                Err(refusal) => {
                    let words = format!("{refusal:?}");
                    let name = words.split([' ', '(']).next().unwrap_or_default();
                    *refused.entry(name.to_owned()).or_insert(0) += 1;
                }
            }
            clock.set(clock.now().after(Duration::from_secs(1)));
        }
    }
    println!("{admitted:?} {refused:?}");
    assert!(
        admitted.len() == 18 && admitted.values().all(|count| *count >= 20),
        "{admitted:?}"
    );
    // Blobs are damaged by no command, and no quota stands.
    assert_eq!(refused.len(), 12, "{refused:?}");
}
