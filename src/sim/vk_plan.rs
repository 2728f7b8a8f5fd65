//! The words of `--faults`, and when each fault comes. Pure: whether the n-th poll, or the n-th call of a method, is spoiled
//! follows from the seed and that number alone, so the same seed gives the same night however fast the client is.
//! Deliberately absent: carrying a fault out (`vk_server`).

use std::time::Duration;

use super::vk_faults::Fault;
use super::vk_server::Settings;

/// How late a late answer is.
const LATE: Duration = Duration::from_secs(1);
/// How rare a fault is that says nothing of it: one in so many.
const EVERY: u64 = 50;

/// What may spoil a poll, by name.
pub const POLL_FAULTS: [(&str, Fault); 16] = [
    ("failed1", Fault::Failed1),
    ("failed1-no-ts", Fault::Failed1Nowhere),
    ("failed2", Fault::Failed2),
    ("failed3", Fault::Failed3),
    ("failed4", Fault::FailedUnknown),
    ("http502", Fault::Html502),
    ("http500", Fault::Json500),
    ("no-ts", Fault::NoTs),
    ("number-ts", Fault::NumberTs),
    ("stuck-ts", Fault::StuckTs),
    ("cut", Fault::Cut),
    ("garbage", Fault::Garbage),
    ("huge", Fault::Huge),
    ("hang", Fault::Hang),
    ("slow", Fault::Slow(LATE)),
    ("restart", Fault::Restart),
];
/// Whose calls may be spoiled: a word that stands before what spoils them, and the methods.
pub const TARGETS: [(&str, &[&str]); 6] = [
    ("error", &[]),
    ("api", &[]),
    ("session", &["groups.getLongPollServer"]),
    ("settings", &["groups.getLongPollSettings"]),
    ("names", &["users.get", "groups.getById", "messages.getConversationsById"]),
    ("messages", &["messages.getByConversationMessageId"]),
];
/// What may spoil a call, besides an error of the API by its number.
pub const CALL_FAULTS: [(&str, Fault); 11] = [
    ("429", Fault::Status(429)),
    ("500", Fault::Json500),
    ("502", Fault::Html502),
    ("503", Fault::Status(503)),
    ("504", Fault::Status(504)),
    ("-hang", Fault::Hang),
    ("-slow", Fault::Slow(LATE)),
    ("-cut", Fault::Cut),
    ("-garbage", Fault::Garbage),
    ("-huge", Fault::Huge),
    ("-restart", Fault::Restart),
];
/// What is set by a number behind `=`.
pub const LIMITS: [&str; 5] = ["window", "key", "key-seconds", "rate", "quota"];
/// A mix of everything that loses nothing which VK still has, and after which a client need not pause for minutes.
pub const NIGHT: &str = "failed2@25, failed4@40, http502@20, http500@40, no-ts@40, cut@25, garbage@30, huge@300, hang@200, \
    slow@15, restart@25, key=30, session10@8, session502@8, session-cut@20, session-restart@12, api6@25, names10@12, \
    names502@12, names-slow@12, names-garbage@20, names-hang@100, messages10@12, messages502@12";
/// The word for that mix.
pub const NIGHT_WORD: &str = "night";

/// Faults that come by themselves, each about once in so many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Of polls.
    pub polls: Vec<(Fault, u64)>,
    /// Of calls: of these methods, or of all when there are none.
    pub calls: Vec<(&'static [&'static str], Fault, u64)>,
}

impl Plan {
    /// What spoils the n-th poll.
    pub(super) fn poll(&self, seed: u64, n: u64) -> Option<Fault> {
        let hit = |(place, (_, every)): &(usize, &(Fault, u64))| drawn(seed, "poll", n, *place).is_multiple_of(*every);
        self.polls.iter().enumerate().find(hit).map(|(_, (fault, _))| *fault)
    }

    /// What spoils the n-th call of a method.
    pub(super) fn call(&self, seed: u64, method: &str, n: u64) -> Option<Fault> {
        let mut calls = self.calls.iter().enumerate();
        let hit = calls.find(|(place, (methods, _, every))| {
            (methods.is_empty() || methods.contains(&method)) && drawn(seed, method, n, *place).is_multiple_of(*every)
        });
        hit.map(|(_, (_, fault, _))| *fault)
    }
}

/// A number as if by chance (splitmix64 over all that it depends on).
fn drawn(seed: u64, stream: &str, n: u64, place: usize) -> u64 {
    let mix = |state: u64| {
        let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ (state >> 31)
    };
    let stream = stream.bytes().fold(seed, |state, byte| mix(state ^ u64::from(byte)));
    mix(mix(stream ^ n) ^ place as u64)
}

/// Reads `--faults` into settings: words with commas.
///
/// # Errors
/// When a word is none; tells all of them.
pub fn plan(list: &str, settings: &mut Settings) -> Result<(), String> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).try_for_each(|word| {
        let known = if word == NIGHT_WORD { plan(NIGHT, settings).ok() } else { one(word, settings) };
        known.ok_or_else(|| format!("{word:?} is no fault; expected words with commas of: {}", all()))
    })
}

