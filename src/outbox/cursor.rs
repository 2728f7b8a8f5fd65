//! What of the log a destination has settled. Pure: the worker moves it, the writer stores what [`Cursor::record`] says.
//!
//! Invariant: everything below [`Cursor::floor`] is settled, not ours, or moved aside; everything at and above the horizon
//! has not been looked at; between them the unsettled positions are known one by one. Deliberately absent: the events.

use std::collections::BTreeSet;

use super::frame::damaged;
use super::keys::{self, DestinationId};
use super::kv::KvError;
use super::records::CursorRecord;
use crate::domain::ids::Seq;

/// How far the horizon may be ahead of the floor.
pub const LOOK_AHEAD: u64 = 131_072;

/// A destination's place in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    horizon: Seq,
    unsettled: BTreeSet<Seq>,
}

impl Cursor {
    /// A cursor that has settled everything below `seq`.
    #[must_use]
    pub fn at(seq: Seq) -> Self {
        Self { horizon: seq, unsettled: BTreeSet::new() }
    }

    /// The first position that is not settled: the log may be deleted below it.
    #[must_use]
    pub fn floor(&self) -> Seq {
        self.unsettled.first().copied().unwrap_or(self.horizon)
    }

    /// The first position that has not been looked at.
    #[must_use]
    pub fn horizon(&self) -> Seq {
        self.horizon
    }

    /// The known positions that are unsettled.
    pub fn unsettled_ones(&self) -> impl Iterator<Item = Seq> + '_ {
        self.unsettled.iter().copied()
    }

    /// How many known positions are unsettled.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// How far it may still look: the horizon that must not be passed.
    #[must_use]
    pub fn limit(&self) -> Seq {
        Seq(self.floor().0.saturating_add(LOOK_AHEAD))
    }

    /// An event of ours was read at `seq`, at or above the horizon; it is unsettled from now on.
    pub fn met(&mut self, seq: Seq) {
        assert!(seq >= self.horizon, "invariant: a position is met once");
        self.unsettled.insert(seq);
        self.horizon = seq.next();
    }

    /// Everything below `horizon` has been looked at; what was not met is not ours.
    pub fn looked(&mut self, horizon: Seq) {
        self.horizon = self.horizon.max(horizon);
    }

    /// The event at `seq` is settled, or kept elsewhere.
    pub fn settle(&mut self, seq: Seq) {
        self.unsettled.remove(&seq);
    }

    /// A position is settled, whether it was met before or is the next to be looked at.
    pub fn pass(&mut self, seq: Seq) {
        if seq >= self.horizon() {
            self.looked(seq.next());
        } else {
            self.settle(seq);
        }
    }

    /// Whether the event at `seq` waits, if it is ours: unsettled, or not looked at yet.
    #[must_use]
    pub fn waits(&self, seq: Seq) -> bool {
        seq >= self.horizon || self.unsettled.contains(&seq)
    }

    /// What is stored of it.
    #[must_use]
    pub fn record(&self) -> CursorRecord {
        let floor = self.floor();
        let mut runs: Vec<u32> = Vec::new();
        let mut end = floor.0;
        for seq in &self.unsettled {
            let skipped = length(seq.0 - end);
            match runs.last_mut() {
                Some(run) if skipped == 0 => *run += 1,
                Some(_) => runs.extend([skipped, 1]),
                None => runs.push(1),
            }
            end = seq.0 + 1;
        }
        CursorRecord { horizon: self.horizon, floor, runs }
    }

    /// The cursor that was stored for a destination.
    ///
    /// # Errors
    /// [`KvError::Damaged`] when the record contradicts itself.
    pub fn stored(id: DestinationId, record: &CursorRecord) -> Result<Self, KvError> {
        Self::from_record(record).ok_or_else(|| damaged(&keys::destination(id), "the cursor contradicts itself"))
    }

    /// The cursor that was stored; nothing when the record contradicts itself.
    #[must_use]
    pub fn from_record(record: &CursorRecord) -> Option<Self> {
        let mut unsettled = BTreeSet::new();
        let mut at = record.floor.0;
        for (turn, run) in record.runs.iter().enumerate() {
            let end = at.checked_add(u64::from(*run))?;
            if end > record.horizon.0 || u64::from(*run) > LOOK_AHEAD {
                return None;
            }
            if turn % 2 == 0 {
                unsettled.extend((at..end).map(Seq));
            }
            at = end;
        }
        let cursor = Self { horizon: record.horizon, unsettled };
        (cursor.floor() == record.floor).then_some(cursor)
    }
}

fn length(run: u64) -> u32 {
    u32::try_from(run).expect("invariant: the look-ahead is bounded")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_floor_is_the_first_unsettled_position() {
        let mut cursor = Cursor::at(Seq(10));
        assert_eq!(cursor.floor(), Seq(10));
        cursor.met(Seq(12));
        cursor.met(Seq(15));
        cursor.looked(Seq(20));
        assert_eq!((cursor.floor(), cursor.horizon()), (Seq(12), Seq(20)));
        cursor.settle(Seq(12));
        assert_eq!(cursor.floor(), Seq(15));
        assert!(cursor.waits(Seq(15)) && cursor.waits(Seq(20)) && !cursor.waits(Seq(13)));
        cursor.settle(Seq(15));
        assert_eq!(cursor.floor(), Seq(20));
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        let record = |floor, horizon, runs: &[u32]| CursorRecord {
            floor: Seq(floor),
            horizon: Seq(horizon),
            runs: runs.to_vec(),
        };
        assert!(Cursor::from_record(&record(5, 9, &[1, 2, 1])).is_some());
        assert!(Cursor::from_record(&record(5, 8, &[1, 2, 1])).is_none());
        assert!(Cursor::from_record(&record(5, 9, &[])).is_none());
        assert!(Cursor::from_record(&record(5, 9, &[0, 2, 1])).is_none());
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_record(start in 0u64..1000, steps in prop::collection::vec((1u64..5, any::<bool>()), 0..200)) {
            let mut cursor = Cursor::at(Seq(start));
            for (skip, settle) in steps {
                let seq = Seq(cursor.horizon().0 + skip);
                cursor.met(seq);
                if settle {
                    cursor.settle(seq);
                }
            }
            prop_assert_eq!(Cursor::from_record(&cursor.record()), Some(cursor));
        }
    }
}
