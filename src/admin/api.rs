//! The routes. Reads go to what is durable; the one that changes something asks the outbox's writer. Bodies of requests are
//! bounded. Deliberately absent: what a view looks like (`outbox::views`) and who may knock (the socket's mode).

use std::collections::HashMap;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::live::{not_ready, overlay};
use super::metrics;
use crate::clock::Clock;
use crate::domain::ids::DestinationName;
use crate::outbox::gaps::{self, GapView};
use crate::outbox::keys::DestinationId;
use crate::outbox::kv::Kv;
use crate::outbox::pauses::{PauseAsked, PauseMade, PauseView};
use crate::outbox::space::forgets_at;
use crate::outbox::verify::{Verified, verify};
use crate::outbox::views::{
    At, Discarded, Exported, FullView, ListState, ReplayAsked, ReplayMade, Row, Selector, Shown, Stats,
};
use crate::outbox::{Discard, Operation, Outbox, OutboxError, discard, inspect, lookup, replay};
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
    /// What time it is.
    pub clock: Clock,
    /// The destinations of the configuration.
    pub configured: Vec<DestinationName>,
    /// Who keeps their cursors: only they can take a pending event out.
    pub workers: HashMap<DestinationName, mpsc::Sender<Discard>>,
}

impl Door {
    /// What is on disk, with the state of the moment laid over it.
    async fn stats(&self) -> Result<Stats, Trouble> {
        let (now, dir) = (self.clock.now(), self.outbox.dir().display().to_string());
        let mut stats = self.outbox.read_store(move |kv| inspect::stats(kv, &dir, now)).await?;
        overlay(&mut stats, &self.status.board(), &self.configured);
        let space = self.outbox.watch_space().borrow().clone();
        stats.max_bytes = Some(space.max_bytes);
        stats.full = space.full.map(|full| FullView {
            why: full.why,
            since: At(full.since),
            vk_may_forget_from: At(forgets_at(full.since)),
        });
        Ok(stats)
    }
}

impl Door {
    async fn destination(&self, name: &str) -> Result<DestinationId, Trouble> {
        let name = name.to_owned();
        let found = self.outbox.read_store(move |kv| inspect::destination_id(kv, &name)).await?;
        found.map_err(Trouble::Nobody)
    }
}

/// The one router.
pub(super) fn router(door: Door) -> Router {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/api/v1/stats", get(stats))
        .route("/api/v1/events", get(list))
        .route("/api/v1/events/{id}", get(show))
        .route("/api/v1/gaps", get(gaps))
        .route("/api/v1/replays", post(make_replay))
        .route("/api/v1/discards", post(discard))
        .route("/api/v1/pauses", post(pause))
        .route("/api/v1/resumes", post(resume))
        .route("/api/v1/export", get(export))
        .route("/api/v1/verify", get(check_all))
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
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&gaps)).into_response())
}

async fn stats(State(door): State<Door>) -> Result<Json<Stats>, Trouble> {
    door.stats().await.map(Json)
}

async fn list(State(door): State<Door>, Query(selector): Query<Selector>) -> Result<Json<Vec<Row>>, Trouble> {
    Ok(Json(door.outbox.read_store(move |kv| lookup::list(kv, &selector)).await?))
}

async fn show(State(door): State<Door>, Path(id): Path<String>) -> Result<Json<Shown>, Trouble> {
    let shown = door.outbox.read_store(move |kv| lookup::show(kv, &id)).await?;
    let mut shown = shown.ok_or(Trouble::Unknown)?;
    lookup::explain(&mut shown, &door.stats().await?);
    Ok(Json(shown))
}

async fn gaps(State(door): State<Door>) -> Result<Json<Vec<GapView>>, Trouble> {
    Ok(Json(door.outbox.read_store(gaps::all).await?))
}

async fn make_replay(
    State(door): State<Door>,
    Json(asked): Json<ReplayAsked>,
) -> Result<Json<Vec<ReplayMade>>, Trouble> {
    let dry_run = asked.dry_run;
    let plans = door.outbox.read_store(move |kv| replay::plan(kv, &asked)).await?;
    let mut made = Vec::new();
    for plan in plans {
        let number = match dry_run {
            true => None,
            false => Some(door.outbox.replay(plan.destination, plan.filter.clone(), plan.matched, plan.expired).await?),
        };
        if let Some(number) = number {
            tracing::info!(
                destination = plan.name,
                replay = number,
                matched = plan.matched,
                "replay asked for by an operator"
            );
        }
        made.push(plan.made(number));
    }
    Ok(Json(made))
}

async fn export(State(door): State<Door>, Query(selector): Query<Selector>) -> Result<Json<Exported>, Trouble> {
    Ok(Json(door.outbox.read_store(move |kv| lookup::export(kv, &selector)).await?))
}

async fn check_all(State(door): State<Door>) -> Result<Json<Verified>, Trouble> {
    Ok(Json(door.outbox.read_store(|kv| verify(kv, &mut |_, _| {})).await?))
}

