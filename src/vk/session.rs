//! What to do next with VK: a pure state machine over its answers. The loop in `app::ingest` carries its steps out.
//!
//! Invariant: [`Step::Poll`] carries only a ts that was committed. The machine hands out a [`Commit`]; only giving it back
//! by [`Session::committed`], which the loop does once it is on disk, moves the ts. A Commit can be neither made nor copied
//! elsewhere. Deliberately absent: HTTP, waiting, updates.

use super::wire::SessionReply;
use crate::domain::ids::Ts;

/// After how many answers in a row that made no sense a new session is asked for.
const UNREADABLE_LIMIT: u32 = 3;

/// Where we stand with VK.
#[derive(Debug, Default)]
pub struct Session {
    session: Option<SessionReply>,
    ts: Option<Ts>,
    /// VK said that the information is lost: the next session's ts is taken instead of ours.
    lost: bool,
    unreadable: u32,
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
            (Some(session), Some(ts)) if !self.lost => Step::Poll { session, ts },
            _ => Step::Open,
        }
    }

    /// VK gave a session. Its ts counts only when we have none, or when VK said that ours is lost.
    pub fn opened(&mut self, session: SessionReply) -> Option<Commit> {
        let ts = session.ts.clone();
        self.session = Some(session);
        self.unreadable = 0;
        match &self.ts {
            None => Some(Commit { ts, gap: None }),
            Some(from) if self.lost => {
                let words = "failed 3: VK has lost the history and the key; everything since is gone".to_owned();
                Some(Commit { gap: Some((from.clone(), words)), ts })
            }
            Some(_) => None,
        }
    }

    /// An answer with updates: its ts is to be committed with them.
    pub fn updates(&mut self, ts: Ts) -> Commit {
        self.unreadable = 0;
        Commit { ts, gap: None }
    }

    /// `failed` 1: VK has lost some history; go on where it says.
    pub fn outdated(&mut self, ts: Ts) -> Commit {
        self.unreadable = 0;
        let words = "failed 1: the history is outdated or partly lost".to_owned();
        Commit { gap: self.ts.clone().map(|from| (from, words)), ts }
    }

    /// `failed` 2: a new key is needed, ts stays.
    pub fn key_expired(&mut self) {
        self.session = None;
        self.unreadable = 0;
    }

    /// `failed` 3: a new key and a new ts are needed.
    pub fn lost(&mut self) {
        self.session = None;
        self.lost = true;
        self.unreadable = 0;
    }

    /// An answer that made no sense: everything stays; after a few in a row a new session is asked for, ts stays.
    pub fn unreadable(&mut self) {
        self.unreadable += 1;
        if self.unreadable >= UNREADABLE_LIMIT {
            self.session = None;
            self.unreadable = 0;
        }
    }

    /// The ts is on disk.
    pub fn committed(&mut self, commit: Commit) {
        self.ts = Some(commit.ts);
        self.lost = false;
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

    #[test]
    fn every_answer_leads_where_the_table_says() {
        let polling = || {
            let mut session = Session::new(Some(ts("4")));
            assert_eq!(session.opened(reply("10")), None);
            session
        };
        let mut session = polling();
        let commit = session.updates(ts("7"));
        assert_eq!((asks(&session).as_str(), commit.gap()), ("poll 4", None));
        session.committed(commit);
        assert_eq!(asks(&session), "poll 7");

        let mut session = polling();
        let commit = session.outdated(ts("2"));
        assert_eq!(commit.gap().map(|(from, _)| from.as_str()), Some("4"));
        session.committed(commit);
        assert_eq!(asks(&session), "poll 2");

        let mut session = polling();
        session.key_expired();
        assert_eq!(asks(&session), "open");
        assert_eq!(session.opened(reply("99")), None);
        assert_eq!(asks(&session), "poll 4");

        let mut session = polling();
        session.lost();
        assert_eq!(asks(&session), "open");
        let commit = session.opened(reply("99")).expect("to be committed");
        assert_eq!((commit.gap().map(|(from, _)| from.as_str()), asks(&session).as_str()), (Some("4"), "open"));
        session.committed(commit);
        assert_eq!(asks(&session), "poll 99");

        let mut session = polling();
        session.unreadable();
        session.unreadable();
        assert_eq!(asks(&session), "poll 4");
        session.unreadable();
        assert_eq!(asks(&session), "open");
        assert_eq!(session.opened(reply("99")), None);
        assert_eq!(asks(&session), "poll 4");
    }

    proptest! {
        #[test]
        fn no_ts_is_ever_asked_with_before_it_was_committed(start in prop::option::of(0u32..5), steps in prop::collection::vec((0u8..6, 0u32..50, any::<bool>()), 0..80)) {
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
                    _ => { session.unreadable(); None }
                };
                if let Some(commit) = commit.filter(|_| commits) {
                    on_disk = Some(commit.ts().as_str().to_owned());
                    session.committed(commit);
                }
            }
        }
    }
}
