//! An outage in small: the handler is away, events of many chats wait, it comes back. How often it was tried meanwhile, and
//! how long it takes to the first delivery and to the last. Every interval is a hundredth of the default, so that ten
//! minutes pass in six seconds. Deliberately absent: an outage while the service is not running.

use std::path::Path;
use std::time::{Duration, Instant};

use event_router::app::worker::Worker;
use event_router::delivery::BackoffSettings;
use event_router::sim::handler::Handler;

use super::backlog::{Backlog, CHATS, Manner, client, post_all, posts, run_until};
use super::sink::aside;
use super::{Size, median};

/// The defaults, each a hundredth.
const BACKOFF: BackoffSettings = BackoffSettings {
    initial_interval: Duration::from_millis(5),
    multiplier: 2.0,
    max_interval: Duration::from_millis(600),
    randomization_factor: 0.5,
};
const MANNER: Manner = Manner { concurrency: 16, batch_max: 1 };
const EVENTS: u64 = 10 * CHATS;

pub(crate) async fn measure(disk: &Path, size: &Size) {
    let side = aside("away");
    println!();
    println!(
        "outage: connections are refused for {:?}, {EVENTS} events wait in {CHATS} chats; intervals 5 ms to 600 ms, a hundredth of the defaults; {} rounds",
        size.away, size.rounds
    );
    println!("floor of all: a bare loop posts the same events, 16 at once");
    let mut told = [const { Vec::new() }; 6];
    for round in 0..size.rounds {
        let handler = side.spawn(Handler::start()).await.expect("no panic").expect("a handler");
        let bare = Instant::now();
        post_all(&client(MANNER.concurrency), &handler.url(), posts(0, EVENTS, 1), MANNER.concurrency).await;
        let bare = bare.elapsed();
        handler.down();
        let before = handler.received().len();
        let dir = tempfile::tempdir_in(disk).expect("a directory");
        let backlog = Backlog::open(dir.path(), Duration::ZERO).await;
        backlog.fill(0, EVENTS).await;
        let mut figures = (0, Duration::ZERO, Duration::ZERO);
        // Each round draws other waits.
        let worker = Worker { seed: round as u64, ..backlog.worker(&handler.url(), MANNER, BACKOFF) };
        run_until(worker, async {
            tokio::time::sleep(size.away).await;
            let id = backlog.outbox.destination(&backlog.name).expect("registered");
            let resume = backlog.outbox.resume(id).await.expect("read");
            figures.0 = resume.histories.values().map(|history| history.attempts).sum();
            let (returned, again) = (Instant::now(), handler.clone());
            side.spawn(async move { again.up().await }).await.expect("no panic").expect("the same port");
            handler.until(|received| received.len() > before).await;
            figures.1 = returned.elapsed();
            handler.until(|received| received.len() >= before + EVENTS as usize).await;
            figures.2 = returned.elapsed();
        })
        .await;
        let (attempts, first, last) = figures;
        let [all, bare] = [last - first, bare].map(|span| span.as_secs_f64());
        let row = [f64::from(attempts), first.as_secs_f64(), last.as_secs_f64(), all, bare, all / bare];
        told.iter_mut().zip(row).for_each(|(column, figure)| column.push(figure));
        backlog.outbox.close().await;
    }
    let [attempts, first, last, all, bare, ratio] = told.map(|column| median(&column));
    let most = BACKOFF.max_interval.as_secs_f64();
    let tries = size.away.as_secs_f64() / most;
    println!("{:<40} {attempts:>8.0}   {:.1} per max_interval", "attempts while it was away", attempts / tries);
    println!(
        "{:<40} {:>5.0} ms   {:.2} max_interval",
        "from its return to the first delivery",
        first * 1e3,
        first / most
    );
    println!("{:<40} {:>5.0} ms   {:.2} max_interval", "from its return to the last delivery", last * 1e3, last / most);
    println!(
        "{:<40} {:>5.0} ms   bare {:.0} ms, {ratio:.2} times as long",
        "from the first to the last delivery",
        all * 1e3,
        bare * 1e3
    );
}
