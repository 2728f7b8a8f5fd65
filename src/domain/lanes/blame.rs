//! Whether a failure is its event's fault (contract §3): an outage must kill nothing, a bad event must not block its chat for
//! good. Only what other chats meet at the same time can tell one from the other. Deliberately absent: what follows from it.

use std::collections::VecDeque;

use super::{LaneKey, Lanes};
use crate::domain::ids::Lane;

/// How many attempts of other chats are looked at.
const LOOK_AT: usize = 20;
/// How many attempts are remembered: of a chat that makes most of them, the others are still found.
const REMEMBERED: usize = 400;

/// The latest attempts of all chats, and how many were answered ever.
#[derive(Debug, Default)]
pub(super) struct Blame {
    attempts: VecDeque<(Lane, bool)>,
    answers: u64,
}

impl Blame {
    /// An attempt is over.
    pub(super) fn note(&mut self, lane: Lane, answered: bool) {
        if self.attempts.len() == REMEMBERED {
            self.attempts.pop_front();
        }
        self.attempts.push_back((lane, answered));
        self.answers += u64::from(answered);
    }

    /// How many attempts were answered ever.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// Whether at least half of the last attempts of other chats were answered.
    fn others_fare_well(&self, lane: Lane) -> bool {
        let others = self.attempts.iter().rev().filter(|(other, _)| *other != lane).take(LOOK_AT);
        let (answered, all) = others.fold((0, 0), |(answered, all), (_, one)| (answered + usize::from(*one), all + 1));
        all > 0 && answered * 2 >= all
    }
}

