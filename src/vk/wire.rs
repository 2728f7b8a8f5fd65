//! Bytes to replies: what VK's answers say, and nothing about what to do then. Tolerates what was seen on the wire: a `ts`
//! as text or number, two shapes of `groups.getById`, absent items. What is shown of an answer in an error is bounded and
//! holds nothing that looks like a key or a token. Deliberately absent: updates (`domain::convert` reads them one by one),
//! HTTP (`client`), `request_params` of errors, which may echo the token.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::value::RawValue;

use crate::domain::ids::Ts;
use crate::secret::Secret;

/// How much of an answer that is none is shown, in characters.
const EXCERPT_CHARS: usize = 120;
/// How much of the words that explain an error is shown, in characters.
const WORDS_CHARS: usize = 300;
/// How much of an answer is looked at for an excerpt, in bytes: an answer can be large.
const EXCERPT_WINDOW_BYTES: usize = 4096;
/// A run of this many letters, digits, `-` and `_` is longer than any word: it may be a key or a token, and is not shown.
const SECRET_CHARS: usize = 24;
/// What VK calls a person or a community that is no more.
const DELETED: &str = "DELETED";

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
    /// `failed` 1: the history is outdated or partly lost.
    Outdated {
        /// Where to go on, if it says so.
        ts: Option<Ts>,
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
        failed: Option<AnyTs>,
        ts: Option<AnyTs>,
        #[serde(borrow)]
        updates: Option<Vec<&'a RawValue>>,
    }
    let shape: Shape<'_> = object(body)?;
    let lacks = |what| WireError { what: format!("no {what} in {}", excerpt(body)) };
    let ts = |ts: Option<AnyTs>| ts.map(|ts| ts.0).ok_or_else(|| lacks("ts"));
    let Some(AnyTs(failed)) = shape.failed else {
        return Ok(PollReply::Updates { ts: ts(shape.ts)?, updates: shape.updates.ok_or_else(|| lacks("updates"))? });
    };
    match failed.as_str().parse() {
        Ok(1) => Ok(PollReply::Outdated { ts: shape.ts.map(|AnyTs(ts)| ts) }),
        Ok(2) => Ok(PollReply::KeyExpired),
        Ok(3) => Ok(PollReply::Lost),
        Ok(code) => Ok(PollReply::Unknown { code }),
        Err(_) => Err(WireError { what: format!("failed is no number in {}", excerpt(body)) }),
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

/// Reads the answer of `users.get`. A deleted user has no name; a user that cannot be read is as one that is absent.
///
/// # Errors
/// When it is an error of the API or cannot be read.
pub fn users_reply(body: &str) -> Result<Vec<Named>, Refusal> {
    #[derive(Deserialize)]
    struct User {
        id: i64,
        first_name: Option<String>,
        last_name: Option<String>,
        domain: Option<String>,
        screen_name: Option<String>,
        deactivated: Option<String>,
    }
    let users: Vec<User> = readable(&response::<Vec<&RawValue>>(body)?);
    let named = users.into_iter().map(|user| {
        let deleted = user.deactivated.as_deref() == Some("deleted") || user.first_name.as_deref() == Some(DELETED);
        let words = [told(user.first_name), told(user.last_name)];
        let name = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let nick = told(user.domain).or_else(|| told(user.screen_name));
        Named { id: user.id, name: told(Some(name)).filter(|_| !deleted), nick: nick.filter(|_| !deleted) }
    });
    Ok(named.collect())
}

/// Reads the answer of `groups.getById`, in both of its shapes. A community that cannot be read is as one that is absent.
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
    struct Wrapped<'a> {
        #[serde(borrow)]
        groups: Vec<&'a RawValue>,
    }
    let raw: &RawValue = response(body)?;
    let groups = if raw.get().starts_with('[') { inner(raw)? } else { inner::<Wrapped<'_>>(raw)?.groups };
    let named = readable::<Group>(&groups).into_iter().map(|group| Named {
        id: group.id.saturating_abs().saturating_neg(),
        name: told(group.name).filter(|name| name != DELETED),
        nick: told(group.screen_name),
    });
    Ok(named.collect())
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
    struct Conversations<'a> {
        #[serde(borrow, default)]
        items: Vec<&'a RawValue>,
    }
    let items: Vec<Item> = readable(&response::<Conversations<'_>>(body)?.items);
    Ok(items.into_iter().map(|item| (item.peer.id, item.chat_settings.and_then(|chat| told(chat.title)))).collect())
}

/// Reads the answer of `messages.getByConversationMessageId`: the messages as they came.
///
/// # Errors
/// When it is an error of the API or cannot be read.
pub fn messages_reply(body: &str) -> Result<Vec<Box<RawValue>>, Refusal> {
    #[derive(Deserialize)]
    struct Messages {
        items: Vec<Box<RawValue>>,
    }
    Ok(response::<Messages>(body)?.items)
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
    let shape: Shape<'a> = object(body)?;
    match (shape.response, shape.error) {
        (_, Some(error)) => {
            Err(ApiError { code: error.error_code, message: masked(&error.error_msg, WORDS_CHARS) }.into())
        }
        (Some(response), None) => Ok(inner(response)?),
        (None, None) => Err(WireError { what: format!("neither response nor error in {}", excerpt(body)) }.into()),
    }
}

