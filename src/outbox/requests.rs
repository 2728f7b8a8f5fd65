//! What the writer is asked for: an answer of VK to be appended, messages that were fetched back, a worker's answers to be
//! settled. Deliberately absent:
//! what a request does (`state`).

use tokio::sync::oneshot;

use super::cursor::Cursor;
use super::keys::DestinationId;
use super::records::{AuditRecord, History, OutageRecord, PauseRecord, QuarantineRecord, ReplayOrder};
use crate::domain::delivery::Death;
use crate::domain::event::{Event, Queued, Source};
use crate::domain::ids::{GroupId, Lane, Seq, Ts};
use crate::domain::time::Moment;

/// What one answer of VK brings: all of it in one commit, with the ts that covers it.
#[derive(Clone, Debug)]
pub struct Append {
    /// The community.
    pub group: GroupId,
    /// The ts that VK is asked with next.
    pub ts: Ts,
    /// The events that somebody takes, in VK's order.
    pub events: Vec<(Event, Source, Vec<DestinationId>)>,
    /// How many nobody takes.
    pub unrouted: u64,
    /// Updates that could not be read.
    pub quarantined: Vec<QuarantineRecord>,
    /// What VK says it lost: the ts that was asked with, and VK's words.
    pub gap: Option<(Ts, String)>,
    /// Where the answer's new messages stand in their chats, in VK's order, whoever takes them; nothing unless messages that
    /// gaps swallow are fetched back.
    pub heard: Option<Vec<Heard>>,
    /// With a gap: when VK last answered before it, as far as this process knows; the checkpoint notes it only now and then.
    pub last_answer: Option<Moment>,
}

/// A new message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The conversation.
    pub peer: i64,
    /// Its number in it.
    pub cmid: i64,
    /// Its place among the answer's events, when somebody takes it.
    pub event: Option<usize>,
}

/// What became of messages that a gap has swallowed.
#[derive(Clone, Debug)]
pub enum Filled {
    /// Some of a chat were asked for, or it was given up.
    Chat {
        /// The community.
        group: GroupId,
        /// The conversation.
        peer: i64,
        /// The gap that they are counted for.
        gap: u64,
        /// The latest gap that was known when VK was asked.
        up_to: u64,
        /// What came of it.
        turn: Turned,
    },
    /// Every chat has had its turn: these gaps are done with.
    Over {
        /// Their numbers.
        gaps: Vec<u64>,
        /// Chats that had no turn, because there was too much to fetch.
        left: u64,
    },
    /// Nothing is fetched back any more: where messages stand is forgotten, a bounded bit of it at a time.
    Off(GroupId),
}

/// What came of a turn of a chat.
#[derive(Clone, Debug)]
pub enum Turned {
    /// VK was asked for messages and had these, in order.
    Asked {
        /// The first cmid.
        from: i64,
        /// The last cmid.
        to: i64,
        /// What VK had.
        messages: Vec<Fetched>,
        /// What of it has no number: nobody can tell which message it is.
        nameless: Vec<QuarantineRecord>,
    },
    /// VK tells nothing of this chat, in its words.
    Refused(String),
    /// There is too much to fetch.
    Left,
}

/// A message that was fetched back.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its number in its chat.
    pub cmid: i64,
    /// What it became.
    pub became: FetchedAs,
}

/// What became of a message that was fetched back.
#[derive(Clone, Debug)]
pub enum FetchedAs {
    /// An event and who takes it; nobody may.
    Event(Event, Vec<DestinationId>),
    /// It could not be read.
    Unreadable(QuarantineRecord),
    /// It would not have come live either: the community has its type switched off.
    SwitchedOff,
}

