//! Messages that a gap swallowed come back: all that VK still has, each once, in order, whatever comes live meanwhile and
//! whenever the process dies. What does not come back is told.

use std::collections::BTreeMap;
use std::time::Instant;

use event_router::clock::Clock;
use event_router::domain::event::{Event, Source};
use event_router::domain::ids::{EventId, GroupId};
use event_router::domain::time::Moment;
use event_router::outbox::gaps::GapView;
use event_router::outbox::{Fetched, FetchedAs, Filled, Heard, Turned};
use event_router::sim::books::Served;
use event_router::sim::vk_server::Fault;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::rig::{Rig, within};
use crate::store_rig::{append, event, group, open, pending, ts};

const METHOD: &str = "messages.getByConversationMessageId";
/// More than fit into the time that a test takes.
const TRANSIENT: usize = 7;
const CHAT: i64 = 2_000_000_000;

/// A community whose messages are numbered as VK numbers them.
struct Talk {
    rig: Rig,
    last: BTreeMap<i64, i64>,
}

impl Talk {
    async fn new(more: &str) -> Self {
        let rig = Rig::with_vk(&[("all", "")], &format!("backfill = true\n{more}")).await;
        Self { rig, last: BTreeMap::new() }
    }

    /// Somebody writes; what VK will forget comes back under an id of our own.
    fn say(&mut self, peer: i64, from: i64, swallowed: bool) {
        let cmid = self.last.entry(peer).or_default();
        *cmid += 1;
        let cmid = *cmid;
        let message = json!({ "from_id": from, "peer_id": peer, "text": format!("{cmid}"), "date": 1, "conversation_message_id": cmid });
        let ours = from == -self.rig.vk.group_id();
        let (kind, object) =
            if ours { ("message_reply", message) } else { ("message_new", json!({ "message": message })) };
        let lane = format!("peer {peer}");
        self.rig.update(kind, object, &lane, &["all"]);
        if swallowed {
            let served = self.rig.served.last_mut().expect("served");
            let group = GroupId::new(self.rig.vk.group_id()).expect("an id");
            *served = Served { event_id: EventId::fetched(group, peer, cmid).to_string(), ..served.clone() };
        }
    }

    /// What was said in a chat after its last message will not come back.
    fn lost(&mut self, peer: i64) {
        let lane = format!("peer {peer}");
        let live = |served: &Served| served.event_id.starts_with("00000");
        self.rig.served.retain(|served| served.lane != lane || live(served));
    }

    /// Waits until the last gap is done with.
    async fn filled(&self) -> GapView {
        within("the gap is filled", async {
            loop {
                let gaps = self.rig.gaps().await;
                let done = |gap: &GapView| gap.backfill.as_ref().is_some_and(|told| told.finished.is_some());
                if let Some(last) = gaps.into_iter().next_back().filter(done) {
                    return last;
                }
            }
        })
        .await
    }

    /// How many requests said that they were fetched back.
    fn marked(&self) -> usize {
        let received = self.rig.handler("all").received();
        received.iter().filter(|one| one.headers.get("x-event-source").is_some_and(|words| words == "backfill")).count()
    }
}

/// What Prometheus would read, through the operator's socket.
async fn scrape(rig: &Rig) -> String {
    let mut socket = UnixStream::connect(rig.data().join("admin.sock")).await.expect("connected");
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("asked");
    let mut text = String::new();
    within("an answer", socket.read_to_string(&mut text)).await.expect("answered");
    text
}

/// The figure that the project tells: 500 messages in 20 chats.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_messages_of_twenty_chats_come_back() {
    let mut talk = Talk::new("").await;
    let service = talk.rig.start().await;
    (1..=20).for_each(|chat| talk.say(CHAT + chat, 100, false));
    talk.rig.until_settled().await;
    service.stop().await;
    for _ in 0..25 {
        (1..=20).for_each(|chat| talk.say(CHAT + chat, 100, true));
    }
    talk.rig.vk.forget();
    let start = Instant::now();
    let service = talk.rig.start().await;
    let gap = talk.filled().await;
    let took = start.elapsed();
    talk.rig.until_settled().await;
    let told = gap.backfill.expect("told");
    assert_eq!(
        (gap.distance, told.recovered, told.absent, told.refused_chats, told.left_chats),
        (Some(500), 500, 0, 0, 0)
    );
    assert_eq!((talk.rig.assert_balanced().repeats, talk.marked()), (0, 500));
    // A chat takes one call for what is there, and one to see that there is no more.
    assert_eq!(talk.rig.vk.calls(METHOD), 40);
    eprintln!("a gap of 500 messages in 20 chats: recovered {} in {took:?}, 40 calls", told.recovered);
    let metrics = scrape(&talk.rig).await;
    assert!(metrics.contains("event_router_gaps_total 1\n"), "{metrics}");
    assert!(metrics.contains("event_router_backfilled_messages_total 500\n"), "{metrics}");
    // A handler sees the message as if it had come live, but for where it came from.
    let received = talk.rig.handler("all").received();
    let body: Value = serde_json::from_slice(&received.last().expect("one").body).expect("JSON");
    assert_eq!((&body["event_type"], &body["peer_name"].is_string()), (&json!("message_new"), &true));
    service.stop().await;
    let words = String::from_utf8_lossy(&talk.rig.run(&["outbox", "gaps"]).await.stdout).into_owned();
    assert!(words.contains("500 messages") && words.contains("button presses"), "{words}");
}

