//! The books of an outbox that a salvage made: head, names, destinations and their counts as they are now, and durably what
//! was lost, as gaps. Deliberately absent: bringing records over (`salvaging`).

use std::collections::{BTreeMap, BTreeSet};

use super::cursor::Cursor;
use super::keys::{self, DestinationId};
use super::records::{AuditRecord, BackfillRecord, GapRecord, Head};
use super::salvage::Missing;
use super::salvaging::{Count, Salvage};
use super::unfinished::Unfinished;
use crate::domain::ids::{Seq, Ts, TsJump};
use crate::domain::time::Moment;

/// How many lost records of gaps get another in their place.
const GAPS_REPLACED: usize = 1000;
/// How many missing ranges get a gap of their own.
const RANGES_TOLD: usize = 100;

impl Salvage {
    /// Writes them.
    pub(super) fn write_books(
        &mut self,
        cursors: &BTreeMap<DestinationId, Cursor>,
        counted: &BTreeMap<DestinationId, Count>,
        now: Moment,
        target: &mut Unfinished,
    ) {
        let mut head = self.head.clone().unwrap_or_else(Head::fresh);
        let mut names = std::mem::take(&mut self.names);
        (head.tail, head.next) = (self.tail, self.next);
        if head.quarantined > self.told.quarantined {
            self.hole(format!("{} updates in quarantine", head.quarantined - self.told.quarantined));
        }
        head.quarantined = self.told.quarantined;
        head.routed.clear();
        for id in cursors.keys().chain(counted.keys()).copied().collect::<BTreeSet<_>>() {
            let count = counted.get(&id).copied().unwrap_or_default();
            let mut record = self.destinations.get(&id).cloned().unwrap_or_default();
            let name = names.names.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone());
            let name = name.unwrap_or_else(|| {
                let name = format!("salvaged-{id}-{}", now.unix_seconds());
                self.hole(format!("the name of destination {id}: what it has is kept for one called {name}"));
                names.names.push((id, name.clone()));
                name
            });
            for (what, written, found) in [
                ("events that were moved aside", record.aside, count.aside + count.again.0),
                ("dead letters", record.dead, count.dead + count.again.1),
            ] {
                if written > found {
                    self.hole(format!("{name}: {} of {written} {what}", written - found));
                }
            }
            names.next = names.next.max(id.saturating_add(1));
            let cursor = cursors.get(&id).cloned().unwrap_or_else(|| Cursor::at(Seq(1)));
            record.cursor = within(&cursor, self.tail, self.next).record();
            (record.dead, record.aside) = (count.dead, count.aside + count.moved);
            let routed = record.delivered + record.dead + record.expired + record.discarded + count.log + record.aside;
            head.routed.push((id, routed));
            self.told.aside += record.aside;
            target.write(keys::destination(id), &record);
        }
        head.next_gap = head.next_gap.max(self.last_gap + 1);
        // Chats refer to gaps by their numbers: none of them is given again.
        let known = self.gaps.range(..head.next_gap).count() as u64;
        let more = (head.next_gap - 1).saturating_sub(known + GAPS_REPLACED as u64);
        if more > 0 {
            self.hole(format!("{more} gaps more"));
        }
        let lost = (1..head.next_gap).filter(|number| !self.gaps.contains(number)).take(GAPS_REPLACED);
        for number in lost.collect::<Vec<_>>() {
            self.hole(format!("gap {number}"));
            target.write(keys::gap(number), &gap(now, "the record of this gap was lost to damage of the outbox"));
        }
        for cause in self.losses() {
            target.write(keys::gap(head.next_gap), &gap(now, &cause));
            head.next_gap += 1;
        }
        head.next_quarantined = head.next_quarantined.max(self.last_quarantined + 1);
        head.next_replay = head.next_replay.max(self.last_replay + 1);
        head.next_audit = head.next_audit.max(self.last_audit + 1);
        let what = if self.told.loses_something() { "salvage, not of everything" } else { "salvage of everything" };
        let audit = AuditRecord {
            at: now,
            what: what.to_owned(),
            reason: None,
            offline: true,
            changed: Some(self.told.events + self.told.aside + self.told.dead + self.told.quarantined),
            replays: Vec::new(),
        };
        target.write(keys::audit(head.next_audit), &audit);
        head.next_audit += 1;
        target.write(keys::HEAD.to_vec(), &head);
        target.write(keys::NAMES.to_vec(), &names);
    }

    /// What was lost, a gap for each, in words.
    fn losses(&self) -> Vec<String> {
        let told = &self.told;
        let mut words: Vec<String> = told.missing.iter().take(RANGES_TOLD).map(Missing::words).collect();
        if let Some(missing) = told.missing.get(RANGES_TOLD..).and_then(|rest| Some((rest.len(), rest.last()?.to))) {
            words.push(format!("{} more ranges of events, the last one up to {}", missing.0, missing.1));
        }
        if told.commits_missing > 0 {
            let count = told.commits_missing;
            words.push(format!("the last commits ({count}); VK was asked again from the checkpoint before them"));
        }
        if told.checkpoints.is_empty() && self.next > Seq(1) {
            words.push("the checkpoint; VK was asked from its ts at that time".to_owned());
        }
        if told.holes_found > 0 {
            let first = told.holes.first().map_or("?", String::as_str);
            words.push(format!("what `outbox salvage` told as missing ({}, the first: {first})", told.holes_found));
        }
        words.into_iter().map(|words| format!("lost to damage of the outbox: {words}")).collect()
    }
}

/// Stands for what nobody has any more.
fn gap(at: Moment, cause: &str) -> GapRecord {
    let nowhere = || Ts::parse("?").expect("invariant: one printable character is a ts");
    let refusal = Some("not at VK's end".to_owned());
    let backfill = Some(BackfillRecord { refusal, finished: Some(at), ..BackfillRecord::default() });
    let (group, jump) = (0, TsJump::Unknown);
    GapRecord { group, from: nowhere(), to: nowhere(), jump, at, heard: None, cause: cause.to_owned(), backfill }
}

/// A cursor cut to the log that is kept.
fn within(cursor: &Cursor, tail: Seq, next: Seq) -> Cursor {
    let mut cut = Cursor::at(tail.max(cursor.floor()).min(next));
    let start = cut.horizon();
    for seq in cursor.unsettled_ones().filter(|seq| *seq >= start && *seq < next) {
        cut.met(seq);
    }
    cut.looked(cursor.horizon().min(next));
    cut
}
