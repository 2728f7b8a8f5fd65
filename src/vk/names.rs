//! Names of people, communities and chats: looked up for a whole answer at once, cached, never waited for longer than
//! allowed. Never fails: what has not come in time is not in what is found, not cached, and asked for again next time.
//!
//! Deliberately absent: what an event does with a name, when a method is left alone (`breaker`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use moka::Expiry;
use moka::sync::Cache;
use tokio::time::{self, timeout_at};

use super::breaker::{Breaker, Hope};
use super::client::{CallError, Client};
use super::settings::NamesSettings;
use super::wire::{self, ErrorClass};
use crate::domain::convert::mend;

/// Users a call.
const USERS_A_CALL: usize = 1000;
/// Communities a call.
const GROUPS_A_CALL: usize = 500;
/// Conversations a call.
const CHATS_A_CALL: usize = 100;
/// Calls of one method under way at once; a community may call 20 times a second in all.
const CALLS_AT_ONCE: usize = 4;
/// How often a call that fails for the sake of one of its ids is cut in two to find it. What is not found out by then is
/// believed to have no name, for [`NEGATIVE_TTL`].
const CUTS: usize = 16;
/// How long it is believed at most that there is no name.
const NEGATIVE_TTL: Duration = Duration::from_secs(600);
/// VK's code for "none of these is a user".
const NO_SUCH_USERS: i64 = 113;

/// A name and a nick; either may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// "First Last", or a community's name.
    pub name: Option<String>,
    /// `domain` or `screen_name`.
    pub nick: Option<String>,
}

/// What was found. Who is missing was not told of in time; who is there without a name has none that VK would tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Users, and communities under negative ids.
    pub people: HashMap<i64, Person>,
    /// Titles of chats.
    pub chats: HashMap<i64, Option<String>>,
}

/// How it went since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamesStats {
    /// Calls of the API.
    pub calls: u64,
    /// Calls that brought nothing: errors, and those that were not waited for any longer.
    pub failures: u64,
    /// Names that were in the cache.
    pub hits: u64,
    /// Names that were not.
    pub misses: u64,
}

