//! A handler that takes everything, answers 200 and tells each request on a line: for a demonstration without handlers of one's
//! own. It keeps nothing, so it can run for ever. Deliberately absent: troubles, and a memory of what came (`handler`).

use std::io;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderMap;
use tokio::net::TcpListener;

/// The largest body that is taken.
const MOST_BYTES: usize = 64 << 20;
/// How much of a body is told, in characters.
const TOLD_CHARS: usize = 300;

/// Serves until it is dropped.
///
/// # Errors
/// When it cannot listen any more.
pub async fn serve(listener: TcpListener, tell: impl Fn(String) + Clone + Send + Sync + 'static) -> io::Result<()> {
    let take = move |headers: HeaderMap, body: Bytes| {
        tell(line(&headers, &body));
        std::future::ready("ok")
    };
    axum::serve(listener, Router::new().fallback(take).layer(DefaultBodyLimit::max(MOST_BYTES))).await
}

fn line(headers: &HeaderMap, body: &[u8]) -> String {
    let mut words = String::new();
    for (name, what) in [("x-event-seq", "event"), ("x-event-attempt", "attempt"), ("webhook-id", "id")] {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            words.push_str(&format!("{what} {value} "));
        }
    }
    let text = String::from_utf8_lossy(body);
    words.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD_CHARS));
    if text.chars().nth(TOLD_CHARS).is_some() {
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_request_is_told_on_one_line_of_a_bounded_length() {
        let mut headers = HeaderMap::new();
        headers.insert("x-event-seq", HeaderValue::from_static("7"));
        headers.insert("webhook-id", HeaderValue::from_static("abc"));
        assert_eq!(line(&headers, b"{\"a\":\n1}"), "event 7 id abc {\"a\": 1}");
        assert_eq!(line(&HeaderMap::new(), "я".repeat(1000).as_bytes()).chars().count(), TOLD_CHARS + 1);
    }
}
