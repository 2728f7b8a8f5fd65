//! Which destinations take an event: a destination takes it when any table of its `when` matches; a table matches when
//! all its conditions hold; without `when` it takes every event. Pure. Deliberately absent: what happens then.

use super::event::Event;

/// One table of `when`: every condition that is there must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The event's type is one of these.
    pub event_type: Option<Vec<String>>,
    /// The event happened in one of these chats (numbers of chats, not peers).
    pub chat_id: Option<Vec<i64>>,
    /// The event happened in one of these conversations.
    pub peer_id: Option<Vec<i64>>,
}

impl Condition {
    /// Whether every condition of the table holds.
    #[must_use]
    pub fn holds(&self, event: &Event) -> bool {
        let one_of = |list: &Option<Vec<i64>>, value: Option<i64>| {
            list.as_ref().is_none_or(|list| value.is_some_and(|value| list.contains(&value)))
        };
        self.event_type.as_ref().is_none_or(|types| types.contains(&event.event_type))
            && one_of(&self.chat_id, event.chat_id())
            && one_of(&self.peer_id, event.peer_id)
    }
}

/// What a destination takes: any of the tables, or everything when there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule(pub Vec<Condition>);

impl Rule {
    /// Whether the destination takes the event.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        self.0.is_empty() || self.0.iter().any(|table| table.holds(event))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::ids::{EventId, GroupId};
    use crate::domain::time::Moment;

    fn event(event_type: &str, peer_id: Option<i64>) -> Event {
        Event {
            group: GroupId::new(1).expect("an id"),
            event_id: EventId::parse("a1").expect("an id"),
            event_type: event_type.to_owned(),
            user_id: Some(5),
            peer_id,
            received_at: Moment(0),
            body: Bytes::new(),
        }
    }

    fn check(rule: &[Condition], event: &Event, takes: bool) {
        assert_eq!(Rule(rule.to_vec()).takes(event), takes, "{rule:?} {event:?}");
    }

    #[test]
    fn a_destination_takes_what_any_table_matches_whole() {
        let types = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        let chat = event("message_new", Some(2_000_000_002));
        let dialog = event("message_new", Some(7));
        let join = event("group_join", None);
        let messages = Condition { event_type: types(&["message_new", "message_edit"]), ..Condition::default() };
        let in_chat = Condition { event_type: types(&["message_new"]), chat_id: Some(vec![2]), ..Condition::default() };
        let peer = Condition { peer_id: Some(vec![7]), ..Condition::default() };
        check(&[], &join, true);
        check(std::slice::from_ref(&messages), &chat, true);
        check(std::slice::from_ref(&messages), &join, false);
        check(std::slice::from_ref(&in_chat), &chat, true);
        check(std::slice::from_ref(&in_chat), &dialog, false);
        check(std::slice::from_ref(&peer), &join, false);
        check(&[in_chat, peer], &dialog, true);
        check(&[Condition { event_type: Some(vec![]), ..Condition::default() }], &chat, false);
    }
}
