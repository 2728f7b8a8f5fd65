//! `outbox tail`: each attempt is a line, as it ends; who reads slowly holds nobody, and hears what it missed; it ends with the
//! service, and needs it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use event_router::admin::{AttemptLine, AttemptOutcome, TailLine};
use event_router::attempts::KEPT;
use event_router::outbox::views::Stats;
use event_router::sim::handler::Answer;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::rig::{Rig, view, within};

const FAST: &str = "[delivery]\ninitial_interval = \"20ms\"\nmax_interval = \"100ms\"";

/// A running `outbox tail`, whose first words were read: what is delivered from now on it tells.
struct Tail {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Tail {
    async fn start(rig: &Rig, words: &[&str]) -> Self {
        let words = [&["outbox", "tail"], words].concat();
        let mut child = rig.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let out = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut tail = Self { out, err: BufReader::new(child.stderr.take().expect("piped")).lines(), child };
        let first = tail.error().await;
        assert!(first.starts_with("following the deliveries of "), "{first}");
        tail
    }

    async fn line(&mut self) -> String {
        within("a line of tail", self.out.next_line()).await.expect("read").expect("a line")
    }

    async fn error(&mut self) -> String {
        within("a word of tail", self.err.next_line()).await.expect("read").expect("a line")
    }

    async fn attempts(&mut self, count: usize) -> Vec<AttemptLine> {
        let mut attempts = Vec::new();
        while attempts.len() < count {
            let line = self.line().await;
            match serde_json::from_str(&line).expect("a line of JSON") {
                TailLine::Attempt(attempt) => attempts.push(*attempt),
                TailLine::Missed { .. } => panic!("{line}"),
            }
        }
        attempts
    }

    fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Its exit code, and what it said last.
    async fn end(mut self) -> (Option<i32>, String) {
        let mut last = String::new();
        while let Some(line) = within("the end of tail", self.err.next_line()).await.expect("read") {
            last = line;
        }
        (within("the end of tail", self.child.wait()).await.expect("waited").code(), last)
    }
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs");
    kill_process(pid, signal).expect("sent");
}

/// What is the same in every run: seq, attempt, batch, outcome, status, error, excerpt, replay.
type Told<'l> = (u64, Option<u32>, Option<u64>, AttemptOutcome, Option<u16>, &'l str, &'l str, Option<u64>);

fn told(line: &AttemptLine) -> Told<'_> {
    let error = line.error.as_deref().unwrap_or_default();
    (line.seq, line.attempt, line.batch, line.outcome, line.status, error, &line.excerpt, line.replay)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_is_a_line_in_order_that_says_what_came_of_it() {
    let slow = "initial_interval = \"400ms\"\nmax_interval = \"500ms\"";
    let destinations = [("one", slow), ("many", "batch_max = 10"), ("young", "max_age = \"1s\"")];
    let mut rig = Rig::new(&destinations, "").await;
    rig.handler("one").answer(|received| {
        let says = |text: &str| received.body.windows(text.len()).any(|part| part == text.as_bytes());
        let header = |name: &str| received.headers.get(name).map(|value| value.to_str().unwrap_or_default());
        match (header("x-event-attempt"), header("x-event-replay")) {
            (Some("1"), _) if says("flaky") => Answer::Status(500, "oops"),
            (_, None) if says("bad") => Answer::Status(422, "no such\nchat"),
            _ => Answer::Status(200, ""),
        }
    });
    let service = rig.start().await;
    for name in ["many", "young"] {
        rig.json::<Value>(&["outbox", "pause", name]).await;
    }
    let mut one = Tail::start(&rig, &["--json", "--destination", "one"]).await;
    let mut many = Tail::start(&rig, &["--json", "--destination", "many"]).await;
    let mut failed = Tail::start(&rig, &["--failed", "--destination", "one"]).await;
    let mut young = Tail::start(&rig, &["--json", "--failed", "--destination", "young"]).await;
    let mut peer = Tail::start(&rig, &["--json", "--peer", "3", "--user", "100", "--type", "message_new"]).await;
    let _none = Tail::start(&rig, &["--json", "--peer", "3", "--user", "101"]).await;
    let all = ["one", "many", "young"];
    for (chat, text) in [(1, "fine"), (2, "flaky"), (3, "bad"), (4, "fine")] {
        rig.message(chat, text, &all);
        rig.until("it is settled", |stats| stats.log_next.cast_signed() > chat && view(stats, "one").pending == 0)
            .await;
    }
    let id = rig.served[2].event_id.clone();
    rig.json::<Value>(&["outbox", "replay", &id, "--yes"]).await;
    rig.until("the replay is done", |stats| stats.replays.is_empty() && view(stats, "one").delivered == 4).await;
    let too_old = |stats: &Stats| {
        view(stats, "young").oldest.is_some_and(|oldest| oldest.0.age(stats.at.0) > Duration::from_secs(1))
    };
    rig.until("the first event is too old", too_old).await;
    for name in ["many", "young"] {
        rig.json::<Value>(&["outbox", "resume", name]).await;
    }
    rig.until_settled().await;

    use AttemptOutcome::{Dead, Delivered, Expired, Failed};
    let refused = "the handler refused it with HTTP 422";
    let lines = one.attempts(6).await;
    let expected = [
        (1, Some(1), Some(1), Delivered, Some(200), "", "", None),
        (2, Some(1), Some(1), Failed, Some(500), "HTTP 500", "oops", None),
        (2, Some(2), Some(1), Delivered, Some(200), "", "", None),
        (3, Some(1), Some(1), Dead, Some(422), refused, "no such chat", None),
        (4, Some(1), Some(1), Delivered, Some(200), "", "", None),
        (3, Some(2), Some(1), Delivered, Some(200), "", "", Some(1)),
    ];
    assert_eq!(lines.iter().map(told).collect::<Vec<_>>(), expected);
    for line in &lines {
        assert_eq!((line.destination.as_str(), line.event_type.as_str()), ("one", "message_new"));
        assert_eq!((line.peer_id, line.user_id), (Some(line.seq.cast_signed()), Some(100)));
        assert_eq!(line.event_id, rig.served[usize::try_from(line.seq - 1).expect("small")].event_id);
        assert_eq!(line.next_try.is_some(), line.outcome == Failed);
        assert!(line.next_try.is_none_or(|next| next > line.at) && line.latency_ms.is_some());
    }
    let lines = many.attempts(4).await;
    let expected = [1, 2, 3, 4].map(|seq| (seq, Some(1), Some(4), Delivered, Some(200), "", "", None));
    assert_eq!(lines.iter().map(told).collect::<Vec<_>>(), expected);
    let lines = young.attempts(1).await;
    let old = "older than max_age, not sent";
    assert_eq!(told(&lines[0]), (1, None, None, Expired, None, old, "", None));
    let seqs: Vec<_> = peer.attempts(4).await.iter().map(|line| (line.destination.clone(), line.seq)).collect();
    assert!(seqs.iter().all(|(_, seq)| *seq == 3), "{seqs:?}");

    // For people, and only what did not succeed.
    let head = failed.line().await;
    assert_eq!(head.split_whitespace().collect::<Vec<_>>().join(" "), "TIME DESTINATION SEQ TYPE PEER TRY OUTCOME");
    let line = failed.line().await;
    assert!(line.contains("  message_new") && line.contains("failed: HTTP 500 \"oops\", next try in 0."), "{line}");
    let line = failed.line().await;
    assert!(line.ends_with("dead: the handler refused it with HTTP 422 \"no such chat\""), "{line}");
    // What follows from Ctrl-C is no failure, and the end of the service is none.
    failed.signal(Signal::INT);
    assert_eq!(failed.end().await.0, Some(0));
    service.stop().await;
    let ended = one.end().await;
    assert_eq!(ended, (Some(0), "the service has stopped: nothing more is delivered".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_is_a_line_for_each_of_its_events_and_then_for_each_alone() {
    let mut rig = Rig::new(&[("many", "batch_max = 10")], FAST).await;
    rig.handler("many").answer(|received| match received.event_id.ends_with("+1") {
        true => Answer::Status(200, ""),
        false => Answer::Status(422, "not all of them"),
    });
    let service = rig.start().await;
    rig.json::<Value>(&["outbox", "pause", "many"]).await;
    let mut tail = Tail::start(&rig, &["--json"]).await;
    for chat in 1..=3 {
        rig.message(chat, "x", &["many"]);
    }
    rig.until("they wait", |stats| view(stats, "many").pending == 3).await;
    rig.json::<Value>(&["outbox", "resume", "many"]).await;
    rig.until_settled().await;
    use AttemptOutcome::{Delivered, Failed};
    let lines = tail.attempts(6).await;
    let mut expected: Vec<Told<'_>> =
        [1, 2, 3].map(|seq| (seq, Some(1), Some(3), Failed, Some(422), "HTTP 422", "not all of them", None)).into();
    assert_eq!(lines[..3].iter().map(told).collect::<Vec<_>>(), expected);
    expected = [1, 2, 3].map(|seq| (seq, Some(2), Some(1), Delivered, Some(200), "", "", None)).into();
    let mut alone: Vec<_> = lines[3..].iter().map(told).collect();
    alone.sort_unstable_by_key(|told| told.0);
    assert_eq!(alone, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_given_up_is_told_as_dead_with_the_reason() {
    let mut rig = Rig::new(&[("all", "max_attempts = 2")], FAST).await;
    rig.handler("all").answer(|received| {
        let bad = received.body.windows(3).any(|text| text == b"bad");
        Answer::Status(if bad { 500 } else { 200 }, "")
    });
    let service = rig.start().await;
    let mut tail = Tail::start(&rig, &["--json", "--failed"]).await;
    rig.message(1, "bad", &["all"]);
    let mut lines = tail.attempts(1).await;
    while lines.last().is_some_and(|line| line.outcome == AttemptOutcome::Failed) {
        // Others are answered in between: so it is the event.
        let before = rig.handler("all").taken().len();
        for chat in 2..6 {
            rig.message(chat, "fine", &["all"]);
        }
        within(
            "the others",
            rig.handler("all").until(|all| all.iter().filter(|one| one.status == 200).count() >= before + 4),
        )
        .await;
        lines.extend(tail.attempts(1).await);
    }
    let last = lines.last().expect("a line");
    assert_eq!((last.seq, last.outcome, last.status), (1, AttemptOutcome::Dead, Some(500)));
    let error = last.error.as_deref().unwrap_or_default();
    assert!(error.starts_with("2 failures counted against it") && error.ends_with("the last: HTTP 500"), "{error}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_service_it_is_75_and_says_what_to_do_and_an_unknown_destination_is_named() {
    let rig = Rig::new(&[("all", "")], "").await;
    let none = |output: std::process::Output| {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(75), 0), "{words}");
        assert!(words.contains("no service runs on ") && words.contains("`event-router run`"), "{words}");
    };
    none(rig.run(&["outbox", "tail"]).await);
    assert!(!rig.data().exists(), "nothing was made");
    let service = rig.start().await;
    let output = rig.run(&["outbox", "tail", "--destination", "lal"]).await;
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("there is no destination \"lal\"; there are: all"), "{words}");
    service.stop().await;
    none(rig.run(&["outbox", "tail", "--json"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_with_the_service_does_not_hold_it_up_and_tells_a_kill_from_a_stop() {
    let rig = Rig::new(&[("all", "")], "").await;
    for (signal, code, words) in
        [(Signal::TERM, 0, "the service has stopped"), (Signal::KILL, 1, "event-router: the service broke off")]
    {
        let before = rig.vk.polls().len();
        let mut service = rig.spawn();
        within("the first poll", rig.vk.until(|vk| vk.polls().len() > before)).await;
        let tail = Tail::start(&rig, &["--json"]).await;
        let start = Instant::now();
        send(&service, signal);
        let status = within("the end", service.wait()).await.expect("waited");
        assert_eq!(status.success(), signal == Signal::TERM, "{status}");
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        let (exit, last) = tail.end().await;
        assert_eq!(exit, Some(code), "{last}");
        assert!(last.starts_with(words), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_left_ends_it() {
    let mut rig = Rig::new(&[("all", "")], "").await;
    let service = rig.start().await;
    let mut tail = Tail::start(&rig, &["--json"]).await;
    rig.message(1, "x", &["all"]);
    tail.line().await;
    drop(tail.out);
    rig.message(1, "y", &["all"]);
    let status = within("the end of tail", tail.child.wait()).await.expect("waited");
    assert!(status.success(), "{status}");
    service.stop().await;
}

/// One reader takes the head of the answer and nothing more, another is a process whose output nobody reads: deliveries go on,
/// the first hears how many it missed, the second ends by Ctrl-C all the same.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_holds_nobody_and_hears_how_many_it_missed() {
    // What the system and the server hold between the two sides comes on top.
    const EVENTS: usize = KEPT + 4096;
    let mut rig = Rig::new(&[("all", "batch_max = 100")], "").await;
    let service = rig.start().await;
    let mut socket = UnixStream::connect(rig.data().join("admin.sock")).await.expect("connected");
    socket.write_all(b"GET /api/v1/tail HTTP/1.1\r\nhost: service\r\n\r\n").await.expect("asked");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the answer", socket.read_u8()).await.expect("read"));
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    let deaf = Tail::start(&rig, &["--json"]).await;
    for n in 0..EVENTS {
        rig.message(i64::try_from(n % 500).expect("small"), "x", &["all"]);
    }
    rig.until_settled().await;
    assert_eq!(rig.assert_balanced().repeats, 0);

    let start = Instant::now();
    deaf.signal(Signal::INT);
    let Tail { mut child, out, err: _ } = deaf;
    let status = within("the end of tail", child.wait()).await.expect("waited");
    assert!(status.success() && start.elapsed() < Duration::from_secs(5), "{status} after {:?}", start.elapsed());
    drop(out);

    let (mut seen, mut missed) = (0, 0);
    let mut lines = BufReader::new(socket).lines();
    while seen + missed < EVENTS {
        let line = within("the rest", lines.next_line()).await.expect("read").expect("a line");
        // Between the pieces stand their lengths.
        if !line.starts_with('{') {
            continue;
        }
        match serde_json::from_str(&line).expect("a line of JSON") {
            TailLine::Attempt(_) => seen += 1,
            TailLine::Missed { missed: more } => missed += usize::try_from(more).expect("small"),
        }
    }
    assert_eq!(seen + missed, EVENTS, "every attempt is told or counted");
    assert!(missed > 0 && seen >= KEPT, "{seen} seen, {missed} missed");
    service.stop().await;
}
