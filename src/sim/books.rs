//! The books: what VK gave, against what handlers took, what is dead, in quarantine, or of nobody's interest. Pure. They
//! balance when nothing is lost, nothing is invented, a repeat is the same as the original, and every chat's order holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// An event that VK gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its id.
    pub event_id: String,
    /// Its chat.
    pub lane: String,
    /// Who should get it.
    pub destinations: Vec<String>,
}

/// A request that a handler answered with a 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The event.
    pub event_id: String,
    /// What was sent.
    pub body: Vec<u8>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Deliveries that were due.
    pub due: usize,
    /// Deliveries that were made, each counted once.
    pub delivered: usize,
    /// Deliveries made again.
    pub repeats: usize,
    /// Deliveries that are dead.
    pub dead: usize,
    /// Everything that is wrong, in words.
    pub wrong: Vec<String>,
}

impl Balance {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.wrong.is_empty() && self.due == self.delivered + self.dead
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { due, delivered, repeats, dead, wrong } = self;
        write!(
            f,
            "deliveries due {due} = delivered {delivered} + dead {dead}; repeated {repeats}; wrong {}",
            wrong.len()
        )?;
        wrong.iter().take(10).try_for_each(|words| write!(f, "\n  {words}"))
    }
}

/// Balances the books: `served` in VK's order, `taken` per destination in the order of arrival, `dead` as (destination,
/// event id).
#[must_use]
pub fn balance(served: &[Served], taken: &BTreeMap<String, Vec<Taken>>, dead: &BTreeSet<(String, String)>) -> Balance {
    let mut balance = Balance::default();
    let known: HashMap<&str, (usize, &Served)> =
        served.iter().enumerate().map(|(place, one)| (one.event_id.as_str(), (place, one))).collect();
    let mut due: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in served {
        for destination in &one.destinations {
            due.entry(destination).or_default().insert(&one.event_id);
            balance.due += 1;
        }
    }
    let nothing = Vec::new();
    for (destination, due) in &due {
        let mut bodies: HashMap<&str, &[u8]> = HashMap::new();
        let mut last_of_lane: HashMap<&str, usize> = HashMap::new();
        for one in taken.get(*destination).unwrap_or(&nothing) {
            let id = one.event_id.as_str();
            let Some((place, event)) = known.get(id).filter(|_| due.contains(id)) else {
                balance.wrong.push(format!("{destination} got {id}, which was not for it"));
                continue;
            };
            if let Some(body) = bodies.insert(id, &one.body) {
                balance.repeats += 1;
                if body != one.body {
                    balance.wrong.push(format!("{destination} got {id} twice, with two bodies"));
                }
                continue;
            }
            balance.delivered += 1;
            let last = last_of_lane.entry(&event.lane).or_insert(*place);
            if *place < *last {
                balance.wrong.push(format!("{destination} got {id} of {} after a later one", event.lane));
            }
            *last = (*last).max(*place);
        }
        for id in due.iter().filter(|id| !bodies.contains_key(**id)) {
            if dead.contains(&((*destination).to_owned(), (*id).to_owned())) {
                balance.dead += 1;
            } else {
                balance.wrong.push(format!("{destination} never got {id}"));
            }
        }
    }
    for destination in taken.keys().filter(|name| !due.contains_key(name.as_str())) {
        if taken.get(destination).is_some_and(|all| !all.is_empty()) {
            balance.wrong.push(format!("{destination} got something, and nothing was for it"));
        }
    }
    balance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arrivals: &[&str], dead: &[&str], expected: Result<(usize, usize), &str>) {
        let served: Vec<_> = [("a1", "a"), ("a2", "a"), ("b1", "b")]
            .iter()
            .map(|(id, lane)| Served { event_id: (*id).into(), lane: (*lane).into(), destinations: vec!["d".into()] })
            .collect();
        let take = |id: &&str| Taken { event_id: id.trim_end_matches('!').into(), body: id.as_bytes().to_vec() };
        let taken = BTreeMap::from([("d".to_owned(), arrivals.iter().map(take).collect())]);
        let dead = dead.iter().map(|id| ("d".to_owned(), (*id).to_owned())).collect();
        let found = balance(&served, &taken, &dead);
        match expected {
            Ok((delivered, repeats)) => {
                assert!(found.balanced(), "{found}");
                assert_eq!((found.delivered, found.repeats), (delivered, repeats));
            }
            Err(words) => assert!(!found.balanced() && found.to_string().contains(words), "{found}"),
        }
    }

    #[test]
    fn the_books_find_what_is_lost_invented_changed_or_out_of_order() {
        check(&["a1", "b1", "a2"], &[], Ok((3, 0)));
        check(&["b1", "a1", "a2"], &[], Ok((3, 0)));
        check(&["a1", "a2", "a1", "a2", "b1"], &[], Ok((3, 2)));
        check(&["a2", "b1"], &["a1"], Ok((2, 0)));
        check(&["a1", "a2"], &[], Err("d never got b1"));
        check(&["a2", "a1", "b1"], &[], Err("d got a1 of a after a later one"));
        check(&["a1", "a2", "b1", "x"], &[], Err("d got x, which was not for it"));
        check(&["a1", "a1!", "a2", "b1"], &[], Err("with two bodies"));
    }
}
