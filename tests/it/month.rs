//! A month of bad nights (ten of them unless more are asked for): the whole service by a clock that goes much faster, against a VK that answers nonsense, loses its
//! keys, refuses sessions, breaks connections, goes back, forgets; and an operator who restarts the service. What VK still
//! had arrives, once and in order; what it forgot is a gap, and its messages come back. A seed is printed and taken back
//! (`MONTH_SEED`, `MONTH_DAYS`).

use std::time::Duration;

use event_router::clock::Clock;
use event_router::domain::ids::{EventId, GroupId};
use event_router::domain::time::Moment;
use event_router::sim::books::Served;
use event_router::sim::vk_server::Fault;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::yield_now;

use crate::rig::{Rig, Running, within};

/// How many times as fast the clock goes: a day takes under half a second.
const TIMES: u32 = 200_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const START: Moment = Moment(1_790_000_000_000);
const CHATS: i64 = 6;
const SESSION: &str = "groups.getLongPollServer";

/// What a poll may meet at night. None of it loses anything that VK has.
const POLLS: [Fault; 9] = [
    Fault::Failed1Nowhere,
    Fault::Failed2,
    Fault::FailedUnknown,
    Fault::Html502,
    Fault::Json500,
    Fault::NoTs,
    Fault::Cut,
    Fault::Garbage,
    Fault::Restart,
];
/// What a call may meet at night.
const CALLS: [Fault; 8] = [
    Fault::Html502,
    Fault::Garbage,
    Fault::Cut,
    Fault::Restart,
    Fault::ApiError(10),
    Fault::ApiError(6),
    Fault::ApiError(29),
    Fault::ApiError(5),
];
const METHODS: [&str; 5] = [
    SESSION,
    "users.get",
    "messages.getConversationsById",
    "groups.getLongPollSettings",
    "messages.getByConversationMessageId",
];

struct Month {
    rig: Rig,
    random: StdRng,
    clock: Clock,
    service: Option<Running>,
    last: [i64; CHATS as usize],
    gaps: usize,
    repeats: u64,
}

impl Month {
    fn below(&mut self, limit: usize) -> usize {
        self.random.random_range(0..limit)
    }

    fn start(&mut self) {
        self.service = Some(self.rig.start_by(self.clock.clone()));
    }

    async fn stop(&mut self) {
        if let Some(service) = self.service.take() {
            service.stop().await;
        }
    }

    /// Somebody writes, or presses a button.
    fn happens(&mut self, forgotten: bool) {
        let chat = self.below(self.last.len());
        let peer = 2_000_000_001 + i64::try_from(chat).expect("small");
        let lane = format!("peer {peer}");
        if self.below(5) == 0 {
            let object = json!({ "user_id": 100, "peer_id": peer, "event_id": "0123456789ab", "payload": {}, "conversation_message_id": 1 });
            self.rig.update("message_event", object, &lane, &["all"]);
            if forgotten {
                self.rig.served.pop();
            }
            return;
        }
        self.last[chat] += 1;
        let cmid = self.last[chat];
        let message =
            json!({ "from_id": 100, "peer_id": peer, "text": "x", "date": 1, "conversation_message_id": cmid });
        self.rig.update("message_new", json!({ "message": message }), &lane, &["all"]);
        if forgotten {
            let group = GroupId::new(self.rig.vk.group_id()).expect("an id");
            let served = self.rig.served.last_mut().expect("served");
            *served = Served { event_id: EventId::fetched(group, peer, cmid).to_string(), ..served.clone() };
        }
    }

    /// Waits until all that VK has is read and delivered, and every gap is filled.
    async fn caught_up(&mut self) {
        let head = self.rig.vk.head().to_string();
        let (gaps, rig) = (self.gaps, &self.rig);
        within("everything is caught up with", async {
            loop {
                let stats = rig.stats().await;
                let read = stats.checkpoints.iter().any(|checkpoint| checkpoint.ts == head);
                if read && stats.gaps == gaps as u64 && stats.destinations.iter().all(|view| view.pending == 0) {
                    let told = rig.gaps().await;
                    if told.iter().all(|gap| gap.backfill.as_ref().is_some_and(|told| told.finished.is_some())) {
                        return;
                    }
                }
            }
        })
        .await;
    }

