//! Updates leave quarantine: as events, once they can be read, or discarded. Part of the writer's state. Deliberately absent:
//! converting (`app::reconvert`), how they come there (`state`).

use super::changes::less;
use super::frame;
use super::keys;
use super::kv::{Batch, Kv, KvError};
use super::log::Logged;
use super::records::{Ended, QuarantineRecord};
use super::requests::Reconverted;
use super::state::State;
use crate::domain::ids::Seq;
use crate::domain::time::Moment;

impl State {
    /// Takes updates out of quarantine that can be read now. Those that somebody discarded meanwhile stay discarded.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn reconvert(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        reconverted: Reconverted,
        now: Moment,
    ) -> Result<Vec<Logged>, KvError> {
        let mut events = Vec::new();
        let (mut succeeded, mut failed) = (0, 0);
        for (number, event, source, takers) in reconverted.events {
            if !self.leave_quarantine(kv, batch, number)? {
                continue;
            }
            succeeded += 1;
            match takers.is_empty() {
                true => self.head.unrouted += 1,
                false => events.push((event, source, takers)),
            }
        }
        for (number, reason) in reconverted.unreadable {
            let key = keys::quarantine(number);
            let Some(value) = batch.row(kv, &key)? else { continue };
            failed += 1;
            let record: QuarantineRecord = frame::parse(&key, &frame::whole(kv, &key, &value)?)?;
            if record.reason != reason {
                frame::delete(batch, &key, &value);
                frame::add(batch, key, &QuarantineRecord { reason, ..record });
            }
        }
        self.in_replay(reconverted.replay, |job| {
            job.succeeded += succeeded;
            job.failed += failed;
            job.order.filter.from = reconverted.next.map(Seq).or(job.order.filter.from);
        });
        if reconverted.next.is_none() {
            self.end_replay(reconverted.replay, Ended { at: now, cancelled: false });
        }
        Ok(self.take_in(batch, events).1)
    }

    /// Takes updates out of quarantine for good; answers how many there were.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub(super) fn discard_quarantined(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        numbers: &[u64],
    ) -> Result<u64, KvError> {
        let mut count = 0;
        for number in numbers {
            count += u64::from(self.leave_quarantine(kv, batch, *number)?);
        }
        Ok(count)
    }

    /// Deletes a row of quarantine; answers whether it was there.
    fn leave_quarantine(&mut self, kv: &dyn Kv, batch: &mut Batch, number: u64) -> Result<bool, KvError> {
        let key = keys::quarantine(number);
        let Some(value) = batch.row(kv, &key)? else { return Ok(false) };
        frame::delete(batch, &key, &value);
        self.head.quarantined = less(&key, self.head.quarantined)?;
        self.dirty.head = true;
        Ok(true)
    }
}
