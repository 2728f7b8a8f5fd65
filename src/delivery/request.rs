//! An event, or several, as an HTTP request (contract §3): the headers, the body, and the signature over what is sent. An event's
//! body is sent as stored. Deliberately absent: sending.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::signature::{SigningKey, signatures};
use crate::domain::event::{Queued, Source};
use crate::domain::time::Moment;

/// The key by which a handler drops repeats.
const ID: &str = "webhook-id";
/// When this attempt was made.
const TIMESTAMP: &str = "webhook-timestamp";

/// One attempt at a delivery.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// The event and its position.
    pub event: &'a Queued,
    /// What goes along with it, in order.
    pub along: Vec<&'a Queued>,
    /// Whether the body is a list, even of one.
    pub list: bool,
    /// Number of this attempt, from 1.
    pub number: u32,
    /// The replay it belongs to; 0 is none.
    pub replay: u64,
}

/// The headers of an attempt that is made at `now`.
#[must_use]
pub fn headers(attempt: &Attempt<'_>, now: Moment) -> HeaderMap {
    let event = &attempt.event.event;
    let id = match attempt.list {
        false => event.event_id.as_str().to_owned(),
        true => format!("{}+{}", event.event_id, 1 + attempt.along.len()),
    };
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static(ID), text(&id));
    headers.insert(HeaderName::from_static(TIMESTAMP), HeaderValue::from(now.unix_seconds()));
    headers.insert(HeaderName::from_static("x-event-type"), text(&event.event_type));
    headers.insert(HeaderName::from_static("x-event-seq"), HeaderValue::from(attempt.event.seq.0));
    headers.insert(HeaderName::from_static("x-event-attempt"), HeaderValue::from(attempt.number));
    if attempt.replay > 0 {
        headers.insert(HeaderName::from_static("x-event-replay"), HeaderValue::from(attempt.replay));
    }
    if attempt.event.source == Source::Backfill {
        headers.insert(HeaderName::from_static("x-event-source"), HeaderValue::from_static("backfill"));
    }
    headers
}

/// The body of an attempt.
#[must_use]
pub fn body(attempt: &Attempt<'_>) -> Bytes {
    if !attempt.list {
        return attempt.event.event.body.clone();
    }
    let all = std::iter::once(attempt.event).chain(attempt.along.iter().copied()).map(|queued| &queued.event.body);
    let mut body = Vec::with_capacity(1 + all.clone().map(|body| body.len() + 1).sum::<usize>());
    for (place, one) in all.enumerate() {
        body.push(if place == 0 { b'[' } else { b',' });
        body.extend_from_slice(one);
    }
    body.push(b']');
    Bytes::from(body)
}

/// Signs what is sent: the id and the timestamp as they stand in the headers, and the body, byte by byte. Without keys there
/// is nothing to sign.
pub fn sign(headers: &mut HeaderMap, keys: &[SigningKey], body: &[u8]) {
    let of = |name: &str| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let signed = signatures(keys, of(ID), of(TIMESTAMP), body);
    if !keys.is_empty() {
        headers.insert(HeaderName::from_static("webhook-signature"), text(&signed));
    }
}

/// A header of a text; VK's own type names are ASCII, one that is not is sent without what a header cannot carry.
fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        let plain: String = text.chars().filter(char::is_ascii_graphic).collect();
        HeaderValue::from_str(&plain).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Event;
    use crate::domain::ids::{EventId, GroupId, Seq};

    fn queued(event_type: &str, source: Source) -> Queued {
        let event = Event {
            group: GroupId::new(1).expect("an id"),
            event_id: EventId::parse("8dd5").expect("an id"),
            event_type: event_type.to_owned().into(),
            user_id: None,
            peer_id: None,
            received_at: Moment(0),
            body: Bytes::from_static(b"{}"),
        };
        Queued { seq: Seq(42), source, event }
    }

    fn attempt(event: &Queued) -> Attempt<'_> {
        Attempt { event, number: 3, replay: 0, along: Vec::new(), list: false }
    }

    #[test]
    fn an_attempt_says_what_the_contract_promises() {
        let event = queued("message_new", Source::Live);
        let headers = headers(&attempt(&event), Moment(1_709_107_923_999));
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "content-type: application/json",
                "webhook-id: 8dd5",
                "webhook-timestamp: 1709107923",
                "x-event-attempt: 3",
                "x-event-seq: 42",
                "x-event-type: message_new"
            ]
        );
    }

    #[test]
    fn a_replay_and_a_backfill_say_so() {
        let event = queued("message_new", Source::Backfill);
        let mut attempt = attempt(&event);
        attempt.replay = 5;
        let headers = headers(&attempt, Moment(0));
        assert_eq!(headers["x-event-replay"], "5");
        assert_eq!(headers["x-event-source"], "backfill");
    }

    #[test]
    fn a_type_that_no_header_can_carry_is_sent_without_what_does_not_fit() {
        let check = |event_type: &str, expected: &str| {
            let event = queued(event_type, Source::Live);
            assert_eq!(headers(&attempt(&event), Moment(0))["x-event-type"], expected);
        };
        check("new\nтип_x", "new_x");
        check("\n", "");
    }

    #[test]
    fn several_events_are_a_list_under_the_id_of_the_first_and_their_count() {
        let event = queued("message_new", Source::Live);
        let mut several = attempt(&event);
        several.list = true;
        let id = |attempt: &Attempt<'_>| headers(attempt, Moment(0))[ID].to_str().expect("text").to_owned();
        assert_eq!((id(&several).as_str(), body(&several).as_ref()), ("8dd5+1", b"[{}]".as_slice()));
        several.along = vec![&event, &event];
        assert_eq!((id(&several).as_str(), body(&several).as_ref()), ("8dd5+3", b"[{},{},{}]".as_slice()));
    }
}