/// What became of updates in quarantine that were converted again: in one commit they leave it and join the log.
#[derive(Clone, Debug)]
pub struct Reconverted {
    /// Their numbers, and what they are now and where they came from; who takes it may be nobody.
    pub events: Vec<(u64, Event, Source, Vec<DestinationId>)>,
    /// Those that still cannot be read, and why.
    pub unreadable: Vec<(u64, String)>,
    /// The replay that asked for it.
    pub replay: u64,
    /// From which number on it goes on; nothing when this was all of it.
    pub next: Option<u64>,
}

/// What an operator changes.
#[derive(Clone, Debug)]
pub enum Operation {
    /// What the operations before it in the same request have changed is written down, or what is about to be; the answer is
    /// the record's number.
    Audit(AuditRecord),
    /// What was written down under this number has changed so many rows or destinations.
    Audited(u64, u64),
    /// Rows are delivered, or converted, again; the answer is the replay's number.
    Replay(ReplayOrder),
    /// A replay ends before all of it is done.
    CancelReplay(u64),
    /// Nothing is sent to a destination until it ends.
    Pause(DestinationId, PauseRecord),
    /// What is pending goes out again.
    Resume(DestinationId),
    /// Updates leave quarantine for good, by their numbers.
    DiscardQuarantined(Vec<u64>),
    /// Dead letters and expired events of a destination go for good.
    DiscardDead(DestinationId, Vec<Seq>),
    /// A pending event of a destination that has no worker goes for good.
    DiscardPending(DestinationId, Seq),
    /// A bounded bit of what is pending for a destination that has no worker goes for good.
    DiscardDetached(DestinationId),
}

/// A worker is asked to take a pending event out; it answers when that is durable, or in words why not.
#[derive(Debug)]
pub struct Discard {
    /// Which.
    pub seq: Seq,
    /// Where it answers.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// What an append did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Events that are now in the log.
    pub appended: u64,
    /// Repeats that were dropped.
    pub repeats: u64,
}

/// What a worker settled since it last said so.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The destination.
    pub destination: DestinationId,
    /// Its cursor after all that.
    pub cursor: Cursor,
    /// What happened, in order.
    pub changes: Vec<Change>,
    /// The last 2xx, if there ever was one.
    pub last_ok: Option<Moment>,
    /// The outage it is in.
    pub outage: Option<OutageRecord>,
}

/// Where a pending event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the log.
    Log,
    /// Moved aside.
    Aside(Lane),
}

/// One thing that happened to an event at a destination.
#[derive(Clone, Debug)]
pub enum Change {
    /// The handler took it.
    Delivered {
        /// Which.
        seq: Seq,
        /// From where.
        from: Place,
        /// Whether attempts of it were stored.
        tried: bool,
    },
    /// It will not be sent again.
    Died {
        /// Which.
        event: Queued,
        /// From where.
        from: Place,
        /// When.
        at: Moment,
        /// Why.
        death: Death,
        /// What was tried.
        history: History,
    },
    /// It failed and waits.
    Tried {
        /// Which.
        seq: Seq,
        /// What was tried.
        history: History,
    },
    /// Its chat blocks: it goes from the log to the side.
    MovedAside {
        /// Which.
        event: Queued,
    },
    /// It was too old when it would have been sent.
    Expired {
        /// Which.
        event: Queued,
        /// From where.
        from: Place,
        /// When.
        at: Moment,
    },
    /// An operator took it out.
    Discarded {
        /// Which.
        seq: Seq,
        /// From where.
        from: Place,
        /// When.
        at: Moment,
    },
    /// A dead letter was taken after all.
    ReplayDelivered {
        /// Which.
        seq: Seq,
        /// By which replay.
        replay: u64,
    },
    /// A dead letter was refused again.
    ReplayRefused {
        /// Which.
        seq: Seq,
        /// By which replay.
        replay: u64,
        /// When.
        at: Moment,
        /// Why.
        death: Death,
        /// What was tried.
        history: History,
    },
    /// A replay has nothing left to do.
    ReplayDone {
        /// Which.
        replay: u64,
        /// When.
        at: Moment,
    },
}