/// Who talks on after the gap: what is missing lies between, and no message comes both ways. The job is killed again and
/// again and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_twice_though_chats_go_on_and_the_process_dies() {
    let mut talk = Talk::new("").await;
    let mut child = talk.rig.spawn();
    within("the first poll", talk.rig.vk.until(|vk| !vk.polls().is_empty())).await;
    for chat in 1..=8 {
        talk.say(CHAT + chat, 100, false);
    }
    talk.rig.until_settled().await;
    child.kill().await.expect("killed");
    for _ in 0..130 {
        (1..=8).for_each(|chat| talk.say(CHAT + chat, 100, true));
    }
    talk.rig.vk.forget();
    for chat in [2, 5] {
        talk.say(CHAT + chat, 100, false);
    }
    for round in 1..=4 {
        let mut child = talk.rig.spawn();
        let calls = talk.rig.vk.calls(METHOD) + 2 * round;
        within("calls", talk.rig.vk.until(|vk| vk.calls(METHOD) >= calls)).await;
        talk.say(CHAT + i64::try_from(round).expect("small"), 100, false);
        child.kill().await.expect("killed");
    }
    let mut child = talk.rig.spawn();
    let told = talk.filled().await.backfill.expect("told");
    talk.rig.until_settled().await;
    assert_eq!((told.recovered, told.absent), (8 * 130, 0));
    // Order is kept among what came live and among what was fetched: the books know both as one lane, so look at each.
    let received = talk.rig.handler("all").received();
    for (marked, count) in [(true, 8 * 130), (false, 8 + 2 + 4)] {
        let mut seen: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for one in received.iter().filter(|one| one.headers.contains_key("x-event-source") == marked) {
            let body: Value = serde_json::from_slice(&one.body).expect("JSON");
            let cmids = seen.entry(body["peer_id"].as_i64().expect("a chat")).or_default();
            let cmid = body["cmid"].as_i64().expect("a number");
            // After a kill the last deliveries of a chat may come again, from an earlier one on.
            cmids.retain(|known| *known < cmid);
            cmids.push(cmid);
        }
        assert_eq!(seen.values().map(Vec::len).sum::<usize>(), count, "{marked}");
    }
    child.kill().await.expect("killed");
}

/// What VK refuses, what it has deleted, what is too much, what it answers at first with an error; own messages come back
/// only where they would have come live.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_come_back_is_told() {
    let mut talk = Talk::new("").await;
    let own = -talk.rig.vk.group_id();
    talk.rig.vk.set_community(
        json!({ "is_enabled": true, "api_version": "5.199", "events": { "message_new": 1, "message_reply": 0 } }),
    );
    let service = talk.rig.start().await;
    for peer in [CHAT + 1, CHAT + 2, CHAT + 3, 55] {
        talk.say(peer, 100, false);
    }
    talk.rig.until_settled().await;
    service.stop().await;
    for _ in 0..3 {
        talk.say(CHAT + 1, 100, true);
        talk.say(CHAT + 2, 100, true);
    }
    talk.say(55, 100, true);
    talk.say(55, own, true);
    talk.rig.served.pop();
    talk.say(55, 100, true);
    (0..2200).for_each(|_| talk.say(CHAT + 3, 100, true));
    talk.rig.vk.forget();
    talk.rig.vk.close_conversation(CHAT + 1, true);
    talk.lost(CHAT + 1);
    talk.rig.vk.delete_message(CHAT + 2, 3);
    let group = GroupId::new(talk.rig.vk.group_id()).expect("an id");
    let gone = EventId::fetched(group, CHAT + 2, 3).to_string();
    talk.rig.served.retain(|served| served.event_id != gone);
    // The hundred that take more than 21 calls.
    let left: Vec<String> = (2102..=2201).map(|cmid| EventId::fetched(group, CHAT + 3, cmid).to_string()).collect();
    talk.rig.served.retain(|served| !left.contains(&served.event_id));
    talk.rig.vk.inject_call(METHOD, Fault::ApiError(10));
    talk.rig.vk.inject_call(METHOD, Fault::Html502);
    let service = talk.rig.start().await;
    // A live message tells the end of what is missing there.
    talk.say(CHAT + 2, 100, false);
    // It is not behind what is fetched, so that it is a lane of its own to the books.
    talk.rig.served.last_mut().expect("served").lane = "live".to_owned();
    let gap = talk.filled().await;
    talk.rig.until_settled().await;
    let told = gap.backfill.clone().expect("told");
    assert_eq!((told.recovered, told.refused_chats, told.left_chats), (2 + 2 + 2100, 1, 1), "{told:?}");
    assert!(told.refusal.as_deref().is_some_and(|words| words.contains("917")), "{told:?}");
    assert!(told.absent <= 1 && told.switched_off == 1, "{told:?}");
    assert_eq!(talk.rig.assert_balanced().repeats, 0);
    // The next gap goes on where the first one left off, and asks for nothing that has come.
    let calls = talk.rig.vk.calls(METHOD);
    talk.rig.vk.inject(Fault::Failed1);
    within("the second gap", async { while talk.rig.gaps().await.len() < 2 {} }).await;
    let told = talk.filled().await.backfill.expect("told");
    assert_eq!((told.recovered, told.refused_chats, told.left_chats), (100, 1, 0), "{told:?}");
    assert_eq!(talk.rig.vk.calls(METHOD) - calls, 5, "one a chat, and one for the hundred");
    service.stop().await;
}

