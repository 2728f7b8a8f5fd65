//! The routes. Reads go to what is durable; what changes something goes over the operator's desk. Bodies of requests are
//! bounded. Deliberately absent: what a view looks like (`outbox::views`), what a change is (`outbox::operator`), who may knock
//! (the socket's mode).

use std::collections::HashMap;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::dashboard::{self, Dashboard};
use super::live::{not_ready, overlay};
use super::metrics::{self, Snapshot};
use super::tail;
use super::tcp::Bodies;
use crate::attempts::Attempts;
use crate::clock::Clock;
use crate::domain::ids::DestinationName;
use crate::metrics::Metrics;
use crate::outbox::audit::{self, AuditView};
use crate::outbox::gaps::{self, GapView};
use crate::outbox::groups::{self, GroupView};
use crate::outbox::operator::{self, Asked, CancelAsked, Desk, Discarded, OperatorError, ReplayMade};
use crate::outbox::pauses::{PauseAsked, PauseMade};
use crate::outbox::replay::{self, ReplayView};
use crate::outbox::space::forgets_at;
use crate::outbox::verify::{Verified, verify};
use crate::outbox::views::{At, Exported, FullView, Row, Selector, Shown, Stats};
use crate::outbox::{Discard, Outbox, OutboxError, inspect, lookup};
use crate::status::Status;

/// The largest request that is read.
const REQUEST_BYTES: usize = 64 << 10;

/// What the routes look at.
#[derive(Clone)]
pub struct Door {
    /// The outbox.
    pub outbox: Outbox,
    /// The state of the moment.
    pub status: Status,
    /// Each attempt as it ends.
    pub attempts: Attempts,
    /// What is counted and timed.
    pub metrics: Metrics,
    /// What time it is.
    pub clock: Clock,
    /// The destinations of the configuration.
    pub configured: Vec<DestinationName>,
    /// Who keeps their cursors: only they can take a pending event out.
    pub workers: HashMap<DestinationName, mpsc::Sender<Discard>>,
    /// What ends the answers that have no end of their own.
    pub stop: CancellationToken,
    /// What the page sees.
    pub dashboard: Dashboard,
}

impl Door {
    /// What is on disk, with the state of the moment laid over it.
    pub(super) async fn stats(&self) -> Result<Stats, Trouble> {
        let (now, dir) = (self.clock.now(), self.outbox.dir().display().to_string());
        let configured = self.configured();
        let mut stats = self.outbox.read_store(move |kv| inspect::stats(kv, &dir, &configured, now)).await?;
        overlay(&mut stats, &self.status.board(), &self.configured);
        let space = self.outbox.watch_space().borrow().clone();
        stats.max_bytes = Some(space.max_bytes);
        let (of_volume, of_outbox) =
            (stats.room_bytes.checked_sub(space.min_free_bytes), space.max_bytes.checked_sub(stats.used_bytes));
        stats.room_bytes = of_volume.unwrap_or(0).min(of_outbox.unwrap_or(0));
        stats.full = space.full.map(|full| FullView {
            why: full.why,
            since: At(full.since),
            vk_may_forget_from: At(forgets_at(full.since)),
        });
        Ok(stats)
    }
}

/// The one router.
pub(super) fn router(door: Door) -> Router {
    let page = dashboard::files().into_iter().fold(Router::new(), |page, (path, file)| page.route(path, file));
    page.route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/assets/door.json", get(dashboard::door))
        .route("/api/v1/live", get(dashboard::live))
        .route("/api/v1/plots", get(dashboard::plots))
        .route("/api/v1/stats", get(stats))
        .route("/api/v1/events", get(list))
        .route("/api/v1/events/{id}", get(show))
        .route("/api/v1/gaps", get(gaps))
        .route("/api/v1/groups", get(groups))
        .route("/api/v1/audit", get(audit))
        .route("/api/v1/replays", get(replays).post(make_replay))
        .route("/api/v1/cancellations", post(cancel))
        .route("/api/v1/discards", post(discard))
        .route("/api/v1/pauses", post(pause))
        .route("/api/v1/resumes", post(resume))
        .route("/api/v1/export", get(export))
        .route("/api/v1/verify", get(check_all))
        .route("/api/v1/tail", get(tail::follow))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES))
        .with_state(door)
}

