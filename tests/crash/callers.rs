//! The callers of a round, and the checks of what they were told.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use test_support::Clients;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tonic::Code;

use crate::kill::Progress;
use crate::load::{AnotherPanicked, CALLERS, Load, Shared};
use crate::{audit, checks, quotas, resolve};

/// How long a caller may take to end once the server is gone.
const SEES_THE_END: Duration = Duration::from_secs(10);
/// How many operations of earlier rounds are looked at in each round.
const LOOKED_AT_AGAIN: usize = 100;

/// The callers of one round.
pub struct Callers(Vec<JoinHandle<()>>);

impl Callers {
    /// Gives each caller its share of the images and its `clients`, and starts it. `slow` servers take longer for an operation than a
    /// round lasts.
    pub fn start(
        model: &Shared,
        round: u64,
        clients: impl Fn() -> Clients,
        progress: &Arc<Progress>,
        slow: bool,
        random: &mut StdRng,
    ) -> Self {
        let mut locked = model.lock();
        locked.round = round;
        locked.killed = false;
        locked.stands_still = false;
        let mut images: Vec<String> = locked.living().map(|(id, _)| id.clone()).collect();
        images.shuffle(random);
        let sources: Vec<String> = locked
            .living()
            .filter(|(_, image)| !image.desktop)
            .map(|(id, _)| id.clone())
            .collect();
        let large = random
            .random_bool(0.5)
            .then(|| random.random_range(0..CALLERS));
        let loads = (0..CALLERS).map(|caller| Load {
            random: StdRng::from_rng(random),
            clients: clients(),
            model: model.clone(),
            progress: progress.clone(),
            own: images
                .iter()
                .skip(caller)
                .step_by(CALLERS)
                .cloned()
                .collect(),
            sources: sources.clone(),
            large: large == Some(caller),
            patient: !slow,
            sent: Vec::new(),
        });
        let mut callers: Vec<_> = loads.map(|load| tokio::spawn(load.run())).collect();
        let limits = quotas::change(clients(), model.clone(), StdRng::from_rng(random));
        callers.push(tokio::spawn(limits));
        Self(callers)
    }

    /// Waits until all have ended, and goes on with the panic of the one that found something wrong.
    pub async fn end(self) {
        let ended = join_all(self.0.into_iter().map(end)).await;
        let broken = ended.into_iter().filter_map(Result::err);
        let mut panics: Vec<_> = broken.filter_map(|it| it.try_into_panic().ok()).collect();
        panics.sort_by_key(|panic| panic.is::<AnotherPanicked>());
        if let Some(first) = panics.into_iter().next() {
            resume_unwind(first);
        }
    }
}

/// Waits until a caller has ended, whose server is gone. Once in some thousand rounds its client does not see
/// that, and would wait for ever: its request is one that was not answered.
async fn end(mut caller: JoinHandle<()>) -> Result<(), JoinError> {
    match timeout(SEES_THE_END, &mut caller).await {
        Ok(ended) => ended,
        Err(_) => {
            println!("a client waits for a server that is gone");
            caller.abort();
            caller.await
        }
    }
}

/// Sees all requests to their end, and compares what a caller can see with what was acknowledged. `cut_short` are the codes
/// of uploads that ended unseen.
pub async fn check(clients: &Clients, model: &Shared, cut_short: &[Code], random: &mut StdRng) {
    // Twice, for uploads that turn out to be cut short.
    for _ in 0..2 {
        resolve::ask_again(clients, model, random).await;
        resolve::all_done(clients, model).await;
    }
    let (mut numbers, mut earlier): (Vec<_>, Vec<_>) = {
        let model = model.lock();
        let round = model.round;
        (0..model.requests.len()).partition(|number| model.requests[*number].round == round)
    };
    earlier.shuffle(random);
    numbers.extend(earlier.into_iter().take(LOOKED_AT_AGAIN));
    resolve::unchanged(clients, model, numbers).await;
    checks::images(clients, model).await;
    checks::deleted_images(clients, model).await;
    let events = audit::read(clients).await;
    audit::agrees(clients, &events, model, cut_short).await;
    quotas::agree(clients, &events, model).await;
}
