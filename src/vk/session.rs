//! What to do next with VK: a pure state machine over its answers. The loop in `app::ingest` carries its steps out.
//!
//! Invariant: [`Step::Poll`] carries only a ts that was committed. The machine hands out a [`Commit`]; only giving it back
//! by [`Session::committed`], which the loop does once it is on disk, moves the ts. A Commit can be neither made nor copied
//! elsewhere. Deliberately absent: HTTP, waiting, updates.

use super::wire::SessionReply;
use crate::domain::ids::Ts;

/// After how many polls in a row that brought nothing of sense a new session is wished for.
const FIRST_WISH: u32 = 3;
/// How often that number doubles while no poll makes sense: VK limits how often it gives a session, and a bad night is long.
const WISH_DOUBLINGS: u32 = 4;
/// After how many such answers, all through a session that was given after the first of them and with none of sense between, `failed`
/// 1 without a ts is believed. Polls that fail are half a minute apart by then: that is about ten minutes.
const NOWHERES: u32 = 20;
/// VK's words, in ours.
const LOST: &str = "failed 3: VK has lost the history and the key; everything since is gone";
const NOWHERE: &str = "failed 1 again and again, without a ts to go on with: the history is outdated or partly lost";

/// Where we stand with VK.
#[derive(Debug, Default)]
pub struct Session {
    session: Option<SessionReply>,
    ts: Option<Ts>,
    /// VK said, in these words, that the information is lost: the next session's ts is taken instead of ours.
    lost: Option<&'static str>,
    /// VK said that the history is outdated, and not where to go on; how often since a new session was tried.
    nowhere: Option<u32>,
    /// Whether it was.
    tried_anew: bool,
    /// Polls in a row that brought nothing of sense, since a new session was last wished for.
    unreadable: u32,
    /// How often in a row one was wished for so.
    wishes: u32,
    /// The last thing that was committed is a gap: VK saying so again of the same ts is no other one.
    at_a_gap: bool,
}

/// What to do next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Ask for a session.
    Open,
    /// Poll.
    Poll {
        /// Where, and with which key.
        session: &'a SessionReply,
        /// A ts that is on disk.
        ts: &'a Ts,
    },
}

/// A ts that must be on disk before VK is asked with it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a ts that is not committed must not be asked with"]
pub struct Commit {
    ts: Ts,
    gap: Option<(Ts, String)>,
}

impl Commit {
    /// The ts.
    #[must_use]
    pub fn ts(&self) -> &Ts {
        &self.ts
    }

    /// The ts that was asked with and VK's words, when history was lost.
    #[must_use]
    pub fn gap(&self) -> Option<&(Ts, String)> {
        self.gap.as_ref()
    }
}

