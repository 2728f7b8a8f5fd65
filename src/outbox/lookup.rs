//! Finding events in the outbox: `outbox list` and `outbox show`. Reads what is durable, in pages. Deliberately absent:
//! statistics (`inspect`), changing anything.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::filter::Filter;
use super::found::{First, FoundRows};
use super::frame::{self, load};
use super::inspect::{Books, READ_BYTES};
use super::keys::{self, DestinationId};
use super::kv::{Kv, KvError};
use super::log::{self, Logged};
use super::records::{AttemptNote, DeadRecord, EventRecord, History, Mark, MarkRecord, QuarantineRecord, lane_of};
use super::rows;
use super::views::{
    At, AttemptView, DeliveryState, DeliveryView, DestinationState, Exported, ListState, Row, Selector, Shown, Stats,
};
use crate::domain::delivery::Death;
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

/// How many rows a list has unless it is told.
pub const DEFAULT_LIMIT: u64 = 50;
/// How many rows one page of an export has.
const EXPORT_ROWS: u64 = MAX_LIMIT;
/// The most rows that a list has.
pub const MAX_LIMIT: u64 = 10_000;

/// `outbox list`: rows in the order of their positions; what is in quarantine only when it is asked for.
///
/// # Errors
/// When the store cannot be read.
pub fn list(kv: &dyn Kv, selector: &Selector) -> Result<Vec<Row>, KvError> {
    Ok(look(kv, selector, false)?.rows)
}

/// `outbox export`: a page of what a selector takes, as lines of JSON.
///
/// # Errors
/// When the store cannot be read.
pub fn export(kv: &dyn Kv, selector: &Selector) -> Result<Exported, KvError> {
    let found = look(kv, &Selector { limit: Some(EXPORT_ROWS), ..selector.clone() }, true)?;
    let mut page = Exported { lines: Vec::new(), next: None };
    for row in found.rows {
        page.next = row.seq.or(row.quarantine).filter(|_| found.more).map(|number| number + 1);
        page.lines.push(line(&row.content.unwrap_or_default())?);
    }
    Ok(page)
}

/// One line of JSON: what cannot be JSON becomes a text of it.
fn line(content: &[u8]) -> Result<Box<RawValue>, KvError> {
    // A line feed in JSON is never inside a text.
    let text = String::from_utf8_lossy(content).replace(['\n', '\r'], " ");
    let no_json = |_| {
        let quoted = serde_json::Value::String(String::from_utf8_lossy(content).into_owned()).to_string();
        RawValue::from_string(quoted)
    };
    RawValue::from_string(text).or_else(no_json).map_err(|error| KvError::Damaged(error.to_string()))
}

fn look(kv: &dyn Kv, selector: &Selector, contents: bool) -> Result<FoundRows, KvError> {
    if selector.cause.is_some() && selector.state.is_none() {
        return look(kv, &Selector { state: Some(ListState::Dead), ..selector.clone() }, contents);
    }
    let limit = usize::try_from(selector.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)).unwrap_or(usize::MAX);
    if selector.state == Some(ListState::Quarantined) {
        return quarantined(kv, selector, limit, contents);
    }
    let books = Books::read(kv)?;
    let looker = Looker { kv, books: &books, histories: false, contents };
    let mut found = looker.outside_the_log(selector, limit)?;
    // Dead letters are all listed by their own rows.
    let from = if selector.state == Some(ListState::Dead) { books.head.next } else { books.head.tail };
    let mut at = from.max(Seq(selector.from_seq.unwrap_or(0)));
    let end = selector.to_seq.map_or(books.head.next, |to| Seq(to.saturating_add(1)).min(books.head.next));
    while at < end && !found.is_full() {
        for chunk in log::read(kv, at, books.head.next, READ_BYTES)? {
            for logged in chunk.events.iter().filter(|logged| logged.queued.seq >= at && logged.queued.seq < end) {
                if !found.is_full()
                    && let Some(row) = looker.row(logged, selector)?
                {
                    found.push(row);
                }
            }
            at = chunk.end();
        }
    }
    Ok(found)
}

