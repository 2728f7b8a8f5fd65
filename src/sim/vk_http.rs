//! The HTTP of a simulated VK: the API under `/method/`, Long Poll under `/lp`. GET and POST are equal, parameters stand in the
//! query, a form or both, unknown ones do not matter. Deliberately absent: what is kept (`vk_server`), single methods (`vk_api`).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::tls::{Cutter, Door};
use super::vk_api;
use super::vk_errors::error;
use super::vk_faults::{Fault, body};
use super::vk_messages::Refused;
use super::vk_server::VkServer;

/// The longest that a poll is held.
const LONGEST_WAIT: u64 = 90;

/// Serves until it is dropped.
pub(super) async fn serve(door: Door, server: VkServer) {
    let router = Router::new().route("/method/{name}", any(call)).route("/lp", any(poll)).with_state(server);
    // It ends with the server; a broken listener shows as refused connections.
    let _ended = axum::serve(door, router.into_make_service_with_connect_info::<Cutter>()).await;
}

async fn call(
    State(server): State<VkServer>,
    ConnectInfo(cutter): ConnectInfo<Cutter>,
    Path(method): Path<String>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
    sent: Bytes,
) -> Response {
    let mut words = query;
    words.extend(form(&sent));
    let (fault, limited) = {
        let inner = &mut *server.inner();
        let count = inner.calls.entry(method.clone()).or_default();
        *count += 1;
        let (settings, n) = (server.settings(), *count);
        let injected = inner.call_faults.get_mut(&method).and_then(VecDeque::pop_front);
        let fault = injected.or_else(|| settings.plan.call(settings.seed, &method, n));
        (fault, inner.limits.refuse(settings, &method, Instant::now()))
    };
    server.wake();
    let refused = |code: i64, detail: &str| error(code, detail, &method, &words);
    let whole = || match answer(&server, &method, &headers, &words) {
        Ok(response) => axum::Json(json!({ "response": response })),
        Err((code, detail)) => refused(code, &detail),
    };
    match fault {
        Some(Fault::ApiError(code)) => return refused(code, "").into_response(),
        Some(Fault::Slow(span)) => sleep(span).await,
        Some(fault) => return spoiled(fault, &cutter, || whole().to_string()).await,
        None => {}
    }
    match limited {
        Some(code) => refused(code, "").into_response(),
        None => whole().into_response(),
    }
}

/// What a method answers when nothing is wrong with VK.
fn answer(
    server: &VkServer,
    method: &str,
    headers: &HeaderMap,
    words: &HashMap<String, String>,
) -> Result<Value, Refused> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let token = words.get("access_token").map(String::as_str).or(bearer);
    let known = match server.settings().token.as_deref() {
        Some(wanted) => token == Some(wanted),
        None => token.is_some_and(|token| !token.is_empty()),
    };
    if !known {
        return Err((5, String::new()));
    }
    if method.contains("LongPoll") {
        // Without these VK gives nothing.
        let group: Option<i64> = words.get("group_id").and_then(|group| group.trim().parse().ok());
        match group {
            None => return Err((100, "One of the parameters specified was missing or invalid: group_id".to_owned())),
            Some(group) if group != server.group_id() => return Err((125, String::new())),
            Some(_) => {}
        }
    }
    let inner = &mut *server.inner();
    match method {
        "groups.getLongPollServer" if inner.community()["is_enabled"] == json!(false) => {
            Err((100, "longpoll for this group is not enabled".to_owned()))
        }
        "groups.getLongPollServer" => {
            inner.age_key(server.settings());
            // Polls go where the client has found us: we may listen on every address.
            let scheme = if server.settings().tls { "https" } else { "http" };
            let url = header("host").map_or_else(|| server.url().to_owned(), |host| format!("{scheme}://{host}"));
            let ts = inner.history.head().to_string();
            Ok(json!({ "key": inner.key(), "server": format!("{url}/lp"), "ts": ts }))
        }
        "groups.getLongPollSettings" => Ok(inner.community().clone()),
        "groups.setLongPollSettings" => {
            inner.change_community(words);
            Ok(json!(1))
        }
        "messages.getByConversationMessageId" => inner.messages.answer(words, inner.history.updates()),
        _ => vk_api::answer(method, words, server.group_id()),
    }
}

/// What a poll comes to.
enum Outcome {
    Says(String),
    Spoiled(Fault),
}

