//! Get, List and Copy where there are few images, and where there are many.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use desktop_images::contract::yandex::cloud::clouddesktop::v1::api::{
    GetDesktopImageRequest, ListDesktopImagesRequest, ListDesktopImagesResponse,
};
use prost::Message;

use super::connection::Call;
use super::copies::{self, Copies, FOLDERS, round};
use super::figures::{Figures, Goal, median, micros, percentile};
use super::load::{self, ALONE, BUSY};
use super::server::{LOG, Server, Variant, copied};

pub const GET: &str = "/yandex.cloud.clouddesktop.v1.api.DesktopImageService/Get";
pub const LIST: &str = "/yandex.cloud.clouddesktop.v1.api.DesktopImageService/List";
pub const FEW: usize = 1_000;
pub const MANY: usize = 1_000_000;
/// Every so many ids are kept, to be asked for.
const ONE_IN: usize = 100;
pub const PAGE: i64 = 100;
/// Rounds alternate between few and many. Those of reads are short, so that what else the machine does falls
/// on both, but long enough that the first call of their connection is not one in a hundred.
const READ_ROUNDS: usize = 10;
const GETS: usize = 2_000;
const PAGES: usize = 250;
const ROUNDS: usize = 5;
const COPY_ROUND: Duration = Duration::from_secs(3);
const P99_OF_FEW: Goal = Goal::AtMost(2.0);
const RATE_OF_FEW: Goal = Goal::AtLeast(0.7);
/// Both ends of each order. The empty one is by id.
const ORDERS: [&str; 7] = [
    "",
    "name asc",
    "name desc",
    "created_at asc",
    "created_at desc",
    "status asc",
    "status desc",
];

/// A server with some images in one folder.
pub struct Filled {
    server: Server,
    copies: Copies,
    /// Ids of images all over the folder.
    ids: Vec<String>,
    /// The page token at which the walk through the pages of an order is.
    token: String,
    gets: Vec<Duration>,
    pages: Vec<Duration>,
    rates: Vec<f64>,
}

impl Filled {
    /// Fills a new server by Copies.
    async fn with(folder: &Path, images: usize) -> Result<Self, Box<dyn Error>> {
        Self::of(Server::start(Variant::Durable, LOG, folder).await?, images).await
    }

    /// Fills a server by Copies.
    pub async fn of(server: Server, images: usize) -> Result<Self, Box<dyn Error>> {
        let mut copies = Copies::of(&server);
        copies.over_folders(1);
        let (mut asked, mut made, mut replies) = (0, 0, Vec::new());
        let next = || {
            asked += 1;
            (asked <= images).then(|| copies.next())
        };
        let keep = |reply: &[u8]| {
            made += 1;
            if made % ONE_IN == 0 || images == FEW {
                replies.push(copied(reply));
            }
        };
        load::run(server.address, copies::PATH, BUSY, next, keep).await?;
        Ok(Self {
            server,
            copies,
            ids: replies.into_iter().collect::<Result<_, _>>()?,
            token: String::new(),
            gets: Vec::new(),
            pages: Vec::new(),
            rates: Vec::new(),
        })
    }

    async fn get(&mut self) -> Result<(), Box<dyn Error>> {
        let mut left = GETS;
        let next = || {
            left = left.checked_sub(1)?;
            let image_id = self.ids[rand::random_range(..self.ids.len())].clone();
            Some(Call::new(&GetDesktopImageRequest { image_id }))
        };
        let seen = load::run(self.server.address, GET, ALONE, next, |_| {}).await?;
        self.gets.extend(seen.latencies);
        Ok(())
    }

    /// Walks on through the pages of an order; after the last one comes the first.
    async fn list(&mut self, order: &str) -> Result<(), Box<dyn Error>> {
        let token = std::cell::RefCell::new(std::mem::take(&mut self.token));
        let mut left = PAGES;
        let next = || {
            left = left.checked_sub(1)?;
            Some(Call::new(&ListDesktopImagesRequest {
                folder_id: "folder-0".to_owned(),
                page_size: PAGE,
                page_token: token.borrow().clone(),
                order_by: order.to_owned(),
                ..Default::default()
            }))
        };
        let mut bad = None;
        let follow = |reply: &[u8]| match ListDesktopImagesResponse::decode(reply) {
            Ok(page) if page.desktop_images.len() == PAGE as usize => {
                *token.borrow_mut() = page.next_page_token;
            }
            Ok(page) => bad = Some(format!("a page of {}", page.desktop_images.len())),
            Err(error) => bad = Some(error.to_string()),
        };
        let seen = load::run(self.server.address, LIST, ALONE, next, follow).await?;
        self.token = token.into_inner();
        self.pages.extend(seen.latencies);
        bad.map_or(Ok(()), |bad| Err(bad.into()))
    }
}

/// The same calls with few images and with a million.
pub async fn few_and_many(folder: &Path, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let few = Filled::with(&folder.join("few"), FEW).await?;
    let many = Filled::with(&folder.join("many"), MANY).await?;
    let mut both = [few, many];
    for _ in 0..READ_ROUNDS {
        for filled in &mut both {
            filled.get().await?;
        }
    }
    compare(
        figures,
        "Get",
        both.each_ref().map(|filled| &filled.gets[..]),
    );
    lists(&mut both, figures).await?;
    for number in 0..ROUNDS {
        // Copies make it more than a few, so that each round begins with few.
        both[0] = Filled {
            rates: std::mem::take(&mut both[0].rates),
            ..Filled::with(&folder.join(format!("few-{number}")), FEW).await?
        };
        for filled in &mut both {
            let copies = filled.copies.over_folders(FOLDERS);
            let round = round(&filled.server, copies, BUSY, COPY_ROUND).await?;
            filled.rates.push(round.seen.per_second());
        }
    }
    let [few, many] = both.map(|filled| filled.rates);
    let ratios: Vec<f64> = few
        .iter()
        .zip(&many)
        .map(|(few, many)| many / few)
        .collect();
    let name = format!(
        "Copies a second with {MANY} images ({:.0}) / with {FEW} ({:.0})",
        median(&many),
        median(&few)
    );
    figures.goal(&name, median(&ratios), "", RATE_OF_FEW);
    Ok(())
}

/// Pages of each order of a server with few images and of one with a million.
pub async fn lists(both: &mut [Filled; 2], figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    for order in ORDERS {
        for filled in &mut *both {
            filled.token.clear();
            filled.pages.clear();
        }
        for _ in 0..READ_ROUNDS {
            for filled in &mut *both {
                filled.list(order).await?;
            }
        }
        let order = if order.is_empty() { "id" } else { order };
        let pages = both.each_ref().map(|filled| &filled.pages[..]);
        compare(figures, &format!("List of {PAGE} by {order}"), pages);
    }
    Ok(())
}

fn compare(figures: &mut Figures, name: &str, [few, many]: [&[Duration]; 2]) {
    let [few, many] = [few, many].map(|times| micros(percentile(times, 0.99)));
    let name = format!("{name}, p99 with {MANY} images ({many:.0} µs) / with {FEW} ({few:.0} µs)");
    figures.goal(&name, many / few, "", P99_OF_FEW);
}
