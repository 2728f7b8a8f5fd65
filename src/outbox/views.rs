//! What people and programs see of the outbox: the shapes of `--json` and of the operator's API. Moments are RFC 3339.
//! Deliberately absent: how they are found (`inspect`) and drawn (`cli`).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::pauses::PauseView;
use super::replay::ReplayView;
use crate::domain::time::Moment;

/// A moment that shows itself as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub Moment);

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.rfc3339())
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Moment::parse_rfc3339(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// `outbox stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// When this was looked at.
    pub at: At,
    /// Whether the service answered, or the directory was read.
    pub live: bool,
    /// The directory.
    pub dir: String,
    /// How it goes with VK; only while the service runs.
    pub polling: Option<PollingView>,
    /// Where VK is asked from next, per community.
    pub checkpoints: Vec<CheckpointView>,
    /// First position in the log.
    pub log_from: u64,
    /// The position that the next event gets.
    pub log_next: u64,
    /// Bytes that the outbox's files take.
    pub disk_bytes: u64,
    /// Bytes that hold something.
    pub live_bytes: u64,
    /// Bytes in use, as `max_bytes` counts them: what the files hold beyond that is used again first.
    pub used_bytes: u64,
    /// Bytes that can still be written before polling stops for want of room; while the service is stopped, what the volume has free.
    pub room_bytes: u64,
    /// Bytes of dead letters and of updates in quarantine: they stay until somebody replays or discards them.
    pub kept_bytes: u64,
    /// `outbox.max_bytes`; only while the service runs.
    pub max_bytes: Option<u64>,
    /// Why polling has stopped for want of room, if it has; only while the service runs.
    pub full: Option<FullView>,
    /// Events that no destination takes, ever.
    pub unrouted: u64,
    /// Repeats that were dropped, ever.
    pub repeats: u64,
    /// Updates in quarantine.
    pub quarantined: u64,
    /// Gap records.
    pub gaps: u64,
    /// When VK last said that it had lost events.
    pub last_gap: Option<At>,
    /// Replays that are not done.
    pub replays: Vec<ReplayView>,
    /// Every destination that has a cursor.
    pub destinations: Vec<DestinationView>,
}

/// Why polling has stopped for want of room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FullView {
    /// In a sentence, with what to do.
    pub why: String,
    /// Since when.
    pub since: At,
    /// When VK may begin to forget what was not taken since: nobody documents it, this is the shortest that may be hoped for.
    pub vk_may_forget_from: At,
}

/// How it goes with VK.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PollingView {
    /// When VK last gave an answer that could be used.
    pub heard: Option<At>,
    /// What is in the way.
    pub problem: Option<String>,
    /// Since when.
    pub since: Option<At>,
    /// When it is tried again.
    pub next_try: Option<At>,
}

/// Where VK is asked from next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckpointView {
    /// The community.
    pub group_id: i64,
    /// The ts.
    pub ts: String,
    /// When it was committed.
    pub committed: At,
}

/// A destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DestinationView {
    /// Its name.
    pub name: String,
    /// In one word.
    pub state: DestinationState,
    /// Routed to it, ever; always pending + delivered + dead + expired + discarded.
    pub routed: u64,
    /// Not settled yet.
    pub pending: u64,
    /// Taken by the handler.
    pub delivered: u64,
    /// Refused, or given up.
    pub dead: u64,
    /// Too old when they would have been sent.
    pub expired: u64,
    /// Taken out by an operator.
    pub discarded: u64,
    /// Pending ones of blocked chats that were moved aside.
    pub aside: u64,
    /// Requests in flight; only while the service runs.
    pub in_flight: u64,
    /// Chats that wait for their retry; only while the service runs.
    pub waiting_chats: u64,
    /// When the oldest pending event was received.
    pub oldest: Option<At>,
    /// The last 2xx.
    pub last_ok: Option<At>,
    /// The last failure.
    pub last_error: Option<String>,
    /// When it was, or since when the destination is down.
    pub last_error_at: Option<At>,
    /// When something is tried next.
    pub next_try: Option<At>,
    /// The pause that it is in.
    pub pause: Option<PauseView>,
    /// The state in a sentence.
    pub why: String,
}

/// What state a destination is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationState {
    /// Nothing waits.
    Idle,
    /// Events go out.
    Flowing,
    /// Some chats wait for a retry, others go on.
    Retrying,
    /// The handler asked for a pause.
    Held,
    /// One request at a time until it answers.
    Down,
    /// Paused by an operator.
    Paused,
    /// Not in the configuration any more.
    Detached,
    /// The service does not run.
    Stopped,
}

