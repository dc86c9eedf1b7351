//! Blobs: when they go, what takes their place, and what is known of their damage.

use super::*;

impl Fixture {
    async fn blob_of(&self, desktop_image_id: &str) -> LiveBlob {
        let found = self.store.desktop_image_blob(desktop_image_id).await;
        found.unwrap().1
    }

    async fn copied(&self, name: &str, source: &str) -> String {
        let accepted = self.accept(copy("f", name, source), Start::Now).await;
        accepted.unwrap().image_id
    }

    /// The ids of live blobs.
    async fn live(&self) -> Vec<String> {
        let live = self.store.live_blobs().await.unwrap();
        live.into_iter().map(|blob| blob.id).collect()
    }

    /// The ids among the tombstones.
    async fn deleted(&self) -> Vec<String> {
        let listed = self.store.blobs_to_delete(Duration::ZERO, None, 99).await;
        listed.unwrap().into_iter().map(|it| it.id).collect()
    }
}

pub(super) async fn equal_bytes_take_the_place_of_those_that_were_there_for_all_images(
    backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    let made_before = fixture.copied("before", &source).await;
    let old = fixture.blob_of(&made_before).await;
    fixture
        .store
        .mark_damaged(vec![old.id.clone()])
        .await
        .unwrap();
    assert!(fixture.blob_of(&made_before).await.damaged);

    let lease = fixture.upload("f", "again").await;
    let ended = fixture
        .store
        .complete_import(&lease, facts("source"), Vec::new());
    ended.await.unwrap();
    let new = fixture.blob_of(&made_before).await;
    assert_eq!(new.id, lease.blob_id);
    assert!(!new.damaged);
    assert_eq!(new.facts, old.facts);
    assert_eq!(fixture.deleted().await, std::slice::from_ref(&old.id));
    // What is found of the old file says nothing of the new one.
    fixture.store.mark_damaged(vec![old.id]).await.unwrap();
    assert!(!fixture.blob_of(&made_before).await.damaged);
}

pub(super) async fn a_worker_that_lost_its_lease_takes_no_place(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    let copied = fixture.copied("copied", &source).await;
    let old = fixture.blob_of(&copied).await;
    let late = fixture.upload("f", "late").await;
    fixture.pass(LEASE);
    fixture.claim().await.unwrap();
    let refused = fixture
        .store
        .complete_import(&late, facts("source"), Vec::new())
        .await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::LeaseLost { .. }))
    ));
    assert_eq!(fixture.blob_of(&copied).await, old);
    assert!(!fixture.deleted().await.contains(&old.id));
}

pub(super) async fn what_is_known_as_damaged_is_not_copied_until_it_is_mended(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    let copied = fixture.copied("copied", &source).await;
    let changes = || {
        let from = Origin::ComputeImage(source.clone());
        [copy("f", "copy", &source), import("f", "from", from)]
    };
    // In one transaction, so that what was looked up for the first copy is there for the second.
    let id = fixture.blob_of(&copied).await.id;
    let (first, marked, second) = tokio::join!(
        fixture.accept(copy("f", "first", &source), Start::Now),
        fixture.store.mark_damaged(vec![id]),
        fixture.accept(copy("f", "second", &source), Start::Now),
    );
    first.unwrap();
    marked.unwrap();
    assert!(matches!(second, Err(Error::Refused(Refusal::BlobDamaged { id })) if id == source));
    for change in changes() {
        for start in [Start::Now, Start::After(Duration::ZERO)] {
            let refused = fixture.accept(change.clone(), start).await;
            assert!(
                matches!(refused, Err(Error::Refused(Refusal::BlobDamaged { id })) if id == source)
            );
        }
    }
    let (image, again) = tokio::join!(
        fixture.store.desktop_image(&copied),
        fixture.store.compute_image(&source)
    );
    image.unwrap();
    again.unwrap();

    let lease = fixture.upload("f", "again").await;
    let ended = fixture
        .store
        .complete_import(&lease, facts("source"), Vec::new());
    ended.await.unwrap();
    for change in changes() {
        fixture.accept(change, Start::Now).await.unwrap();
    }
}

