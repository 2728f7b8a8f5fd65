//! An outbox with every state in it that a command can tell of, its past 26 hours ago: so that ages read the same for half an
//! hour. And the service that can be started on it, which changes nothing of it but what it tries at one handler that is away.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use event_router::clock::Clock;
use event_router::domain::delivery::Death;
use event_router::domain::event::{Event, Queued, Source};
use event_router::domain::ids::{DestinationName, EventId, GroupId, Seq, Ts};
use event_router::domain::time::Moment;
use event_router::outbox::filter::Filter;
use event_router::outbox::records::{
    AttemptNote, AuditRecord, History, OutageRecord, PauseRecord, QuarantineRecord, ReplayOrder,
};
use event_router::outbox::{
    Append, Change, Cursor, Filled, Operation, Outbox, Place, Settings as OutboxSettings, Settlement, space::Limits,
};

use crate::rig::Rig;
use crate::store_rig::pending;

/// All but the last are in the configuration.
const NAMES: [&str; 5] = ["buttons", "commands", "messages", "mods", "old"];
/// Hours and minutes of the past.
const AGO: Duration = Duration::from_secs(26 * 3600 + 1800);

/// Nothing new is taken, and what failed is not tried again while a test looks.
pub(crate) async fn rig(data: &Path) -> Rig {
    let nothing = "when = [{ event_type = [\"message_reply\"] }]";
    let destinations = ["buttons", "commands", "messages", "mods"].map(|name| (name, nothing));
    let rest = "[delivery]\ninitial_interval = \"20m\"\nmax_interval = \"20m\"";
    let rig = Rig::on(data, &destinations, rest, "retention = \"90d\"").await;
    rig.handler("messages").down();
    rig
}

/// Makes the outbox.
pub(crate) async fn make(data: &Path, rig: &Rig) {
    let now = Moment(Clock::system().now().0 - i64::try_from(AGO.as_millis()).expect("small"));
    let names = NAMES.iter().map(|name| DestinationName::parse(name).expect("a name")).collect();
    let limits = Limits { max_bytes: 8 << 30, min_free_bytes: 0 };
    let settings = OutboxSettings { dir: data.to_owned(), retention: Duration::from_secs(90 * 86_400), limits };
    let outbox = Outbox::open(settings, names, "test", Duration::from_secs(5), Clock::standing(now)).await;
    let maker = Maker { outbox: outbox.expect("opened"), now, group: GroupId::new(rig.vk.group_id()).expect("an id") };
    maker.append(rig.vk.head()).await;
    maker.settle().await;
    maker.operate().await;
    maker.outbox.close().await;
}

struct Maker {
    outbox: Outbox,
    now: Moment,
    group: GroupId,
}

impl Maker {
    /// Position, type, chat and takers of each event.
    const EVENTS: [(&str, i64, &[u16]); 16] = [
        ("message_new", 2_000_000_001, &[0]),
        ("button_pressed", 2_000_000_001, &[0]),
        ("message_new", 2_000_000_002, &[2]),
        ("message_new", 2_000_000_003, &[2]),
        ("message_new", 2_000_000_004, &[2]),
        ("message_new", 2_000_000_005, &[2]),
        ("message_new", 2_000_000_006, &[2]),
        ("command_call", 2_000_000_007, &[1]),
        ("command_call", 2_000_000_007, &[1]),
        ("message_new", 2_000_000_008, &[2]),
        ("message_new", 2_000_000_009, &[2, 3]),
        ("wall_post_new", -77, &[4]),
        ("message_new", 2_000_000_001, &[4]),
        ("command_call", 2_000_000_010, &[1]),
        ("message_new", 2_000_000_011, &[3]),
        ("message_new", 2_000_000_012, &[3]),
    ];

    async fn append(&self, head: u64) {
        let quarantined =
            [("no object", "7"), ("message_new: from_id: found null", "{\"message\":{\"from_id\":null}}")];
        let quarantined = quarantined.into_iter().zip(1..).map(|((reason, object), number)| QuarantineRecord {
            group: self.group.get(),
            at: self.now,
            reason: reason.to_owned(),
            event_id: format!("{number:040x}"),
            raw: format!("{{\"type\":\"message_new\",\"object\":{object}}}").into_bytes(),
        });
        let ts = |number: u64| Ts::parse(&number.to_string()).expect("a ts");
        let append = Append {
            group: self.group,
            ts: ts(head),
            events: self.events(),
            unrouted: 3,
            quarantined: quarantined.collect(),
            gap: None,
            heard: None,
            last_answer: None,
        };
        let gap = Some((ts(head), "failed 1: history is outdated".to_owned()));
        let empty = || Append { events: Vec::new(), unrouted: 0, quarantined: Vec::new(), ..append.clone() };
        self.outbox.append(append.clone()).await.expect("committed");
        // One gap of which nothing comes back, one of which what there was has come.
        self.outbox.append(Append { ts: ts(head + 500), gap: gap.clone(), ..empty() }).await.expect("committed");
        let heard = Some(Vec::new());
        self.outbox.append(Append { ts: ts(head), gap, heard, ..empty() }).await.expect("committed");
        self.outbox.fill(Filled::Over { gaps: vec![2], left: 0 }).await.expect("committed");
        self.outbox.forget_chats(self.group).await.expect("committed");
    }

