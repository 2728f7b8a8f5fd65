//! What the running service knows of itself at this moment: written by the loops, read by whoever asks. Nothing here is
//! needed to go on after a crash. Deliberately absent: history, counters that must survive (they ride in the outbox).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ids::DestinationName;
use crate::domain::time::Moment;

/// The shared board; clones show the same.
#[derive(Clone, Debug)]
pub struct Status(Arc<Mutex<Board>>);

/// What is on it.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// When the service started.
    pub started: Moment,
    /// How it goes with VK.
    pub polling: Polling,
    /// How it goes with each destination.
    pub destinations: BTreeMap<DestinationName, Destination>,
}

/// How it goes with VK.
#[derive(Clone, Debug, Default)]
pub struct Polling {
    /// When VK last gave an answer that could be used.
    pub heard: Option<Moment>,
    /// What is in the way, in words, and since when.
    pub problem: Option<(Moment, String)>,
    /// When it is tried again.
    pub next_try: Option<Moment>,
    /// Answers so far.
    pub answers: u64,
}

/// How it goes with one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// Requests in flight.
    pub in_flight: usize,
    /// Chats that wait for their retry.
    pub waiting_chats: usize,
    /// Chats whose events were moved aside.
    pub aside_chats: usize,
    /// Events of replays that wait or are in flight.
    pub replaying: usize,
    /// What holds it.
    pub gate: Gate,
    /// When something is tried next.
    pub next_try: Option<Moment>,
    /// The last attempt that failed, in words.
    pub last_error: Option<(Moment, String)>,
}

/// What holds a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Nothing.
    #[default]
    Open,
    /// It asked for a pause.
    Held,
    /// It is down.
    Down,
}

impl Status {
    /// A board of a service that starts now.
    #[must_use]
    pub fn new(started: Moment) -> Self {
        Self(Arc::new(Mutex::new(Board { started, ..Board::default() })))
    }

    /// A copy of all of it.
    #[must_use]
    pub fn board(&self) -> Board {
        self.lock().clone()
    }

    /// VK gave an answer that could be used.
    pub fn heard(&self, at: Moment) {
        let mut board = self.lock();
        board.polling.heard = Some(at);
        board.polling.problem = None;
        board.polling.next_try = None;
        board.polling.answers += 1;
    }

    /// VK answered, and yet something is in the way that will end it.
    pub fn heard_in_trouble(&self, at: Moment, words: String, next_try: Option<Moment>) {
        let mut board = self.lock();
        board.polling.heard = Some(at);
        board.polling.answers += 1;
        let since = board.polling.problem.as_ref().map_or(at, |(since, _)| *since);
        board.polling.problem = Some((since, words));
        board.polling.next_try = next_try;
    }

    /// What was in the way of polling is gone; whether VK answers is not known yet.
    pub fn polling_goes_on(&self) {
        let mut board = self.lock();
        board.polling.problem = None;
        board.polling.next_try = None;
    }

    /// Something is in the way of polling; the moment of the first trouble stays.
    pub fn polling_problem(&self, at: Moment, words: String, next_try: Option<Moment>) {
        let mut board = self.lock();
        let since = board.polling.problem.as_ref().map_or(at, |(since, _)| *since);
        board.polling.problem = Some((since, words));
        board.polling.next_try = next_try;
    }

    /// How it goes with a destination.
    pub fn destination(&self, name: &DestinationName, now: Destination) {
        let mut board = self.lock();
        match board.destinations.get_mut(name) {
            Some(known) => *known = now,
            None => drop(board.destinations.insert(name.clone(), now)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
