//! Where messages stand in their chats, and which of them a gap has swallowed. Pure: the record of one chat and its rules.
//! VK numbers the messages of a chat from 1 without holes (`conversation_message_id`, here cmid), so that what is missing
//! can be named. Deliberately absent: fetching (`app::backfill`), the writer's part (`filling`).
//!
//! Invariants: what is missing lies below `last`, in disjoint runs in order; a cmid that was heard live is never missing. It
//! holds as long as every live message is heard: without `vk.backfill` these records are deleted.

use serde::{Deserialize, Serialize};

/// `k/<community><peer>`: kept only while `vk.backfill` is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatRecord {
    /// The highest cmid that came, live or fetched back.
    pub last: i64,
    /// The latest gap that this chat is accounted for: what it swallowed here is in `missing`, or was asked for.
    pub gap: u64,
    /// What is still to be asked for.
    pub missing: Vec<Missing>,
}

/// A run of messages that a gap has swallowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The gap.
    pub gap: u64,
    /// The first cmid.
    pub from: i64,
    /// The last one.
    pub to: i64,
}

/// What is to be asked for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The gap that it fills.
    pub gap: u64,
    /// The first cmid.
    pub from: i64,
    /// The last one, if it is known.
    pub to: Option<i64>,
}

impl ChatRecord {
    /// A chat that is heard of for the first time: what was in it before is not known to be missing.
    #[must_use]
    pub fn new(cmid: i64, gap: u64) -> Self {
        Self { last: cmid, gap, missing: Vec::new() }
    }

    /// A message came live; `gap` is the latest gap there is.
    pub fn heard(&mut self, cmid: i64, gap: u64) {
        if cmid > self.last {
            if self.gap < gap && cmid > self.last + 1 {
                self.missing.push(Missing { gap, from: self.last + 1, to: cmid - 1 });
            }
            self.gap = self.gap.max(gap);
            self.last = cmid;
        } else {
            // A repeat, or one that VK sent late: it says nothing about what was swallowed.
            self.without(cmid, cmid, |_| true);
        }
    }

    /// What is to be asked for next, of what gaps up to `gap` have swallowed.
    #[must_use]
    pub fn wanted(&self, gap: u64) -> Option<Wanted> {
        match self.missing.iter().find(|run| run.gap <= gap) {
            Some(run) => Some(Wanted { gap: run.gap, from: run.from, to: Some(run.to) }),
            None if self.gap < gap => Some(Wanted { gap, from: self.last.saturating_add(1), to: None }),
            None => None,
        }
    }

    /// Whether a message has not come yet and will not come live.
    #[must_use]
    pub fn lacks(&self, cmid: i64, gap: u64) -> bool {
        let in_run = self.missing.iter().any(|run| (run.from..=run.to).contains(&cmid));
        in_run || self.gap < gap && cmid > self.last
    }

    /// VK was asked for `from..=to` when `gap` was the latest gap, and `newest` is the highest cmid that it still had. Answers
    /// how many of the messages that were known to be missing were asked for. What a later gap has swallowed above `newest`
    /// may have been written after the question, and stays wanted.
    pub fn asked(&mut self, from: i64, to: i64, newest: Option<i64>, gap: u64) -> u64 {
        let later = newest.map_or(0, |newest| self.without(from, newest.min(to), |run| run.gap > gap));
        let known = self.without(from, to, |run| run.gap <= gap) + later;
        if self.gap < gap && to > self.last {
            match newest.filter(|newest| *newest > self.last) {
                Some(newest) => self.last = newest,
                // The end of the chat.
                None => self.gap = gap,
            }
        }
        known
    }

    /// Nothing more is asked for of what gaps up to `gap` have swallowed. Answers how many messages were known to be missing.
    pub fn give_up(&mut self, gap: u64) -> u64 {
        let before = self.count();
        self.missing.retain(|run| run.gap > gap);
        self.gap = self.gap.max(gap);
        before - self.count()
    }

    fn count(&self) -> u64 {
        self.missing.iter().fold(0, |sum: u64, run| sum.saturating_add(run.to.abs_diff(run.from).saturating_add(1)))
    }

