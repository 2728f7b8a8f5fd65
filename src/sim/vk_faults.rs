//! What goes wrong at a simulated VK: the faults, and the broken answers of those that spoil nothing but one answer.
//! Deliberately absent: faults that change what VK has or which keys hold (`vk_server`), when they come (`vk_plan`).

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What spoils a poll or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `failed` 1: everything up to now is forgotten.
    Failed1,
    /// `failed` 1 that does not say where to go on; nothing is forgotten.
    Failed1Nowhere,
    /// `failed` 2: the key has expired.
    Failed2,
    /// `failed` 3: everything is forgotten, and the key has expired.
    Failed3,
    /// A `failed` that nobody knows.
    FailedUnknown,
    /// HTTP 502 with a page.
    Html502,
    /// HTTP 500 with JSON that lacks a ts.
    Json500,
    /// Another status of HTTP, with a page.
    Status(u16),
    /// HTTP 200 with JSON that lacks a ts.
    NoTs,
    /// The right answer, with a number for ts.
    NumberTs,
    /// The right updates, with the ts that was asked with.
    StuckTs,
    /// Half of an answer, then the end of the connection.
    Cut,
    /// No JSON.
    Garbage,
    /// A body that never seems to end.
    Huge,
    /// No answer at all until the client gives up.
    Hang,
    /// The right answer, but late.
    Slow(Duration),
    /// The connection breaks before any answer.
    Restart,
    /// An error of the API, for calls.
    ApiError(i64),
}

/// The answer that a fault makes of a whole one.
pub(super) fn body(fault: Fault, whole: impl FnOnce() -> String) -> Response {
    let page = |status: u16| {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        (status, [("content-type", "text/html")], format!("<html><h1>{status}</h1></html>")).into_response()
    };
    match fault {
        Fault::Failed1Nowhere => json!({ "failed": 1 }).to_string().into_response(),
        Fault::FailedUnknown => json!({ "failed": 4, "min_version": 0, "max_version": 3 }).to_string().into_response(),
        Fault::Html502 => page(502),
        Fault::Status(status) => page(status),
        Fault::Json500 => (StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"internal"}"#).into_response(),
        Fault::NoTs => r#"{"updates":[]}"#.into_response(),
        Fault::Cut => {
            let whole = whole().into_bytes();
            let half = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
            let parts = futures_util::stream::iter([Ok(half), Err(io::Error::other("cut"))]);
            Response::builder().header("content-length", whole.len()).body(Body::from_stream(parts)).unwrap_or_default()
        }
        Fault::Garbage => "\u{0}\u{1}not json".into_response(),
        Fault::Huge => {
            let megabyte = Bytes::from(vec![b' '; 1 << 20]);
            let parts = futures_util::stream::iter((0..80).map(move |_| Ok::<_, io::Error>(megabyte.clone())));
            Body::from_stream(parts).into_response()
        }
        // These change more than an answer; who gets here all the same has no answer to give.
        Fault::Failed1 | Fault::Failed2 | Fault::Failed3 | Fault::ApiError(_) => page(502),
        Fault::NumberTs | Fault::StuckTs | Fault::Hang | Fault::Slow(_) | Fault::Restart => page(502),
    }
}
