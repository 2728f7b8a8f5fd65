//! Five events wait at VK while something goes wrong, and a new session begins at the newest ts: whoever takes that one loses
//! them, as most clients do at a key that expires or an answer without a ts. Here all five arrive, once, in order, and no gap is
//! told of that is none.

use std::time::Duration;

use event_router::clock::Clock;
use event_router::domain::time::Moment;
use event_router::sim::vk_server::Fault;

use crate::rig::{Rig, within};

const SESSION: &str = "groups.getLongPollServer";
/// Ten times as fast as the clock on the wall: so are backoffs.
const HASTE: u32 = 10;

/// A service that has read once and was stopped; five events that came since; what VK does when it is back.
async fn scene(vk: &str, prepare: impl FnOnce(&Rig)) -> (Rig, crate::rig::Running) {
    let mut rig = Rig::with_vk(&[("all", "")], vk).await;
    let service = rig.start().await;
    rig.message(1, "read", &["all"]);
    rig.until_settled().await;
    service.stop().await;
    (0..5).for_each(|n| drop(rig.message(n, "waits", &["all"])));
    prepare(&rig);
    let service = rig.start_by(Clock::hasty(Moment(1_790_000_000_000), HASTE));
    (rig, service)
}

/// All that waited arrives over these faults; `sessions` are asked for on the way.
async fn check(faults: &[Fault], sessions: u64) {
    let mut before = 0;
    let prepare = |rig: &Rig| {
        before = rig.vk.calls(SESSION);
        faults.iter().for_each(|fault| rig.vk.inject(*fault));
    };
    let (rig, service) = scene("", prepare).await;
    rig.until_settled().await;
    let balance = rig.assert_balanced();
    assert_eq!((balance.repeats, rig.gaps().await.len()), (0, 0), "{faults:?}");
    assert_eq!(rig.vk.calls(SESSION) - before, sessions, "{faults:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_expires_takes_nothing_with_it() {
    check(&[Fault::Failed2], 2).await;
    check(&[Fault::Failed2; 4], 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_sense_up_to_a_new_session_take_nothing_with_them() {
    for fault in [Fault::NoTs, Fault::Json500, Fault::Html502, Fault::Garbage, Fault::FailedUnknown, Fault::Status(302)]
    {
        check(&[fault], 1).await;
        check(&[fault; 3], 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ts_that_is_a_number_is_a_ts() {
    check(&[Fault::NumberTs], 1).await;
}

/// A good key is kept until there is another: VK may be long in giving one.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_kept_while_vk_gives_no_other() {
    let mut before = 0;
    let prepare = |rig: &Rig| {
        before = rig.vk.calls(SESSION);
        (0..3).for_each(|_| rig.vk.inject(Fault::Html502));
    };
    let (mut rig, service) = scene("", prepare).await;
    within("a session", rig.vk.until(|vk| vk.calls(SESSION) > before)).await;
    // It would be asked for again after a minute of this clock, and then after two.
    (0..3).for_each(|_| rig.vk.inject_call(SESSION, Fault::ApiError(29)));
    within("what waited is taken", rig.vk.until(|vk| vk.polls().last() == Some(&vk.head()))).await;
    rig.message(1, "later", &["all"]);
    within("what came is taken", rig.vk.until(|vk| vk.polls().last() == Some(&vk.head()))).await;
    assert_eq!(rig.vk.calls(SESSION) - before, 2, "one that was given, one that was refused");
    rig.until_settled().await;
    rig.assert_balanced();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_renewed_takes_nothing_with_it() {
    let mut before = 0;
    let prepare = |rig: &Rig| {
        before = rig.vk.calls(SESSION);
        // The session gets old while these are waited out.
        (0..2).for_each(|_| rig.vk.inject(Fault::Slow(Duration::from_millis(200))));
        rig.vk.inject(Fault::Cut);
    };
    let (rig, service) = scene("session_max_age = \"1s\"", prepare).await;
    within("a renewal", rig.vk.until(|vk| vk.calls(SESSION) > before + 1)).await;
    rig.until_settled().await;
    let balance = rig.assert_balanced();
    assert_eq!((balance.repeats, rig.gaps().await.len()), (0, 0));
    service.stop().await;
}

/// Keys that are refused as soon as they are given bring nothing: that is trouble, and told as such.
#[tokio::test(flavor = "multi_thread")]
async fn keys_without_end_are_told_as_trouble() {
    let prepare = |rig: &Rig| (0..1000).for_each(|_| rig.vk.inject(Fault::Failed2));
    let (rig, service) = scene("", prepare).await;
    let told = |stats: &event_router::outbox::views::Stats| {
        let problem = stats.polling.as_ref().and_then(|polling| polling.problem.as_deref());
        problem.is_some_and(|words| words.contains("VK refuses each key") && words.contains("times in a row"))
    };
    rig.until("the trouble is told", told).await;
    rig.vk.spare_polls();
    let fine = |stats: &event_router::outbox::views::Stats| {
        stats.polling.as_ref().is_some_and(|polling| polling.problem.is_none() && polling.heard.is_some())
    };
    rig.until("it is over", fine).await;
    rig.until_settled().await;
    assert_eq!(rig.assert_balanced().repeats, 0);
    service.stop().await;
}

/// Updates whose ts does not move come again with each poll: they are taken once, and VK is not asked without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_ts_that_stands_still_is_not_asked_with_in_a_hurry() {
    let mut before = 0;
    let prepare = |rig: &Rig| {
        before = rig.vk.polls().len();
        (0..4).for_each(|_| rig.vk.inject(Fault::StuckTs));
    };
    let start = std::time::Instant::now();
    let (rig, service) = scene("", prepare).await;
    within("the answer that moves on", rig.vk.until(|vk| vk.polls().last() == Some(&vk.head()))).await;
    // Four pauses of a second of this clock.
    assert!(start.elapsed() >= Duration::from_secs(4) / HASTE, "{:?}", start.elapsed());
    assert_eq!(rig.vk.polls().len() - before, 6);
    rig.until_settled().await;
    assert_eq!((rig.assert_balanced().repeats, rig.stats().await.repeats), (0, 20));
    service.stop().await;
}
