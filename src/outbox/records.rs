//! What the records hold. The prose in [`super`] is the specification; the order of fields is the format. Deliberately
//! absent: where records live (`keys`) and how one becomes bytes (`frame`).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::keys::DestinationId;
use super::kv::Weights;
use crate::domain::delivery::Death;
use crate::domain::ids::{Lane, Seq, Ts, TsJump};
use crate::domain::time::Moment;

/// `m/head`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// First sequence number still in the log.
    pub tail: Seq,
    /// The next one to be given; the log is exactly `[tail, next)`.
    pub next: Seq,
    /// How many events were routed to each destination, ever.
    pub routed: Vec<(DestinationId, u64)>,
    /// How many events nobody took, ever.
    pub unrouted: u64,
    /// How many repeats were dropped, ever.
    pub repeats: u64,
    /// Number of the next gap record.
    pub next_gap: u64,
    /// Number of the next quarantined update.
    pub next_quarantined: u64,
    /// How many updates are in quarantine.
    pub quarantined: u64,
    /// Number of the next replay.
    pub next_replay: u64,
    /// Number of the next record of what operators change.
    pub next_audit: u64,
}

impl Head {
    /// The head of a new outbox: everything is numbered from 1.
    #[must_use]
    pub fn fresh() -> Self {
        let (tail, next) = (Seq(1), Seq(1));
        Self { tail, next, next_gap: 1, next_quarantined: 1, next_replay: 1, next_audit: 1, ..Self::default() }
    }

    /// How many events were routed to a destination, ever.
    #[must_use]
    pub fn routed_to(&self, id: DestinationId) -> u64 {
        self.routed.iter().find(|(other, _)| *other == id).map_or(0, |(_, count)| *count)
    }
}

/// `m/names`: numbers are given in order and never again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The number of the next new name.
    pub next: DestinationId,
    /// Every name that has a number.
    pub names: Vec<(DestinationId, String)>,
}

impl Names {
    /// The number of a name.
    #[must_use]
    pub fn id_of(&self, name: &str) -> Option<DestinationId> {
        self.names.iter().find(|(_, other)| other == name).map(|(id, _)| *id)
    }

    /// The name of a number.
    #[must_use]
    pub fn name_of(&self, id: DestinationId) -> &str {
        self.names.iter().find(|(other, _)| *other == id).map_or("?", |(_, name)| name)
    }
}

/// `m/space`, in every batch: what tells whether the store is as it was left, and how much of it is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// How many commits there were, this one included.
    pub commits: u64,
    /// How many bytes hold something.
    pub weights: Weights<u64>,
}

/// `m/ring`: pairs of a moment and the lowest floor seen then, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring(pub Vec<(Moment, Seq)>);

/// `c/<community>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The ts that VK is asked with next.
    pub ts: Ts,
    /// When it was committed.
    pub at: Moment,
    /// When VK last answered, give or take a minute.
    pub heard: Moment,
    /// The latest gap whose messages are to be fetched back; 0 is none.
    pub gap: u64,
}

/// An event inside a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord<'a> {
    /// Who takes it.
    pub destinations: Cow<'a, [DestinationId]>,
    /// When it was converted.
    pub received_at: Moment,
    /// The community.
    pub group: i64,
    /// The conversation.
    pub peer: Option<i64>,
    /// Who did it.
    pub user: Option<i64>,
    /// The contract's name of its type.
    pub event_type: &'a str,
    /// `webhook-id`.
    pub event_id: &'a str,
    /// 0: live. 1: fetched back after a gap.
    pub source: u8,
    /// The request body.
    #[serde(serialize_with = "whole_bytes")]
    pub body: &'a [u8],
}

/// The same bytes as serde's sequence of numbers, but at once.
fn whole_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// `e/<first>`: consecutive events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRecord<'a> {
    /// Sequence number of the first; the same as in the key.
    pub first: Seq,
    /// The events, `first`, `first + 1`, …
    #[serde(borrow)]
    pub events: Vec<EventRecord<'a>>,
}

/// `p/<destination>/<lane>/<seq>`: one event with its own sequence number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsideRecord<'a> {
    /// Its sequence number; the same as in the key.
    pub seq: Seq,
    /// The event.
    #[serde(borrow)]
    pub event: EventRecord<'a>,
}

/// `d/<destination>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationRecord {
    /// What of the log is settled.
    pub cursor: CursorRecord,
    /// Delivered, ever.
    pub delivered: u64,
    /// Dead now.
    pub dead: u64,
    /// Expired now.
    pub expired: u64,
    /// Discarded by an operator, ever.
    pub discarded: u64,
    /// Moved aside and still pending.
    pub aside: u64,
    /// The last answer that was a 2xx.
    pub last_ok: Option<Moment>,
    /// Since when the destination is down, and why.
    pub outage: Option<OutageRecord>,
    /// That an operator has paused it.
    pub pause: Option<PauseRecord>,
}

impl DestinationRecord {
    /// Routed to it and not settled yet.
    #[must_use]
    pub fn pending(&self, routed: u64) -> u64 {
        routed.saturating_sub(self.delivered + self.dead + self.expired + self.discarded)
    }
}

/// What of the log a destination has settled: everything below `horizon` but the listed runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorRecord {
    /// Everything at and above it has not been looked at.
    pub horizon: Seq,
    /// The first unsettled position, or the horizon.
    pub floor: Seq,
    /// From `floor` on, in turns: how many are unsettled, then how many are settled or not ours.
    pub runs: Vec<u32>,
}