async fn discard(State(door): State<Door>, Json(asked): Json<ReplayAsked>) -> Result<Json<Discarded>, Trouble> {
    if asked.id.is_none() && asked.selector.state == Some(ListState::Pending) {
        return discard_detached(&door, &asked).await.map(Json);
    }
    let dry_run = asked.dry_run;
    let look = move |kv: &dyn Kv| {
        let end = asked.up_to.map_or_else(|| replay::quarantine_end(kv), Ok)?;
        Ok((end, discard::plan(kv, &ReplayAsked { up_to: Some(end), ..asked.clone() })?))
    };
    let (end, plan) = door.outbox.read_store(look).await?;
    let mut told = Discarded { matched: 0, done: !dry_run, up_to: Some(end) };
    if dry_run {
        told.matched = plan.matched();
        return Ok(Json(told));
    }
    for rows in plan.rows {
        let mut from = 0;
        loop {
            let this = rows.clone();
            let page = door.outbox.read_store(move |kv| discard::page(kv, &this, from)).await?;
            let Some((operation, next)) = page else { break };
            from = next;
            told.matched += door.outbox.operate(operation).await?;
        }
    }
    let mut refused = Vec::new();
    for (id, name, seq) in plan.pending {
        told.matched += match door.workers.iter().find(|(known, _)| known.as_str() == name) {
            Some((_, worker)) => {
                let (reply, answer) = oneshot::channel();
                let gone = |_| Trouble::Outbox(OutboxError::Closed);
                worker.send(Discard { seq, reply }).await.map_err(|_| Trouble::Outbox(OutboxError::Closed))?;
                match answer.await.map_err(gone)? {
                    Ok(()) => 1,
                    Err(words) => {
                        refused.push(format!("{name}: {words}"));
                        0
                    }
                }
            }
            None => door.outbox.operate(Operation::DiscardPending(id, seq)).await?,
        };
    }
    tracing::warn!(discarded = told.matched, "rows were discarded by an operator");
    if !refused.is_empty() {
        return Err(Trouble::Refused(format!("{} row(s) are discarded, but {}", told.matched, refused.join("; "))));
    }
    Ok(Json(told))
}

/// Everything that is pending for a destination that the configuration does not have.
async fn discard_detached(door: &Door, asked: &ReplayAsked) -> Result<Discarded, Trouble> {
    let configured: Vec<String> = door.configured.iter().map(ToString::to_string).collect();
    let name = discard::detached(&configured, asked.selector.destination.as_deref()).map_err(Trouble::Refused)?;
    let id = door.destination(name).await?;
    let stats = door.stats().await?;
    let pending = stats.destinations.iter().find(|view| view.name == name).map_or(0, |view| view.pending);
    if asked.dry_run {
        return Ok(Discarded { matched: pending, done: false, up_to: None });
    }
    let mut told = Discarded { matched: 0, done: true, up_to: None };
    loop {
        let count = door.outbox.operate(Operation::DiscardDetached(id)).await?;
        told.matched += count;
        if count == 0 {
            break;
        }
    }
    tracing::warn!(destination = name, discarded = told.matched, "a detached destination's events were discarded");
    Ok(told)
}

async fn pause(State(door): State<Door>, Json(asked): Json<PauseAsked>) -> Result<Json<PauseMade>, Trouble> {
    let id = door.destination(&asked.destination).await?;
    let record = asked.record(door.clock.now());
    door.outbox.operate(Operation::Pause(id, record.clone())).await?;
    let (destination, reason) = (asked.destination, record.reason.as_deref().unwrap_or("none given"));
    tracing::warn!(destination, reason, "destination paused by an operator");
    Ok(Json(PauseMade { destination, pause: Some(PauseView::of(&record)) }))
}

async fn resume(State(door): State<Door>, Json(asked): Json<PauseAsked>) -> Result<Json<PauseMade>, Trouble> {
    let id = door.destination(&asked.destination).await?;
    door.outbox.operate(Operation::Resume(id)).await?;
    let destination = asked.destination;
    tracing::warn!(destination, "destination resumed by an operator");
    Ok(Json(PauseMade { destination, pause: None }))
}

/// What can go wrong with a request.
enum Trouble {
    Outbox(OutboxError),
    Unknown,
    /// There is no such destination; those that there are.
    Nobody(String),
    /// It cannot be done, in words.
    Refused(String),
}

impl From<OutboxError> for Trouble {
    fn from(error: OutboxError) -> Self {
        Self::Outbox(error)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::Refused(words) => (StatusCode::CONFLICT, words),
            Self::Nobody(words) => (StatusCode::NOT_FOUND, words),
            Self::Unknown => (StatusCode::NOT_FOUND, "there is no such event".to_owned()),
            Self::Outbox(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        };
        (status, Json(json!({ "error": words }))).into_response()
    }
}
