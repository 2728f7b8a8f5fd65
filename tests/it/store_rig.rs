//! An outbox on disk with everything in it: events that wait, that were settled, that were moved aside, dead letters,
//! histories, quarantine, gaps, a replay; and what a reader finds in it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use event_router::clock::Clock;
use event_router::domain::delivery::Death;
use event_router::domain::event::{Event, Source};
use event_router::domain::ids::{DestinationName, EventId, GroupId, Seq, Ts};
use event_router::domain::time::Moment;
use event_router::outbox::filter::Filter;
use event_router::outbox::keys::DestinationId;
use event_router::outbox::kv::{Kv, Pair};
use event_router::outbox::records::{AttemptNote, AuditRecord, History, QuarantineRecord, ReplayOrder};
use event_router::outbox::space::Limits;
use event_router::outbox::{
    Append, Change, Cursor, Heard, Operation, Outbox, OutboxError, Place, Settings, Settlement, Store,
};

pub(crate) const NAMES: [&str; 3] = ["buttons", "commands", "messages"];
pub(crate) const NOW: Moment = Moment(1_790_000_000_000);
const GROUP: i64 = 77;

pub(crate) fn settings(dir: &Path) -> Settings {
    let limits = Limits { max_bytes: 8 << 30, min_free_bytes: 0 };
    Settings { dir: dir.to_owned(), retention: Duration::from_secs(3600), limits }
}

pub(crate) fn names() -> Vec<DestinationName> {
    NAMES.iter().map(|name| DestinationName::parse(name).expect("a name")).collect()
}

pub(crate) fn group() -> GroupId {
    GroupId::new(GROUP).expect("an id")
}

pub(crate) async fn open(dir: &Path) -> Result<Outbox, OutboxError> {
    Outbox::open(settings(dir), names(), "test", Duration::from_secs(5), Clock::standing(NOW)).await
}

pub(crate) fn event(number: u64, peer: i64, size: usize) -> Event {
    let id = format!("{number:040x}");
    Event {
        group: group(),
        event_type: "message_new".into(),
        user_id: Some(5),
        peer_id: Some(peer),
        received_at: NOW,
        body: Bytes::from(format!("{{\"ts\":1,\"event_id\":\"{id}\",\"text\":\"{}\"}}", "x".repeat(size))),
        event_id: EventId::parse(&id).expect("an id"),
    }
}

pub(crate) fn ts(number: u64) -> Ts {
    Ts::parse(&number.to_string()).expect("a ts")
}

pub(crate) fn append(number: u64, events: Vec<(Event, Source, Vec<u16>)>) -> Append {
    Append {
        group: group(),
        ts: ts(number),
        events,
        unrouted: 0,
        quarantined: Vec::new(),
        gap: None,
        heard: None,
        last_answer: None,
    }
}

pub(crate) fn history(attempts: u32) -> History {
    let note = AttemptNote { at: NOW, answer: "HTTP 503".into(), latency_ms: 12, excerpt: "busy".into() };
    History { attempts, counted: 0, since: NOW, next_try: Some(NOW), notes: vec![note] }
}

/// Reads everything that a destination has in the log from its cursor on.
pub(crate) async fn pending(outbox: &Outbox, name: &str) -> (u16, Cursor, Vec<event_router::domain::event::Queued>) {
    let id = outbox.destination(&DestinationName::parse(name).expect("a name")).expect("registered");
    let record = outbox.resume(id).await.expect("resumed").record;
    let mut cursor = Cursor::from_record(&record.cursor).expect("a cursor");
    let mut events = Vec::new();
    let head = *outbox.watch_head().borrow();
    while cursor.horizon() < head {
        let page = outbox.read(id, cursor.horizon(), head).await.expect("read");
        for event in page.events {
            cursor.met(event.seq);
            events.push(event);
        }
        cursor.looked(page.end);
    }
    (id, cursor, events)
}

pub(crate) fn settlement(destination: u16, cursor: &Cursor, changes: Vec<Change>) -> Settlement {
    Settlement { destination, cursor: cursor.clone(), changes, last_ok: Some(NOW), outage: None }
}

/// Destinations that nothing is for look at everything, and hold nothing.
pub(crate) async fn look_on(outbox: &Outbox, names: &[&str]) {
    for name in names {
        let (id, cursor, _) = pending(outbox, name).await;
        outbox.settle_durably(settlement(id, &cursor, Vec::new())).await.expect("settled");
    }
}

/// Fills `dir` with everything; `batches` answers of VK of 25 events each.
pub(crate) async fn fill(dir: &Path, batches: u64) {
    filled(dir, batches).await.close().await;
}

