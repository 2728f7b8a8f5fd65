//! How long an event takes from VK's answer to its handler, through the whole service: beside an append with `fdatasync`
//! and one bare request; and beside itself, when a neighbour is dead. The clock starts when the simulated VK has made the
//! answer and stops when the handler has read the request. Deliberately absent: how long an update waits for the next poll,
//! which is VK's time; names, which are not looked up.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_router::app::{self, RunError};
use event_router::clock::Clock;
use event_router::config::{Source, load};
use event_router::metrics::Metrics;
use event_router::sim::handler::{Answer, Handler};
use event_router::sim::vk_server::{Settings, VkServer};
use event_router::sim::vk_shape::written;
use reqwest::Url;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::backlog::{BODY_BYTES, CHATS, client, post, posts};
use super::sink::{Sink, aside};
use super::table::{Aim, Figure};
use super::{Size, median, quantile};

/// An event comes as often as this.
const EVERY: Duration = Duration::from_millis(1);
/// How patient the service is with the neighbour.
const NEIGHBOUR: &str = "timeout = \"500ms\"\ninitial_interval = \"5ms\"\nmax_interval = \"100ms\"";

/// The service against a simulated VK.
pub(crate) struct Service {
    _dir: TempDir,
    vk: VkServer,
    /// Where VK and its updates live.
    side: Handle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Service {
    /// With destinations that take every event: their names, URLs, and the rest of their tables.
    pub(crate) async fn start(disk: &Path, destinations: &[(&str, String, &str)]) -> Self {
        let dir = tempfile::tempdir_in(disk).expect("a directory");
        let side = aside("vk");
        let vk = side.spawn(VkServer::start(Settings::default())).await.expect("no panic").expect("a simulated VK");
        let mut config = format!(
            "[vk]\ntoken = \"a-token\"\napi_url = {:?}\ngroup_id = {}\n[enrichment]\nenabled = false\n[admin]\nlisten = \"off\"\n[outbox]\ndir = {:?}\n",
            vk.url(),
            vk.group_id(),
            dir.path().join("data")
        );
        for (name, url, more) in destinations {
            config += &format!("[destinations.{name}]\nurl = {url:?}\n{more}\n");
        }
        let file = dir.path().join("event-router.toml");
        std::fs::write(&file, config).expect("written");
        let source = Source { file: Some(file), env: Vec::new() };
        let settings = load(&source).expect("a sound configuration").service().expect("a whole configuration");
        let stop = CancellationToken::new();
        let task = tokio::spawn(app::run(settings, Clock::system(), Metrics::default(), stop.clone()));
        vk.until(|vk| !vk.polls().is_empty()).await;
        Self { _dir: dir, vk, side, stop, task }
    }

    /// Lets events come for a while; milliseconds that each took to the handler.
    pub(crate) async fn round(&self, sink: &Sink, span: Duration) -> Vec<f64> {
        let before = sink.taken();
        sink.times();
        let vk = self.vk.clone();
        let pushing = self.side.spawn(async move {
            let mut ticks = interval(EVERY);
            let start = Instant::now();
            let mut pushed = 0;
            while start.elapsed() < span {
                ticks.tick().await;
                vk.push(update(&vk));
                pushed += 1;
            }
            pushed
        });
        let pushed: u64 = pushing.await.expect("no panic");
        sink.reaches(before + pushed).await;
        let answers = self.vk.answers();
        let took = |(ts, at): (u64, Instant)| {
            let place = answers.partition_point(|(asked, _)| *asked < ts);
            at.duration_since(answers[place - 1].1).as_secs_f64() * 1e3
        };
        sink.times().into_iter().map(took).collect()
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

/// The next update; its event id is its ts.
pub(crate) fn update(vk: &VkServer) -> String {
    let ts = vk.head() + 1;
    let peer = 2_000_000_000 + ts % CHATS;
    let text = "x".repeat(120);
    let message = json!({ "from_id": 5, "peer_id": peer, "text": text, "date": 1, "conversation_message_id": ts });
    written(&json!({ "group_id": vk.group_id(), "type": "message_new", "event_id": format!("{ts:040x}"), "v": "5.199",
        "object": { "message": message } }))
}

/// Both quantiles of both sides, round by round.
#[derive(Default)]
struct Table([Vec<f64>; 6]);

impl Table {
    fn title(what: &str, ours: &str, floor: &str) {
        println!();
        println!("{what}");
        println!(
            "{:<34} {:>9} {:>9} {:>11} {:>11} {:>9} {:>9}",
            "milliseconds",
            format!("{ours} p50"),
            format!("{ours} p99"),
            format!("{floor} p50"),
            format!("{floor} p99"),
            "ratio p50",
            "ratio p99"
        );
    }

    fn round(&mut self, ours: &[f64], floor: &[f64]) {
        let [a, b, c, d] = [(ours, 0.5), (ours, 0.99), (floor, 0.5), (floor, 0.99)].map(|(all, at)| quantile(all, at));
        self.0.iter_mut().zip([a, b, c, d, a / c, b / d]).for_each(|(column, figure)| column.push(figure));
    }

    /// Prints a row; the ratios of both quantiles.
    fn print(&self, name: &str) -> [(f64, f64, f64); 2] {
        let [a, b, c, d, p50, p99] = self.0.each_ref().map(|column| median(column));
        println!("{name:<34} {a:>9.2} {b:>9.2} {c:>11.2} {d:>11.2} {p50:>9.2} {p99:>9.2}");
        [(a, c, p50), (b, d, p99)]
    }
}

pub(crate) async fn measure(disk: &Path, size: &Size) -> Vec<Figure> {
    Table::title(
        &format!(
            "latency from VK's answer, an event a millisecond, {} rounds; floor: append, fdatasync, POST",
            size.rounds
        ),
        "ours",
        "floor",
    );
    let sink = Sink::start(true).await;
    let service = Service::start(disk, &[("one", sink.url().to_owned(), "")]).await;
    let mut file = tempfile::tempfile_in(disk).expect("a file");
    let mut table = Table::default();
    for round in 0..=size.rounds {
        let first = if round % 2 == 0 { Some(floor(&mut file, &sink, size.span).await) } else { None };
        let ours = service.round(&sink, size.span).await;
        let floor = match first {
            Some(floor) => floor,
            None => floor(&mut file, &sink, size.span).await,
        };
        if round > 0 {
            table.round(&ours, &floor);
        }
    }
    let told = table.print("VK's answer to handler");
    service.stop().await;
    let figure = |(quantile, (ours, floor, value), aim)| Figure {
        what: format!("from VK's answer to the handler, 1,000 events/s, {quantile}"),
        ours: format!("{ours:.2} ms"),
        floor: format!("{floor:.2} ms"),
        value,
        aim: Aim::AtMost(aim),
    };
    [("p50", told[0], 1.5), ("p99", told[1], 3.0)].map(figure).into()
}

/// One event at a time is written to the end of a file, synced and posted; one a millisecond if the disk can.
async fn floor(file: &mut File, sink: &Sink, span: Duration) -> Vec<f64> {
    sink.times();
    let (client, url) = (client(1), Url::parse(sink.url()).expect("a url"));
    let mut starts = Vec::new();
    let begin = Instant::now();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while begin.elapsed() < span {
        ticks.tick().await;
        let number = starts.len() as u64;
        let one = posts(number, number + 1, 1);
        starts.push(Instant::now());
        file.write_all(&[b'x'; BODY_BYTES]).expect("written");
        file.sync_data().expect("synced");
        post(&client, &url, &one[0]).await;
    }
    let took = |(number, at): (u64, Instant)| at.duration_since(starts[number as usize]).as_secs_f64() * 1e3;
    sink.times().into_iter().map(took).collect()
}

/// A destination that can be dead in two ways.
struct Neighbour {
    handler: Handler,
    hangs: Arc<AtomicBool>,
    /// How many events it has taken, each counted once.
    taken: watch::Receiver<u64>,
    side: Handle,
}

impl Neighbour {
    async fn start() -> Self {
        let side = aside("neighbour");
        let handler = side.spawn(Handler::start()).await.expect("no panic").expect("a handler");
        let hangs = Arc::new(AtomicBool::new(false));
        let (tell, taken) = watch::channel(0);
        let (hung, known) = (Arc::clone(&hangs), Mutex::new(HashSet::new()));
        handler.answer(move |one| {
            if hung.load(Ordering::SeqCst) {
                return Answer::Hang;
            }
            let mut known = known.lock().expect("sound");
            known.insert(one.event_id.clone());
            tell.send_replace(known.len() as u64);
            Answer::Status(200, "")
        });
        Self { handler, hangs, taken, side }
    }

    fn die(&self, hangs: bool) {
        if hangs {
            self.hangs.store(true, Ordering::SeqCst);
        } else {
            self.handler.down();
        }
    }

    /// Lives again, and has everything once this is over.
    async fn live(&self, events: u64) {
        if self.hangs.swap(false, Ordering::SeqCst) {
            // What hangs, hangs no longer than its time-out.
        } else {
            let handler = self.handler.clone();
            self.side.spawn(async move { handler.up().await }).await.expect("no panic").expect("the same port");
        }
        self.caught_up(events).await;
    }

    async fn caught_up(&self, events: u64) {
        self.taken.clone().wait_for(|taken| *taken >= events).await.expect("it is there");
    }
}

pub(crate) async fn measure_neighbours(disk: &Path, size: &Size) {
    Table::title(
        &format!("latency of one destination while another is dead, {} rounds; floor: both are alive", size.rounds),
        "dead",
        "alive",
    );
    let (sink, neighbour) = (Sink::start(true).await, Neighbour::start().await);
    let destinations = [("one", sink.url().to_owned(), ""), ("other", neighbour.handler.url(), NEIGHBOUR)];
    let service = Service::start(disk, &destinations).await;
    let mut tables = [Table::default(), Table::default()];
    for round in 0..=size.rounds {
        for (hangs, table) in [false, true].into_iter().zip(&mut tables) {
            let alive = service.round(&sink, size.span).await;
            neighbour.caught_up(sink.taken()).await;
            neighbour.die(hangs);
            let dead = service.round(&sink, size.span).await;
            neighbour.live(sink.taken()).await;
            if round > 0 {
                table.round(&dead, &alive);
            }
        }
    }
    tables[0].print("the other refuses connections");
    tables[1].print("the other hangs until its time-out");
    service.stop().await;
}