/// A page that is asked for in halves: a half in which all messages were deleted is not the end of the chat.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_page_of_deleted_messages_is_not_the_end() {
    let mut talk = Talk::new("").await;
    let service = talk.rig.start().await;
    talk.say(CHAT + 1, 100, false);
    talk.rig.until_settled().await;
    service.stop().await;
    (0..150).for_each(|_| talk.say(CHAT + 1, 100, true));
    (2..=51).for_each(|cmid| talk.rig.vk.delete_message(CHAT + 1, cmid));
    talk.rig.vk.forget();
    talk.rig.vk.inject_call(METHOD, Fault::Huge);
    let service = talk.rig.start().await;
    let told = talk.filled().await.backfill.expect("told");
    assert_eq!((told.recovered, told.refused_chats), (100, 0), "{told:?}");
    service.stop().await;
}

/// A limit of the call that tells which types are on is waited for: nothing comes that would not have come live.
#[tokio::test(flavor = "multi_thread")]
async fn which_types_are_on_is_asked_until_it_is_told() {
    let mut talk = Talk::new("").await;
    let own = -talk.rig.vk.group_id();
    let events = json!({ "message_new": 1, "message_reply": 0 });
    talk.rig.vk.set_community(json!({ "is_enabled": true, "api_version": "5.199", "events": events }));
    let service = talk.rig.start().await;
    talk.say(CHAT + 1, 100, false);
    talk.rig.until_settled().await;
    service.stop().await;
    talk.say(CHAT + 1, 100, true);
    talk.say(CHAT + 1, own, true);
    talk.rig.vk.forget();
    for code in [29, 10, 29] {
        talk.rig.vk.inject_call("groups.getLongPollSettings", Fault::ApiError(code));
    }
    let service = talk.rig.start_by(Clock::hasty(Moment(1_790_000_000_000), 1000));
    let told = talk.filled().await.backfill.expect("told");
    assert_eq!((told.recovered, told.switched_off), (1, 1), "{told:?}");
    service.stop().await;
}

/// While it is off nobody takes note of what comes live: nothing of it is fetched when it is on again.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_live_while_it_was_off_is_not_fetched_when_it_is_on_again() {
    let mut talk = Talk::new("").await;
    let on = std::fs::read_to_string(talk.rig.config()).expect("read");
    let off = on.replace("backfill = true", "backfill = false");
    for config in [&on, &off, &on] {
        std::fs::write(talk.rig.config(), config).expect("written");
        let service = talk.rig.start().await;
        (0..3).for_each(|_| talk.say(CHAT + 1, 100, false));
        talk.rig.until_settled().await;
        service.stop().await;
    }
    talk.say(CHAT + 1, 100, true);
    talk.rig.vk.forget();
    let service = talk.rig.start().await;
    let told = talk.filled().await.backfill.expect("told");
    talk.rig.until_settled().await;
    assert_eq!(told.recovered, 1, "{told:?}");
    assert_eq!((talk.rig.assert_balanced().repeats, talk.marked()), (0, 1));
    // Off in the middle of a gap: that is told, and the gap is done with.
    talk.rig.vk.close_conversation(CHAT + 1, true);
    (0..TRANSIENT).for_each(|_| talk.rig.vk.inject_call(METHOD, Fault::ApiError(10)));
    let gaps = talk.rig.gaps().await.len();
    // Twice the same ts would be one gap.
    talk.say(CHAT + 2, 100, false);
    talk.rig.until_settled().await;
    talk.rig.vk.inject(Fault::Failed1);
    within("a gap", async { while talk.rig.gaps().await.len() == gaps {} }).await;
    service.stop().await;
    std::fs::write(talk.rig.config(), &off).expect("written");
    let service = talk.rig.start().await;
    let told = talk.filled().await.backfill.expect("told");
    assert_eq!(told.refusal.as_deref(), Some("vk.backfill was switched off"), "{told:?}");
    let words = String::from_utf8_lossy(&talk.rig.run(&["outbox", "gaps"]).await.stdout).into_owned();
    assert!(words.contains("switched off"), "{words}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nothing_is_fetched_and_that_is_told() {
    let mut rig = Rig::new(&[("all", "")], "").await;
    let service = rig.start().await;
    rig.message(1, "before", &["all"]);
    rig.until_settled().await;
    rig.vk.inject(Fault::Failed1);
    within("a gap", async { while rig.gaps().await.is_empty() {} }).await;
    assert!(rig.gaps().await[0].backfill.is_none());
    let words = String::from_utf8_lossy(&rig.run(&["outbox", "gaps"]).await.stdout).into_owned();
    assert!(words.contains("vk.backfill is off"), "{words}");
    assert_eq!(rig.vk.calls(METHOD), 0);
    service.stop().await;
}

