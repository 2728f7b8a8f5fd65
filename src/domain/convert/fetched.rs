//! A message that was fetched back after a gap (`messages.getByConversationMessageId`), as the update that would have brought
//! it: so it is converted like any other. Source of the shapes: protocol of API 5.199; `message_new` wraps the message,
//! `message_reply` is the bare one. Deliberately absent: fetching (`app::backfill`).

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::ids::{EventId, GroupId};

/// A message of VK's answer.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Its number in its conversation.
    pub cmid: i64,
    /// Whether the community wrote it: such a message is a `message_reply`.
    pub ours: bool,
    raw: &'a RawValue,
}

/// Reads what must be known of a message; nothing when it has no number.
#[must_use]
pub fn item(group: GroupId, raw: &RawValue) -> Option<Item<'_>> {
    #[derive(Deserialize)]
    struct Shape {
        conversation_message_id: i64,
        from_id: Option<i64>,
    }
    let shape: Shape = serde_json::from_str(raw.get()).ok()?;
    let ours = shape.from_id == Some(-group.get());
    Some(Item { cmid: shape.conversation_message_id, ours, raw })
}

/// The update that would have brought it, under an id of our own that is always the same.
#[must_use]
pub fn update_of(group: GroupId, peer: i64, item: &Item<'_>) -> String {
    let (group_id, event_id, raw) = (group.get(), EventId::fetched(group, peer, item.cmid), item.raw.get());
    let (kind, object) = match item.ours {
        true => ("message_reply", raw.to_owned()),
        false => ("message_new", format!("{{\"message\":{raw}}}")),
    };
    format!(
        "{{\"group_id\":{group_id},\"type\":\"{kind}\",\"event_id\":\"{event_id}\",\"v\":\"5.199\",\"object\":{object}}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::convert::read_again;

    #[test]
    fn a_message_becomes_the_update_that_would_have_brought_it() {
        let group = GroupId::new(7).expect("an id");
        for (from, kind) in [(5, "message_new"), (-7, "message_reply"), (-8, "message_new")] {
            let text =
                format!("{{\"from_id\":{from},\"peer_id\":2000000001,\"conversation_message_id\":42,\"text\":\"x\"}}");
            let raw: &RawValue = serde_json::from_str(&text).expect("JSON");
            let item = item(group, raw).expect("a message");
            let text = update_of(group, 2_000_000_001, &item);
            let made = EventId::parse("none").expect("an id");
            let update = read_again(group, &made, &text).expect("read");
            assert_eq!((update.kind.as_ref(), update.new_message()), (kind, Some((2_000_000_001, 42))));
            assert_eq!(update.event_id, EventId::fetched(group, 2_000_000_001, 42));
        }
        let nameless: &RawValue = serde_json::from_str("{\"id\":1}").expect("JSON");
        assert!(item(group, nameless).is_none());
    }
}
