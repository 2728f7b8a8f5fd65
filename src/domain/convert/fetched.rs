//! A message that was fetched back after a gap (`messages.getByConversationMessageId`), as the update that would have brought
//! it: so it is read and converted like any other. Source of the shapes: VK's API 5.199; `message_new` wraps the message,
//! `message_reply` is the bare one. Deliberately absent: fetching (`app::backfill`).

use sha1::{Digest, Sha1};

use super::read::read_again;
use crate::domain::ids::{EventId, GroupId};

/// A message of VK's answer.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its number in its conversation.
    pub cmid: i64,
    /// Whether the community wrote it: such a message is a `message_reply`.
    pub ours: bool,
    /// The update that would have brought it, under an id of our own that is always the same.
    pub update: String,
    /// That id.
    pub event_id: EventId,
}

/// A message that cannot be read, or has no number.
#[derive(Clone, Debug)]
pub struct Nameless {
    /// The update that would have brought it.
    pub update: String,
    /// An id made of it.
    pub event_id: EventId,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads a message of the conversation `peer`; `raw` is VK's JSON.
///
/// # Errors
/// When it cannot be read or has no number.
pub fn item(group: GroupId, peer: i64, raw: &str) -> Result<Item, Nameless> {
    let digest = Sha1::digest(format!("{}\n{peer}\n{raw}", group.get()));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let made = EventId::parse(&hex).expect("invariant: forty hex digits are an event id");
    let update = wrapped(group, &made, raw, false);
    let read = read_again(group, &made, &update).and_then(|read| {
        let number = read.new_message().map(|(_, cmid)| cmid);
        Ok((number.ok_or("the message has no number in a conversation")?, read.user_id == Some(-group.get())))
    });
    match read {
        Ok((cmid, ours)) => {
            let event_id = EventId::fetched(group, peer, cmid);
            Ok(Item { cmid, ours, update: wrapped(group, &event_id, raw, ours), event_id })
        }
        Err(reason) => Err(Nameless { update, event_id: made, reason }),
    }
}

fn wrapped(group: GroupId, event_id: &EventId, raw: &str, ours: bool) -> String {
    let group_id = group.get();
    let (kind, object) = match ours {
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

    const PEER: i64 = 2_000_000_001;

    #[track_caller]
    fn check(raw: &str, expected: Option<(i64, bool)>) {
        let group = GroupId::new(7).expect("an id");
        let read = item(group, PEER, raw);
        assert_eq!(read.as_ref().ok().map(|item| (item.cmid, item.ours)), expected, "{raw}: {read:?}");
        let Ok(item) = read else { return };
        let none = EventId::parse("none").expect("an id");
        let update = read_again(group, &none, &item.update).expect("read");
        assert_eq!(update.kind, if item.ours { "message_reply" } else { "message_new" });
        assert_eq!((update.new_message(), &update.event_id), (Some((PEER, item.cmid)), &item.event_id));
        assert_eq!(item.event_id, EventId::fetched(group, PEER, item.cmid));
    }

    #[test]
    fn a_message_becomes_the_update_that_would_have_brought_it() {
        let message =
            |from: &str, cmid: &str| format!("{{\"from_id\":{from},\"peer_id\":{PEER},{cmid},\"text\":\"x\"}}");
        check(&message("5", "\"conversation_message_id\":42"), Some((42, false)));
        check(&message("-7", "\"conversation_message_id\":42"), Some((42, true)));
        check(&message("-8", "\"conversation_message_id\":42"), Some((42, false)));
        // As kind as with what comes live.
        check(&message("\"5\"", "\"conversation_message_id\":\"42\""), Some((42, false)));
        check(&message("5", "\"cmid\":42"), Some((42, false)));
        check(&message("5", "\"conversation_message_id\":0"), None);
        check(&message("5", "\"conversation_message_id\":9223372036854775807"), None);
        check("{\"id\":1}", None);
        check("7", None);
    }
}
