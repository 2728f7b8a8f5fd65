//! What an operator changes, in a running outbox and in one at rest alike: replays, discards, pauses. Each change is written
//! down first, with its time and reason. Deliberately absent: what each change does to the records (`operations`), which rows
//! are meant (`replay`, `discard`), who may ask (the socket's mode).

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::discard::{self, detached};
use super::error::OutboxError;
use super::inspect;
use super::keys::DestinationId;
use super::kv::{Kv, KvError};
use super::pauses::{PauseAsked, PauseMade, PauseView};
use super::records::AuditRecord;
use super::replay::{self, Plan, ReplayView};
use super::requests::Operation;
use super::views::{ListState, Selector};
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

/// The longest time between two first attempts: a thousand seconds.
const MAX_INTERVAL_US: u64 = 1_000_000_000;
/// How long a reason may be.
const REASON_CHARS: usize = 500;

/// What is looked up in what is durable.
pub type Look<T> = Box<dyn Fn(&dyn Kv) -> Result<T, KvError> + Send>;

/// The outbox that is to be changed.
pub trait Desk: Send {
    /// Whether no service runs.
    const OFFLINE: bool;

    /// Looks at what is durable.
    fn look<T: Send + 'static>(&mut self, look: Look<T>) -> impl Future<Output = Result<T, OutboxError>> + Send;

    /// Changes it durably, in one commit.
    fn operate(&mut self, operations: Vec<Operation>) -> impl Future<Output = Result<Vec<u64>, OutboxError>> + Send;

    /// Has the worker of a destination take out a pending event; nothing where there is no worker. Where it cannot, it says
    /// why in words.
    fn withdraw(
        &mut self,
        destination: &str,
        seq: Seq,
    ) -> impl Future<Output = Result<Option<Result<(), String>>, OutboxError>> + Send;

    /// The destinations of the configuration.
    fn configured(&self) -> Vec<String>;

    /// What time it is.
    fn now(&self) -> Moment;
}

/// What a replay or a discard is asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// One row: a position, an event id, a number in quarantine.
    pub id: Option<String>,
    /// Which rows.
    pub selector: Selector,
    /// Only say how many it would be.
    pub dry_run: bool,
    /// Of the quarantine nothing from this number on, as an earlier dry run has said.
    #[serde(default)]
    pub up_to: Option<u64>,
    /// Nothing that died or expired later, as an earlier dry run has said (milliseconds since the epoch).
    #[serde(default)]
    pub died_by_ms: Option<i64>,
    /// Of a replay: the least time between two first attempts, in microseconds; 0 where nothing holds it back.
    #[serde(default)]
    pub interval_us: u64,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Asked {
    fn words(&self, verb: &str) -> String {
        let mut words = verb.to_owned();
        if let Some(id) = &self.id {
            words += &format!(" {id}");
        }
        words += &self.selector.words();
        if self.interval_us > 0 {
            words += &format!(" --rate {:.3}", 1.0 / Duration::from_micros(self.interval_us).as_secs_f64());
        }
        words
    }
}

/// What a replay will do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayMade {
    /// The destination, or `quarantine`.
    pub destination: String,
    /// `dead`, `expired` or `quarantined`: what it takes.
    pub state: ListState,
    /// How many rows it takes.
    pub matched: u64,
    /// Its number; null in a dry run.
    pub number: Option<u64>,
    /// What it waits for, in words; null where nothing is in its way.
    pub waits: Option<String>,
}

/// A replay is to be ended before all of it is done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelAsked {
    /// Its number.
    pub number: u64,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What a discard did, or would.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Discarded {
    /// How many rows.
    pub matched: u64,
    /// Whether they are gone.
    pub done: bool,
    /// Of the quarantine nothing from this number on was looked at.
    pub up_to: Option<u64>,
    /// Nothing that died or expired later was looked at.
    pub died_by_ms: Option<i64>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The outbox takes or gives nothing.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// There is no such destination, or replay; those that there are.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done, in words.
    #[error("{0}")]
    Refused(String),
}