async fn ready(State(door): State<Door>) -> Response {
    // A poll that is under way may not have noticed yet.
    let full = door.outbox.watch_space().borrow().full.as_ref().map(|full| format!("polling: {}", full.words()));
    match full.or_else(|| not_ready(&door.status.board())) {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn scrape(State(door): State<Door>) -> Result<Response, Trouble> {
    let gaps = door.outbox.read_store(gaps::all).await?;
    let (stats, started) = (door.stats().await?, door.status.board().started);
    let text = metrics::render(&Snapshot { stats: &stats, gaps: &gaps, started }) + &door.metrics.render();
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn stats(State(door): State<Door>) -> Result<Json<Stats>, Trouble> {
    door.stats().await.map(Json)
}

async fn list(State(door): State<Door>, Query(selector): Query<Selector>) -> Result<Json<Vec<Row>>, Trouble> {
    Ok(Json(door.outbox.scan_store(move |kv| lookup::list(kv, &selector)).await?))
}

async fn show(
    State(door): State<Door>,
    Extension(bodies): Extension<Bodies>,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Trouble> {
    // By its position it is found at once.
    let shown = match id.parse::<u64>() {
        Ok(_) => door.outbox.read_store(move |kv| lookup::show(kv, &id)).await?,
        Err(_) => door.outbox.scan_store(move |kv| lookup::show(kv, &id)).await?,
    };
    let mut shown = shown.ok_or(Trouble::Unknown)?;
    lookup::explain(&mut shown, &door.stats().await?);
    if bodies == Bodies(false) {
        (shown.body, shown.raw) = (None, None);
        let attempts = shown.row.deliveries.iter_mut().flat_map(|delivery| &mut delivery.history);
        attempts.for_each(|attempt| attempt.excerpt.clear());
    }
    Ok(Json(shown))
}

async fn gaps(State(door): State<Door>) -> Result<Json<Vec<GapView>>, Trouble> {
    Ok(Json(door.outbox.read_store(gaps::all).await?))
}

async fn groups(
    State(door): State<Door>,
    Extension(bodies): Extension<Bodies>,
    Query(selector): Query<Selector>,
) -> Result<Json<Vec<GroupView>>, Trouble> {
    let mut found = door.outbox.scan_store(move |kv| groups::groups(kv, &selector)).await?;
    if bodies == Bodies(false) {
        found.iter_mut().for_each(|group| group.excerpt = None);
    }
    Ok(Json(found))
}

async fn replays(State(door): State<Door>) -> Result<Json<Vec<ReplayView>>, Trouble> {
    let (configured, now) = (door.configured(), door.clock.now());
    Ok(Json(door.outbox.read_store(move |kv| replay::all(kv, &configured, now)).await?))
}

async fn audit(State(door): State<Door>) -> Result<Json<Vec<AuditView>>, Trouble> {
    Ok(Json(door.outbox.read_store(audit::all).await?))
}

async fn make_replay(State(mut door): State<Door>, Json(asked): Json<Asked>) -> Result<Json<Vec<ReplayMade>>, Trouble> {
    Ok(Json(operator::replay(&mut door, asked).await?))
}

async fn cancel(State(mut door): State<Door>, Json(asked): Json<CancelAsked>) -> Result<Json<ReplayView>, Trouble> {
    Ok(Json(operator::cancel(&mut door, asked).await?))
}

async fn discard(State(mut door): State<Door>, Json(asked): Json<Asked>) -> Result<Json<Discarded>, Trouble> {
    Ok(Json(operator::discard(&mut door, asked).await?))
}

async fn pause(State(mut door): State<Door>, Json(asked): Json<PauseAsked>) -> Result<Json<PauseMade>, Trouble> {
    Ok(Json(operator::pause(&mut door, asked).await?))
}

async fn resume(State(mut door): State<Door>, Json(asked): Json<PauseAsked>) -> Result<Json<PauseMade>, Trouble> {
    Ok(Json(operator::resume(&mut door, asked).await?))
}

async fn export(State(door): State<Door>, Query(selector): Query<Selector>) -> Result<Json<Exported>, Trouble> {
    Ok(Json(door.outbox.scan_store(move |kv| lookup::export(kv, &selector)).await?))
}

async fn check_all(State(door): State<Door>) -> Result<Json<Verified>, Trouble> {
    Ok(Json(door.outbox.scan_store(|kv| verify(kv, &mut |_, _| {})).await?))
}

/// What can go wrong with a request.
pub(super) enum Trouble {
    Operator(OperatorError),
    Unknown,
}

impl From<OutboxError> for Trouble {
    fn from(error: OutboxError) -> Self {
        Self::Operator(OperatorError::Outbox(error))
    }
}

impl From<OperatorError> for Trouble {
    fn from(error: OperatorError) -> Self {
        Self::Operator(error)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::Operator(OperatorError::Refused(words)) => (StatusCode::CONFLICT, words),
            Self::Operator(OperatorError::Unknown(words)) => (StatusCode::NOT_FOUND, words),
            Self::Unknown => (StatusCode::NOT_FOUND, "there is no such event".to_owned()),
            Self::Operator(OperatorError::Outbox(error)) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        };
        (status, Json(json!({ "error": words }))).into_response()
    }
}
