//! What the workstream log costs when its endpoint hangs: the real binary takes and delivers a backlog of VK's, with no endpoint,
//! and with one that takes connections and never answers, in turns. Deliberately absent: endpoints that answer.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use event_router::sim::vk_server::{Settings, VkServer};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::latency::update;
use super::sink::{Sink, aside};
use super::{Size, median};

/// What is logged to the endpoint that hangs; the first is the contract's default, of the last each delivery is a record.
const LEVELS: [&str; 2] = ["info", "debug"];

pub(crate) async fn measure(disk: &Path, size: &Size) {
    let events = size.events / 10;
    println!();
    println!(
        "events a second from VK to a handler, {events} in all, the real binary, {} rounds; floor: no workstream log",
        size.rounds
    );
    println!("{:<34} {:>9} {:>9} {:>9}", "", "hangs", "none", "ratio");
    let hangs = aside("workstream").spawn(hanging()).await.expect("no panic");
    let mut rows = LEVELS.map(|level| (level, Vec::new(), Vec::new(), Vec::new()));
    for round in 0..=size.rounds {
        for (level, with, without, ratios) in &mut rows {
            let table = format!("[workstream_log]\nurl = \"{hangs}\"\nlevel = \"{level}\"\n");
            let (floor, ours) = match round % 2 {
                0 => (rate(disk, events, "").await, rate(disk, events, &table).await),
                _ => {
                    let ours = rate(disk, events, &table).await;
                    (rate(disk, events, "").await, ours)
                }
            };
            if round > 0 {
                with.push(ours);
                without.push(floor);
                ratios.push(ours / floor);
            }
        }
    }
    for (level, with, without, ratios) in &rows {
        let name = format!("an endpoint that hangs, level {level}");
        println!("{name:<34} {:>9.0} {:>9.0} {:>9.2}", median(with), median(without), median(ratios));
    }
}

/// Takes every connection and answers none.
async fn hanging() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/log", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(connection) = listener.accept().await {
            kept.push(connection);
        }
    });
    url
}

/// How many events a second get through, from the start of the binary on.
async fn rate(disk: &Path, events: u64, more: &str) -> f64 {
    let dir = tempfile::tempdir_in(disk).expect("a directory");
    let (side, sink) = (aside("vk"), Sink::start(false).await);
    let vk = side.spawn(VkServer::start(Settings::default())).await.expect("no panic").expect("a simulated VK");
    let config = format!(
        "{more}[vk]\ntoken = \"a-token\"\napi_url = {:?}\ngroup_id = {}\n[enrichment]\nenabled = false\n[admin]\nlisten = \"off\"\n[outbox]\ndir = {:?}\n[destinations.one]\nurl = {:?}\n",
        vk.url(),
        vk.group_id(),
        dir.path().join("data"),
        sink.url()
    );
    let file = dir.path().join("event-router.toml");
    std::fs::write(&file, config).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_event-router"));
    command.args(["run", "--config"]).arg(file).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let mut service = command.kill_on_drop(true).spawn().expect("started");
    // It begins at VK's present: what comes before its first poll would not be its own.
    vk.until(|vk| !vk.polls().is_empty()).await;
    let start = Instant::now();
    for _ in 0..events {
        vk.push(update(&vk));
    }
    sink.reaches(events).await;
    let took = start.elapsed().as_secs_f64();
    service.kill().await.expect("killed");
    events as f64 / took
}