/// As [`fill`]; it is not closed yet.
pub(crate) async fn filled(dir: &Path, batches: u64) -> Outbox {
    let outbox = open(dir).await.expect("opened");
    let mut number = 0;
    for batch in 1..=batches {
        let mut events = Vec::new();
        for place in 0..25u64 {
            number += 1;
            let size =
                if place == 0 && batch % 8 == 0 { 60_000 } else { 300 + usize::try_from(place).expect("small") * 20 };
            let takers =
                [vec![0], vec![1], vec![2], vec![0, 1, 2]][usize::try_from(number % 4).expect("small")].clone();
            events.push((event(number, 2_000_000_000 + (number % 7).cast_signed(), size), Source::Live, takers));
        }
        let place_of = |(place, (event, ..)): (usize, &(Event, Source, Vec<u16>))| Heard {
            peer: event.peer_id.expect("a chat"),
            cmid: (batch * 25).cast_signed() + i64::try_from(place).expect("small"),
            event: Some(place),
        };
        let heard = events.iter().enumerate().map(place_of).collect();
        let mut append = append(100 + batch, events);
        append.unrouted = 3;
        append.heard = Some(heard);
        if batch % 5 == 1 {
            let raw = br#"{"type":"message_new","object":7}"#.to_vec();
            let event_id = format!("q{batch}");
            append.quarantined.push(QuarantineRecord {
                group: GROUP,
                at: NOW,
                reason: "no object".into(),
                event_id,
                raw,
            });
        }
        if batch == 2 {
            append.gap = Some((ts(1), "failed 1: history is outdated".to_owned()));
        }
        outbox.append(append).await.expect("committed");
    }
    // The first has delivered most, some died, some wait and were tried; the second is done; the third has chats aside.
    let (id, mut cursor, events) = pending(&outbox, NAMES[0]).await;
    let mut changes = Vec::new();
    for (place, queued) in events.into_iter().enumerate() {
        let seq = queued.seq;
        match place % 10 {
            0 => changes.push(Change::Tried { seq, history: history(2) }),
            1 => {
                cursor.settle(seq);
                let (at, death) = (NOW, Death::Refused(422));
                changes.push(Change::Died { event: queued, from: Place::Log, at, death, history: history(1) });
            }
            2..=7 => {
                cursor.settle(seq);
                changes.push(Change::Delivered { seq, from: Place::Log, tried: false });
            }
            _ => {}
        }
    }
    outbox.settle_durably(settlement(id, &cursor, changes)).await.expect("settled");
    let (id, mut cursor, events) = pending(&outbox, NAMES[1]).await;
    let deliver = |seq: Seq| Change::Delivered { seq, from: Place::Log, tried: false };
    events.iter().for_each(|queued| cursor.settle(queued.seq));
    let changes = events.iter().map(|queued| deliver(queued.seq)).collect();
    outbox.settle_durably(settlement(id, &cursor, changes)).await.expect("settled");
    let (id, mut cursor, events) = pending(&outbox, NAMES[2]).await;
    let changes = events.into_iter().map(|queued| {
        cursor.settle(queued.seq);
        match queued.event.peer_id {
            Some(2_000_000_001 | 2_000_000_002) => Change::MovedAside { event: queued },
            _ => deliver(queued.seq),
        }
    });
    let changes = changes.collect();
    outbox.settle_durably(settlement(id, &cursor, changes)).await.expect("settled");
    let (what, reason) = ("replay --destination a".to_owned(), Some("mended".to_owned()));
    let change = AuditRecord { at: NOW, what, reason, offline: false, changed: None, replays: Vec::new() };
    outbox.operate(vec![Operation::Replay(all_dead(0, 3)), Operation::Audit(change)]).await.expect("asked for");
    outbox
}

/// A replay of all that is dead at a destination.
pub(crate) fn all_dead(destination: DestinationId, matched: u64) -> ReplayOrder {
    ReplayOrder { destination, filter: Filter::default(), matched, expired: false, interval_us: 0 }
}

/// Every pair of a store.
pub(crate) fn contents(kv: &dyn Kv) -> Vec<Pair> {
    kv.scan(&[], &[u8::MAX], usize::MAX).expect("scanned")
}

/// Every pair of the store in a directory.
pub(crate) fn contents_of(dir: &Path) -> Vec<Pair> {
    contents(Store::open_existing(dir, "test", Duration::from_secs(5)).expect("opened").kv.as_ref())
}

/// A copy of a directory, without sockets.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("an entry");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_file() {
            fs::copy(&path, &target).expect("copied");
        }
    }
}
