//! A handler that is reached by a name moves: deliveries follow, whether its old place is gone or still answers. One sender,
//! a resolver that is told what to say, handlers at two addresses. Deliberately absent: waits between attempts (`worker`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_router::config::{Source, load};
use event_router::delivery::sender::LOOKED_UP_EVERY;
use event_router::delivery::{Attempt, Sender};
use event_router::domain::delivery::{Failure, Outcome};
use event_router::domain::event::{Queued, Source as From};
use event_router::domain::ids::Seq;
use event_router::domain::time::Moment;
use event_router::sim::handler::{Answer, Handler};
use futures_util::future::{join_all, select};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;

use crate::rig::within;
use crate::store_rig::event;

const OLD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
const NEW: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const START: Moment = Moment(1_790_000_000_000);

/// What a name means at the moment, and how often it was asked.
#[derive(Clone)]
struct Phonebook(Arc<(Mutex<IpAddr>, AtomicUsize)>);

impl Phonebook {
    fn says(&self, address: IpAddr) {
        *self.0.0.lock().expect("no panic") = address;
    }

    fn asked(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Resolve for Phonebook {
    fn resolve(&self, name: Name) -> Resolving {
        assert_eq!(name.as_str(), "handler.example");
        self.0.1.fetch_add(1, Ordering::SeqCst);
        let address = *self.0.0.lock().expect("no panic");
        Box::pin(async move { Ok(Box::new(std::iter::once(SocketAddr::new(address, 0))) as Addrs) })
    }
}

struct Bench {
    sender: Sender,
    names: Phonebook,
    old: Handler,
    new: Handler,
    sent: u64,
}

fn attempt(event: &Queued) -> Attempt<'_> {
    Attempt { event, along: Vec::new(), list: false, number: 1, replay: 0 }
}

impl Bench {
    /// A handler at one address, another one at the same port of another address, and a sender that knows a name.
    async fn new(host: &str) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let old = Handler::start_at((OLD, 0).into()).await.expect("a handler");
        let port = old.address().port();
        let new = Handler::start_at((NEW, port).into()).await.expect("a handler");
        let names = Phonebook(Arc::new((Mutex::new(old.address().ip()), AtomicUsize::new(0))));
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("event-router.toml");
        let config = format!(
            "[vk]\ntoken = \"x\"\ngroup_id = 1\n[destinations.all]\nurl = \"http://{host}:{port}/\"\ntimeout = \"5s\"\n"
        );
        std::fs::write(&file, config).expect("written");
        let settings = load(&Source { file: Some(file), env: Vec::new() }).expect("sound").service().expect("whole");
        let settings = &settings.destinations[0].0;
        let sender = Sender::with_resolver(settings, Some(Arc::new(names.clone()))).expect("a sender");
        Self { sender, names, old, new, sent: 0 }
    }

    fn event(&mut self) -> Queued {
        self.sent += 1;
        Queued { seq: Seq(self.sent), source: From::Live, event: event(self.sent, 1, 10) }
    }

    async fn send(&mut self, at: Duration) -> Outcome {
        let event = self.event();
        within("an attempt", self.sender.attempt(&attempt(&event), START.plus(at))).await.0
    }

    /// Several attempts at once: each needs a connection.
    async fn send_together(&mut self, at: Duration) {
        let events: Vec<Queued> = (0..TOGETHER).map(|_| self.event()).collect();
        let attempts: Vec<Attempt<'_>> = events.iter().map(attempt).collect();
        let all = join_all(attempts.iter().map(|attempt| self.sender.attempt(attempt, START.plus(at))));
        within("several attempts", all).await.iter().for_each(|(outcome, _)| assert_eq!(*outcome, TAKEN));
    }

    fn came(&self) -> (usize, usize) {
        (self.old.received().len(), self.new.received().len())
    }
}

