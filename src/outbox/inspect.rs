//! Looking into the outbox: statistics and gaps. Reads what is durable, in pages, so it works alike for the
//! running service (which adds what it knows of the moment) and for a stopped one. Deliberately
//! absent: single events (`lookup`), changing anything.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::frame::{self, damaged, load};
use super::gaps;
use super::keys::{self, DestinationId};
use super::kv::{Kv, KvError};
use super::log;
use super::pauses::PauseView;
use super::records::{AsideRecord, Checkpoint, DestinationRecord, Head, Names, Space};
use super::replay;
use super::rows;
use super::space::Usage;
use super::views::{At, CheckpointView, DestinationState, DestinationView, Stats};
use crate::domain::time::Moment;

/// How much of the log is read at a time.
pub(super) const READ_BYTES: usize = 256 << 10;

/// How often a look is taken again because the store has changed meanwhile.
const READ_TRIES: usize = 50;

/// How many commits there were.
fn commits(kv: &dyn Kv) -> Result<u64, KvError> {
    Ok(load::<Space>(kv, keys::SPACE)?.unwrap_or_default().commits)
}

/// Takes a look at a store that somebody may be writing to: what it says is damaged while rows come and go is looked at
/// again; only what nobody has touched is believed to be.
///
/// # Errors
/// What the look answers.
pub fn steady<T>(kv: &dyn Kv, look: impl Fn(&dyn Kv) -> Result<T, KvError>) -> Result<T, KvError> {
    let mut tries = 0;
    loop {
        let before = commits(kv)?;
        let outcome = look(kv);
        tries += 1;
        match outcome {
            Err(KvError::Damaged(_)) if tries < READ_TRIES && commits(kv)? != before => {}
            outcome => return outcome,
        }
    }
}

/// The small records that every view needs.
pub(super) struct Books {
    pub(super) head: Head,
    pub(super) names: Names,
    pub(super) destinations: BTreeMap<DestinationId, (DestinationRecord, Cursor)>,
}

impl Books {
    /// All of one moment: a service that writes meanwhile is waited for a little.
    pub(super) fn read(kv: &dyn Kv) -> Result<Self, KvError> {
        let mut tries = 0;
        loop {
            let before = commits(kv)?;
            let books = Self::read_once(kv);
            tries += 1;
            if commits(kv)? == before || tries == READ_TRIES {
                return books;
            }
        }
    }

    fn read_once(kv: &dyn Kv) -> Result<Self, KvError> {
        let head = load(kv, keys::HEAD)?.unwrap_or_else(Head::fresh);
        let names: Names = load(kv, keys::NAMES)?.unwrap_or_default();
        let mut destinations = BTreeMap::new();
        for (id, _) in &names.names {
            let key = keys::destination(*id);
            let record: DestinationRecord =
                load(kv, &key)?.ok_or_else(|| damaged(&key, "a destination has a name and no cursor"))?;
            let cursor = Cursor::stored(*id, &record.cursor)?;
            destinations.insert(*id, (record, cursor));
        }
        Ok(Self { head, names, destinations })
    }
}

/// `outbox stats` of what is on disk. `configured` are the destinations of the configuration, if they are known: the others are
/// detached.
///
/// # Errors
/// When the store cannot be read.
pub fn stats(kv: &dyn Kv, dir: &str, configured: &[String], now: Moment) -> Result<Stats, KvError> {
    let books = Books::read(kv)?;
    let mut checkpoints = Vec::new();
    rows::pages(kv, b"c/", |key, value| {
        let record: Checkpoint = frame::parse(key, &frame::whole(kv, key, value)?)?;
        let group_id = keys::community(key).unwrap_or_default();
        checkpoints.push(CheckpointView { group_id, ts: record.ts.as_str().to_owned(), committed: At(record.at) });
        Ok(true)
    })?;
    let mut destinations = Vec::new();
    for (id, (record, cursor)) in &books.destinations {
        destinations.push(destination(kv, &books, *id, record, cursor, now)?);
    }
    destinations.sort_by(|a, b| a.name.cmp(&b.name));
    let gone = |name: &String| !configured.is_empty() && !configured.contains(name);
    for view in destinations.iter_mut().filter(|view| gone(&view.name)) {
        view.state = DestinationState::Detached;
        view.why = match view.pending {
            0 => "not configured any more; nothing waits".to_owned(),
            _ => "not configured any more; it goes on when its name comes back".to_owned(),
        };
    }
    let disk = kv.disk()?;
    let live = load::<Space>(kv, keys::SPACE)?.unwrap_or_default().weights;
    let usage = Usage { disk, live: live.sum() };
    Ok(Stats {
        at: At(now),
        live: false,
        dir: dir.to_owned(),
        polling: None,
        checkpoints,
        log_from: books.head.tail.0,
        log_next: books.head.next.0,
        disk_bytes: disk.file,
        live_bytes: live.sum(),
        used_bytes: usage.used(),
        room_bytes: disk.free,
        kept_bytes: live.dead + live.quarantined,
        max_bytes: None,
        full: None,
        unrouted: books.head.unrouted,
        repeats: books.head.repeats,
        quarantined: books.head.quarantined,
        gaps: books.head.next_gap - 1,
        last_gap: gaps::last(kv, books.head.next_gap - 1)?.map(At),
        replays: replay::under_way(kv, configured, now)?,
        destinations,
    })
}

