//! Bytes to replies: what VK's answers say, and nothing about what to do then. Tolerates what was seen on the wire: a `ts`
//! as text or number, two shapes of `groups.getById`, absent items. Deliberately absent: updates (`domain::convert` reads
//! them one by one), HTTP (`client`), `request_params` of errors, which may echo the token.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::value::RawValue;

use crate::domain::ids::Ts;
use crate::secret::Secret;

/// How much of an answer that is none is shown, in characters.
const EXCERPT_CHARS: usize = 120;

/// An answer that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("VK's answer cannot be read: {what}")]
pub struct WireError {
    /// What was found instead.
    pub what: String,
}

/// What a poll brings.
#[derive(Debug)]
pub enum PollReply<'a> {
    /// The ts to go on with, and what happened.
    Updates {
        /// The ts that covers the updates.
        ts: Ts,
        /// Each update as it came.
        updates: Vec<&'a RawValue>,
    },
    /// `failed` 1: the history is outdated or partly lost; go on with this ts.
    Outdated {
        /// Where to go on.
        ts: Ts,
    },
    /// `failed` 2: the key has expired.
    KeyExpired,
    /// `failed` 3: the information is lost: new key and new ts.
    Lost,
    /// Any other `failed`.
    Unknown {
        /// Its code.
        code: i64,
    },
}

/// Reads the answer to a poll.
///
/// # Errors
/// When it is no JSON object, or lacks what it must have.
pub fn poll_reply(body: &str) -> Result<PollReply<'_>, WireError> {
    #[derive(Deserialize)]
    struct Shape<'a> {
        failed: Option<i64>,
        ts: Option<AnyTs>,
        #[serde(borrow)]
        updates: Option<Vec<&'a RawValue>>,
    }
    let shape: Shape<'_> = serde_json::from_str(body).map_err(|error| unreadable(body, &error))?;
    let ts =
        |ts: Option<AnyTs>| ts.map(|ts| ts.0).ok_or_else(|| WireError { what: format!("no ts in {}", excerpt(body)) });
    match shape.failed {
        None => {
            let updates =
                shape.updates.ok_or_else(|| WireError { what: format!("no updates in {}", excerpt(body)) })?;
            Ok(PollReply::Updates { ts: ts(shape.ts)?, updates })
        }
        Some(1) => Ok(PollReply::Outdated { ts: ts(shape.ts)? }),
        Some(2) => Ok(PollReply::KeyExpired),
        Some(3) => Ok(PollReply::Lost),
        Some(code) => Ok(PollReply::Unknown { code }),
    }
}

/// A Long Poll session.
#[derive(Debug, Clone)]
pub struct SessionReply {
    /// Where to poll, scheme included.
    pub server: String,
    /// The key: a secret.
    pub key: Secret,
    /// The newest ts.
    pub ts: Ts,
}

/// Reads the answer of `groups.getLongPollServer`.
///
/// # Errors
/// When it is an error of the API or cannot be read.
pub fn session_reply(body: &str) -> Result<SessionReply, Refusal> {
    #[derive(Deserialize)]
    struct Shape {
        server: String,
        key: Secret,
        ts: AnyTs,
    }
    let shape: Shape = response(body)?;
    Ok(SessionReply { server: shape.server, key: shape.key, ts: shape.ts.0 })
}

/// The Long Poll settings of a community.
#[derive(Debug, Clone, Deserialize)]
pub struct LongPollSettings {
    /// Whether Long Poll is on.
    pub is_enabled: bool,
    /// The version that decides the shape of events.
    pub api_version: Option<String>,
    /// Which types are on.
    #[serde(default)]
    pub events: BTreeMap<String, Flag>,
}

/// Reads the answer of `groups.getLongPollSettings`.
///
/// # Errors
/// When it is an error of the API or cannot be read.
pub fn settings_reply(body: &str) -> Result<LongPollSettings, Refusal> {
    response(body)
}

/// A person or a community as VK names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Positive: a user; negative: a community.
    pub id: i64,
    /// "First Last", or the community's name.
    pub name: Option<String>,
    /// `domain` or `screen_name`.
    pub nick: Option<String>,
}

/// Reads the answer of `users.get`. A deleted user has no name.
///
/// # Errors
/// When it is an error of the API or cannot be read.
pub fn users_reply(body: &str) -> Result<Vec<Named>, Refusal> {
    #[derive(Deserialize)]
    struct Shape {
        id: i64,
        #[serde(default)]
        first_name: String,
        #[serde(default)]
        last_name: String,
        domain: Option<String>,
        screen_name: Option<String>,
        deactivated: Option<String>,
    }
    let shapes: Vec<Shape> = response(body)?;
    let named = shapes.into_iter().map(|user| {
        let deleted = user.deactivated.as_deref() == Some("deleted");
        let name = format!("{} {}", user.first_name.trim(), user.last_name.trim());
        let name = Some(name.trim().to_owned()).filter(|name| !deleted && !name.is_empty());
        Named { id: user.id, name, nick: user.domain.or(user.screen_name).filter(|_| !deleted) }
    });
    Ok(named.collect())
}

