//! Delete where few images share a blob, and where many do.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use desktop_images::contract::yandex::cloud::clouddesktop::v1::api::DeleteDesktopImageRequest;

use super::connection::Call;
use super::copies::{self, Copies};
use super::figures::{Figures, Goal, micros, millis, percentile};
use super::load::{self, ALONE, BUSY, Shape};
use super::server::{LOG, Server, Variant, copied};

const DELETE: &str = "/yandex.cloud.clouddesktop.v1.api.DesktopImageService/Delete";
const SHARING: [usize; 3] = [1_000, 10_000, 100_000];
const DELETES: usize = 400;
/// So many are under way beside the Copies whose times are taken.
const BESIDE: Shape = Shape {
    connections: 1,
    streams: 16,
};
const OF_FEW: Goal = Goal::AtMost(1.5);

/// Times of one Delete, and of a Copy beside Deletes, by the number of images that share a blob.
pub async fn of_few_and_many(folder: &Path, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let mut medians = Vec::new();
    for sharing in SHARING {
        let folder = folder.join(format!("sharing-{sharing}"));
        let server = Server::start(Variant::Durable, LOG, &folder).await?;
        let mut copies = Copies::of(&server);
        let mut left = sharing;
        let mut replies = Vec::new();
        let next = || {
            left = left.checked_sub(1)?;
            Some(copies.next())
        };
        let keep = |reply: &[u8]| replies.push(copied(reply));
        load::run(server.address, copies::PATH, BUSY, next, keep).await?;
        let ids: Vec<String> = replies.into_iter().collect::<Result<_, _>>()?;
        let mut ids = ids.into_iter();
        let mut delete = |_| {
            let image_id = ids.next()?;
            Some(Call::new(&DeleteDesktopImageRequest { image_id }))
        };

        let cpu = server.cpu_time()?;
        let mut numbers = 0..DELETES;
        let next = || numbers.next().and_then(&mut delete);
        let seen = load::run(server.address, DELETE, ALONE, next, |_| {}).await?;
        let cpu = (server.cpu_time()? - cpu) / DELETES as u32;
        let median = percentile(&seen.latencies, 0.5);
        medians.push(median);

        let mut numbers = 0..DELETES;
        let next = || numbers.next().and_then(&mut delete);
        let deletes = load::run(server.address, DELETE, BESIDE, next, |_| {});
        let mut left = DELETES;
        let copy = || {
            left = left.checked_sub(1)?;
            Some(copies.next())
        };
        let beside = load::run(server.address, copies::PATH, ALONE, copy, |_| {});
        let (deleted, beside) = tokio::join!(deletes, beside);
        deleted?;
        figures.fact(
            &format!("a Delete alone of {sharing} images that share a blob"),
            format!(
                "{:.0} µs, {:.0} µs of CPU; a Copy beside Deletes, p99: {:.1} ms",
                micros(median),
                micros(cpu),
                millis(percentile(&beside?.latencies, 0.99))
            ),
        );
    }
    if let [few, .., many] = &medians[..] {
        let name = format!(
            "a Delete of {} images that share a blob / of {}",
            SHARING[SHARING.len() - 1],
            SHARING[0]
        );
        figures.goal(&name, ratio(*many, *few), "", OF_FEW);
    }
    Ok(())
}

fn ratio(many: Duration, few: Duration) -> f64 {
    many.as_secs_f64() / few.as_secs_f64()
}