pub(super) async fn a_blob_goes_with_its_last_image_and_not_before(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    let copies = [
        fixture.copied("a", &source).await,
        fixture.copied("b", &source).await,
    ];
    let content = fixture.blob_of(&copies[0]).await;
    let [a, b] = copies;
    let mut changes = vec![
        Change::DeleteDesktopImage { id: a },
        Change::DeleteComputeImage { id: source },
        Change::DeleteDesktopImage { id: b },
    ];
    let last = changes.pop().unwrap();
    for change in changes {
        fixture.accept(change, Start::Now).await.unwrap();
        assert_eq!(fixture.store.remove_unreferenced(9).await.unwrap(), 1);
        assert!(fixture.deleted().await.is_empty());
    }
    fixture.accept(last, Start::Now).await.unwrap();
    assert!(fixture.deleted().await.is_empty(), "not by the Delete");
    // Those who remove are woken for it.
    fixture.store.removals().await;
    assert_eq!(fixture.store.remove_unreferenced(9).await.unwrap(), 1);
    assert_eq!(fixture.deleted().await, [content.id]);
    assert_eq!(fixture.store.remove_unreferenced(9).await.unwrap(), 0);
}

pub(super) async fn a_live_blob_tells_its_sizes_and_its_images(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    assert!(fixture.store.live_blobs().await.unwrap().is_empty());
    let pending = fixture.upload("f", "pending").await;
    let source = fixture.compute_image("f", "source").await;
    let other = fixture.compute_image("f", "other").await;
    let mut copies = Vec::new();
    for name in ["a", "b"] {
        copies.push(fixture.copied(name, &source).await);
    }
    let blob = fixture.blob_of(&copies[0]).await;
    let live = fixture.store.live_blobs().await.unwrap();
    assert_eq!(live.len(), 2);
    let BlobFacts {
        size, stored_size, ..
    } = blob.facts;
    let sizes = BlobSize::new(blob.id.clone(), size, stored_size);
    assert!(live.contains(&sizes), "{live:?}");

    let images = |id: String, limit: usize| {
        let store = &fixture.store;
        async move { store.images_of_blob(&id, limit).await.unwrap() }
    };
    let [a, b] = [&*copies[0], &*copies[1]];
    for (limit, expected) in [
        (9, &[a, b, &*source][..]),
        (3, &[a, b, &*source]),
        (2, &[a, b]),
        (1, &[a]),
    ] {
        assert_eq!(images(blob.id.clone(), limit).await, expected);
    }
    let id_of_other = live.into_iter().find(|it| it.id != blob.id).unwrap().id;
    assert_eq!(images(id_of_other, 9).await, [other]);
    for nobodys in [pending.blob_id, "none".to_owned()] {
        assert!(images(nobodys, 9).await.is_empty());
    }
}

pub(super) async fn an_installation_keeps_its_first_name(backend: Backend) {
    let mut fixture = Fixture::new(backend).await;
    for made in ["first", "second"] {
        let named = fixture.store.installation(made.to_owned()).await;
        assert_eq!(named.unwrap(), "first");
        fixture = fixture.reopened().await;
    }
}