/// `outbox show`: by position, by event id, or by `qN` for what is in quarantine; nothing when there is no such thing.
///
/// # Errors
/// When the store cannot be read.
pub fn show(kv: &dyn Kv, id: &str) -> Result<Option<Shown>, KvError> {
    if let Some(number) = id.strip_prefix('q').and_then(|number| number.parse::<u64>().ok()) {
        let key = keys::quarantine(number);
        let record: Option<QuarantineRecord> = load(kv, &key)?;
        return Ok(record.map(|record| {
            let raw = String::from_utf8_lossy(&record.raw).into_owned();
            Shown { row: quarantine_row(number, record), body: None, raw: Some(raw) }
        }));
    }
    let books = Books::read(kv)?;
    let looker = Looker { kv, books: &books, histories: true, contents: false };
    let by_seq = id.parse::<u64>().ok().filter(|_| id.len() < 20).map(Seq);
    let logged = match by_seq {
        Some(seq) => {
            if seq < books.head.tail {
                None
            } else {
                log::one(kv, seq)?
            }
        }
        None => looker.find(id)?,
    };
    if let Some(logged) = logged {
        let row = looker.row(&logged, &Selector::default())?;
        return row.map(|row| shown(row, &logged.queued.event.body)).transpose();
    }
    looker.show_outside_the_log(by_seq, id)
}

/// Says of each delivery that waits how it goes with its destination. While that is down or held, its next try counts.
pub fn explain(shown: &mut Shown, stats: &Stats) {
    for delivery in shown.row.deliveries.iter_mut().filter(|delivery| delivery.state == DeliveryState::Pending) {
        if let Some(view) = stats.destinations.iter().find(|view| view.name == delivery.destination) {
            delivery.why = Some(view.why.clone());
            if matches!(view.state, DestinationState::Down | DestinationState::Held) {
                delivery.next_try = view.next_try;
            }
        }
    }
}

fn shown(row: Row, body: &[u8]) -> Result<Shown, KvError> {
    let text = String::from_utf8_lossy(body).into_owned();
    let body = RawValue::from_string(text)
        .map_err(|error| KvError::Damaged(format!("the body of event {} is no JSON: {error}", row.event_id)))?;
    Ok(Shown { row, body: Some(body), raw: None })
}

/// Turns stored things into rows.
struct Looker<'a> {
    kv: &'a dyn Kv,
    books: &'a Books,
    histories: bool,
    contents: bool,
}