/// Reads an answer that must be an object: serde would take a list for one.
fn object<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, WireError> {
    let body = body.trim_start_matches('\u{feff}').trim();
    if !body.starts_with('{') {
        return Err(WireError { what: format!("no JSON object; it begins with {}", excerpt(body)) });
    }
    serde_json::from_str(body).map_err(|error| WireError {
        what: format!("{}; it begins with {}", masked(&error.to_string(), WORDS_CHARS), excerpt(body)),
    })
}

fn inner<'a, T: Deserialize<'a>>(response: &'a RawValue) -> Result<T, WireError> {
    serde_json::from_str(response.get())
        .map_err(|error| WireError { what: masked(&format!("{error} in the response"), WORDS_CHARS) })
}

/// The items that can be read; a stranger among them harms no neighbour.
fn readable<'a, T: Deserialize<'a>>(items: &[&'a RawValue]) -> Vec<T> {
    items.iter().filter_map(|item| serde_json::from_str(item.get()).ok()).collect()
}

/// Text that says something.
fn told(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The beginning of an answer, up to the first list in it, which may hold what people wrote; what stands behind the name of a
/// secret is not shown.
fn excerpt(body: &str) -> String {
    let window = body.get(..body.floor_char_boundary(EXCERPT_WINDOW_BYTES)).unwrap_or_default();
    let window = window.find('[').map_or(window, |list| &window[..=list]);
    if ["\"key\"", "key=", "access_token"].into_iter().any(|name| window.contains(name)) {
        return "(not shown: it holds a secret)".to_owned();
    }
    format!("{:?}", masked(window.trim(), EXCERPT_CHARS))
}

/// The first `limit` characters of `text` after every run that may be a key or a token is taken out.
fn masked(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let run = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(rest.len());
        let (word, after) = rest.split_at(run.max(first.len_utf8()));
        shown.push_str(if run < SECRET_CHARS { word } else { "[…]" });
        rest = after;
    }
    shown.chars().take(limit).collect()
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
            Ok(PollReply::Outdated { ts: Some(ts) }) => format!("outdated, {ts}"),
            Ok(PollReply::Outdated { ts: None }) => "outdated, nowhere".to_owned(),
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
            (r#"{"failed":1}"#, "outdated, nowhere"),
            (r#"{"failed":2}"#, "key"),
            (r#"{"failed":3}"#, "lost"),
            (r#"{"failed":4,"min_version":0,"max_version":3}"#, "unknown 4"),
            (r#"{"failed":77}"#, "unknown 77"),
            (r#"{"failed":"2"}"#, "key"),
            ("\u{feff}{\"ts\":\"5\",\"updates\":[]}", "ts 5, 0 updates"),
        ] {
            assert_eq!(told(body), expected, "{body}");
        }
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"failed":1,"ts":""}"#,
            r#"{"failed":"soon"}"#,
            r#"[null,"5",[]]"#,
            r#"{"ts":"1","updates":null}"#,
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
    fn an_error_shows_the_beginning_of_an_answer_but_no_key_and_no_token() {
        let check = |body: &str, shown: &str| {
            let error = poll_reply(body).expect_err("no answer").to_string();
            assert!(error.ends_with(shown), "{error}");
        };
        check("<html> 502 Bad Gateway </html>", r#"it begins with "<html> 502 Bad Gateway </html>""#);
        check("<p>GET /wh1?act=a_check&key=abc</p>", "(not shown: it holds a secret)");
        check("no vk1.a.0123456789abcdefghijklmnop-_ here", r#"it begins with "no vk1.a.[…] here""#);
        let long = poll_reply(&"слово ".repeat(10_000)).expect_err("no answer").to_string();
        assert!(long.chars().count() < 250, "{long}");
        let token = "0123456789abcdef0123456789abcdef";
        for body in [
            format!(r#"{{"error":{{"error_code":5,"error_msg":"invalid access_token {token}"}}}}"#),
            format!(r#"{{"response":"{token}"}}"#),
        ] {
            let error = session_reply(&body).expect_err("no session").to_string();
            assert!(error.contains("[…]") && !error.contains("0123"), "{error}");
        }
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
        let partly = r#"{"response":[{"id":"x"},{"first_name":"A"},{"id":4,"first_name":null,"last_name":" Lee ","domain":"","screen_name":"lee"},
            {"id":5,"first_name":"DELETED","last_name":""}]}"#;
        assert_eq!(users_reply(partly).expect("read"), [named(4, Some("Lee"), Some("lee")), named(5, None, None)]);
        assert!(users_reply(r#"{"response":{}}"#).is_err());
        assert!(groups_reply(r#"{"response":null}"#).is_err());
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

    #[test]
    fn settings_are_read_with_flags_of_either_kind() {
        let settings = settings_reply(
            r#"{"response":{"is_enabled":true,"events":{"message_new":1,"message_event":false},"api_version":"5.50"}}"#,
        )
        .expect("read");
        assert_eq!((settings.is_enabled, settings.api_version.as_deref()), (true, Some("5.50")));
        assert_eq!(
            settings.events.into_iter().map(|(name, flag)| (name, flag.0)).collect::<Vec<_>>(),
            [("message_event".to_owned(), false), ("message_new".to_owned(), true)]
        );
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
