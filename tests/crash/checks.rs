//! Checks for a server that runs again, once all that was accepted has ended.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_support::{Clients, Method, Transport, text};
use tonic::Code;

use crate::load::{FOLDERS, Shared};
use crate::resolve::{AT_ONCE, list};

/// The images are those of the model, and look as they did when they were last changed.
pub async fn images(clients: &Clients, model: &Shared) {
    for folder in FOLDERS {
        for desktop in [true, false] {
            let mut listed = BTreeMap::new();
            for image in list(clients, folder, desktop).await {
                let before = listed.insert(text(&image, "id").to_owned(), image);
                assert!(before.is_none(), "listed twice: {before:?}");
            }
            let model = model.lock();
            let expected: BTreeMap<String, Value> = model
                .living()
                .filter(|(_, image)| image.folder == folder && image.desktop == desktop)
                .map(|(id, image)| (id.clone(), image.resource.clone()))
                .collect();
            for (id, image) in &listed {
                let known = expected.contains_key(id);
                assert!(
                    known,
                    "in {folder}, though no request left it there: {image}"
                );
            }
            for (id, image) in &expected {
                let found = listed.get(id);
                assert_eq!(found, Some(image), "an image of {folder}, {id}");
            }
        }
    }
}

/// Images that were deleted in this round stay away.
pub async fn deleted_images(clients: &Clients, model: &Shared) {
    let deleted: Vec<(String, bool)> = {
        let model = model.lock();
        let round = model.round;
        let requests = model
            .requests
            .iter()
            .filter(|request| request.round == round);
        let images = requests.filter_map(|request| match &request.action {
            crate::request::Action::Delete { image, desktop } => Some((image.clone(), *desktop)),
            _ => None,
        });
        images.filter(|(id, _)| model.images[id].deleted).collect()
    };
    let caller = clients.caller(Transport::Grpc);
    let looks = deleted.into_iter().map(|(id, desktop)| {
        let caller = &caller;
        async move {
            let method = match desktop {
                true => Method::DesktopGet,
                false => Method::ComputeGet,
            };
            let found = caller.call(method, json!({"imageId": id})).await;
            let code = found.as_ref().map_err(|refusal| refusal.code);
            assert_eq!(code.err(), Some(Code::NotFound), "deleted {id}: {found:?}");
        }
    });
    stream::iter(looks)
        .buffer_unordered(AT_ONCE)
        .for_each(async |()| ())
        .await;
}

/// Desktop images have the bytes of what they were copied from: all of them say so, and one for
/// each blob is read. Those are the ones made in this round, where there are such.
pub async fn bytes(clients: &Clients, model: &Shared) {
    let mut expected = Vec::new();
    {
        let mut model = model.lock();
        let mut images: Vec<_> = model
            .living()
            .filter(|(_, image)| image.desktop)
            .map(|(id, image)| (id.clone(), image.bytes, image.round))
            .collect();
        images.sort_by_key(|(_, _, round)| std::cmp::Reverse(*round));
        let mut read = BTreeSet::new();
        for (id, bytes, _) in images {
            let sha256 = model.disks.facts(bytes).sha256;
            expected.push((id, sha256, read.insert(sha256)));
        }
    }
    let checks = expected.into_iter().map(|(id, sha256, whole)| async move {
        let url = clients.url(&format!("/cloud-desktop/v1/images/{id}:download"));
        let request = match whole {
            true => clients.http.get(url),
            false => clients.http.head(url),
        };
        let mut reply = request.send().await.expect("a reply");
        assert_eq!(reply.status(), 200, "download of {id}");
        let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(reply.headers()["etag"], format!("\"{hex}\""), "{id}");
        if whole {
            let mut digest = Sha256::new();
            while let Some(part) = reply.chunk().await.expect("a whole body") {
                digest.update(&part);
            }
            assert!(digest.finalize()[..] == sha256, "other bytes: {id}");
        }
    });
    stream::iter(checks)
        .buffer_unordered(AT_ONCE)
        .for_each(async |()| ())
        .await;
}