    /// Takes `from..=to` out of those runs that are `meant`; answers how many messages that were.
    fn without(&mut self, from: i64, to: i64, meant: impl Fn(&Missing) -> bool) -> u64 {
        let before = self.count();
        let mut rest = Vec::with_capacity(self.missing.len());
        for run in self.missing.drain(..) {
            if !meant(&run) || run.to < from || run.from > to {
                rest.push(run);
                continue;
            }
            if run.from < from {
                rest.push(Missing { to: from - 1, ..run });
            }
            if run.to > to {
                rest.push(Missing { from: to + 1, ..run });
            }
        }
        self.missing = rest;
        before - self.count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn run(gap: u64, from: i64, to: i64) -> Missing {
        Missing { gap, from, to }
    }

    #[test]
    fn the_first_message_after_a_gap_tells_what_is_missing() {
        let mut chat = ChatRecord::new(10, 0);
        chat.heard(11, 0);
        chat.heard(13, 0);
        assert_eq!(chat, ChatRecord::new(13, 0), "without a gap a hole is VK's way");
        chat.heard(13, 1);
        assert_eq!(chat.wanted(1), Some(Wanted { gap: 1, from: 14, to: None }), "a repeat says nothing");
        chat.heard(20, 1);
        assert_eq!(chat.missing, [run(1, 14, 19)]);
        chat.heard(21, 1);
        assert_eq!(chat.missing, [run(1, 14, 19)]);
        chat.heard(16, 1);
        assert_eq!(chat.missing, [run(1, 14, 15), run(1, 17, 19)], "what came late is not missing");
        assert!(chat.lacks(17, 1) && !chat.lacks(16, 1) && !chat.lacks(22, 1));
    }

    #[test]
    fn what_was_asked_for_is_not_asked_for_again() {
        let mut chat = ChatRecord { last: 20, gap: 1, missing: vec![run(1, 14, 19)] };
        assert_eq!(chat.asked(14, 16, Some(16), 1), 3);
        assert_eq!(chat.wanted(1), Some(Wanted { gap: 1, from: 17, to: Some(19) }));
        assert_eq!(chat.asked(17, 19, None, 1), 3);
        assert_eq!((chat.wanted(1), chat.last), (None, 20));
        // An open end: until VK has nothing more.
        assert_eq!(chat.asked(21, 120, Some(30), 2), 0);
        assert_eq!(chat.wanted(2), Some(Wanted { gap: 2, from: 31, to: None }));
        assert_eq!(chat.asked(31, 130, None, 2), 0);
        assert_eq!(chat, ChatRecord::new(30, 2));
    }

    #[test]
    fn giving_up_leaves_later_gaps_alone() {
        let mut chat = ChatRecord { last: 40, gap: 3, missing: vec![run(2, 14, 19), run(3, 30, 31)] };
        assert_eq!(chat.give_up(2), 6);
        assert_eq!((chat.missing.as_slice(), chat.gap), ([run(3, 30, 31)].as_slice(), 3));
        assert_eq!((chat.wanted(2), chat.wanted(4).map(|wanted| wanted.gap)), (None, Some(3)));
        chat.give_up(4);
        assert_eq!((chat.wanted(4), chat.gap), (None, 4));
    }

    #[test]
    fn what_a_second_gap_swallows_during_a_call_is_asked_for_by_itself() {
        // Asked for 3 to 102, VK had 3 to 6; before that is taken in, a second gap swallows 7 and 8, and 9 comes live.
        let mut chat = ChatRecord::new(2, 0);
        chat.heard(9, 2);
        assert!([3, 4, 5, 6].iter().all(|cmid| chat.lacks(*cmid, 1)));
        assert_eq!(chat.asked(3, 102, Some(6), 1), 4);
        assert_eq!((chat.wanted(1), chat.wanted(2)), (None, Some(Wanted { gap: 2, from: 7, to: Some(8) })));
    }

    #[derive(Default)]
    struct World {
        chat: ChatRecord,
        gap: u64,
        head: i64,
        live: BTreeSet<i64>,
        swallowed: BTreeSet<i64>,
        fetched: BTreeSet<i64>,
        /// A question that VK has answered: what for, up to which gap, and what it had.
        answer: Option<(i64, i64, u64, Vec<i64>)>,
    }

    impl World {
        fn ask(&mut self) {
            if let Some(wanted) = self.chat.wanted(self.gap).filter(|_| self.answer.is_none()) {
                let to = wanted.to.unwrap_or(i64::MAX).min(wanted.from + 2);
                self.answer = Some((wanted.from, to, self.gap, (wanted.from..=to.min(self.head)).collect()));
            }
        }

        fn take_in(&mut self) {
            let Some((from, to, gap, had)) = self.answer.take() else { return };
            for cmid in had.iter().filter(|cmid| self.chat.lacks(**cmid, gap)) {
                assert!(self.fetched.insert(*cmid), "{cmid} fetched twice");
            }
            self.chat.asked(from, to, had.last().copied(), gap);
        }
    }

    proptest! {
        /// Whatever comes between a question and its answer: each message comes once, live or fetched back, and in the end
        /// nothing is wanted that exists.
        #[test]
        fn every_message_comes_once(steps in prop::collection::vec((0u8..6, 1i64..6), 1..80)) {
            let mut world = World::default();
            for (kind, count) in steps {
                match kind {
                    0 | 1 => for _ in 0..count {
                        world.head += 1;
                        world.live.insert(world.head);
                        // What the answer under way has of it was fetched before it came.
                        world.chat.heard(world.head, world.gap);
                    },
                    // A gap swallows what came before it, and is known before the next live message.
                    2 => {
                        for _ in 0..count {
                            world.head += 1;
                            world.swallowed.insert(world.head);
                        }
                        world.gap += 1;
                    }
                    3 | 4 => world.ask(),
                    _ => world.take_in(),
                }
            }
            world.take_in();
            while world.chat.wanted(world.gap).is_some() {
                world.ask();
                world.take_in();
            }
            prop_assert!(world.live.is_disjoint(&world.fetched));
            prop_assert_eq!(world.swallowed, world.fetched);
        }
    }
}