impl Lanes {
    /// Whether the failure that `key` has just met counts against its event. `counted` is whether one has counted before;
    /// `plain` is whether the handler answered, with a status that speaks of no outage.
    #[must_use]
    pub fn counts(&self, key: LaneKey, counted: bool, plain: bool) -> bool {
        let before = self.lanes.get(&key).and_then(|state| state.answers).unwrap_or(0);
        let told_apart = self.blame.answers() > before && self.blame.others_fare_well(key.lane);
        let alone = || self.lanes.keys().all(|other| other.replay > 0 || other.lane == key.lane);
        told_apart || counted && plain && alone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::super::rig::{lane, offer};
    use super::*;

    use crate::domain::ids::Seq;

    const SECOND: Duration = Duration::from_secs(1);
    const MOST: u32 = 12;

    /// What a handler does with an attempt: at which second, of which chat, which of its events.
    type Handler = fn(u64, i64, u64) -> Answer;

    #[derive(Clone, Copy, PartialEq)]
    enum Answer {
        Fine,
        /// A status that speaks of no outage.
        Plain,
        /// Anything else.
        Away,
    }
    use Answer::{Away, Fine, Plain};

    /// What became of it: for each chat how many were taken, how many died, and how many failures counted in all.
    #[derive(Default, Debug)]
    struct Told {
        taken: BTreeMap<i64, u32>,
        dead: BTreeMap<i64, u32>,
        counted: BTreeMap<i64, u32>,
    }

    /// Lets `hours` pass, second by second. Chat n, from 1 on, gets an event every `every[n - 1]` seconds, numbered from 0.
    fn play(every: &[u64], hours: u64, handler: Handler) -> Told {
        let (mut lanes, start) = (Lanes::new(16), Instant::now());
        let (mut told, mut seq) = (Told::default(), 0);
        let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
        let mut tried: BTreeMap<Seq, (u32, u32)> = BTreeMap::new();
        for second in 0..hours * 3600 {
            let now = start + SECOND * u32::try_from(second).expect("a day at most");
            for (peer, every) in (1..).zip(every) {
                if second.is_multiple_of(*every) {
                    seq += 1;
                    numbers.insert(seq, second / every);
                    offer(&mut lanes, seq, peer);
                }
            }
            let flying: Vec<_> = std::iter::from_fn(|| lanes.next(now)).collect();
            for dispatch in flying {
                let peer = dispatch.event.event.peer_id.expect("a chat");
                let answer = handler(second, peer, numbers[&dispatch.event.seq.0]);
                if answer == Fine {
                    lanes.answered(dispatch.key, now);
                    *told.taken.entry(peer).or_default() += 1;
                    continue;
                }
                let (attempts, counted) = tried.entry(dispatch.event.seq).or_default();
                let counts = lanes.counts(dispatch.key, *counted > 0, answer == Plain);
                *attempts += 1;
                *counted += u32::from(counts);
                *told.counted.entry(peer).or_default() += u32::from(counts);
                let mut wait = |n: u32| SECOND * 2u32.saturating_pow(n.min(6)).min(60);
                if counts && *counted == MOST {
                    lanes.given_up(dispatch.key, now, None, &mut wait);
                    *told.dead.entry(peer).or_default() += 1;
                } else {
                    lanes.failed(dispatch.key, now, *attempts, None, &mut wait);
                }
            }
        }
        told
    }

    fn sum(counts: &BTreeMap<i64, u32>) -> u32 {
        counts.values().sum()
    }

    #[test]
    fn one_poisoned_event_among_fifty_busy_chats_dies_and_its_chat_goes_on() {
        let told = play(&[7; 50], 2, |_, chat, n| if (chat, n) == (9, 3) { Plain } else { Fine });
        assert_eq!((told.dead, sum(&told.counted)), (BTreeMap::from([(9, 1)]), MOST));
        assert!(told.taken[&9] > 1000, "{:?}", told.taken);
    }

    #[test]
    fn a_404_for_one_event_dies_however_it_fails() {
        let (plain, away): (Handler, Handler) = (
            |_, chat, n| if (chat, n) == (1, 0) { Plain } else { Fine },
            |_, chat, n| {
                if (chat, n) == (1, 0) { Away } else { Fine }
            },
        );
        for handler in [plain, away] {
            let told = play(&[100_000, 5, 5], 3, handler);
            assert_eq!(told.dead.get(&1), Some(&1), "{told:?}");
        }
    }

    #[test]
    fn an_outage_of_hours_kills_nothing() {
        let (always, mostly): (Handler, Handler) =
            (|_, _, _| Away, |second, _, _| if second % 7200 < 7000 { Away } else { Fine });
        for handler in [always, mostly] {
            let told = play(&[60, 45, 300, 10, 3600], 12, handler);
            assert_eq!(sum(&told.dead), 0, "{told:?}");
        }
        let refused = play(&[60, 45, 300], 12, |_, _, _| Away);
        assert_eq!(sum(&refused.counted), 0, "{refused:?}");
    }

    #[test]
    fn an_outage_that_answers_500_to_all_kills_nothing_although_others_were_answered_before_it() {
        let night: Handler = |second, _, _| if (7200..28_800).contains(&second) { Plain } else { Fine };
        let told = play(&[600, 1_000_000], 10, night);
        assert_eq!(sum(&told.dead), 0, "one chat goes on writing: {told:?}");
        let short: Handler = |second, _, _| if (7300..10_000).contains(&second) { Plain } else { Fine };
        let told = play(&[1800, 2700], 4, short);
        assert_eq!(sum(&told.dead), 0, "two chats, each for itself: {told:?}");
    }

    #[test]
    fn a_brown_out_of_nine_tenths_kills_nothing() {
        // Which tenth gets through has nothing to do with the event.
        let told =
            play(
                &[20; 10],
                6,
                |second, chat, n| {
                    if (second * 7 + chat.unsigned_abs() * 13 + n * 3) % 10 == 0 { Fine } else { Plain }
                },
            );
        assert_eq!(sum(&told.dead), 0, "{told:?}");
    }

    #[test]
    fn with_no_other_traffic_nothing_counts() {
        let told = play(&[30], 24, |_, _, _| Plain);
        assert_eq!((sum(&told.dead), sum(&told.counted)), (0, 0));
    }

    #[test]
    fn what_has_counted_once_counts_when_nobody_else_waits_unless_it_may_be_an_outage() {
        // The other chat gets one event at the beginning, and one that fits between two tries of the bad one.
        let alone = |bad: Answer| {
            let mut lanes = Lanes::new(4);
            let (now, _key) = (Instant::now(), |peer| LaneKey::live(lane(peer)));
            offer(&mut lanes, 1, 1);
            offer(&mut lanes, 2, 2);
            let (first, second) = (lanes.next(now).expect("sent"), lanes.next(now).expect("sent"));
            lanes.answered(second.key, now);
            assert!(lanes.counts(first.key, false, bad == Plain), "another was answered since");
            lanes.failed(first.key, now, 1, None, &mut |_| SECOND);
            let again = lanes.next(now + SECOND).expect("sent");
            (lanes.counts(again.key, false, bad == Plain), lanes.counts(again.key, true, bad == Plain))
        };
        assert_eq!(alone(Plain), (false, true));
        assert_eq!(alone(Away), (false, false));
    }

    #[test]
    fn two_poisoned_chats_do_not_hold_a_quiet_third_and_die_of_busy_others() {
        let two = |_: u64, chat: i64, n: u64| if chat < 3 && n == 0 { Plain } else { Fine };
        let quiet = play(&[100_000, 100_000, 1800], 12, two);
        assert_eq!(quiet.taken.get(&3), Some(&24), "a quiet chat gets through at once: {quiet:?}");
        let busy = play(&[100_000, 100_000, 5, 5], 12, two);
        assert_eq!(busy.dead, BTreeMap::from([(1, 1), (2, 1)]), "{busy:?}");
    }

    #[test]
    fn a_bad_event_at_the_head_when_the_handler_recovers_hides_nothing() {
        let told = play(&[600, 30, 30], 4, |second, chat, n| match (second, chat, n) {
            (0..7200, ..) => Away,
            (_, 1, 0) => Plain,
            _ => Fine,
        });
        assert_eq!(told.dead, BTreeMap::from([(1, 1)]), "{told:?}");
        assert!(told.taken[&2] >= 478 && told.taken[&3] >= 478, "{:?}", told.taken);
    }
}
