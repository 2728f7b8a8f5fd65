//! The real binary as a process: how large it is, how soon it polls, what memory it takes with how much waiting, and what
//! processor time an event costs from VK to its handler, beside the sum of what its parts cost bare, in a process of
//! their own. Deliberately absent: memory while a backlog drains (`churn`).

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use event_router::sim::vk_server::{Settings, VkServer};
use tokio::process::{Child, Command};

use super::backlog::{Backlog, client, event, post_all, posts};
use super::latency::update;
use super::lots::{floor as serde_pass, lots};
use super::sink::{Sink, aside};
use super::table::{Aim, Figure};
use super::{Size, median, processor_of};

/// Updates of an answer that the floor appends and syncs at once: as many as VK gives at most.
const ANSWER: usize = 100;
const IN_FLIGHT: usize = 16;
/// Where Debian has them.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const BINARY: &str = env!("CARGO_BIN_EXE_event-router");

/// The binary on a directory, against a VK of its own.
struct Service {
    vk: VkServer,
    child: Child,
    /// From its start to its first poll.
    first_poll: Duration,
}

impl Service {
    async fn start(data: &Path, url: &str) -> Self {
        let dir = data.parent().expect("a directory around it");
        let vk = aside("vk").spawn(VkServer::start(Settings::default())).await.expect("no panic").expect("a VK");
        let config = format!(
            "[vk]\ntoken = \"a-token\"\napi_url = {:?}\ngroup_id = {}\n[enrichment]\nenabled = false\n[admin]\nlisten = \"off\"\n[outbox]\ndir = {data:?}\nmax_bytes = \"1TiB\"\nmin_free_bytes = \"0B\"\n[log]\nlevel = \"warn\"\n[destinations.all]\nurl = {url:?}\n",
            vk.url(),
            vk.group_id(),
        );
        let file = dir.join("event-router.toml");
        fs::write(&file, config).expect("written");
        let mut command = Command::new(BINARY);
        command.args(["run", "--config"]).arg(file).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
        // One bundle of roots, as in the container.
        command.env("SSL_CERT_FILE", ROOTS);
        let start = Instant::now();
        let child = command.kill_on_drop(true).spawn().expect("started");
        vk.until(|vk| !vk.polls().is_empty()).await;
        Self { vk, child, first_poll: start.elapsed() }
    }