    fn events(&self) -> Vec<(Event, Source, Vec<u16>)> {
        let event = |(number, (kind, peer, takers)): (u64, &(&str, i64, &[u16]))| {
            let id = format!("{:040x}", 0xe0 + number);
            let body =
                format!("{{\"event_type\":\"{kind}\",\"event_id\":\"{id}\",\"peer_id\":{peer},\"text\":\"Hi!\"}}");
            let event = Event {
                group: self.group,
                event_type: (*kind).to_owned().into(),
                user_id: Some(100 + number.cast_signed()),
                peer_id: Some(*peer),
                received_at: self.now,
                body: Bytes::from(body),
                event_id: EventId::parse(&id).expect("an id"),
            };
            (event, Source::Live, takers.to_vec())
        };
        (1..).zip(&Self::EVENTS).map(event).collect()
    }

    fn history(&self, attempts: u32, answer: &str, excerpt: &str) -> History {
        let note = AttemptNote { at: self.now, answer: answer.into(), latency_ms: 12, excerpt: excerpt.into() };
        History { attempts, counted: 0, since: self.now, next_try: None, notes: vec![note] }
    }

    /// What became of the events, by destination and position.
    fn change(&self, name: &str, queued: Queued) -> Option<Vec<Change>> {
        let (now, seq, from) = (self.now, queued.seq, Place::Log);
        let died = |death, history| Change::Died { event: queued.clone(), from, at: now, death, history };
        Some(match (name, seq.0) {
            ("messages", 3 | 7) => vec![died(Death::Refused(422), self.history(1, "HTTP 422", "no such chat"))],
            ("messages", 4) => {
                let death = Death::GivenUp { counted: 5, last: "HTTP 500".to_owned() };
                vec![died(death, self.history(5, "HTTP 500", "oops"))]
            }
            ("messages", 5) => vec![Change::Expired { event: queued, from, at: now }],
            ("mods", 15) => vec![died(Death::Refused(400), self.history(1, "HTTP 400", ""))],
            ("commands", 8) => {
                let due = Some(now.plus(AGO * 2));
                let history = History { next_try: due, ..self.history(2, "HTTP 503", "busy") };
                vec![Change::MovedAside { event: queued }, Change::Tried { seq, history }]
            }
            ("commands", 9) => vec![Change::MovedAside { event: queued }],
            ("messages", 6) => vec![Change::Discarded { seq, from, at: now }],
            ("messages", 10 | 11) | ("mods" | "old", _) => return None,
            _ => vec![Change::Delivered { seq, from, tried: false }],
        })
    }

    async fn settle(&self) {
        for name in NAMES {
            let (destination, mut cursor, events) = pending(&self.outbox, name).await;
            let mut changes = Vec::new();
            for queued in events {
                let seq = queued.seq;
                if let Some(change) = self.change(name, queued) {
                    cursor.settle(seq);
                    changes.extend(change);
                }
            }
            let outage = (name == "messages").then(|| OutageRecord {
                since: self.now,
                error: "no connection: Connection refused (os error 111)".to_owned(),
            });
            let last_ok = (name != "old").then_some(self.now);
            let settlement = Settlement { destination, cursor, changes, last_ok, outage };
            self.outbox.settle_durably(settlement).await.expect("settled");
        }
    }

    async fn operate(&self) {
        let replay = |destination, expired, matched, interval_us| {
            let filter = Filter::default();
            Operation::Replay(ReplayOrder { destination, filter, matched, expired, interval_us })
        };
        let audit = |what: &str, reason: Option<&str>, changed| {
            let (what, reason) = (what.to_owned(), reason.map(str::to_owned));
            Operation::Audit(AuditRecord { at: self.now, what, reason, offline: false, changed, replays: Vec::new() })
        };
        let pause = PauseRecord { since: self.now, until: None, reason: Some("new version".to_owned()) };
        let operations = [
            vec![audit("discard 6", Some("it loops"), Some(1))],
            vec![Operation::DiscardDead(2, vec![Seq(7)]), audit("discard 7", None, None)],
            vec![replay(2, false, 2, 0), audit("replay --destination messages", None, None)],
            vec![replay(2, true, 1, 200_000), audit("replay --state expired --rate 5", None, None)],
            vec![Operation::CancelReplay(2), audit("cancel 2", Some("not mended yet"), None)],
            vec![replay(3, false, 1, 0), audit("replay --destination mods", None, None)],
            vec![replay(4, false, 1, 0), audit("replay --destination old", None, None)],
            vec![Operation::Pause(3, pause), audit("pause mods", Some("new version"), None)],
            vec![audit("discard --destination old", None, None)],
        ];
        for operations in operations {
            self.outbox.operate(operations).await.expect("changed");
        }
        // The first replay was done in vain.
        let (destination, cursor, _) = pending(&self.outbox, "messages").await;
        self.replayed(destination, cursor).await;
    }

    async fn replayed(&self, destination: u16, cursor: Cursor) {
        let error = "no connection: Connection refused (os error 111)".to_owned();
        let (outage, last_ok) = (Some(OutageRecord { since: self.now, error }), Some(self.now));
        let changes = vec![Change::ReplayDone { replay: 1, at: self.now }];
        let settlement = Settlement { destination, cursor, changes, last_ok, outage };
        self.outbox.settle_durably(settlement).await.expect("settled");
    }
}