fn destination(
    kv: &dyn Kv,
    books: &Books,
    id: DestinationId,
    record: &DestinationRecord,
    cursor: &Cursor,
    now: Moment,
) -> Result<DestinationView, KvError> {
    let routed = books.head.routed_to(id);
    let pending = record.pending(routed);
    let oldest = if pending == 0 { None } else { oldest(kv, books, id, cursor)? };
    let (error, since) = record.outage.as_ref().map(|outage| (outage.error.clone(), At(outage.since))).unzip();
    let pause = record.pause.as_ref().filter(|pause| pause.lasts(now)).map(PauseView::of);
    let why = match (&error, pending) {
        _ if let Some(pause) = &pause => format!("the service is stopped; {}", pause.words(now)),
        (Some(error), _) => format!("the service is stopped; the destination was down: {error}"),
        (None, 0) => "the service is stopped; nothing waits".to_owned(),
        (None, _) => "the service is stopped; delivery goes on at the next start".to_owned(),
    };
    Ok(DestinationView {
        name: books.names.name_of(id).to_owned(),
        state: DestinationState::Stopped,
        routed,
        pending,
        delivered: record.delivered,
        dead: record.dead,
        expired: record.expired,
        discarded: record.discarded,
        aside: record.aside,
        in_flight: 0,
        waiting_chats: 0,
        oldest: oldest.map(At),
        last_ok: record.last_ok.map(At),
        last_error: error,
        last_error_at: since,
        next_try: None,
        pause,
        why,
    })
}

/// When the oldest pending event was received: the one at the floor, or the first of a chat that was moved aside.
fn oldest(kv: &dyn Kv, books: &Books, id: DestinationId, cursor: &Cursor) -> Result<Option<Moment>, KvError> {
    let mut oldest = None;
    let mut seq = cursor.floor();
    // Between the horizon and the next event of ours lie others' events: a bounded look is enough for an age.
    'look: for chunk in log::read(kv, seq, books.head.next, READ_BYTES)? {
        for logged in &chunk.events {
            if logged.queued.seq >= seq && logged.destinations.contains(&id) && cursor.waits(logged.queued.seq) {
                oldest = Some(logged.queued.event.received_at);
                seq = logged.queued.seq;
                break 'look;
            }
        }
    }
    if let Some(first) = rows::aside_lanes(kv, id)?.into_iter().min_by_key(|lane| lane.first)
        && (first.first < seq || oldest.is_none())
    {
        let key = keys::aside(id, first.lane, first.first);
        if let Some(value) = kv.get(&key)? {
            let bytes = frame::whole(kv, &key, &value)?;
            let record: AsideRecord<'_> = frame::parse(&key, &bytes)?;
            oldest = Some(record.event.received_at);
        }
    }
    Ok(oldest)
}

/// The number of a destination, or words that name those there are.
///
/// # Errors
/// When the store cannot be read.
pub fn destination_id(kv: &dyn Kv, name: &str) -> Result<Result<DestinationId, String>, KvError> {
    let names: Names = load(kv, keys::NAMES)?.unwrap_or_default();
    Ok(names.id_of(name).ok_or_else(|| {
        let all: Vec<&str> = names.names.iter().map(|(_, name)| name.as_str()).collect();
        format!("there is no destination {name:?}; there are: {}", all.join(", "))
    }))
}