async fn poll(
    State(server): State<VkServer>,
    ConnectInfo(cutter): ConnectInfo<Cutter>,
    Query(query): Query<HashMap<String, String>>,
    sent: Bytes,
) -> Response {
    let mut words = query;
    words.extend(form(&sent));
    let ts: u64 = words.get("ts").and_then(|ts| ts.parse().ok()).unwrap_or(0);
    let wait = words.get("wait").and_then(|wait| wait.parse().ok()).unwrap_or(25).min(LONGEST_WAIT);
    let key = words.get("key").map(String::as_str).unwrap_or_default();
    if words.get("act").is_none_or(|act| act != "a_check") {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let planned = {
        let (inner, settings) = (&mut *server.inner(), server.settings());
        inner.polls.push(ts);
        inner.age_key(settings);
        if key == inner.key() {
            inner.wear_key(settings);
        }
        settings.plan.poll(settings.seed, inner.polls.len() as u64)
    };
    let mut changed = server.changes();
    server.wake();
    let mut planned = planned;
    let empty = || format!("{{\"ts\":\"{ts}\",\"updates\":[]}}");
    let outcome = timeout(Duration::from_secs(wait), async {
        loop {
            changed.mark_unchanged();
            let fault = {
                let inner = &mut *server.inner();
                if key != inner.key() {
                    return Outcome::Says(json!({ "failed": 2 }).to_string());
                }
                inner.faults.pop_front().or_else(|| planned.take())
            };
            match fault {
                Some(Fault::Slow(span)) => sleep(span).await,
                Some(fault) => return Outcome::Spoiled(fault),
                None => {}
            }
            let answer = {
                let inner = &mut *server.inner();
                let answer = inner.history.answer(ts);
                inner.answers.extend(answer.is_some().then(|| (ts, Instant::now())));
                answer
            };
            if let Some(answer) = answer {
                return Outcome::Says(answer);
            }
            if changed.changed().await.is_err() {
                return Outcome::Says(empty());
            }
        }
    });
    let outcome = outcome.await.unwrap_or_else(|_| Outcome::Says(empty()));
    let whole = || server.inner().history.answer(ts).unwrap_or_else(empty);
    let fault = match outcome {
        Outcome::Says(answer) => return answer.into_response(),
        Outcome::Spoiled(fault) => fault,
    };
    if let Fault::NumberTs | Fault::StuckTs = fault {
        return with_ts(&whole(), (fault == Fault::StuckTs).then_some(ts)).into_response();
    }
    match failed(&server, fault, &words) {
        Some(told) => told.to_string().into_response(),
        None => spoiled(fault, &cutter, whole).await,
    }
}

/// An answer with another ts, as text, or with its own as a number.
fn with_ts(whole: &str, ts: Option<u64>) -> String {
    let cut = whole.strip_prefix("{\"ts\":\"").and_then(|rest| rest.split_once('"'));
    let Some((own, rest)) = cut else { return whole.to_owned() };
    match ts {
        Some(ts) => format!("{{\"ts\":\"{ts}\"{rest}"),
        None => format!("{{\"ts\":{own}{rest}"),
    }
}

/// What a poll is told by a fault that changes what VK has or which key holds.
fn failed(server: &VkServer, fault: Fault, words: &HashMap<String, String>) -> Option<Value> {
    if matches!(fault, Fault::Failed1 | Fault::Failed3) {
        server.forget();
    }
    if matches!(fault, Fault::Failed2 | Fault::Failed3) {
        server.expire_key();
    }
    match fault {
        Fault::Failed1 => Some(json!({ "failed": 1, "ts": server.head() })),
        Fault::Failed2 => Some(json!({ "failed": 2 })),
        Fault::Failed3 => Some(json!({ "failed": 3 })),
        Fault::ApiError(code) => Some(error(code, "", "a_check", words).0),
        _ => None,
    }
}

/// An answer that a fault makes of a whole one, if it makes any.
async fn spoiled(fault: Fault, cutter: &Cutter, whole: impl FnOnce() -> String) -> Response {
    match fault {
        Fault::Hang => std::future::pending().await,
        Fault::Restart => {
            cutter.cut();
            // It is never sent.
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        fault => body(fault, whole),
    }
}

/// A form, or nothing where the body is none.
fn form(body: &[u8]) -> HashMap<String, String> {
    let url = reqwest::Url::parse("http://form/").ok().map(|mut url| {
        url.set_query(std::str::from_utf8(body).ok().filter(|text| !text.is_empty()));
        url.query_pairs().into_owned().collect()
    });
    url.unwrap_or_default()
}
