//! What goes wrong at a simulated VK: the names of faults, and the broken answers of those that change nothing but one
//! answer. Deliberately absent: faults that change what VK has or which keys hold (`vk_server`).

use std::io;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What spoils a poll or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `failed` 1: a few updates are forgotten.
    Failed1,
    /// `failed` 2: the key has expired.
    Failed2,
    /// `failed` 3: everything is forgotten.
    Failed3,
    /// A `failed` that nobody knows.
    FailedUnknown,
    /// HTTP 502 with a page.
    Html502,
    /// HTTP 500 with JSON that lacks a ts.
    Json500,
    /// HTTP 200 with JSON that lacks a ts.
    NoTs,
    /// Half of an answer, then the end of the connection.
    Cut,
    /// No JSON.
    Garbage,
    /// A body that never seems to end.
    Huge,
    /// No answer at all until the client gives up.
    Hang,
    /// An error of the API, for calls.
    ApiError(i64),
}

/// The answer that a fault makes of a whole one.
pub(super) fn body(fault: Fault, whole: impl FnOnce() -> String) -> Response {
    match fault {
        Fault::FailedUnknown => json!({ "failed": 4, "min_version": 0, "max_version": 3 }).to_string().into_response(),
        Fault::Html502 => (StatusCode::BAD_GATEWAY, "<html><h1>502 Bad Gateway</h1></html>").into_response(),
        Fault::Json500 => (StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"internal"}"#).into_response(),
        Fault::NoTs => r#"{"updates":[]}"#.into_response(),
        Fault::Cut => {
            let whole = whole();
            let half = whole.get(..whole.len() / 2).unwrap_or_default().to_owned();
            let broken: Result<Bytes, io::Error> = Err(io::Error::other("cut"));
            let parts = futures_util::stream::iter([Ok(Bytes::from(half)), broken]);
            Response::builder().header("content-length", whole.len()).body(Body::from_stream(parts)).unwrap_or_default()
        }
        Fault::Garbage => "\u{0}\u{1}not json".into_response(),
        Fault::Huge => {
            let megabyte = Bytes::from(vec![b' '; 1 << 20]);
            let parts = futures_util::stream::iter((0..80).map(move |_| Ok::<_, io::Error>(megabyte.clone())));
            Body::from_stream(parts).into_response()
        }
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