/// Has rows delivered, or converted, again: a replay per destination that has any.
///
/// # Errors
/// When the outbox takes or gives nothing.
pub async fn replay(desk: &mut impl Desk, asked: Asked) -> Result<Vec<ReplayMade>, OperatorError> {
    known(desk, &asked.selector).await?;
    let look = asked.clone();
    let plans = desk.look(Box::new(move |kv: &dyn Kv| replay::plan(kv, &look))).await?;
    if asked.dry_run || plans.is_empty() {
        return Ok(plans.iter().map(|plan| plan.made(None)).collect());
    }
    let interval = asked.interval_us.min(MAX_INTERVAL_US);
    let mut operations: Vec<Operation> = plans.iter().map(|plan| Operation::Replay(plan.order(interval))).collect();
    operations.push(audit(desk, asked.words("replay"), asked.reason));
    let numbers = desk.operate(operations).await?;
    let views = views(desk).await?;
    let waits = |number| views.iter().find(|view| view.number == number).and_then(|view| view.waits.clone());
    let made = |(plan, number): (&Plan, &u64)| ReplayMade { waits: waits(*number), ..plan.made(Some(*number)) };
    Ok(plans.iter().zip(&numbers).map(made).collect())
}

/// Ends a replay before all of it is done: what of it is in flight is settled still, the rest stays as it is.
///
/// # Errors
/// When there is no such replay, or it is over.
pub async fn cancel(desk: &mut impl Desk, asked: CancelAsked) -> Result<ReplayView, OperatorError> {
    let number = asked.number;
    let known = find(desk, number).await?;
    if known.ended.is_some() {
        return Err(OperatorError::Refused(format!("replay {number} is over")));
    }
    let audit = audit(desk, format!("cancel {number}"), asked.reason);
    desk.operate(vec![Operation::CancelReplay(number), audit]).await?;
    find(desk, number).await
}

async fn find(desk: &mut impl Desk, number: u64) -> Result<ReplayView, OperatorError> {
    let known = views(desk).await?.into_iter().find(|view| view.number == number);
    known.ok_or_else(|| OperatorError::Unknown(format!("there is no replay {number}; `outbox replays` lists them")))
}

async fn views(desk: &mut impl Desk) -> Result<Vec<ReplayView>, OutboxError> {
    let (configured, now) = (desk.configured(), desk.now());
    desk.look(Box::new(move |kv: &dyn Kv| replay::all(kv, &configured, now))).await
}

/// Takes rows out for good.
///
/// # Errors
/// When some of it cannot be done: what, in words, and how many rows are gone.
pub async fn discard(desk: &mut impl Desk, asked: Asked) -> Result<Discarded, OperatorError> {
    known(desk, &asked.selector).await?;
    if asked.id.is_none() && asked.selector.state == Some(ListState::Pending) {
        return discard_detached(desk, &asked).await;
    }
    let died_by_ms = Some(asked.died_by_ms.unwrap_or(desk.now().0));
    let asked = Asked { died_by_ms, ..asked };
    let look = asked.clone();
    let look = move |kv: &dyn Kv| {
        let end = look.up_to.map_or_else(|| replay::quarantine_end(kv), Ok)?;
        Ok((end, discard::plan(kv, &Asked { up_to: Some(end), ..look.clone() })?))
    };
    let (end, plan) = desk.look(Box::new(look)).await?;
    if asked.dry_run || plan.matched() == 0 {
        return Ok(Discarded { matched: plan.matched(), done: !asked.dry_run, up_to: Some(end), died_by_ms });
    }
    let change = begin(desk, asked.words("discard"), asked.reason.clone()).await?;
    let mut matched = 0;
    for rows in plan.rows {
        let mut from = 0;
        loop {
            let this = rows.clone();
            let Some((operation, next)) =
                desk.look(Box::new(move |kv: &dyn Kv| discard::page(kv, &this, from))).await?
            else {
                break;
            };
            from = next;
            matched += one(desk, operation).await?;
        }
    }
    let mut refused = Vec::new();
    for (id, name, seq) in plan.pending {
        match desk.withdraw(&name, seq).await? {
            Some(Ok(())) => matched += 1,
            Some(Err(words)) => refused.push(format!("{name}: {words}")),
            None => matched += one(desk, Operation::DiscardPending(id, seq)).await?,
        }
    }
    change.end(desk, matched).await?;
    match refused.is_empty() {
        true => Ok(Discarded { matched, done: true, up_to: Some(end), died_by_ms }),
        false => Err(OperatorError::Refused(format!("{matched} discarded, but {}", refused.join("; ")))),
    }
}

