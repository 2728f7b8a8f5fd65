//! The page for people: its files, how the moment reaches it (server-sent events), its pictures. It asks for everything else as
//! the commands do. Deliberately absent: anything from elsewhere; any state of its own but the last hour's (`history`).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Json};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::api::Door;
use super::history::{self, History, Plot};
use super::tcp::Bodies;

/// How often the page hears how it goes.
const LIVE_EVERY: Duration = Duration::from_secs(1);

/// A file of the page.
fn file(kind: &'static str, text: &'static str) -> MethodRouter<Door> {
    get(async move || ([(CONTENT_TYPE, kind)], text))
}

/// The page's files, each with its path.
pub(super) fn files() -> [(&'static str, MethodRouter<Door>); 4] {
    [
        ("/", file("text/html; charset=utf-8", include_str!("assets/index.html"))),
        ("/assets/app.js", file("text/javascript; charset=utf-8", include_str!("assets/app.js"))),
        ("/assets/style.css", file("text/css; charset=utf-8", include_str!("assets/style.css"))),
        ("/assets/icon.svg", file("image/svg+xml", include_str!("assets/icon.svg"))),
    ]
}

/// Whether the page needs a token for what it asks.
pub(super) async fn door(Extension(bodies): Extension<Bodies>) -> Json<Value> {
    Json(json!({ "locked": bodies == Bodies(true) }))
}

/// What the page sees besides the outbox; clones are the same.
#[derive(Clone, Debug)]
pub struct Dashboard {
    history: History,
    /// The statistics as JSON, while anybody looks.
    moment: watch::Sender<Arc<str>>,
}

impl Default for Dashboard {
    fn default() -> Self {
        Self { history: History::default(), moment: watch::Sender::new("".into()) }
    }
}

/// The statistics, once a second, as server-sent events; the stream ends when the service stops. It keeps nothing of the outbox:
/// a browser that reads no more may hold it for a while.
pub(super) async fn live(State(door): State<Door>) -> Response {
    let pieces = stream::unfold((door.dashboard.moment.subscribe(), door.stop), |(mut moment, stop)| async {
        tokio::select! {
            () = stop.cancelled() => return None,
            changed = moment.changed() => changed.ok()?,
        }
        let piece = format!("data: {}\n\n", *moment.borrow_and_update());
        Some((Ok::<_, Infallible>(piece), (moment, stop)))
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

/// A picture of each destination's last hour.
pub(super) async fn plots(State(door): State<Door>) -> Json<BTreeMap<String, Plot>> {
    Json(door.dashboard.history.plots())
}

/// Looks how it goes, for the history and for whoever looks, until `stop`.
pub(super) async fn observe(door: Door, stop: CancellationToken) {
    let mut ticks = interval(LIVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (note, shown) =
            (noted.is_none_or(|at| at.elapsed() >= history::EVERY), door.dashboard.moment.receiver_count() > 0);
        if !note && !shown {
            continue;
        }
        let Ok(stats) = door.stats().await else { continue };
        if note {
            noted = Some(Instant::now());
            door.dashboard.history.note(stats.at.0, &stats.destinations);
        }
        if shown && let Ok(text) = serde_json::to_string(&stats) {
            door.dashboard.moment.send_replace(text.into());
        }
    }
}
