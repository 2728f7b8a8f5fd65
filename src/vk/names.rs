//! Names of people, communities and chats: looked up for a whole answer at once, cached, never waited for longer than
//! allowed. Never fails: what has not come in time is null, and is asked for again next time.
//!
//! Deliberately absent: what an event does with a name.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use tokio::time::timeout;

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
/// How long it is believed that there is no name.
const NEGATIVE_TTL: Duration = Duration::from_secs(600);
/// How long a method is left alone after a failure; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a method is left alone that VK has limited.
const LIMITED_PAUSE: Duration = Duration::from_secs(600);

/// A name and a nick; either may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// "First Last", or a community's name.
    pub name: Option<String>,
    /// `domain` or `screen_name`.
    pub nick: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Users, and communities under negative ids.
    pub people: HashMap<i64, Person>,
    /// Titles of chats.
    pub chats: HashMap<i64, Option<String>>,
}

/// The cache and the way to fill it.
pub struct Names {
    client: Client,
    settings: NamesSettings,
    people: Cache<i64, Person>,
    chats: Cache<i64, Option<String>>,
    pauses: Mutex<HashMap<Method, Pause>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Method {
    Users,
    Groups,
    Chats,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    length: Duration,
}

/// A name lives as long as settings say, the absence of one shorter.
struct Lifetime {
    named: Duration,
}

impl Lifetime {
    fn of(&self, named: bool) -> Option<Duration> {
        Some(if named { self.named } else { self.named.min(NEGATIVE_TTL) })
    }
}

impl Expiry<i64, Person> for Lifetime {
    fn expire_after_create(&self, _: &i64, person: &Person, _: Instant) -> Option<Duration> {
        self.of(person.name.is_some())
    }
}

impl Expiry<i64, Option<String>> for Lifetime {
    fn expire_after_create(&self, _: &i64, title: &Option<String>, _: Instant) -> Option<Duration> {
        self.of(title.is_some())
    }
}

impl Names {
    /// An empty cache.
    #[must_use]
    pub fn new(client: Client, settings: NamesSettings) -> Self {
        let lifetime = || Lifetime { named: settings.cache_ttl };
        let people = Cache::builder().max_capacity(settings.cache_entries).expire_after(lifetime()).build();
        let chats = Cache::builder().max_capacity(settings.cache_entries).expire_after(lifetime()).build();
        Self { client, people, chats, pauses: Mutex::new(HashMap::new()), settings }
    }

    /// The names of `people` (users, and communities under negative ids) and the titles of `chats`, as far as they are
    /// known within the time that is allowed. Dropping it loses nothing but the look-up.
    pub async fn look_up(&self, people: &HashSet<i64>, chats: &HashSet<i64>) -> Found {
        if self.settings.enabled {
            let unknown = |ids: &HashSet<i64>, known: &dyn Fn(i64) -> bool| {
                let mut ids: Vec<i64> = ids.iter().copied().filter(|id| !known(*id)).collect();
                ids.sort_unstable();
                ids
            };
            let people = unknown(people, &|id| self.people.contains_key(&id));
            let (users, groups): (Vec<i64>, Vec<i64>) =
                people.into_iter().filter(|id| *id != 0).partition(|id| *id > 0);
            let chats = unknown(chats, &|id| self.chats.contains_key(&id));
            let all = async {
                tokio::join!(
                    self.fetch(Method::Users, &users, USERS_A_CALL),
                    self.fetch(Method::Groups, &groups, GROUPS_A_CALL),
                    self.fetch(Method::Chats, &chats, CHATS_A_CALL),
                )
            };
            if timeout(self.settings.timeout, all).await.is_err() {
                self.pause_all(&[(Method::Users, &users), (Method::Groups, &groups), (Method::Chats, &chats)]);
            }
        }
        Found {
            people: people.iter().filter_map(|id| Some((*id, self.people.get(id)?))).collect(),
            chats: chats.iter().filter_map(|id| Some((*id, self.chats.get(id)?))).collect(),
        }
    }

    async fn fetch(&self, method: Method, ids: &[i64], a_call: usize) {
        for ids in ids.chunks(a_call) {
            if self.paused(method) {
                return;
            }
            match self.call(method, ids).await {
                Ok(()) => self.resume(method),
                Err(error) => {
                    self.pause(method, &error);
                    tracing::warn!(?method, error = %error, "names are not told; events go on without them");
                    return;
                }
            }
        }
    }

    async fn call(&self, method: Method, ids: &[i64]) -> Result<(), CallError> {
        let list = ids.iter().map(|id| id.abs().to_string()).collect::<Vec<_>>().join(",");
        let named = match method {
            Method::Users => {
                let body =
                    self.client.call("users.get", &[("user_ids", &list), ("fields", "domain,screen_name")]).await?;
                none_if_unknown(wire::users_reply(&mend(&body)))?
            }
            Method::Groups => {
                let body = self.client.call("groups.getById", &[("group_ids", &list)]).await?;
                none_if_unknown(wire::groups_reply(&mend(&body)))?
            }
            Method::Chats => {
                let body = self.client.call("messages.getConversationsById", &[("peer_ids", &list)]).await?;
                let mut titles: HashMap<i64, Option<String>> =
                    none_if_unknown(wire::conversations_reply(&mend(&body)))?.into_iter().collect();
                ids.iter().for_each(|id| self.chats.insert(*id, titles.remove(id).flatten()));
                return Ok(());
            }
        };
        let mut named: HashMap<i64, Person> =
            named.into_iter().map(|named| (named.id, Person { name: named.name, nick: named.nick })).collect();
        // Whom VK does not name it does not know: that, too, is an answer.
        ids.iter().for_each(|id| self.people.insert(*id, named.remove(id).unwrap_or_default()));
        Ok(())
    }

    fn paused(&self, method: Method) -> bool {
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.get(&method).is_some_and(|pause| pause.until > Instant::now())
    }

    fn resume(&self, method: Method) {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).remove(&method);
    }

    fn pause(&self, method: Method, error: &CallError) {
        let limited = matches!(error, CallError::Api(error) if error.class() == ErrorClass::LongPause);
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let length = match pauses.get(&method) {
            _ if limited => LIMITED_PAUSE,
            Some(pause) => (pause.length * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        pauses.insert(method, Pause { until: Instant::now() + length, length });
    }

    /// The wait was used up: the next answers do not pay it again at once.
    fn pause_all(&self, asked: &[(Method, &Vec<i64>)]) {
        for (method, ids) in asked {
            if !ids.is_empty() && !self.paused(*method) {
                self.pause(*method, &CallError::Timeout);
            }
        }
    }
}

/// An error about the objects asked for is an answer: there are no such names.
fn none_if_unknown<T>(reply: Result<Vec<T>, wire::Refusal>) -> Result<Vec<T>, CallError> {
    match reply {
        Err(wire::Refusal::Api(error)) if matches!(error.class(), ErrorClass::NoData) || error.code == 113 => {
            Ok(Vec::new())
        }
        other => Ok(other?),
    }
}
