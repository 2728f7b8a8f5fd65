//! `demo`: the real service as a child process between a simulated VK and three handlers, with an outage, refusals, an
//! expired key, broken answers and a SIGKILL. It ends with its books and exits with 0 only if they balance.
//!
//! Deliberately absent: any shortcut into the service. It is pointed at simulators by its configuration, like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::access::{Access, Live};
use super::demo_picture::Picture;
use super::exit::{Exit, Failure, say};
use super::stats;
use crate::outbox::lookup;
use crate::outbox::views::{ListState, Row, Selector, Stats};
use crate::sim::books::{Served, Taken, balance};
use crate::sim::handler::{Answer, Handler};
use crate::sim::script::Script;
use crate::sim::vk_server::{Fault, Settings, VkServer};

/// Updates in each of three waves.
const WAVE: usize = 1200;
/// Chats that they come from.
const CHATS: u32 = 40;
/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the handler stays away.
const OUTAGE: Duration = Duration::from_secs(5);
/// How often the service is asked how it goes.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The destinations, and what they take.
const DESTINATIONS: [(&str, &str); 3] =
    [("commands", "command_call"), ("messages", "message_new"), ("buttons", "button_pressed")];

pub(super) async fn run(seed: Option<u64>, stop: CancellationToken) -> Result<Exit, Failure> {
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    tokio::select! {
        () = stop.cancelled() => Err(Failure::new("stopped before the end")),
        result = play(seed) => result,
    }
}

async fn play(seed: u64) -> Result<Exit, Failure> {
    let start = Instant::now();
    say(&format!("  0.0s  seed {seed}; repeat this run with: event-router demo --seed {seed}\n"))?;
    let mut stage = Stage::set(seed).await?;
    let picture = stage.picture.clone();
    let say = |words: &str| tell(&picture, &format!("{:5.1}s  {words}", start.elapsed().as_secs_f64()));
    say(&format!("a simulated VK at {} and three handlers listen on this machine", stage.vk.url()));
    stage.start_service()?;
    stage.until_polled().await?;
    say("the service runs as a process of its own and polls");

    stage.wave();
    stage.until_settled(&[]).await?;
    say(&format!(
        "{WAVE} updates sent; everything is delivered or refused; the key expires, and VK answers with a 502"
    ));
    stage.vk.expire_key();
    stage.vk.inject(Fault::Html502);
    stage.vk.inject(Fault::Cut);

    stage.handler("messages").down();
    stage.wave();
    stage.until_settled(&["messages"]).await?;
    say(&format!("the handler of messages is stopped; {WAVE} updates sent; the other two go on:"));
    stage.watch(OUTAGE).await?;
    tell(&picture, &format!("\n{}", stats::render(&stage.stats().await?)));

    stage.wave();
    stage.until_read_half_of_a_wave().await?;
    stage.kill_service().await?;
    say("SIGKILL in the middle of another wave, with the handler still away");
    stage.start_service()?;
    say("the service is started again on the same directory");
    stage.handler("messages").up().await?;
    say("the handler of messages is back");
    stage.until_settled(&[]).await?;
    say("everything that waited has been delivered:");
    tell(&picture, &format!("\n{}", stats::render(&stage.stats().await?)));
    lock(&picture).clear();

    stage.stop_service().await?;
    say("SIGTERM; the service has ended with 0; the books:");
    let balanced = stage.books().await?;
    say(if balanced { "the books balance" } else { "the books DO NOT balance" });
    Ok(if balanced { Exit::Done } else { Exit::Failed })
}

fn tell(picture: &Mutex<Picture>, words: &str) {
    lock(picture).say(words);
}

fn lock(picture: &Mutex<Picture>) -> MutexGuard<'_, Picture> {
    picture.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The simulators, the directory, the service.
struct Stage {
    dir: TempDir,
    vk: VkServer,
    handlers: BTreeMap<&'static str, Handler>,
    script: Script,
    served: Vec<Served>,
    malformed: u64,
    service: Option<Child>,
    picture: Arc<Mutex<Picture>>,
}