impl Looker<'_> {
    fn row(&self, logged: &Logged, selector: &Selector) -> Result<Option<Row>, KvError> {
        let event = log::event_record(logged);
        let seq = logged.queued.seq;
        let filter = filter(selector, None);
        // All that has expired has one cause.
        let caused = filter.cause.as_ref().is_none_or(|cause| *cause == Death::TooOld.cause());
        if !caused || !filter.takes(seq, &event) {
            return Ok(None);
        }
        let mut deliveries = Vec::new();
        for id in &logged.destinations {
            let name = self.books.names.name_of(*id);
            if selector.destination.as_ref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            let delivery = self.delivery(*id, seq, &event)?;
            if state_fits(selector, delivery.state) {
                deliveries.push(delivery);
            }
        }
        Ok((!deliveries.is_empty()).then(|| self.row_of(seq, &event, deliveries)))
    }

    fn delivery(&self, id: DestinationId, seq: Seq, event: &EventRecord<'_>) -> Result<DeliveryView, KvError> {
        let waits = self.books.destinations.get(&id).is_some_and(|(_, cursor)| cursor.waits(seq));
        let pending = waits || self.kv.get(&keys::aside(id, lane_of(event), seq))?.is_some();
        if pending {
            return self.pending(id, seq);
        }
        // In this order: an event that dies while it is looked at is found in one place or the other.
        let key = keys::dead(id, seq);
        if let Some(value) = self.kv.get(&key)? {
            let bytes = frame::whole(self.kv, &key, &value)?;
            return Ok(self.dead(id, frame::parse(&key, &bytes)?));
        }
        let mark: Option<MarkRecord> = load(self.kv, &keys::mark(id, seq))?;
        Ok(match mark {
            Some(MarkRecord { at, what: Mark::Discarded { was }, .. }) => {
                let reason = format!("by an operator at {}; it was {was}", at.rfc3339());
                self.view(id, DeliveryState::Discarded, Some(reason), History::default())
            }
            Some(MarkRecord { at, what: Mark::Expired, .. }) => {
                let reason = format!("older than max_age at {}", at.rfc3339());
                self.view(id, DeliveryState::Expired, Some(reason), History::default())
            }
            None => self.view(id, DeliveryState::Delivered, None, History::default()),
        })
    }

    fn pending(&self, id: DestinationId, seq: Seq) -> Result<DeliveryView, KvError> {
        let history = load(self.kv, &keys::history(id, seq))?.unwrap_or_default();
        Ok(self.view(id, DeliveryState::Pending, None, history))
    }

    fn dead(&self, id: DestinationId, record: DeadRecord<'_>) -> DeliveryView {
        self.view(id, DeliveryState::Dead, Some(record.death.to_string()), record.history)
    }

    fn view(&self, id: DestinationId, state: DeliveryState, reason: Option<String>, history: History) -> DeliveryView {
        let notes = if self.histories { history.notes } else { Vec::new() };
        let attempt = |note: AttemptNote| AttemptView {
            at: At(note.at),
            answer: note.answer,
            latency_ms: note.latency_ms,
            excerpt: note.excerpt,
        };
        DeliveryView {
            destination: self.books.names.name_of(id).to_owned(),
            state,
            reason,
            attempts: history.attempts,
            next_try: history.next_try.filter(|_| state == DeliveryState::Pending).map(At),
            why: None,
            history: notes.into_iter().map(attempt).collect(),
        }
    }

    /// Rows whose chunk may be gone: dead letters, and what was moved aside. Those still in the log are found there,
    /// except dead letters when only those are asked for.
    fn outside_the_log(&self, selector: &Selector, limit: usize) -> Result<FoundRows, KvError> {
        let (only_dead, filter) = (selector.state == Some(ListState::Dead), filter(selector, None));
        let mut first = First { rows: BTreeMap::new(), bytes: 0, limit, cut: false };
        for id in self.books.destinations.keys().copied() {
            let name = self.books.names.name_of(id);
            if selector.destination.as_ref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            if state_fits(selector, DeliveryState::Dead) {
                rows::dead_letters(self.kv, id, Seq(selector.from_seq.unwrap_or(0)), |_, dead, _| {
                    let inside = dead.seq >= self.books.head.tail && !only_dead;
                    if !inside && filter.takes_dead(&dead) {
                        let (seq, event) = (dead.seq, dead.event.clone());
                        first.add(seq, self.dead(id, dead), |delivery| self.row_of(seq, &event, vec![delivery]));
                        // They come in order: what follows would be cut off again.
                        return Ok(first.rows.contains_key(&seq));
                    }
                    Ok(true)
                })?;
            }
            if state_fits(selector, DeliveryState::Pending) && !only_dead {
                rows::aside_events(self.kv, id, |seq, event| {
                    if seq < self.books.head.tail && filter.takes(seq, &event) {
                        first.add(seq, self.pending(id, seq)?, |delivery| self.row_of(seq, &event, vec![delivery]));
                    }
                    Ok(true)
                })?;
            }
        }
        let (bytes, cut) = (first.bytes, first.cut);
        Ok(FoundRows { rows: first.rows.into_values().collect(), bytes, limit, more: cut })
    }

    fn show_outside_the_log(&self, seq: Option<Seq>, event_id: &str) -> Result<Option<Shown>, KvError> {
        let mut found: Option<(Row, Vec<u8>)> = None;
        let mut add = |seq: Seq, event: &EventRecord<'_>, delivery: DeliveryView| match &mut found {
            Some((row, _)) => row.deliveries.push(delivery),
            None => found = Some((self.row_of(seq, event, vec![delivery]), event.body.to_vec())),
        };
        let meant = |at: Seq, event: &EventRecord<'_>| seq.map_or(event.event_id == event_id, |seq| seq == at);
        for id in self.books.destinations.keys().copied() {
            rows::dead_letters(self.kv, id, Seq(0), |_, dead, _| {
                if meant(dead.seq, &dead.event) {
                    let (seq, event) = (dead.seq, dead.event.clone());
                    add(seq, &event, self.dead(id, dead));
                }
                Ok(true)
            })?;
            rows::aside_events(self.kv, id, |seq, event| {
                if meant(seq, &event) {
                    add(seq, &event, self.pending(id, seq)?);
                }
                Ok(true)
            })?;
        }
        found.map(|(row, body)| shown(row, &body)).transpose()
    }

    fn row_of(&self, seq: Seq, event: &EventRecord<'_>, deliveries: Vec<DeliveryView>) -> Row {
        Row {
            seq: Some(seq.0),
            quarantine: None,
            event_id: event.event_id.to_owned(),
            event_type: Some(event.event_type.to_owned()),
            peer_id: event.peer,
            user_id: event.user,
            received: At(event.received_at),
            reason: None,
            deliveries,
            content: self.contents.then(|| event.body.to_vec()),
        }
    }

    /// Looks through the log for an event id, newest first.
    fn find(&self, event_id: &str) -> Result<Option<Logged>, KvError> {
        let mut end = self.books.head.next;
        while end > self.books.head.tail {
            let Some(first) = log::chunk_holding(self.kv, Seq(end.0 - 1))? else { return Ok(None) };
            for chunk in log::read(self.kv, first, end, 1)? {
                let hit = chunk.events.into_iter().find(|logged| logged.queued.event.event_id.as_str() == event_id);
                if hit.is_some() {
                    return Ok(hit);
                }
            }
            end = first;
        }
        Ok(None)
    }
}