/// A pause of a destination: nothing is sent to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRecord {
    /// When it began.
    pub since: Moment,
    /// When it ends by itself, if it does.
    pub until: Option<Moment>,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

impl PauseRecord {
    /// Whether it lasts still.
    #[must_use]
    pub fn lasts(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// An outage of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutageRecord {
    /// When it began.
    pub since: Moment,
    /// The failure that began it, in words.
    pub error: String,
}

/// `r/<destination>/<seq>`, and part of a dead letter: what was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How many attempts there were.
    pub attempts: u32,
    /// How many of them counted against the event.
    pub counted: u32,
    /// When the first one was.
    pub since: Moment,
    /// When the next one will be, as far as it was known.
    pub next_try: Option<Moment>,
    /// The latest ones, oldest first.
    pub notes: Vec<AttemptNote>,
}

/// One attempt, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptNote {
    /// When it was sent.
    pub at: Moment,
    /// Status or kind of error, in words.
    pub answer: String,
    /// How long the answer took, in milliseconds.
    pub latency_ms: u32,
    /// The first bytes of the answer's body.
    pub excerpt: String,
}

/// `x/<destination>/<seq>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadRecord<'a> {
    /// Its sequence number; the same as in the key.
    pub seq: Seq,
    /// When it died.
    pub at: Moment,
    /// Why.
    pub death: Death,
    /// What was tried.
    pub history: History,
    /// The last replay that was made before it died, or that tried it; 0 is none. Later ones may take it.
    pub replay: u64,
    /// The event, whole: its chunk may be gone.
    #[serde(borrow)]
    pub event: EventRecord<'a>,
}

/// `y/<destination>/<seq>`, as long as the event is in the log: why it was settled although nobody took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkRecord {
    /// When.
    pub at: Moment,
    /// The last replay that was made before; 0 is none. Later ones may take what has expired.
    pub replay: u64,
    /// Why.
    pub what: Mark,
}

/// Why an event was settled although nobody took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// An operator took it out.
    Discarded {
        /// What it was until then, in words.
        was: String,
    },
    /// It was older than `max_age` when it would have been sent.
    Expired,
}

/// `g/<number>`: what VK lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRecord {
    /// The community.
    pub group: i64,
    /// The ts that VK was asked with.
    pub from: Ts,
    /// The ts that it went on from.
    pub to: Ts,
    /// How far apart they are.
    pub jump: TsJump,
    /// When VK said so.
    pub at: Moment,
    /// When VK had last answered before, if ever.
    pub heard: Option<Moment>,
    /// What VK said, in words.
    pub cause: String,
    /// What was fetched back; nothing where that was off when the gap came about.
    pub backfill: Option<BackfillRecord>,
}

/// How it went with the messages that a gap has swallowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillRecord {
    /// Messages that were fetched back.
    pub recovered: u64,
    /// Messages that were known to be missing and that VK does not have any more.
    pub absent: u64,
    /// Chats of which VK told nothing, and its last words about it.
    pub refused: u64,
    /// VK's last refusal, in words.
    pub refusal: Option<String>,
    /// Chats that were left because there was too much to fetch.
    pub left: u64,
    /// Messages of types that the community has switched off: they would not have come live either.
    pub switched_off: u64,
    /// When it was over; nothing while it is not.
    pub finished: Option<Moment>,
}

/// `q/<number>`: an update that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// The community.
    pub group: i64,
    /// When it came.
    pub at: Moment,
    /// Why it could not be read.
    pub reason: String,
    /// An id made of it, as for an event without one.
    pub event_id: String,
    /// The update as it came.
    pub raw: Vec<u8>,
}

/// `j/<number>`: what an operator wants done again; kept for a while when it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRecord {
    /// What was asked for.
    pub order: ReplayOrder,
    /// When.
    pub at: Moment,
    /// Nothing at or above it is touched: the head when it was made.
    pub up_to: Seq,
    /// How many of its rows are delivered, or converted.
    pub succeeded: u64,
    /// How many were refused or given up once more, or cannot be read still.
    pub failed: u64,
    /// That it is over.
    pub ended: Option<Ended>,
}

/// What a replay is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayOrder {
    /// The destination, or [`super::keys::QUARANTINE`].
    pub destination: DestinationId,
    /// Which of its rows.
    pub filter: Filter,
    /// How many they were.
    pub matched: u64,
    /// Expired events are meant instead of dead letters.
    pub expired: bool,
    /// The least time between two first attempts, in microseconds; 0 where nothing holds it back.
    pub interval_us: u64,
}

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Moment,
    /// An operator ended it before all was done.
    pub cancelled: bool,
}

/// `a/<number>`: what an operator changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When it was asked for.
    pub at: Moment,
    /// What, as the words of a command.
    pub what: String,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// Whether the service was stopped at that time.
    pub offline: bool,
    /// How many rows or destinations it changed; nothing where it was not carried out to its end.
    pub changed: Option<u64>,
    /// The replays that it made.
    pub replays: Vec<u64>,
}

/// The lane of a stored event.
#[must_use]
pub fn lane_of(event: &EventRecord<'_>) -> Lane {
    use crate::domain::ids::LaneOf;
    let of = match (event.peer, event.user) {
        (Some(peer), _) => LaneOf::Peer(peer),
        (None, Some(user)) => LaneOf::User(user),
        (None, None) => LaneOf::Common,
    };
    Lane { group: event.group, of }
}