/// The cache and the way to fill it.
pub struct Names {
    client: Client,
    settings: NamesSettings,
    people: Cache<i64, Person>,
    chats: Cache<i64, Option<String>>,
    breakers: Mutex<HashMap<Method, Breaker>>,
    calls: AtomicU64,
    answers: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Names {
    /// An empty cache.
    #[must_use]
    pub fn new(client: Client, settings: NamesSettings) -> Self {
        let lifetime = || Lifetime { named: settings.cache_ttl };
        let people = Cache::builder().max_capacity(settings.cache_entries).expire_after(lifetime()).build();
        let chats = Cache::builder().max_capacity(settings.cache_entries).expire_after(lifetime()).build();
        let zero = || AtomicU64::new(0);
        let (calls, answers, hits, misses) = (zero(), zero(), zero(), zero());
        Self { client, people, chats, breakers: Mutex::default(), settings, calls, answers, hits, misses }
    }

    /// The names of `people` (users, and communities under negative ids) and the titles of `chats`, as far as they are
    /// known within the time that is allowed. Dropping it loses nothing but the look-up.
    pub async fn look_up(&self, people: &HashSet<i64>, chats: &HashSet<i64>) -> Found {
        if !self.settings.enabled {
            return Found::default();
        }
        let mut found = Found::default();
        found.people.extend(people.iter().filter_map(|id| Some((*id, self.people.get(id)?))));
        found.chats.extend(chats.iter().filter_map(|id| Some((*id, self.chats.get(id)?))));
        let missing = |all: &HashSet<i64>, known: &dyn Fn(i64) -> bool| {
            let mut ids: Vec<i64> = all.iter().copied().filter(|id| *id != 0 && !known(*id)).collect();
            ids.sort_unstable();
            ids
        };
        let asked_people = missing(people, &|id| found.people.contains_key(&id));
        let asked_chats = missing(chats, &|id| found.chats.contains_key(&id));
        let (users, groups): (Vec<i64>, Vec<i64>) = asked_people.into_iter().partition(|id| *id > 0);
        count(&self.hits, found.people.len() + found.chats.len());
        count(&self.misses, users.len() + groups.len() + asked_chats.len());

        // The cache may refuse or drop what is put into it, so that what was found is kept aside for this answer.
        let found = Mutex::new(found);
        let deadline = time::Instant::now() + self.settings.timeout;
        tokio::join!(
            self.fetch(Method::Users, &users, &found, deadline),
            self.fetch(Method::Groups, &groups, &found, deadline),
            self.fetch(Method::Chats, &asked_chats, &found, deadline),
        );
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it went since the start. Calls that are under way count as failed until they are answered.
    #[must_use]
    pub fn stats(&self) -> NamesStats {
        let answers = self.answers.load(Ordering::Relaxed);
        let calls = self.calls.load(Ordering::Relaxed);
        NamesStats {
            calls,
            failures: calls.saturating_sub(answers),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    /// Every id of one method, in as many calls as it takes, until the deadline.
    async fn fetch(&self, method: Method, ids: &[i64], found: &Mutex<Found>, deadline: time::Instant) {
        let mut batches = Vec::new();
        for batch in ids.chunks(method.ids_a_call()) {
            batches.push(self.fetch_batch(method, batch, found));
        }
        let all = stream::iter(batches).buffer_unordered(CALLS_AT_ONCE).collect::<()>();
        if !ids.is_empty() && timeout_at(deadline, all).await.is_err() {
            self.failed(method, &CallError::Timeout);
        }
    }

    async fn fetch_batch(&self, method: Method, batch: &[i64], found: &Mutex<Found>) {
        let mut batches = vec![batch];
        let mut cuts = 0;
        while let Some(ids) = batches.pop() {
            if self.is_paused(method) {
                return;
            }
            count(&self.calls, 1);
            match self.call(method, ids).await {
                Ok(named) => {
                    count(&self.answers, 1);
                    self.breaker(method, |breaker| breaker.answered(Instant::now()));
                    self.keep(method, ids, named, found);
                }
                Err(CallError::Api(error)) if blames_ids(&error) => {
                    count(&self.answers, 1);
                    let (left, right) = ids.split_at(ids.len() / 2);
                    if left.is_empty() || error.code == NO_SUCH_USERS || cuts == CUTS {
                        self.keep(method, ids, HashMap::new(), found);
                    } else {
                        cuts += 1;
                        batches.extend([right, left]);
                    }
                }
                Err(error) => return self.failed(method, &error),
            }
        }
    }

    /// What VK tells of these ids, under the ids that were asked for.
    async fn call(&self, method: Method, ids: &[i64]) -> Result<HashMap<i64, Person>, CallError> {
        let id_of = |id: &i64| if method == Method::Groups { id.unsigned_abs().to_string() } else { id.to_string() };
        let list = ids.iter().map(id_of).collect::<Vec<_>>().join(",");
        let body = match method {
            Method::Users => {
                let asked = [("user_ids", list.as_str()), ("fields", "domain,screen_name")];
                self.client.call("users.get", &asked).await?
            }
            Method::Groups => self.client.call("groups.getById", &[("group_ids", &list)]).await?,
            Method::Chats => self.client.call("messages.getConversationsById", &[("peer_ids", &list)]).await?,
        };
        let text = mend(&body);
        let people = |named: Vec<wire::Named>| {
            named.into_iter().map(|named| (named.id, Person { name: named.name, nick: named.nick })).collect()
        };
        Ok(match method {
            Method::Users => people(wire::users_reply(&text)?),
            Method::Groups => people(wire::groups_reply(&text)?),
            Method::Chats => wire::conversations_reply(&text)?
                .into_iter()
                .map(|(id, name)| (id, Person { name, nick: None }))
                .collect(),
        })
    }

    /// Whom VK does not name it does not know, or does not tell us: that, too, is an answer.
    fn keep(&self, method: Method, ids: &[i64], mut named: HashMap<i64, Person>, found: &Mutex<Found>) {
        let mut found = locked(found);
        for id in ids {
            let person = named.remove(id).unwrap_or_default();
            if method == Method::Chats {
                self.chats.insert(*id, person.name.clone());
                found.chats.insert(*id, person.name);
            } else {
                self.people.insert(*id, person.clone());
                found.people.insert(*id, person);
            }
        }
    }

    fn is_paused(&self, method: Method) -> bool {
        self.breaker(method, |breaker| breaker.is_open(Instant::now()))
    }

    fn failed(&self, method: Method, error: &CallError) {
        let hope = match error {
            CallError::Api(error) if error.class() != ErrorClass::Transient => Hope::Late,
            _ => Hope::Soon,
        };
        if let Some(pause) = self.breaker(method, |breaker| breaker.failed(Instant::now(), hope)) {
            tracing::warn!(?method, %error, pause_s = pause.as_secs(), "names are not told; events go on without them");
        }
    }

    fn breaker<T>(&self, method: Method, act: impl FnOnce(&mut Breaker) -> T) -> T {
        act(locked(&self.breakers).entry(method).or_default())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Method {
    Users,
    Groups,
    Chats,
}

impl Method {
    fn ids_a_call(self) -> usize {
        match self {
            Self::Users => USERS_A_CALL,
            Self::Groups => GROUPS_A_CALL,
            Self::Chats => CHATS_A_CALL,
        }
    }
}

/// A name lives as long as settings say, the absence of one no longer than [`NEGATIVE_TTL`].
struct Lifetime {
    named: Duration,
}

impl Lifetime {
    fn of(&self, named: bool) -> Option<Duration> {
        Some(if named { self.named } else { self.named.min(NEGATIVE_TTL) })
    }
}

// An entry that has expired but is not yet swept out is updated, not created: both must set the time anew.
impl Expiry<i64, Person> for Lifetime {
    fn expire_after_create(&self, _: &i64, person: &Person, _: Instant) -> Option<Duration> {
        self.of(person.name.is_some())
    }

    fn expire_after_update(&self, _: &i64, person: &Person, _: Instant, _: Option<Duration>) -> Option<Duration> {
        self.of(person.name.is_some())
    }
}

impl Expiry<i64, Option<String>> for Lifetime {
    fn expire_after_create(&self, _: &i64, title: &Option<String>, _: Instant) -> Option<Duration> {
        self.of(title.is_some())
    }

    fn expire_after_update(
        &self,
        _: &i64,
        title: &Option<String>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.of(title.is_some())
    }
}

/// Whether an error is about the ids that were asked for, and not about the call: an answer, if not a good one.
fn blames_ids(error: &wire::ApiError) -> bool {
    error.class() == ErrorClass::NoData || matches!(error.code, 100 | NO_SUCH_USERS | 125)
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::vk::client::tests::{Asked, FakeVk, Reply};

    const CHAT: i64 = 2_000_000_000;

    fn settings() -> NamesSettings {
        NamesSettings {
            enabled: true,
            // No test but the one about it lasts so long.
            timeout: Duration::from_secs(60),
            cache_ttl: Duration::from_secs(3600),
            cache_entries: 10_000,
        }
    }

    fn ids(asked: &Asked) -> Vec<i64> {
        let list = ["user_ids", "group_ids", "peer_ids"].into_iter().find_map(|name| asked.form.get(name));
        list.expect("ids").split(',').map(|id| id.parse().expect("a number")).collect()
    }

    fn method(asked: &Asked) -> &str {
        asked.path.strip_prefix("/method/").expect("a method")
    }

    fn response(value: &Value) -> Reply {
        Reply::Says(json!({ "response": value }).to_string())
    }

    fn error(code: i64) -> Reply {
        Reply::Says(json!({ "error": { "error_code": code, "error_msg": "no" } }).to_string())
    }

    /// Everyone has a name but those whose id ends in 13; no chat below number 10 is ours.
    fn vk(asked: &Asked) -> Reply {
        let ids = ids(asked);
        match method(asked) {
            "users.get" => {
                let named = ids.iter().filter(|id| *id % 100 != 13);
                response(
                    &named
                        .map(|id| json!({"id":id,"first_name":"Ann","last_name":format!("{id}"),"domain":format!("id{id}")}))
                        .collect(),
                )
            }
            "groups.getById" => {
                let groups: Vec<_> =
                    ids.iter().map(|id| json!({"id":id,"name":"G","screen_name":format!("club{id}")})).collect();
                response(&json!({ "groups": groups, "profiles": [] }))
            }
            _ => {
                let ours = ids.iter().filter(|id| **id >= CHAT + 10);
                let items: Vec<_> = ours
                    .map(|id| json!({"peer":{"id":id},"chat_settings":{"title":format!("T{}", id - CHAT)}}))
                    .collect();
                response(&json!({ "count": items.len(), "items": items }))
            }
        }
    }

    fn set(ids: impl IntoIterator<Item = i64>) -> HashSet<i64> {
        ids.into_iter().collect()
    }

    fn person(name: &str, nick: &str) -> Person {
        Person { name: Some(name.to_owned()), nick: Some(nick.to_owned()) }
    }

    /// How often each method was called: users, communities, chats.
    fn calls(vk: &FakeVk) -> [usize; 3] {
        let asked = vk.asked();
        ["users.get", "groups.getById", "messages.getConversationsById"]
            .map(|name| asked.iter().filter(|asked| method(asked) == name).count())
    }

    #[tokio::test]
    async fn an_answer_costs_one_call_of_each_kind_and_the_next_one_none() {
        let vk = FakeVk::start(vk).await;
        let names = Names::new(vk.client(), settings());
        let (people, chats) = (set([1, 2, -7, 0]), set([CHAT + 10, CHAT + 11]));
        let found = names.look_up(&people, &chats).await;
        assert_eq!(
            found.people,
            HashMap::from([(1, person("Ann 1", "id1")), (2, person("Ann 2", "id2")), (-7, person("G", "club7"))])
        );
        assert_eq!(
            found.chats,
            HashMap::from([(CHAT + 10, Some("T10".to_owned())), (CHAT + 11, Some("T11".to_owned()))])
        );
        assert_eq!(names.look_up(&people, &chats).await, found);
        assert_eq!(calls(&vk), [1, 1, 1]);
        assert_eq!(names.stats(), NamesStats { calls: 3, failures: 0, hits: 5, misses: 5 });
        let users = vk.asked().into_iter().find(|asked| method(asked) == "users.get").expect("asked");
        assert_eq!(
            (ids(&users), users.form["fields"].as_str(), users.form["lang"].as_str()),
            (vec![1, 2], "domain,screen_name", "ru")
        );

        names.look_up(&set([1, 3]), &set([])).await;
        assert_eq!(vk.asked().last().map(ids), Some(vec![3]), "only who is unknown is asked for");
    }

    #[tokio::test]
    async fn more_than_fits_a_call_takes_further_calls() {
        let vk = FakeVk::start(vk).await;
        let names = Names::new(vk.client(), settings());
        let people = set((1..=2001).chain(-501..=-1));
        let found = names.look_up(&people, &set((1..=450).map(|n| CHAT + n))).await;
        assert_eq!((found.people.len(), found.chats.len()), (2502, 450));
        assert_eq!(calls(&vk), [3, 2, 5]);
        assert!(vk.asked().iter().all(|asked| ids(asked).len() <= 1000));
    }

    #[tokio::test]
    async fn a_list_of_communities_in_the_old_shape_is_read_too() {
        let vk = FakeVk::start(|_| response(&json!([{"id":7,"name":"G","screen_name":"g"}]))).await;
        let found = Names::new(vk.client(), settings()).look_up(&set([-7]), &set([])).await;
        assert_eq!(found.people, HashMap::from([(-7, person("G", "g"))]));
    }

    #[tokio::test]
    async fn that_there_is_no_name_is_remembered() {
        let vk = FakeVk::start(vk).await;
        let names = Names::new(vk.client(), settings());
        for _ in 0..3 {
            let found = names.look_up(&set([13]), &set([CHAT + 1])).await;
            assert_eq!(found.people, HashMap::from([(13, Person::default())]));
            assert_eq!(found.chats, HashMap::from([(CHAT + 1, None)]));
        }
        assert_eq!(calls(&vk), [1, 0, 1]);
    }

    #[test]
    fn the_absence_of_a_name_is_believed_for_a_shorter_time() {
        let check = |ttl: u64, named: bool, seconds: u64| {
            let lifetime = Lifetime { named: Duration::from_secs(ttl) };
            assert_eq!(lifetime.of(named), Some(Duration::from_secs(seconds)));
        };
        check(3600, true, 3600);
        check(3600, false, 600);
        check(60, false, 60);
    }

    #[tokio::test]
    async fn what_was_found_is_told_even_if_the_cache_keeps_nothing() {
        let vk = FakeVk::start(vk).await;
        for changed in [
            NamesSettings { cache_entries: 0, ..settings() },
            NamesSettings { cache_ttl: Duration::from_nanos(1), ..settings() },
        ] {
            let names = Names::new(vk.client(), changed);
            for _ in 0..2 {
                let found = names.look_up(&set([1]), &set([CHAT + 10])).await;
                assert_eq!((found.people[&1].name.as_deref(), found.chats.len()), (Some("Ann 1"), 1));
            }
        }
        assert_eq!(calls(&vk), [4, 0, 4]);
    }

    #[tokio::test]
    async fn nobody_is_asked_when_names_are_off() {
        let vk = FakeVk::start(vk).await;
        let names = Names::new(vk.client(), NamesSettings { enabled: false, ..settings() });
        assert_eq!(names.look_up(&set([1]), &set([CHAT + 10])).await, Found::default());
        assert!(vk.asked().is_empty());
    }

    /// A method that fails so is left alone by the next answers; the others are not, and nothing false is remembered.
    async fn check_breaker(failing: fn() -> Reply) {
        let vk = FakeVk::start(move |asked| if method(asked) == "users.get" { failing() } else { vk(asked) }).await;
        let names = Names::new(vk.client(), settings());
        for n in 0..3 {
            let found = names.look_up(&set([1, 2]), &set([CHAT + 10 + n])).await;
            assert_eq!((found.people.len(), found.chats.len()), (0, 1));
        }
        assert_eq!(calls(&vk), [1, 0, 3]);
        assert_eq!(names.stats(), NamesStats { calls: 4, failures: 1, hits: 0, misses: 9 });
        assert!(names.is_paused(Method::Users) && !names.is_paused(Method::Chats));
    }

    #[tokio::test]
    async fn a_method_that_fails_is_left_alone_for_a_while() {
        check_breaker(|| error(6)).await;
        check_breaker(|| error(29)).await;
        check_breaker(|| error(15)).await;
        check_breaker(|| Reply::Status(502, "<html>".to_owned())).await;
        check_breaker(|| Reply::Says("{".to_owned())).await;
        check_breaker(|| Reply::Cut("{\"response\":[")).await;
    }

    #[tokio::test]
    async fn names_that_do_not_come_in_time_are_not_waited_for_and_hold_up_no_others() {
        let vk = FakeVk::start(|asked| if method(asked) == "users.get" { Reply::Hangs } else { vk(asked) }).await;
        let timeout = Duration::from_secs(1);
        let names = Names::new(vk.client(), NamesSettings { timeout, ..settings() });
        let start = Instant::now();
        let found = names.look_up(&set([1, -7]), &set([CHAT + 10])).await;
        assert!(start.elapsed() >= timeout, "it waits as long as it may");
        assert_eq!((found.people.get(&1), found.people.len(), found.chats.len()), (None, 1, 1));
        let again = names.look_up(&set([1, -7]), &set([CHAT + 10])).await;
        assert_eq!((again, calls(&vk)), (found, [1, 1, 1]), "the wait is not paid twice");
        assert!(!names.is_paused(Method::Groups) && !names.is_paused(Method::Chats));
    }

    #[tokio::test]
    async fn one_id_that_vk_refuses_takes_no_name_from_the_others() {
        for code in [917, 100] {
            let vk =
                FakeVk::start(move |asked| if ids(asked).contains(&(CHAT + 42)) { error(code) } else { vk(asked) })
                    .await;
            let names = Names::new(vk.client(), settings());
            let all = set((10..110).map(|n| CHAT + n));
            let found = names.look_up(&set([]), &all).await;
            assert_eq!((found.chats.len(), found.chats.values().filter(|title| title.is_none()).count()), (100, 1));
            assert!(calls(&vk)[2] <= 15, "{:?}", calls(&vk));
            let before = calls(&vk);
            assert_eq!((names.look_up(&set([]), &all).await, calls(&vk)), (found, before));
        }
    }

    #[tokio::test]
    async fn a_call_whose_every_id_is_refused_ends() {
        let vk = FakeVk::start(|asked| error(if method(asked) == "users.get" { NO_SUCH_USERS } else { 927 })).await;
        let found = Names::new(vk.client(), settings()).look_up(&set(1..=100), &set((1..=100).map(|n| CHAT + n))).await;
        assert_eq!((found.people.len(), found.chats.len()), (100, 100));
        let [users, _, chats] = calls(&vk);
        assert_eq!(users, 1, "VK says that none of them is a user");
        assert!(chats <= 2 * CUTS + 1, "{chats}");
    }
}