    /// A line of what the kernel tells of its memory, in megabytes.
    fn megabytes(&self, line: &str) -> f64 {
        let id = self.child.id().expect("it runs");
        let text = fs::read_to_string(format!("/proc/{id}/status")).expect("read");
        let kilobytes =
            text.lines().find_map(|one| one.strip_prefix(line)?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        kilobytes.expect("a figure") / 1024.0
    }

    async fn stop(mut self) {
        self.child.kill().await.expect("killed");
    }
}

/// Size, start, memory.
pub(crate) async fn measure(disk: &Path, size: &Size) -> Vec<Figure> {
    println!();
    println!(
        "the binary, as a process: handlers refuse connections; memory is the peak (VmHWM) once the backlog is looked at"
    );
    let bytes = fs::metadata(BINARY).expect("built").len() as f64 / f64::from(1 << 20);
    println!("{:<34} {bytes:>9.1} MB", "stripped");
    let mut figures = vec![figure("the binary, stripped", format!("{bytes:.1} MB"), bytes, Aim::AtMost(10.0))];
    for waiting in [0].into_iter().chain(size.waiting.iter().copied()) {
        let dir = tempfile::tempdir_in(disk).expect("a directory");
        let data = dir.path().join("data");
        let backlog = Backlog::open(&data, Duration::from_secs(86_400)).await;
        backlog.fill(0, waiting).await;
        backlog.outbox.close().await;
        drop(backlog);
        let (mut spans, mut peaks) = (Vec::new(), Vec::new());
        for _ in 0..size.rounds {
            let service = Service::start(&data, "http://127.0.0.1:1/").await;
            spans.push(service.first_poll.as_secs_f64() * 1e3);
            // What it reads of the backlog it has read when its destination is down and stays so for a while.
            tokio::time::sleep(size.settle).await;
            peaks.push(service.megabytes("VmHWM:"));
            service.stop().await;
        }
        let (span, peak) = (median(&spans), median(&peaks));
        let words = people(waiting);
        println!("{:<34} {span:>9.0} ms {peak:>9.1} MB", format!("{words} waiting: to the first poll, peak"));
        let (most, soon) = match waiting {
            0 => (12.0, 50.0),
            1..=1_000_000 => (60.0, 1000.0),
            _ => (80.0, 1000.0),
        };
        let what = if waiting == 0 { "memory, idle".to_owned() } else { format!("memory, {words} waiting") };
        figures.push(figure(&what, format!("{peak:.1} MB"), peak, Aim::AtMost(most)));
        let what = format!("start to first poll, {words} waiting");
        figures.push(figure(&what, format!("{span:.0} ms"), span, Aim::AtMost(soon)));
    }
    figures
}

fn figure(what: &str, ours: String, value: f64, aim: Aim) -> Figure {
    Figure { what: what.to_owned(), ours, floor: String::new(), value, aim }
}

fn people(count: u64) -> String {
    match count {
        0 => "none".to_owned(),
        count if count.is_multiple_of(1_000_000) => format!("{} M", count / 1_000_000),
        count if count.is_multiple_of(1000) => format!("{} k", count / 1000),
        count => count.to_string(),
    }
}

/// Processor time of an event.
pub(crate) async fn measure_cost(disk: &Path, size: &Size) -> Vec<Figure> {
    let events = size.events / 4;
    println!();
    println!("processor time of an event from VK to a handler, {events} events, {} rounds", size.rounds);
    println!("floor: a process that makes a typed serde pass, appends and syncs a hundred at a time, posts 16 at once");
    let mut told = [const { Vec::new() }; 3];
    for _ in 0..size.rounds {
        let ours = cost(disk, events).await;
        let floor = floor_cost(disk, events).await;
        told.iter_mut().zip([ours, floor, ours / floor]).for_each(|(column, figure)| column.push(figure));
    }
    let [ours, floor, ratio] = told.map(|column| median(&column));
    println!("{:<34} {ours:>9.1} us {floor:>9.1} us {ratio:>6.2}", "processor time");
    vec![Figure {
        what: "processor time of an event, end to end".to_owned(),
        ours: format!("{ours:.1} us"),
        floor: format!("{floor:.1} us"),
        value: ratio,
        aim: Aim::AtMost(2.0),
    }]
}

/// Ours, in microseconds: what the process has had from its first poll until everything is delivered.
async fn cost(disk: &Path, events: u64) -> f64 {
    let dir = tempfile::tempdir_in(disk).expect("a directory");
    let sink = Sink::start(false).await;
    let service = Service::start(&dir.path().join("data"), sink.url()).await;
    let id = service.child.id().expect("it runs");
    let before = processor_of(&id.to_string());
    for _ in 0..events {
        service.vk.push(update(&service.vk));
    }
    sink.reaches(events).await;
    let cost = processor_of(&id.to_string()) - before;
    service.stop().await;
    cost * 1e6 / events as f64
}

/// The floor's: this very program as another process, which tells what it has had.
async fn floor_cost(disk: &Path, events: u64) -> f64 {
    let sink = Sink::start(false).await;
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--bench", "--floor-of-cost", sink.url(), "--events", &events.to_string()]);
    let output = command.env("BENCH_DIR", disk).stdin(Stdio::null()).stderr(Stdio::inherit()).output().await;
    let told = String::from_utf8(output.expect("run").stdout).expect("text");
    told.trim().parse().unwrap_or_else(|_| panic!("the floor says {told:?}"))
}

/// The floor itself: prints its microseconds of an event.
pub(crate) async fn be_the_floor(disk: &Path, url: &str, events: u64) {
    let [lot, ..] = lots();
    let mut file = tempfile::tempfile_in(disk).expect("a file");
    let requests = posts(0, events, 1);
    let bodies: Vec<u8> = (0..ANSWER as u64).flat_map(|number| event(number).body.to_vec()).collect();
    let before = processor_of("self");
    for _ in 0..events / ANSWER as u64 {
        std::hint::black_box(serde_pass(&lot));
        file.write_all(&bodies).expect("written");
        file.sync_data().expect("synced");
    }
    post_all(&client(IN_FLIGHT), url, requests, IN_FLIGHT).await;
    println!("{:.3}", (processor_of("self") - before) * 1e6 / events as f64);
}