    /// Waits until the clock says so.
    async fn until(&self, moment: Moment) {
        within("time to pass", async {
            while self.clock.now() < moment {
                yield_now().await;
            }
        })
        .await;
    }

    async fn night(&mut self) {
        for _ in 0..5 + self.below(25) {
            let fault = POLLS[self.below(POLLS.len())];
            self.rig.vk.inject(fault);
        }
        // What fails eight times while VK answers all else is refused, rightly: a night has fewer, and ends.
        self.rig.vk.spare_calls();
        for _ in 0..self.below(8) {
            let (method, fault) = (METHODS[self.below(METHODS.len())], CALLS[self.below(CALLS.len())]);
            self.rig.vk.inject_call(method, fault);
        }
        match self.below(5) {
            // Somebody restarts the service.
            0 => {
                self.stop().await;
                self.happens(false);
                self.start();
            }
            // The service is away for longer than VK remembers.
            1 => {
                self.caught_up().await;
                self.stop().await;
                let head = self.rig.vk.head();
                (0..1 + self.below(40)).for_each(|_| self.happens(true));
                // It has lost the history, or the key as well.
                if self.below(2) == 0 {
                    self.rig.vk.forget();
                } else {
                    self.rig.vk.spare_polls();
                    self.rig.vk.inject(Fault::Failed3);
                }
                assert!(self.rig.vk.head() > head);
                self.gaps += 1;
                self.start();
                // What comes live does not wait for what is fetched back: the books would call that out of order.
                self.caught_up().await;
            }
            // VK is restored from yesterday, and tells the last of it again.
            2 => {
                self.caught_up().await;
                let before = self.rig.vk.head();
                let again = self.rig.vk.go_back(3);
                let count = again.len() as u64;
                within("to be sent back", self.rig.vk.until(|vk| vk.polls().last() == Some(&(before - count)))).await;
                again.into_iter().for_each(|update| _ = self.rig.vk.push(update));
                self.gaps += 1;
                self.repeats += count;
                self.caught_up().await;
            }
            _ => {}
        }
        (0..10).for_each(|_| self.happens(false));
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_bad_nights_loses_nothing_that_vk_still_has() {
    let seed = number("MONTH_SEED", u64::from(std::process::id()));
    let days = number("MONTH_DAYS", 10);
    eprintln!("repeat with MONTH_SEED={seed} MONTH_DAYS={days}");
    let rig = Rig::with_vk(&[("all", "")], "backfill = true").await;
    let clock = Clock::hasty(START, TIMES);
    let random = StdRng::seed_from_u64(seed);
    let mut month = Month { rig, random, clock, service: None, last: [0; 6], gaps: 0, repeats: 0 };
    month.start();
    within("the first poll", month.rig.vk.until(|vk| !vk.polls().is_empty())).await;
    // Every chat is heard of once.
    (0..60).for_each(|_| month.happens(false));
    for day in 1..=u32::try_from(days).expect("small") {
        month.night().await;
        month.until(START.plus(DAY * day)).await;
        (0..20).for_each(|_| month.happens(false));
    }
    month.caught_up().await;
    let stats = month.rig.stats().await;
    assert_eq!((stats.repeats, stats.quarantined), (month.repeats, 0));
    month.stop().await;
    let balance = month.rig.assert_balanced();
    let vk = &month.rig.vk;
    let told: u64 =
        month.rig.gaps().await.iter().filter_map(|gap| gap.backfill.as_ref()).map(|told| told.recovered).sum();
    eprintln!(
        "{days} days: {} events given, {} delivered, {} gaps, {told} messages fetched back, {} repeats of VK dropped; {} polls, {} sessions",
        balance.due,
        balance.delivered,
        month.gaps,
        month.repeats,
        vk.polls().len(),
        vk.calls(SESSION),
    );
}