/// Reads the answer of `groups.getById`, in both of its shapes.
///
/// # Errors
/// When it is an error of the API or cannot be read.
pub fn groups_reply(body: &str) -> Result<Vec<Named>, Refusal> {
    #[derive(Deserialize)]
    struct Group {
        id: i64,
        name: Option<String>,
        screen_name: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Shape {
        Wrapped { groups: Vec<Group> },
        Bare(Vec<Group>),
    }
    let (Shape::Wrapped { groups } | Shape::Bare(groups)) = response(body)?;
    Ok(groups
        .into_iter()
        .map(|group| Named { id: -group.id.abs(), name: group.name, nick: group.screen_name })
        .collect())
}

/// Reads the answer of `messages.getConversationsById`: titles by peer. Where the community is no admin, VK names nothing.
///
/// # Errors
/// When it is an error of the API or cannot be read.
pub fn conversations_reply(body: &str) -> Result<Vec<(i64, Option<String>)>, Refusal> {
    #[derive(Deserialize)]
    struct Peer {
        id: i64,
    }
    #[derive(Deserialize)]
    struct Chat {
        title: Option<String>,
    }
    #[derive(Deserialize)]
    struct Item {
        peer: Peer,
        chat_settings: Option<Chat>,
    }
    #[derive(Deserialize)]
    struct Shape {
        #[serde(default)]
        items: Vec<Item>,
    }
    let shape: Shape = response(body)?;
    Ok(shape.items.into_iter().map(|item| (item.peer.id, item.chat_settings.and_then(|chat| chat.title))).collect())
}

/// An error that the API answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("VK answers error {code}: {message}")]
pub struct ApiError {
    /// VK's code.
    pub code: i64,
    /// VK's words.
    pub message: String,
}

/// What kind of error a code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// Goes by itself: try again with backoff.
    Transient,
    /// Goes by itself, but takes minutes to a day.
    LongPause,
    /// Somebody must act: token or rights.
    Alarm,
    /// Asking again cannot help.
    NeverRetry,
    /// There is nothing to know about this object.
    NoData,
}

impl ApiError {
    /// What kind of error it is; a code that nobody has seen is taken to go by itself.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self.code {
            29 | 14 | 3300 | 601 => ErrorClass::LongPause,
            4 | 5 | 7 | 15 | 16 | 17 | 20 | 23 | 27 | 28 | 37 | 38 | 42 | 203 | 1114..=1118 | 3609..=3611 => {
                ErrorClass::Alarm
            }
            2 | 3 | 8 | 11 | 12 | 100 | 101 | 113 | 125 | 150 | 9999 => ErrorClass::NeverRetry,
            18 | 30 | 39 | 40 | 917 | 922 | 925 | 927 | 932 | 935 | 936 | 945 | 946 | 1017 => ErrorClass::NoData,
            _ => ErrorClass::Transient,
        }
    }
}

/// Why there is no response in an answer of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// VK answered an error.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The answer is none.
    #[error(transparent)]
    Wire(#[from] WireError),
}

fn response<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Refusal> {
    #[derive(Deserialize)]
    struct ErrorShape {
        error_code: i64,
        #[serde(default)]
        error_msg: String,
    }
    #[derive(Deserialize)]
    struct Shape<'a> {
        #[serde(borrow)]
        response: Option<&'a RawValue>,
        error: Option<ErrorShape>,
    }
    let shape: Shape<'a> = serde_json::from_str(body).map_err(|error| unreadable(body, &error))?;
    match (shape.response, shape.error) {
        (_, Some(error)) => {
            Err(ApiError { code: error.error_code, message: error.error_msg.chars().take(300).collect() }.into())
        }
        (Some(response), None) => serde_json::from_str(response.get())
            .map_err(|error| WireError { what: format!("{error} in the response").chars().take(300).collect() }.into()),
        (None, None) => Err(WireError { what: format!("neither response nor error in {}", excerpt(body)) }.into()),
    }
}

fn unreadable(body: &str, error: &serde_json::Error) -> WireError {
    let words: String = error.to_string().chars().take(200).collect();
    WireError { what: format!("{words}; it begins with {}", excerpt(body)) }
}

/// The beginning of an answer; what stands behind a key of a secret is not shown.
fn excerpt(body: &str) -> String {
    if body.contains("\"key\"") || body.contains("access_token") {
        return "(not shown: it holds a secret)".to_owned();
    }
    format!("{:?}", body.trim().chars().take(EXCERPT_CHARS).collect::<String>())
}

/// A ts as text or as a number, kept as VK wrote it.
struct AnyTs(Ts);