/// The writer decides, whatever the order in which things reach it: a live copy of what was fetched is dropped, a fetched
/// copy of what came live as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_never_comes_both_ways() {
    let dir = tempfile::tempdir().expect("a directory");
    let outbox = open(dir.path()).await.expect("opened");
    let peer = CHAT + 1;
    let live = |cmid: i64| (event(cmid.unsigned_abs(), peer, 10), Source::Live, vec![2]);
    let came = |cmids: &[i64], at: u64| {
        let mut append = append(at, cmids.iter().map(|cmid| live(*cmid)).collect());
        let heard = cmids.iter().enumerate().map(|(place, cmid)| Heard { peer, cmid: *cmid, event: Some(place) });
        append.heard = Some(heard.collect());
        append
    };
    let fetched = |cmid: i64| {
        let id = EventId::fetched(group(), peer, cmid);
        let body = format!("{{\"event_id\":\"{id}\"}}").into();
        let event = Event { event_id: id, body, ..event(0, peer, 10) };
        Fetched { cmid, became: FetchedAs::Event(event, vec![2]) }
    };
    let asked = |from: i64, to: i64, cmids: &[i64]| Filled::Chat {
        group: group(),
        peer,
        gap: 1,
        up_to: 1,
        turn: Turned::Asked {
            from,
            to,
            messages: cmids.iter().map(|cmid| fetched(*cmid)).collect(),
            nameless: Vec::new(),
        },
    };
    outbox.append(came(&[1, 2], 1)).await.expect("appended");
    let mut gap = came(&[], 10);
    gap.gap = Some((ts(2), "failed 1".to_owned()));
    outbox.append(gap).await.expect("appended");
    assert_eq!(outbox.gaps_to_fill(group()).await.expect("read"), [1]);
    // VK was asked for 3 to 102 and had 3 to 6; meanwhile 6 came live: it is not taken twice, 5 neither when it comes late.
    outbox.append(came(&[6], 11)).await.expect("appended");
    outbox.fill(asked(3, 102, &[3, 4, 5, 6])).await.expect("filled");
    let done = outbox.append(came(&[5, 7], 12)).await.expect("appended");
    assert_eq!((done.appended, done.repeats), (1, 1));
    assert_eq!(outbox.to_fill(group(), peer, 1).await.expect("read"), None);
    outbox.fill(asked(3, 102, &[3, 4, 5, 6, 7])).await.expect("filled");
    outbox.fill(Filled::Over { gaps: vec![1], left: 0 }).await.expect("filled");
    assert!(outbox.gaps_to_fill(group()).await.expect("read").is_empty());
    let told = outbox.backfills(vec![1]).await.expect("read").remove(0).1;
    assert_eq!((told.recovered, told.absent), (3, 0));
    let (_, _, events) = pending(&outbox, "messages").await;
    let ids: Vec<String> = events.iter().map(|queued| queued.event.event_id.to_string()).collect();
    let plain = |cmid: u64| format!("{cmid:040x}");
    let own = |cmid: i64| EventId::fetched(group(), peer, cmid).to_string();
    assert_eq!(ids, [plain(1), plain(2), plain(6), own(3), own(4), own(5), plain(7)]);
    // The same after a restart.
    outbox.close().await;
    drop(outbox);
    let outbox = open(dir.path()).await.expect("opened");
    let done = outbox.append(came(&[4], 13)).await.expect("appended");
    assert_eq!((done.appended, done.repeats), (0, 1));
    outbox.close().await;
}
