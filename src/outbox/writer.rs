//! The one writer: a thread that takes what has queued up, makes one batch of it, commits it durably, then answers
//! everyone in it. No other code writes to the store of a running service.
//!
//! Invariants: nobody is answered `Ok` before the commit; the head that readers see is durable; after a failed commit
//! nothing is ever committed again, and everyone is told why. Deliberately absent: what a request means (`state`).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::error::OutboxError;
use super::handle::Shared;
use super::keys::DestinationId;
use super::kv::{Batch, Kv, KvError};
use super::log::Logged;
use super::records::PauseRecord;
use super::requests::{Append, Appended, Filled, Operation, Reconverted, Settlement};
use super::state::State;
use super::trim::Left;
use super::upkeep::Upkeep;
use crate::clock::Clock;
use crate::domain::ids::Seq;

/// How many requests wait for the writer at most; who brings one more waits.
pub(super) const REQUESTS: usize = 1024;
/// How many requests go into one commit at most.
const REQUESTS_PER_COMMIT: usize = 256;
/// How many bytes of new events go into one commit, but for the last request's.
const BYTES_PER_COMMIT: usize = 4 << 20;
/// How often the writer looks for something to delete when nobody asks for anything.
const IDLE_TICK: Duration = Duration::from_secs(5);

/// Which destinations an operator has paused.
pub(super) type Pauses = BTreeMap<DestinationId, PauseRecord>;

/// What the writer can be asked for.
pub(super) enum Request {
    Append(Append, oneshot::Sender<Result<Appended, OutboxError>>),
    Settle(Settlement, Option<oneshot::Sender<Result<(), OutboxError>>>),
    Fill(Filled, oneshot::Sender<Result<(), OutboxError>>),
    Reconvert(Reconverted, oneshot::Sender<Result<(), OutboxError>>),
    Operate(Vec<Operation>, oneshot::Sender<Result<Vec<u64>, OutboxError>>),
    Close,
}

/// What is owed to who asked, once the commit is durable.
type Debt = Box<dyn FnOnce(Result<(), OutboxError>) + Send>;

/// The thread's own.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) state: State,
    pub(super) upkeep: Upkeep,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) relief: watch::Sender<Seq>,
    pub(super) head: watch::Sender<Seq>,
    pub(super) replays: watch::Sender<u64>,
    pub(super) gaps: watch::Sender<u64>,
    pub(super) pauses: watch::Sender<Pauses>,
    pub(super) failed: watch::Sender<Option<OutboxError>>,
    pub(super) clock: Clock,
}

impl Writer {
    /// Starts the thread. It ends after [`Request::Close`], or when no handle is left.
    pub(super) fn start(self) -> io::Result<JoinHandle<()>> {
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Builder::new().name("outbox-writer".to_owned()).spawn(move || self.run(&timer))
    }

    fn run(mut self, timer: &tokio::runtime::Runtime) {
        // What the last process left undone is done at once.
        let mut more_to_trim = true;
        let mut asked = None;
        loop {
            let hurry = more_to_trim || self.upkeep.is_busy();
            let requests = match self.wait(timer, hurry) {
                Wait::Requests(requests) => requests,
                Wait::Tick => Vec::new(),
                Wait::Ended => return,
            };
            let mut debts = Vec::new();
            let mut closing = false;
            let outcome = self.commit(requests, &mut debts, &mut closing);
            let outcome = outcome.and_then(|left| {
                debts.drain(..).for_each(|debt| debt(Ok(())));
                let live = self.state.space.weights.sum();
                self.upkeep.tend(&self.shared, live, self.clock.now())?;
                Ok(left)
            });
            match outcome {
                Ok(left) => {
                    more_to_trim = left.more;
                    if let Some(seq) = left.relief {
                        // Who could not give way at once is asked again, but not in a hurry.
                        let late = asked.is_none_or(|at: Instant| at.elapsed() >= IDLE_TICK);
                        let told = self.relief.send_if_modified(|asked| {
                            let news = late || *asked != seq;
                            *asked = seq;
                            news
                        });
                        asked = if told { Some(Instant::now()) } else { asked };
                    }
                }
                Err(error) => {
                    if error.is_suspect() {
                        self.upkeep.suspect();
                    }
                    let error = OutboxError::of_store(&self.shared.dir, &error);
                    self.failed.send_replace(Some(error.clone()));
                    debts.into_iter().for_each(|debt| debt(Err(error.clone())));
                    if !closing {
                        self.refuse(&error);
                    }
                    return;
                }
            }
            if closing {
                return;
            }
        }
    }

    fn wait(&mut self, timer: &tokio::runtime::Runtime, at_once: bool) -> Wait {
        let patience = if at_once { Duration::ZERO } else { IDLE_TICK };
        let first = timer.block_on(async { tokio::time::timeout(patience, self.requests.recv()).await });
        let mut requests = match first {
            Ok(Some(request)) => vec![request],
            Ok(None) => return Wait::Ended,
            Err(_) => return Wait::Tick,
        };
        let mut bytes = weight(&requests[0]);
        while requests.len() < REQUESTS_PER_COMMIT && bytes < BYTES_PER_COMMIT {
            let Ok(request) = self.requests.try_recv() else { break };
            bytes += weight(&request);
            requests.push(request);
        }
        Wait::Requests(requests)
    }

