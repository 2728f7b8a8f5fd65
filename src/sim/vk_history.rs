//! What a simulated VK keeps: its updates, counted by `ts`, and from which `ts` on it still gives them. Pure. The window is
//! what VK is thought to have: the last so many updates; forgetting takes everything up to now. Deliberately absent: keys,
//! polls, faults (`vk_server`), what a message says (`vk_messages`).

use serde_json::json;

/// How many updates an answer has at most.
const UPDATES_AN_ANSWER: usize = 100;

/// The updates of one community.
#[derive(Debug)]
pub(super) struct History {
    /// The ts before the first update.
    first: u64,
    /// Every update, as text; the n-th has ts `first + n + 1`.
    updates: Vec<String>,
    /// Who asks with a ts below this has missed something.
    forgotten: u64,
    /// How many of the last updates are given.
    window: u64,
}

impl History {
    pub(super) fn new(first: u64, window: u64) -> Self {
        Self { first, updates: Vec::new(), forgotten: first, window }
    }

    /// The newest ts.
    pub(super) fn head(&self) -> u64 {
        self.first + self.updates.len() as u64
    }

    /// The oldest ts that can be asked with.
    pub(super) fn oldest(&self) -> u64 {
        let head = self.head();
        self.forgotten.max(head.saturating_sub(self.window)).min(head)
    }

    /// Adds an update; returns its ts.
    pub(super) fn push(&mut self, update: String) -> u64 {
        self.updates.push(update);
        self.head()
    }

    /// All updates, the forgotten ones too.
    pub(super) fn updates(&self) -> &[String] {
        &self.updates
    }

    /// Everything up to now is gone for those who ask with an older ts.
    pub(super) fn forget(&mut self) {
        self.forgotten = self.head();
    }

    /// Changes how many of the last updates are given.
    pub(super) fn set_window(&mut self, window: u64) {
        self.window = window;
    }

    /// Takes the last updates back.
    pub(super) fn go_back(&mut self, count: usize) -> Vec<String> {
        let kept = self.updates.len().saturating_sub(count);
        self.updates.split_off(kept)
    }

    /// What a poll with this ts brings now: an answer, or nothing yet.
    pub(super) fn answer(&self, ts: u64) -> Option<String> {
        let (oldest, head) = (self.oldest(), self.head());
        if ts < oldest || ts > head {
            // Who is too late goes on from what there is, who is too early from now. Here VK sends a number.
            return Some(json!({ "failed": 1, "ts": ts.clamp(oldest, head) }).to_string());
        }
        let from = usize::try_from(ts - self.first).ok()?;
        let new = self.updates.get(from..).filter(|new| !new.is_empty())?;
        let some = &new[..new.len().min(UPDATES_AN_ANSWER)];
        Some(format!("{{\"ts\":\"{}\",\"updates\":[{}]}}\r\n", ts + some.len() as u64, some.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(updates: usize, window: u64) -> History {
        let mut history = History::new(1000, window);
        for n in 0..updates {
            history.push(n.to_string());
        }
        history
    }

    fn check(history: &History, ts: u64, expected: Option<&str>) {
        assert_eq!(history.answer(ts).as_deref().map(str::trim_end), expected, "asked with {ts}: {history:?}");
    }

    #[test]
    fn who_asks_outside_of_what_there_is_gets_a_number_to_go_on_from() {
        let history = history(5, 2);
        check(&history, 1002, Some(r#"{"failed":1,"ts":1003}"#));
        check(&history, 0, Some(r#"{"failed":1,"ts":1003}"#));
        check(&history, 1003, Some(r#"{"ts":"1005","updates":[3,4]}"#));
        check(&history, 1005, None);
        check(&history, 1006, Some(r#"{"failed":1,"ts":1005}"#));
    }

    #[test]
    fn what_is_forgotten_is_counted_and_never_given_again() {
        let mut history = history(5, 100);
        history.forget();
        check(&history, 1004, Some(r#"{"failed":1,"ts":1005}"#));
        check(&history, 1005, None);
        history.push("5".to_owned());
        check(&history, 1005, Some(r#"{"ts":"1006","updates":[5]}"#));
        assert_eq!(history.go_back(3), ["3", "4", "5"]);
        check(&history, 1006, Some(r#"{"failed":1,"ts":1003}"#));
        assert_eq!(history.updates().len(), 3);
    }

    #[test]
    fn an_answer_has_a_hundred_updates_at_most() {
        let answer = history(250, 1000).answer(1000).expect("an answer");
        assert!(answer.starts_with(r#"{"ts":"1100","#) && answer.ends_with("98,99]}\r\n"), "{answer}");
    }
}