fn one(word: &str, settings: &mut Settings) -> Option<()> {
    if let Some((name, number)) = word.split_once('=') {
        let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
        match name {
            "window" => settings.window = number,
            "key" => settings.key_polls = Some(number),
            "key-seconds" => settings.key_span = Some(Duration::from_secs(number)),
            "rate" => settings.calls_a_second = Some(usize::try_from(number).ok()?),
            "quota" => settings.sessions_a_minute = Some(number),
            _ => return None,
        }
        return Some(());
    }
    let (name, every) = match word.split_once('@') {
        None => (word, EVERY),
        Some((name, every)) => (name, every.parse().ok().filter(|every| *every > 0)?),
    };
    if let Some((_, fault)) = POLL_FAULTS.iter().find(|(other, _)| *other == name) {
        settings.plan.polls.push((*fault, every));
        return Some(());
    }
    let (methods, what) = TARGETS.iter().find_map(|(target, methods)| Some((*methods, name.strip_prefix(target)?)))?;
    let of_http = CALL_FAULTS.iter().find(|(other, _)| *other == what && !name.starts_with("error"));
    let fault = match of_http {
        Some((_, fault)) => *fault,
        None => Fault::ApiError(what.parse().ok().filter(|code| *code > 0 && what.starts_with(|c| c != '+'))?),
    };
    settings.plan.calls.push((methods, fault, every));
    Some(())
}

/// All words there are.
fn all() -> String {
    let polls = POLL_FAULTS.map(|(name, _)| name).join(", ");
    let targets = TARGETS[1..].iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let whats = CALL_FAULTS.map(|(name, _)| name).join(", ");
    let limits = LIMITS.map(|name| format!("{name}=N")).join(", ");
    format!(
        "{polls}, each optionally @N for about one in N polls; errorN for API error N of any call; {targets} with an API \
         error's number or {whats} behind it (session29, names-cut), each optionally @N for about one in N calls; {limits}; \
         {NIGHT_WORD}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        plan(list, &mut settings).map(|()| settings)
    }

    #[test]
    fn faults_are_asked_for_by_name() {
        let settings =
            read("failed2@5, cut ,session29@10,error6,names-hang@2,window=7,key=3,key-seconds=9").expect("words");
        assert_eq!(settings.plan.polls, [(Fault::Failed2, 5), (Fault::Cut, EVERY)]);
        let (session, names): (&[_], &[_]) = (TARGETS[2].1, TARGETS[4].1);
        let calls: [(&[_], _, _); 3] =
            [(session, Fault::ApiError(29), 10), (&[], Fault::ApiError(6), EVERY), (names, Fault::Hang, 2)];
        assert_eq!(settings.plan.calls, calls);
        assert_eq!((settings.window, settings.key_polls), (7, Some(3)));
        assert_eq!(settings.key_span, Some(Duration::from_secs(9)));
        assert_eq!(read("").map(|settings| settings.plan), Ok(Plan::default()));
    }

    #[test]
    fn a_word_that_is_none_is_refused_and_all_are_told() {
        let bad = ["failed9", "cut@0", "cut@x", "session", "session-x", "error502x", "error-cut", "window=0", "x=1"];
        for bad in bad.iter().chain(&["night@3", "names+5", "apis"]) {
            let words = read(bad).expect_err(bad);
            assert!(words.starts_with(&format!("{bad:?} is no fault")), "{words}");
            let named = POLL_FAULTS.iter().chain(&CALL_FAULTS).map(|(name, _)| *name);
            for name in named.chain(TARGETS.map(|(name, _)| name)).chain(LIMITS).chain([NIGHT_WORD]) {
                assert!(words.contains(name), "{name} is not told: {words}");
            }
        }
    }

    #[test]
    fn the_night_loses_nothing_and_is_the_same_for_the_same_seed() {
        let plan = read(NIGHT_WORD).expect("a night").plan;
        assert!(!plan.polls.iter().any(|(fault, _)| matches!(fault, Fault::Failed1 | Fault::Failed3)));
        let night = |seed| (0..500).map(|n| (plan.poll(seed, n), plan.call(seed, "users.get", n))).collect::<Vec<_>>();
        assert_eq!(night(4), night(4));
        assert_ne!(night(4), night(5));
        let spoiled = night(4).iter().filter(|(fault, _)| fault.is_some()).count();
        assert!((100..300).contains(&spoiled), "{spoiled} of 500");
    }

    #[test]
    fn one_in_so_many_is_about_that() {
        let plan = Plan { polls: vec![(Fault::Cut, 10)], calls: Vec::new() };
        let spoiled = (0..10_000).filter(|n| plan.poll(1, *n).is_some()).count();
        assert!((850..1150).contains(&spoiled), "{spoiled}");
    }
}
