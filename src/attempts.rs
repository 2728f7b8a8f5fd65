//! Every attempt as it ends, told to whoever follows at that moment. A follower that is too slow misses some, and hears how
//! many; nobody waits for it. While nobody follows, nothing is made and nothing is kept.
//! Deliberately absent: bodies, secrets, history (it rides in the outbox), and how it looks (`admin::tail`).

use std::borrow::Cow;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::domain::ids::{DestinationName, EventId, Seq};
use crate::domain::time::Moment;

/// How many attempts wait for the slowest follower; what is older it misses. A record takes about 1 KB at most.
pub const KEPT: usize = 4096;

/// The way from the workers to those who follow; clones are the same.
#[derive(Clone, Debug)]
pub struct Attempts(broadcast::Sender<Arc<Attempted>>);

/// An attempt that is over; or an event that was too old to be attempted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// When it was sent; of what was not sent, when that was decided.
    pub at: Moment,
    /// Where to.
    pub destination: DestinationName,
    /// The event's position in the outbox.
    pub seq: Seq,
    /// `webhook-id` of the event.
    pub event_id: EventId,
    /// Its type.
    pub event_type: Cow<'static, str>,
    /// The conversation it happened in.
    pub peer_id: Option<i64>,
    /// Who did it.
    pub user_id: Option<i64>,
    /// The replay it belongs to; 0 is none.
    pub replay: u64,
    /// How it was sent; nothing when it was not.
    pub sent: Option<Sent>,
    /// What it came to.
    pub ending: Ending,
}

/// How an event was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// How many events went in the same request, this one included.
    pub batch: usize,
    /// How long the answer took, in milliseconds.
    pub latency_ms: u32,
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The handler has it.
    Delivered {
        /// The status of the answer.
        status: u16,
    },
    /// It is sent again.
    Failed {
        /// The status, when there was an answer.
        status: Option<u16>,
        /// What happened, in words.
        error: String,
        /// The first bytes of the answer's body.
        excerpt: String,
        /// When, as far as it is known.
        next_try: Option<Moment>,
    },
    /// It is a dead letter now, or still one after a replay.
    Dead {
        /// The status, when there was an answer.
        status: Option<u16>,
        /// Why, in words.
        reason: String,
        /// The first bytes of the answer's body.
        excerpt: String,
    },
    /// It was older than its destination takes, and was not sent.
    Expired,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

impl Attempts {
    /// One that keeps so many attempts for the slowest follower, rounded up to a power of two.
    #[must_use]
    pub fn keeping(attempts: usize) -> Self {
        Self(broadcast::Sender::new(attempts))
    }

    /// Tells of an attempt; it is described only if somebody follows. Never waits.
    pub fn tell(&self, describe: impl FnOnce() -> Attempted) {
        if self.0.receiver_count() > 0 {
            // The last follower may leave meanwhile.
            let _nobody = self.0.send(Arc::new(describe()));
        }
    }

    /// Every attempt that ends from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Attempted>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempted(seq: u64) -> Attempted {
        Attempted {
            at: Moment(0),
            destination: DestinationName::parse("all").expect("a name"),
            seq: Seq(seq),
            event_id: EventId::parse("a").expect("an id"),
            event_type: "message_new".into(),
            peer_id: None,
            user_id: None,
            replay: 0,
            sent: None,
            ending: Ending::Expired,
        }
    }

    #[test]
    fn nothing_is_described_while_nobody_follows() {
        let attempts = Attempts::default();
        let mut described = 0;
        let mut describe = |seq| {
            described += 1;
            attempted(seq)
        };
        attempts.tell(|| describe(1));
        let mut follower = attempts.follow();
        attempts.tell(|| describe(2));
        assert_eq!(follower.try_recv().expect("told").seq, Seq(2));
        drop(follower);
        attempts.tell(|| describe(3));
        assert_eq!(described, 1);
    }

    #[test]
    fn a_slow_follower_holds_nobody_and_hears_how_many_it_missed() {
        let attempts = Attempts::keeping(4);
        let mut follower = attempts.follow();
        for seq in 0..10 {
            attempts.tell(|| attempted(seq));
        }
        assert_eq!(follower.try_recv(), Err(broadcast::error::TryRecvError::Lagged(6)));
        assert_eq!(follower.try_recv().expect("kept").seq, Seq(6));
    }
}