impl<'de> Deserialize<'de> for AnyTs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = AnyTs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a ts as text or number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<AnyTs, E> {
                Ts::parse(text).map(AnyTs).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<AnyTs, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<AnyTs, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A yes or no that VK writes as a bool or as 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Bool(bool),
            Number(i64),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Bool(flag) => Self(flag),
            Either::Number(number) => Self(number != 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(body: &str) -> String {
        match poll_reply(body) {
            Ok(PollReply::Updates { ts, updates }) => format!("ts {ts}, {} updates", updates.len()),
            Ok(PollReply::Outdated { ts }) => format!("outdated, {ts}"),
            Ok(PollReply::KeyExpired) => "key".to_owned(),
            Ok(PollReply::Lost) => "lost".to_owned(),
            Ok(PollReply::Unknown { code }) => format!("unknown {code}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_answer_that_was_seen_on_the_wire_is_read() {
        for (body, expected) in [
            ("{\"ts\":\"2587\",\"updates\":[]}\r\n", "ts 2587, 0 updates"),
            (r#"{"ts":2587,"updates":[{"type":"x"},7]}"#, "ts 2587, 2 updates"),
            (r#"{"failed":1,"ts":2593}"#, "outdated, 2593"),
            (r#"{"failed":1,"ts":"2593"}"#, "outdated, 2593"),
            (r#"{"failed":2}"#, "key"),
            (r#"{"failed":3}"#, "lost"),
            (r#"{"failed":4,"min_version":0,"max_version":3}"#, "unknown 4"),
            (r#"{"failed":77}"#, "unknown 77"),
        ] {
            assert_eq!(told(body), expected, "{body}");
        }
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"failed":1}"#,
            r#"{"ts":"1"}"#,
            r#"{"updates":[]}"#,
            r#"{"ts":1.5,"updates":[]}"#,
            r#"{"ts":"","updates":[]}"#,
            r#"{"ts":"1","updates":{}}"#,
            r#"{"ts":"1","updates":[{"#,
            "<html>502 Bad Gateway</html>",
        ] {
            assert!(told(body).starts_with("VK's answer cannot be read: "), "{body}: {}", told(body));
        }
    }

    #[test]
    fn a_session_and_an_error_are_told_apart_and_neither_shows_a_secret() {
        let session = session_reply(r#"{"response":{"key":"k-secret","server":"https://lp.vk.com/wh1","ts":"3394"}}"#)
            .expect("read");
        assert_eq!((session.key.expose(), session.ts.as_str()), ("k-secret", "3394"));
        assert!(!format!("{session:?}").contains("k-secret"));
        let error = session_reply(
            r#"{"error":{"error_code":5,"error_msg":"no","request_params":[{"key":"access_token","value":"t"}]}}"#,
        );
        assert_eq!(error.expect_err("refused"), Refusal::Api(ApiError { code: 5, message: "no".into() }));
        let cut = session_reply(r#"{"response":{"key":"k-secret","server":"#).expect_err("refused").to_string();
        assert!(!cut.contains("k-secret"), "{cut}");
    }

    #[test]
    fn names_are_read_in_every_shape() {
        let named = |id, name: Option<&str>, nick: Option<&str>| Named {
            id,
            name: name.map(Into::into),
            nick: nick.map(Into::into),
        };
        let users = r#"{"response":[{"id":1,"first_name":"Ann","last_name":"Lee","domain":"ann"},
            {"id":2,"first_name":"DELETED","last_name":"","deactivated":"deleted"},{"id":3,"first_name":"Bo","last_name":"","deactivated":"banned"}]}"#;
        assert_eq!(
            users_reply(users).expect("read"),
            [named(1, Some("Ann Lee"), Some("ann")), named(2, None, None), named(3, Some("Bo"), None)]
        );
        for groups in [
            r#"{"response":{"groups":[{"id":7,"name":"G","screen_name":"g"}],"profiles":[]}}"#,
            r#"{"response":[{"id":7,"name":"G","screen_name":"g"}]}"#,
        ] {
            assert_eq!(groups_reply(groups).expect("read"), [named(-7, Some("G"), Some("g"))]);
        }
        let chats = r#"{"response":{"count":2,"items":[{"peer":{"id":2000000041},"chat_settings":{"title":"T"}},{"peer":{"id":5}}]}}"#;
        assert_eq!(conversations_reply(chats).expect("read"), [(2_000_000_041, Some("T".into())), (5, None)]);
        assert_eq!(conversations_reply(r#"{"response":{"count":0,"items":[]}}"#).expect("read"), []);
    }

    #[test]
    fn an_error_belongs_to_its_class() {
        for (code, class) in [
            (6, ErrorClass::Transient),
            (10, ErrorClass::Transient),
            (123_456, ErrorClass::Transient),
            (29, ErrorClass::LongPause),
            (5, ErrorClass::Alarm),
            (15, ErrorClass::Alarm),
            (1115, ErrorClass::Alarm),
            (100, ErrorClass::NeverRetry),
            (917, ErrorClass::NoData),
        ] {
            assert_eq!(ApiError { code, message: String::new() }.class(), class, "{code}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_a_panic(body in "\\PC{0,200}", cut in 0usize..60) {
            drop(poll_reply(&body));
            drop(session_reply(&body));
            let answer = r#"{"ts":"2587","updates":[{"type":"message_new","object":{}}]}"#;
            drop(poll_reply(answer.get(..cut).unwrap_or(answer)));
        }
    }
}