const TAKEN: Outcome = Outcome::Delivered { status: 200 };
const SECOND: Duration = Duration::from_secs(1);
const TOGETHER: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_was_started_anew_at_another_address_is_found_there_at_once() {
    let mut bench = Bench::new("handler.example").await;
    for n in 0..3 {
        assert_eq!(bench.send(SECOND * n).await, TAKEN);
    }
    // Its place is gone, and the name does not say so yet.
    bench.old.down();
    let refused = bench.send(SECOND * 3).await;
    assert!(matches!(refused, Outcome::Failed { .. }), "{refused:?}");
    let refused = bench.send(SECOND * 4).await;
    assert!(matches!(refused, Outcome::Failed { failure: Failure::Connect(_), .. }), "{refused:?}");
    bench.names.says(bench.new.address().ip());
    assert_eq!(bench.send(SECOND * 5).await, TAKEN);
    assert_eq!(bench.came(), (3, 1));
}

/// The old one goes on answering on the connections that it has: a change of the name would never be noticed.
#[tokio::test(flavor = "multi_thread")]
async fn deliveries_follow_a_name_within_a_minute_although_its_old_place_still_answers() {
    let mut bench = Bench::new("handler.example").await;
    // Traffic without a break: connections never idle.
    bench.old.answer(|_| Answer::Slow(Duration::from_millis(5), 200));
    bench.send_together(Duration::ZERO).await;
    bench.names.says(bench.new.address().ip());
    for n in 1..59 {
        bench.send_together(SECOND * n).await;
    }
    assert!(bench.came().0 > TOGETHER, "connections in use are kept for a while");
    // One is on its way when the connections are given up: it is answered where it was sent.
    let (release, held) = watch::channel(false);
    bench.old.answer(move |_| Answer::Until(held.clone(), 200));
    bench.new.answer({
        let held = release.subscribe();
        move |_| Answer::Until(held.clone(), 200)
    });
    let (late, next) = (bench.event(), bench.event());
    let (late, next) = (attempt(&late), attempt(&next));
    let (old, new) = (bench.old.clone(), bench.new.clone());
    let (before, after) = (START.plus(LOOKED_UP_EVERY - SECOND), START.plus(LOOKED_UP_EVERY));
    let so_far = bench.came();
    let second = async {
        // It may have been sent to either place.
        let (at_old, at_new) = (old.until(|all| all.len() > so_far.0), new.until(|all| all.len() > so_far.1));
        within("the late one", select(pin!(at_old), pin!(at_new))).await;
        let there = new.received().len();
        let arrived = async {
            within("the next one at its new place", new.until(|all| all.len() > there)).await;
            release.send_replace(true);
        };
        tokio::join!(bench.sender.attempt(&next, after), arrived).0.0
    };
    let (first, second) = tokio::join!(bench.sender.attempt(&late, before), second);
    assert_eq!((first.0, second), (TAKEN, TAKEN), "what is on its way is answered where it was sent");
    let (old, new) = bench.came();
    for n in 61..110 {
        bench.send_together(SECOND * n).await;
    }
    assert_eq!(bench.came(), (old, new + 49 * TOGETHER), "nothing is sent to the old place");
    // A clock that was set back keeps nobody where he was.
    bench.names.says(bench.old.address().ip());
    assert_eq!(bench.send(SECOND * 3).await, TAKEN);
    assert_eq!(bench.came(), (old + 1, new + 49 * TOGETHER));
}

/// An address cannot change: its connections are kept as long as they work.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_an_address_are_kept_for_ever() {
    let mut bench = Bench::new(&OLD.to_string()).await;
    for n in 0..5 {
        assert_eq!(bench.send(LOOKED_UP_EVERY * 2 * n).await, TAKEN);
    }
    bench.old.answer(|_| Answer::Slow(Duration::from_millis(5), 200));
    bench.send_together(LOOKED_UP_EVERY * 20).await;
    let connections = bench.old.connections();
    for n in 30..40 {
        assert_eq!(bench.send(LOOKED_UP_EVERY * n).await, TAKEN);
    }
    assert_eq!((bench.came(), bench.names.asked()), ((5 + TOGETHER + 10, 0), 0));
    assert!(bench.old.connections() <= connections + 2, "{} after {connections}", bench.old.connections());
}