impl Session {
    /// Starts from the ts on disk, if there is one.
    #[must_use]
    pub fn new(checkpoint: Option<Ts>) -> Self {
        Self { ts: checkpoint, ..Self::default() }
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self) -> Step<'_> {
        match (&self.session, &self.ts) {
            (Some(session), Some(ts)) if self.lost.is_none() => Step::Poll { session, ts },
            _ => Step::Open,
        }
    }

    /// VK gave a session. Its ts counts only when we have none, or when VK said that ours is lost.
    pub fn opened(&mut self, session: SessionReply) -> Option<Commit> {
        let ts = session.ts.clone();
        self.session = Some(session);
        self.unreadable = 0;
        self.tried_anew = self.nowhere.is_some();
        match (&self.ts, self.lost) {
            (None, _) => Some(Commit { ts, gap: None }),
            (Some(from), Some(words)) => {
                let from = Some(from.clone()).filter(|from| !(self.at_a_gap && *from == ts));
                Some(Commit { gap: from.map(|from| (from, words.to_owned())), ts })
            }
            (Some(_), None) => None,
        }
    }

    /// An answer with updates: its ts is to be committed with them.
    pub fn updates(&mut self, ts: Ts) -> Commit {
        self.made_sense();
        Commit { ts, gap: None }
    }

    /// `failed` 1: VK has lost some history; go on where it says.
    pub fn outdated(&mut self, ts: Ts) -> Commit {
        self.made_sense();
        let words = "failed 1: the history is outdated or partly lost".to_owned();
        let from = self.ts.clone().filter(|from| !(self.at_a_gap && *from == ts));
        Commit { gap: from.map(|from| (from, words)), ts }
    }

    /// `failed` 1 that does not say where to go on. Answers whether it has been said so often that the next session's ts is
    /// taken: until then it is an answer that makes no sense.
    #[must_use = "otherwise the poll is to be tried again"]
    pub fn outdated_nowhere(&mut self) -> bool {
        let times = self.nowhere.map_or(0, |times| times + u32::from(self.tried_anew));
        self.nowhere = Some(times);
        let believed = times >= NOWHERES;
        if believed {
            self.session = None;
            self.lost = Some(NOWHERE);
            self.made_sense();
        }
        believed
    }

    /// `failed` 2: a new key is needed, ts stays.
    pub fn key_expired(&mut self) {
        self.session = None;
        self.made_sense();
    }

    /// `failed` 3: a new key and a new ts are needed.
    pub fn lost(&mut self) {
        self.session = None;
        self.lost = Some(LOST);
        self.made_sense();
    }

    /// No answer, or one that made no sense: everything stays, the key as well, which may be as good as ever. Answers whether a
    /// new session is wished for, since the server may have moved: after a few such polls in a row, then after twice as many,
    /// and so on.
    #[must_use = "a server that has moved is found by a new session only"]
    pub fn unreadable(&mut self) -> bool {
        self.unreadable = self.unreadable.saturating_add(1);
        let wished = self.unreadable >= FIRST_WISH << self.wishes.min(WISH_DOUBLINGS);
        if wished {
            self.unreadable = 0;
            self.wishes = self.wishes.saturating_add(1);
        }
        wished
    }

    /// The ts is on disk.
    pub fn committed(&mut self, commit: Commit) {
        self.at_a_gap = commit.gap.is_some() || self.at_a_gap && self.ts.as_ref() == Some(&commit.ts);
        self.ts = Some(commit.ts);
        self.lost = None;
    }

    fn made_sense(&mut self) {
        self.unreadable = 0;
        self.wishes = 0;
        self.nowhere = None;
        self.tried_anew = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;

    fn ts(text: &str) -> Ts {
        Ts::parse(text).expect("a ts")
    }

    fn reply(text: &str) -> SessionReply {
        SessionReply { server: "https://lp".into(), key: Secret::new("k"), ts: ts(text) }
    }

    fn asks(session: &Session) -> String {
        match session.step() {
            Step::Open => "open".to_owned(),
            Step::Poll { ts, .. } => format!("poll {ts}"),
        }
    }

    #[test]
    fn the_first_ts_is_committed_before_it_is_asked_with() {
        let mut session = Session::new(None);
        assert_eq!(asks(&session), "open");
        let commit = session.opened(reply("10")).expect("to be committed");
        assert_eq!((asks(&session).as_str(), commit.gap()), ("open", None));
        session.committed(commit);
        assert_eq!(asks(&session), "poll 10");
    }

    #[test]
    fn a_ts_on_disk_beats_the_newest_one() {
        let mut session = Session::new(Some(ts("4")));
        assert_eq!(session.opened(reply("10")), None);
        assert_eq!(asks(&session), "poll 4");
    }

    /// A session that polls with ts 4 meets an answer: where it stands before the commit, what gap that commit records, and
    /// where it stands after it.
    #[track_caller]
    fn check(answer: fn(&mut Session) -> Option<Commit>, before: &str, gap: Option<&str>, after: &str) {
        let mut session = Session::new(Some(ts("4")));
        assert_eq!(session.opened(reply("10")), None);
        let commit = answer(&mut session);
        assert_eq!(asks(&session), before);
        assert_eq!(
            commit
                .as_ref()
                .and_then(Commit::gap)
                .map(|(from, words)| format!("{from}, {}", words.split(':').next().unwrap_or_default()))
                .as_deref(),
            gap
        );
        if let Some(commit) = commit {
            session.committed(commit);
        }
        assert_eq!(asks(&session), after);
    }

    #[test]
    fn every_answer_leads_where_the_table_says() {
        check(|s| Some(s.updates(ts("7"))), "poll 4", None, "poll 7");
        check(|s| Some(s.updates(ts("4"))), "poll 4", None, "poll 4");
        check(|s| Some(s.outdated(ts("9"))), "poll 4", Some("4, failed 1"), "poll 9");
        check(|s| Some(s.outdated(ts("2"))), "poll 4", Some("4, failed 1"), "poll 2");
        check(
            |s| {
                s.key_expired();
                None
            },
            "open",
            None,
            "open",
        );
        check(
            |s| {
                s.key_expired();
                s.opened(reply("99"))
            },
            "poll 4",
            None,
            "poll 4",
        );
        check(
            |s| {
                s.lost();
                None
            },
            "open",
            None,
            "open",
        );
        check(
            |s| {
                s.lost();
                s.opened(reply("99"))
            },
            "open",
            Some("4, failed 3"),
            "poll 99",
        );
        check(
            |s| {
                assert!(!s.unreadable());
                None
            },
            "poll 4",
            None,
            "poll 4",
        );
        check(
            |s| {
                assert_eq!((0..FIRST_WISH).filter(|_| s.unreadable()).count(), 1);
                None
            },
            "poll 4",
            None,
            "poll 4",
        );
        check(
            |s| {
                assert_eq!((0..FIRST_WISH).filter(|_| s.unreadable()).count(), 1);
                s.opened(reply("99"))
            },
            "poll 4",
            None,
            "poll 4",
        );
    }

    /// VK may say `failed` 1 and name the very ts that it was asked with, again and again: that is one gap.
    #[test]
    fn the_same_gap_is_recorded_once() {
        let mut session = Session::new(Some(ts("4")));
        let mut gaps = |answers: &[&str]| {
            let one = |answer: &&str| {
                let commit = match answer.strip_prefix('+') {
                    Some(next) => session.updates(ts(next)),
                    None => session.outdated(ts(answer)),
                };
                let is_gap = commit.gap().is_some();
                session.committed(commit);
                is_gap
            };
            answers.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(gaps(&["4", "4", "4"]), [true, false, false]);
        assert_eq!(gaps(&["+5", "5", "5"]), [false, true, false]);
        assert_eq!(gaps(&["7", "7", "6"]), [true, false, true]);
    }

    /// Where VK does not say where to go on, nothing is given up before it has said so through a new session as well.
    #[test]
    fn a_history_that_is_outdated_without_a_way_on_is_a_gap_at_last() {
        let mut session = Session::new(Some(ts("4")));
        assert_eq!(session.opened(reply("10")), None);
        for _ in 0..2 * NOWHERES {
            assert!(!session.outdated_nowhere(), "no new session was tried");
        }
        assert_eq!(session.opened(reply("10")), None);
        for _ in 1..NOWHERES {
            assert!(!session.outdated_nowhere());
            assert_eq!(asks(&session), "poll 4");
        }
        assert!(session.outdated_nowhere());
        assert_eq!(asks(&session), "open");
        let commit = session.opened(reply("20")).expect("to be committed");
        assert_eq!(commit.gap(), Some(&(ts("4"), NOWHERE.to_owned())));
        session.committed(commit);
        assert_eq!(asks(&session), "poll 20");
        assert!(!session.outdated_nowhere());
    }

    #[test]
    fn a_commit_that_failed_leaves_everything_as_it_was() {
        let mut session = Session::new(Some(ts("4")));
        assert_eq!(session.opened(reply("10")), None);
        drop(session.updates(ts("7")));
        assert_eq!(asks(&session), "poll 4");
        session.lost();
        drop(session.opened(reply("99")));
        assert_eq!(asks(&session), "open");
        let commit = session.opened(reply("100")).expect("still to be committed");
        assert_eq!(commit.gap().map(|(from, _)| from.as_str()), Some("4"));
    }

    /// VK answers error 29 to those who ask for sessions too often, and a night of HTTP 502 can be long.
    #[test]
    fn a_long_bad_night_asks_for_ever_fewer_sessions_and_a_good_answer_ends_it() {
        let mut session = Session::new(Some(ts("4")));
        let polls_until_wish = |session: &mut Session| {
            assert_eq!(session.opened(reply("99")), None);
            (1..1000).find(|_| session.unreadable()).expect("wished for at last")
        };
        let spaces: Vec<u32> = (0..7).map(|_| polls_until_wish(&mut session)).collect();
        assert_eq!(spaces, [3, 6, 12, 24, 48, 48, 48]);
        assert_eq!(session.opened(reply("99")), None);
        let commit = session.updates(ts("5"));
        session.committed(commit);
        assert_eq!(polls_until_wish(&mut session), 3);
    }

    proptest! {
        #[test]
        fn no_ts_is_ever_asked_with_before_it_was_committed(start in prop::option::of(0u32..5), steps in prop::collection::vec((0u8..7, 0u32..50, any::<bool>()), 0..80)) {
            let mut session = Session::new(start.map(|n| ts(&n.to_string())));
            let mut on_disk = start.map(|n| n.to_string());
            for (kind, number, commits) in steps {
                let number = number.to_string();
                if let Step::Poll { ts, .. } = session.step() {
                    prop_assert_eq!(Some(ts.as_str().to_owned()), on_disk.clone());
                }
                let commit = match (session.step(), kind) {
                    (Step::Open, _) => session.opened(reply(&number)),
                    (_, 0) => Some(session.updates(ts(&number))),
                    (_, 1) => Some(session.outdated(ts(&number))),
                    (_, 2) => { session.key_expired(); None }
                    (_, 3) => { session.lost(); None }
                    (_, 4) => { let _believed = session.outdated_nowhere(); None }
                    _ => { let _wished = session.unreadable(); None }
                };
                if let Some(commit) = commit.filter(|_| commits) {
                    on_disk = Some(commit.ts().as_str().to_owned());
                    session.committed(commit);
                }
            }
        }
    }
}