pub(super) async fn the_bytes_of_a_tombstone_stay_while_a_hold_stands(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let id = fixture.compute_image("f", "source").await;
    let blob = fixture.live().await;
    fixture
        .accept(Change::DeleteComputeImage { id }, Start::Now)
        .await
        .unwrap();
    let half = LEASE / 2;
    fixture.store.place_hold("one", LEASE).await.unwrap();
    fixture.store.place_hold("other", half).await.unwrap();
    // A tombstone is made as ever.
    assert_eq!(fixture.store.remove_unreferenced(9).await.unwrap(), 1);
    assert!(fixture.live().await.is_empty());
    assert!(fixture.deleted().await.is_empty());

    // One that is renewed lasts, one that has run out cannot be renewed, and ends for nobody else.
    fixture.pass(half);
    assert!(fixture.store.renew_hold("one", LEASE).await.unwrap());
    assert!(!fixture.store.renew_hold("other", LEASE).await.unwrap());
    assert!(!fixture.store.renew_hold("unknown", LEASE).await.unwrap());
    fixture.store.end_hold("other").await.unwrap();
    fixture.pass(half);
    assert!(fixture.deleted().await.is_empty());
    fixture.pass(half);
    assert_eq!(fixture.deleted().await, blob);
    assert!(!fixture.store.renew_hold("one", LEASE).await.unwrap());

    fixture.store.place_hold("third", LEASE).await.unwrap();
    assert!(fixture.deleted().await.is_empty());
    fixture.store.end_hold("third").await.unwrap();
    assert_eq!(fixture.deleted().await, blob);
}

pub(super) async fn blobs_are_found_by_the_age_of_their_tombstones(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let mut deleted = Vec::new();
    for name in ["first", "second", "third"] {
        let id = fixture.compute_image("f", name).await;
        deleted.extend(fixture.live().await);
        fixture
            .accept(Change::DeleteComputeImage { id }, Start::Now)
            .await
            .unwrap();
        assert_eq!(fixture.store.remove_unreferenced(9).await.unwrap(), 1);
        fixture.pass(LEASE);
    }
    let of_age = |age: Duration, limit: usize| {
        let store = &fixture.store;
        async move {
            let (mut found, mut last) = (Vec::new(), None);
            loop {
                let page = store.blobs_to_delete(age, last, limit).await.unwrap();
                assert!(page.len() <= limit);
                last = page.last().cloned();
                found.extend(page.into_iter().map(|blob| blob.id));
                if last.is_none() {
                    return found;
                }
            }
        }
    };
    for limit in [1, 2, 9] {
        for (age, count) in [
            (Duration::ZERO, 3),
            (LEASE, 3),
            (LEASE + Duration::from_micros(1), 2),
            (2 * LEASE, 2),
            (3 * LEASE, 1),
            (4 * LEASE, 0),
            (Duration::MAX, 0),
        ] {
            assert_eq!(of_age(age, limit).await, deleted[..count], "{age:?}");
        }
    }

    // The tombstone that is renewed becomes the youngest; a blob without one gets none.
    fixture.store.renew_tombstone(&deleted[0]).await.unwrap();
    fixture.store.renew_tombstone("unknown").await.unwrap();
    deleted.rotate_left(1);
    assert_eq!(of_age(Duration::ZERO, 2).await, deleted);
    assert_eq!(of_age(LEASE, 2).await, deleted[..2]);

    // The age of bytes that a worker may still write counts from when it writes no more.
    let late = fixture.upload("f", "late").await;
    fixture.pass(LEASE);
    fixture.claim().await.unwrap();
    let minute = Duration::from_secs(60);
    for (passed, is_old) in [(minute, false), (10 * minute, true)] {
        fixture.store.renew_tombstone(&late.blob_id).await.unwrap();
        fixture.pass(passed);
        assert!(of_age(Duration::ZERO, 9).await.contains(&late.blob_id));
        assert_eq!(of_age(minute, 9).await.contains(&late.blob_id), is_old);
    }
}

pub(super) async fn equal_bytes_are_live_again_while_the_old_ones_have_a_tombstone(
    backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let id = fixture.compute_image("f", "equal").await;
    let old = fixture.live().await;
    let deletion = Change::DeleteComputeImage { id };
    fixture.accept(deletion, Start::Now).await.unwrap();
    assert_eq!(fixture.store.remove_unreferenced(9).await.unwrap(), 1);
    let again = fixture.compute_image("f", "equal").await;
    let copy = fixture.copied("copy", &again).await;
    let new = fixture.blob_of(&copy).await;
    assert_ne!(new.id, old[0]);
    assert_eq!(fixture.deleted().await, old);
    fixture.store.blobs_deleted(old).await.unwrap();
    assert_eq!(fixture.blob_of(&copy).await, new);
}