    /// One commit of everything that was asked for; what is owed is put down even when it fails.
    fn commit(&mut self, requests: Vec<Request>, debts: &mut Vec<Debt>, closing: &mut bool) -> Result<Left, KvError> {
        let now = self.clock.now();
        let kv = self.shared.kv();
        let mut batch = Batch::default();
        let mut fresh: Vec<Logged> = Vec::new();
        let (mut pauses, mut replays, mut discards) = (false, false, 0);
        let mut outcome = Ok(());
        for request in requests {
            match request {
                Request::Append(append, reply) => {
                    let mut done = Appended::default();
                    match self.state.append(kv.as_ref(), &mut batch, append, now) {
                        Ok((appended, logged)) => {
                            done = appended;
                            fresh.extend(logged);
                        }
                        Err(error) => outcome = Err(error),
                    }
                    debts.push(Box::new(move |result| drop(reply.send(result.map(|()| done)))));
                }
                Request::Settle(settlement, reply) => {
                    if outcome.is_ok() {
                        outcome = self.state.settle(kv.as_ref(), &mut batch, settlement);
                    }
                    if let Some(reply) = reply {
                        debts.push(Box::new(move |result| drop(reply.send(result))));
                    }
                }
                Request::Reconvert(reconverted, reply) => {
                    match self.state.reconvert(kv.as_ref(), &mut batch, reconverted, now) {
                        Ok(logged) => fresh.extend(logged),
                        Err(error) => outcome = Err(error),
                    }
                    debts.push(Box::new(move |result| drop(reply.send(result))));
                }
                Request::Fill(filled, reply) => {
                    match self.state.fill(kv.as_ref(), &mut batch, filled, now) {
                        Ok(logged) => fresh.extend(logged),
                        Err(error) => outcome = Err(error),
                    }
                    debts.push(Box::new(move |result| drop(reply.send(result))));
                }
                Request::Operate(operations, reply) => {
                    for operation in &operations {
                        pauses |= matches!(operation, Operation::Pause(..) | Operation::Resume(_));
                        replays |= matches!(operation, Operation::Replay(_) | Operation::CancelReplay(_));
                        discards += u64::from(matches!(operation, Operation::DiscardDead(..)));
                    }
                    let done = self.state.operate(kv.as_ref(), &mut batch, operations, now);
                    let done = done.unwrap_or_else(|error| {
                        outcome = Err(error);
                        Vec::new()
                    });
                    debts.push(Box::new(move |result| drop(reply.send(result.map(|()| done)))));
                }
                Request::Close => *closing = true,
            }
        }
        outcome?;
        let left = self.state.trim(kv.as_ref(), &mut batch, &self.upkeep.space(), now)?;
        self.state.seal(&mut batch);
        if !batch.is_empty() {
            self.make_durable(kv.as_ref(), &batch)?;
            self.state.committed();
            self.upkeep.committed(&batch, self.state.commits());
        }
        if !fresh.is_empty() {
            self.shared.window.push(fresh);
            self.head.send_replace(self.state.head.next);
        }
        if pauses {
            self.pauses.send_replace(self.state.pauses());
        }
        if replays || discards > 0 {
            self.replays.send_modify(|told| *told += discards);
        }
        let gaps = self.state.head.next_gap;
        self.gaps.send_if_modified(|told| std::mem::replace(told, gaps) != gaps);
        Ok(left)
    }

    fn make_durable(&self, kv: &dyn Kv, batch: &Batch) -> Result<(), KvError> {
        let start = Instant::now();
        kv.apply(batch)?;
        let applied = Instant::now();
        kv.sync()?;
        if let Some(commits) = self.shared.commits.get() {
            commits.committed(start.elapsed(), applied.elapsed());
        }
        Ok(())
    }

    /// After a failed commit: nothing is taken any more, and everyone is told why.
    fn refuse(mut self, error: &OutboxError) {
        let refused = || OutboxError::Poisoned(error.to_string());
        while let Some(request) = self.requests.blocking_recv() {
            match request {
                Request::Append(_, reply) => drop(reply.send(Err(refused()))),
                Request::Settle(_, Some(reply)) => drop(reply.send(Err(refused()))),
                Request::Settle(_, None) => {}
                Request::Fill(_, reply) => drop(reply.send(Err(refused()))),
                Request::Reconvert(_, reply) => drop(reply.send(Err(refused()))),
                Request::Operate(_, reply) => drop(reply.send(Err(refused()))),
                Request::Close => return,
            }
        }
    }
}

enum Wait {
    Requests(Vec<Request>),
    Tick,
    Ended,
}

fn weight(request: &Request) -> usize {
    match request {
        Request::Append(append, _) => append.events.iter().map(|(event, _, _)| event.body.len()).sum(),
        Request::Reconvert(reconverted, _) => reconverted.events.iter().map(|(_, event, ..)| event.body.len()).sum(),
        // At most a hundred messages: what they weigh is not worth asking.
        Request::Fill(..) | Request::Settle(..) | Request::Operate(..) | Request::Close => 0,
    }
}