/// A row of `outbox list`: an event, or an update in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Position in the outbox; null for what is in quarantine.
    pub seq: Option<u64>,
    /// Its number in quarantine.
    pub quarantine: Option<u64>,
    /// `webhook-id`.
    pub event_id: String,
    /// Its type; null for what is in quarantine.
    pub event_type: Option<String>,
    /// The conversation.
    pub peer_id: Option<i64>,
    /// Who did it.
    pub user_id: Option<i64>,
    /// When it was received.
    pub received: At,
    /// Why it is in quarantine.
    pub reason: Option<String>,
    /// How it goes with each destination that takes it.
    pub deliveries: Vec<DeliveryView>,
    /// The request body, or the update as it came; only in an export.
    #[serde(skip)]
    pub content: Option<Vec<u8>>,
}

/// A page of `outbox export`: each line is JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Exported {
    /// The lines.
    pub lines: Vec<Box<serde_json::value::RawValue>>,
    /// From which position, or number in quarantine, the next page goes on; nothing when this was the last.
    pub next: Option<u64>,
}

/// How it goes with an event at a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// The destination.
    pub destination: String,
    /// In one word.
    pub state: DeliveryState,
    /// Why it is dead.
    pub reason: Option<String>,
    /// Attempts that failed.
    pub attempts: u32,
    /// When it is tried next, as far as it is known.
    pub next_try: Option<At>,
    /// How it goes with the destination that it waits for; only in `outbox show`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The latest attempts that failed; only in `outbox show`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AttemptView>,
}

/// What state a delivery is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not settled yet.
    Pending,
    /// Taken by the handler.
    Delivered,
    /// Refused, or given up.
    Dead,
    /// Too old when it would have been sent.
    Expired,
    /// Taken out by an operator.
    Discarded,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// When it was sent.
    pub at: At,
    /// Status or kind of error.
    pub answer: String,
    /// How long the answer took, in milliseconds.
    pub latency_ms: u32,
    /// The first bytes of the answer's body.
    pub excerpt: String,
}

/// `outbox show`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// The event, or the update in quarantine.
    #[serde(flatten)]
    pub row: Row,
    /// The request body, exactly; null for what is in quarantine.
    pub body: Option<Box<serde_json::value::RawValue>>,
    /// The update as it came (invalid UTF-8 shown as U+FFFD); null for an event.
    pub raw: Option<String>,
}

/// What `outbox list` looks for; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// Deliveries to this destination only.
    pub destination: Option<String>,
    /// In this state.
    pub state: Option<ListState>,
    /// Of this type.
    pub event_type: Option<String>,
    /// In this conversation.
    pub peer: Option<i64>,
    /// By this user.
    pub user: Option<i64>,
    /// Received no earlier (milliseconds since the epoch).
    pub since_ms: Option<i64>,
    /// Received no later (milliseconds since the epoch).
    pub until_ms: Option<i64>,
    /// From this position on.
    pub from_seq: Option<u64>,
    /// Up to and with this position.
    pub to_seq: Option<u64>,
    /// What was dead, expired or in quarantine for this cause, in the words that groups have.
    pub cause: Option<String>,
    /// At most so many rows.
    pub limit: Option<u64>,
}

impl Selector {
    /// As the words of a command line, each after a space; the limit is no part of it.
    #[must_use]
    pub fn words(&self) -> String {
        let seq = |seq: Option<u64>| seq.map_or_else(String::new, |seq| seq.to_string());
        let moment = |ms: i64| Moment(ms).rfc3339();
        let range = (self.from_seq.is_some() || self.to_seq.is_some())
            .then(|| format!("{}..{}", seq(self.from_seq), seq(self.to_seq)));
        let words = [
            ("destination", self.destination.clone()),
            ("state", self.state.map(|state| state.word().to_owned())),
            ("type", self.event_type.clone()),
            ("peer", self.peer.map(|peer| peer.to_string())),
            ("user", self.user.map(|user| user.to_string())),
            ("since", self.since_ms.map(moment)),
            ("until", self.until_ms.map(moment)),
            ("seq", range),
            ("cause", self.cause.as_ref().map(|cause| format!("{cause:?}"))),
        ];
        words.into_iter().filter_map(|(name, word)| Some(format!(" --{name} {}", word?))).collect()
    }
}

/// A state that can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListState {
    /// Not settled yet.
    Pending,
    /// Taken by the handler.
    Delivered,
    /// Refused, or given up.
    Dead,
    /// Too old when it would have been sent.
    Expired,
    /// Taken out by an operator.
    Discarded,
    /// Could not be read.
    Quarantined,
}

impl ListState {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Discarded => "discarded",
            Self::Quarantined => "quarantined",
        }
    }
}
