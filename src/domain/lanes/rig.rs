//! What the tests of lanes stand on: events of chats, offered by their numbers. Built for tests only. Deliberately absent: any
//! expectation.

use bytes::Bytes;

use super::{Dispatch, LaneKey, Lanes};
use crate::domain::event::{Event, Queued, Source};
use crate::domain::ids::{EventId, GroupId, Lane, LaneOf, Seq};
use crate::domain::time::Moment;

/// An event of ten bytes.
pub(super) fn event(seq: u64, peer: i64) -> Queued {
    let event = Event {
        group: GroupId::new(1).expect("an id"),
        event_id: EventId::parse(&format!("e{seq}")).expect("an id"),
        event_type: "message_new".into(),
        user_id: None,
        peer_id: Some(peer),
        received_at: Moment(0),
        body: Bytes::from_static(b"{\"a\":1234}"),
    };
    Queued { seq: Seq(seq), source: Source::Live, event }
}

pub(super) fn lane(peer: i64) -> Lane {
    Lane { group: 1, of: LaneOf::Peer(peer) }
}

pub(super) fn offer(lanes: &mut Lanes, seq: u64, peer: i64) {
    lanes.offer(LaneKey::live(lane(peer)), event(seq, peer), None);
}

/// The chats of what goes together, that of the first event first.
pub(super) fn chats(batch: &[Dispatch]) -> Vec<LaneKey> {
    let mut keys: Vec<LaneKey> = Vec::new();
    for dispatch in batch {
        if !keys.contains(&dispatch.key) {
            keys.push(dispatch.key);
        }
    }
    keys
}