fn quarantined(kv: &dyn Kv, selector: &Selector, limit: usize, contents: bool) -> Result<FoundRows, KvError> {
    let mut found = FoundRows { rows: Vec::new(), bytes: 0, limit, more: false };
    let filter = filter(selector, None);
    rows::quarantined(kv, selector.from_seq.unwrap_or(0), |number, record| {
        if selector.destination.is_none() && filter.takes_quarantined(number, &record) {
            let raw = contents.then(|| record.raw.clone());
            found.push(Row { content: raw, ..quarantine_row(number, record) });
        }
        Ok(!found.is_full())
    })?;
    Ok(found)
}

fn quarantine_row(number: u64, record: QuarantineRecord) -> Row {
    Row {
        seq: None,
        quarantine: Some(number),
        event_id: record.event_id,
        event_type: None,
        peer_id: None,
        user_id: None,
        received: At(record.at),
        reason: Some(record.reason),
        deliveries: Vec::new(),
        content: None,
    }
}

/// A selector as a filter of dead letters.
#[must_use]
pub fn filter(selector: &Selector, event_id: Option<String>) -> Filter {
    Filter {
        event_id,
        from: selector.from_seq.map(Seq),
        to: selector.to_seq.map(Seq),
        event_type: selector.event_type.clone(),
        peer: selector.peer,
        user: selector.user,
        since: selector.since_ms.map(Moment),
        until: selector.until_ms.map(Moment),
        died_by: None,
        cause: selector.cause.clone(),
    }
}

fn state_fits(selector: &Selector, state: DeliveryState) -> bool {
    match selector.state {
        None => true,
        Some(ListState::Pending) => state == DeliveryState::Pending,
        Some(ListState::Delivered) => state == DeliveryState::Delivered,
        Some(ListState::Dead) => state == DeliveryState::Dead,
        Some(ListState::Expired) => state == DeliveryState::Expired,
        Some(ListState::Discarded) => state == DeliveryState::Discarded,
        Some(ListState::Quarantined) => false,
    }
}