/// Everything that is pending for a destination that the configuration does not have.
async fn discard_detached(desk: &mut impl Desk, asked: &Asked) -> Result<Discarded, OperatorError> {
    let configured = desk.configured();
    let name = detached(&configured, &asked.selector).map_err(OperatorError::Refused)?;
    let id = destination(desk, name).await?;
    let now = desk.now();
    let stats = desk.look(Box::new(move |kv: &dyn Kv| inspect::stats(kv, "", &[], now))).await?;
    let pending = stats.destinations.iter().find(|view| view.name == name).map_or(0, |view| view.pending);
    if asked.dry_run || pending == 0 {
        return Ok(Discarded { matched: pending, done: !asked.dry_run, ..Discarded::default() });
    }
    let change = begin(desk, asked.words("discard"), asked.reason.clone()).await?;
    let mut matched = 0;
    loop {
        match one(desk, Operation::DiscardDetached(id)).await? {
            0 => break,
            count => matched += count,
        }
    }
    change.end(desk, matched).await?;
    Ok(Discarded { matched, done: true, ..Discarded::default() })
}

/// Nothing is sent to a destination until its pause ends.
///
/// # Errors
/// When there is no such destination.
pub async fn pause(desk: &mut impl Desk, asked: PauseAsked) -> Result<PauseMade, OperatorError> {
    let id = destination(desk, &asked.destination).await?;
    let record = asked.record(desk.now());
    let pause = Some(PauseView::of(&record));
    let audit = audit(desk, asked.words(), asked.reason);
    desk.operate(vec![Operation::Pause(id, record), audit]).await?;
    Ok(PauseMade { destination: asked.destination, pause })
}

/// What is pending goes out again.
///
/// # Errors
/// When there is no such destination.
pub async fn resume(desk: &mut impl Desk, asked: PauseAsked) -> Result<PauseMade, OperatorError> {
    let id = destination(desk, &asked.destination).await?;
    let audit = audit(desk, format!("resume {}", asked.destination), asked.reason);
    desk.operate(vec![Operation::Resume(id), audit]).await?;
    Ok(PauseMade { destination: asked.destination, pause: None })
}

/// The number of a destination.
///
/// # Errors
/// When there is none of that name: those that there are.
pub async fn destination(desk: &mut impl Desk, name: &str) -> Result<DestinationId, OperatorError> {
    let name = name.to_owned();
    desk.look(Box::new(move |kv: &dyn Kv| inspect::destination_id(kv, &name))).await?.map_err(OperatorError::Unknown)
}

/// A selector that names a destination names one that there is.
async fn known(desk: &mut impl Desk, selector: &Selector) -> Result<(), OperatorError> {
    match &selector.destination {
        Some(name) => destination(desk, name).await.map(drop),
        None => Ok(()),
    }
}

async fn one(desk: &mut impl Desk, operation: Operation) -> Result<u64, OutboxError> {
    Ok(desk.operate(vec![operation]).await?.into_iter().sum())
}

/// What is written down of a change: in its own commit, or before it where it takes many.
fn audit<D: Desk>(desk: &D, what: String, reason: Option<String>) -> Operation {
    let reason = reason.map(|words| bounded(&words)).filter(|words| !words.is_empty());
    tracing::warn!(what, reason = reason.as_deref().unwrap_or("none given"), "asked for by an operator");
    let (at, offline) = (desk.now(), D::OFFLINE);
    Operation::Audit(AuditRecord { at, what, reason, offline, changed: None, replays: Vec::new() })
}

/// A reason, of a length that people read.
pub(super) fn bounded(words: &str) -> String {
    words.trim().chars().take(REASON_CHARS).collect()
}

/// A change of many commits that is written down and under way.
struct Begun(u64);

async fn begin(desk: &mut impl Desk, what: String, reason: Option<String>) -> Result<Begun, OutboxError> {
    let audit = audit(desk, what, reason);
    one(desk, audit).await.map(Begun)
}

impl Begun {
    async fn end(self, desk: &mut impl Desk, changed: u64) -> Result<(), OutboxError> {
        one(desk, Operation::Audited(self.0, changed)).await.map(drop)
    }
}