impl Stage {
    async fn set(seed: u64) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("event-router-demo-").tempdir()?;
        let vk = VkServer::start(Settings { seed, ..Settings::default() }).await?;
        let mut config = format!(
            "[vk]\napi_url = \"{}\"\ngroup_id = {}\nwait = \"5s\"\n[admin]\nlisten = \"off\"\n[outbox]\ndir = {:?}\n[delivery]\nmax_interval = \"2s\"\n[log]\nlevel = \"debug\"\n",
            vk.url(),
            vk.group_id(),
            dir.path().join("data"),
        );
        let mut handlers = BTreeMap::new();
        for (name, event_type) in DESTINATIONS {
            let handler = Handler::start().await?;
            config += &format!(
                "[destinations.{name}]\nurl = {:?}\nwhen = [{{ event_type = [{event_type:?}] }}]\n",
                handler.url()
            );
            handlers.insert(name, handler);
        }
        fs::write(dir.path().join("event-router.toml"), config)?;
        if let Some(handler) = handlers.get("commands") {
            // A handler that does not know what to do with a bare slash.
            handler.answer(|received| match received.body.windows(11).any(|text| text == b"\"text\":\"/\",") {
                true => Answer::Status(422, "no such command"),
                false => Answer::Status(200, "ok"),
            });
        }
        let script = Script::new(seed, vk.group_id(), CHATS);
        let picture = Arc::new(Mutex::new(Picture::new(vk.head(), 3 * WAVE as u64)));
        Ok(Self { dir, vk, handlers, script, served: Vec::new(), malformed: 0, service: None, picture })
    }

    fn handler(&self, name: &str) -> &Handler {
        self.handlers.get(name).expect("invariant: the stage has this handler")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn start_service(&mut self) -> Result<(), Failure> {
        let log = File::options().append(true).create(true).open(self.dir.path().join("service.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        let ours =
            std::env::vars_os().map(|(key, _)| key).filter(|key| key.to_string_lossy().starts_with("EVENT_ROUTER"));
        for key in ours {
            command.env_remove(key);
        }
        for bare in ["TOKEN_FILE", "GROUPID"] {
            command.env_remove(bare);
        }
        command.arg("run").arg("--config").arg(self.dir.path().join("event-router.toml")).env("TOKEN", "demo");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log)).kill_on_drop(true);
        self.service = Some(command.spawn()?);
        Ok(())
    }

    /// Gives VK the next updates.
    fn wave(&mut self) {
        for _ in 0..WAVE {
            let invented = self.script.invent();
            self.vk.push(invented.update);
            match invented.served {
                Some(served) => self.served.push(served),
                None => self.malformed += 1,
            }
        }
        lock(&self.picture).sent(self.vk.head());
    }

    async fn until_polled(&self) -> Result<(), Failure> {
        let polled = self.vk.until(|vk| !vk.polls().is_empty());
        timeout(PATIENCE, polled).await.map_err(|_| self.stuck("the service does not poll"))
    }

    async fn until_read_half_of_a_wave(&self) -> Result<(), Failure> {
        let goal = self.vk.head() - WAVE as u64 / 2;
        let read = self.vk.until(|vk| vk.polls().last().is_some_and(|ts| *ts >= goal));
        timeout(PATIENCE, read).await.map_err(|_| self.stuck("the service does not read on"))
    }

    /// Waits until VK's newest ts is committed and nothing is pending but at the destinations named.
    async fn until_settled(&self, away: &[&str]) -> Result<(), Failure> {
        let head = self.vk.head().to_string();
        let settled = async {
            loop {
                let stats = self.look().await?;
                let read = stats.checkpoints.iter().any(|checkpoint| checkpoint.ts == head);
                let mut others = stats.destinations.iter().filter(|view| !away.contains(&view.name.as_str()));
                if read && others.all(|view| view.pending == 0) {
                    return Ok(());
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, settled).await.map_err(|_| self.stuck("something is not delivered"))?
    }

    /// Looks on for a while.
    async fn watch(&self, span: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        while start.elapsed() < span {
            self.look().await?;
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// How it goes, drawn as well.
    async fn look(&self) -> Result<Stats, Failure> {
        let stats = self.stats().await?;
        lock(&self.picture).look(self.vk.head(), &stats);
        Ok(stats)
    }

    fn stuck(&self, words: &str) -> Failure {
        lock(&self.picture).clear();
        let log = fs::read_to_string(self.dir.path().join("service.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
        Failure::new(format!("{words} within {} s; the end of its log:\n{last}", PATIENCE.as_secs()))
    }

    async fn stats(&self) -> Result<Stats, Failure> {
        loop {
            if let Some(live) = Live::knock(&self.data()).await? {
                return live.get("/api/v1/stats", &()).await;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn kill_service(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.service.take() {
            child.kill().await?;
            lock(&self.picture).stopped();
        }
        Ok(())
    }

    async fn stop_service(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.service.take() else { return Ok(()) };
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| Failure::new("the service has ended before it was stopped"))?;
        kill_process(pid, Signal::TERM).map_err(|error| Failure::new(error.to_string()))?;
        let status = timeout(PATIENCE, child.wait()).await.map_err(|_| self.stuck("the service does not stop"))??;
        if status.success() { Ok(()) } else { Err(self.stuck(&format!("the service ended with {status}"))) }
    }

    /// What VK gave, against what came of it.
    async fn books(&self) -> Result<bool, Failure> {
        let Access::Offline(look) = Access::to_look(&self.data()).await? else {
            return Err(Failure::new("the service still runs"));
        };
        let list = |state| {
            let selector = Selector { state: Some(state), limit: Some(lookup::MAX_LIMIT), ..Selector::default() };
            look.at(|kv| lookup::list(kv, &selector))
        };
        let dead: BTreeSet<(String, String)> = list(ListState::Dead)?.iter().flat_map(dead_deliveries).collect();
        let quarantined = list(ListState::Quarantined)?.len() as u64;
        let take = |handler: &Handler| {
            let fine = handler.received().into_iter().filter(|one| (200..300).contains(&one.status));
            fine.map(|one| Taken { event_id: one.event_id, body: one.body.to_vec() }).collect()
        };
        let taken = self.handlers.iter().map(|(name, handler)| ((*name).to_owned(), take(handler))).collect();
        let balance = balance(&self.served, &taken, &dead);
        let sent = self.served.len() as u64 + self.malformed;
        let unrouted = self.served.iter().filter(|one| one.destinations.is_empty()).count();
        say(&format!(
            "\n  updates sent {sent} = routed {} + taken by nobody {unrouted} + in quarantine {quarantined}",
            self.served.len() - unrouted
        ))?;
        say(&format!(
            "\n  {balance}\n  {}\n\n",
            if balance.balanced() {
                "order kept in every chat of every destination"
            } else {
                "see above for what is wrong"
            }
        ))?;
        Ok(balance.balanced() && quarantined == self.malformed)
    }
}

fn dead_deliveries(row: &Row) -> Vec<(String, String)> {
    row.deliveries.iter().map(|delivery| (delivery.destination.clone(), row.event_id.clone())).collect()
}
