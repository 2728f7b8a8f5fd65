//! The operator's door on TCP: who may do what with and without a token, what a browser is told, that the page finds all it asks
//! for, how the moment reaches it. Deliberately absent: what the routes answer (the tests of the commands), the page in a browser.

use std::sync::atomic::{AtomicU8, Ordering};

use event_router::config::{Source, load};
use event_router::outbox::views::Stats;
use event_router::sim::handler::Answer;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Rig, Running, view, within};

const TOKEN: &str = "a-token-of-the-operator";

/// An address of this machine that nobody else in this process takes.
pub(crate) fn address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, one, two] = std::process::id().to_be_bytes();
    format!("127.{}.{two}.{}:9180", 64 + one % 128, NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Door {
    rig: Rig,
    service: Running,
    address: String,
    client: Client,
}

impl Door {
    async fn open(token: Option<&str>) -> Self {
        let address = address();
        let rig = Rig::new(&[("all", "")], "").await;
        let config = std::fs::read_to_string(rig.config()).expect("read");
        let token = token.map_or_else(String::new, |token| format!("\ntoken = \"{token}\""));
        let config = config.replace("listen = \"off\"", &format!("listen = \"{address}\"{token}"));
        std::fs::write(rig.config(), config).expect("written");
        let service = rig.start().await;
        Self { rig, service, address, client: Client::builder().no_proxy().build().expect("a client") }
    }

    fn ask(&self, method: Method, path: &str, token: Option<&str>) -> RequestBuilder {
        let request = self.client.request(method, format!("http://{}{path}", self.address));
        match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    async fn status(&self, method: Method, path: &str, token: Option<&str>) -> StatusCode {
        let request = self.ask(method.clone(), path, token);
        let request = match method {
            Method::POST => request.header("content-type", "application/json").body("{}"),
            _ => request,
        };
        within("an answer", request.send()).await.expect("answered").status()
    }

    /// An event that is dead.
    async fn dead(&mut self) -> String {
        // A handler that repeats its request, as some do.
        self.rig.handler("all").answer(|_| Answer::Status(422, "no: a text that is nobody's business"));
        let id = self.rig.message(1, "a text that is nobody's business", &["all"]);
        self.rig.until("it is dead", |stats| view(stats, "all").dead == 1).await;
        id
    }
}

const CHANGES: [&str; 5] =
    ["/api/v1/replays", "/api/v1/cancellations", "/api/v1/discards", "/api/v1/pauses", "/api/v1/resumes"];

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_it_is_read_only_and_shows_no_bodies() {
    let mut door = Door::open(None).await;
    let id = door.dead().await;
    for path in CHANGES {
        for token in [None, Some(TOKEN)] {
            assert_eq!(door.status(Method::POST, path, token).await, StatusCode::FORBIDDEN, "{path}");
        }
    }
    for path in ["/", "/healthz", "/readyz", "/metrics", "/api/v1/stats", "/api/v1/groups", "/api/v1/audit"] {
        assert_eq!(door.status(Method::GET, path, None).await, StatusCode::OK, "{path}");
    }
    for path in ["/api/v1/export", "/api/v1/tail"] {
        assert_eq!(door.status(Method::GET, path, None).await, StatusCode::FORBIDDEN, "{path}");
    }
    let groups = door.ask(Method::GET, "/api/v1/groups", None).send().await.expect("answered");
    let text = groups.text().await.expect("a text");
    assert!(text.contains("refused: HTTP 422") && !text.contains("nobody's business"), "{text}");
    let shown = door.ask(Method::GET, &format!("/api/v1/events/{id}"), None).send().await.expect("answered");
    let text = shown.text().await.expect("a text");
    assert!(text.contains("refused it with HTTP 422") && !text.contains("nobody's business"), "{text}");
    // A page of somebody else's, by way of a name of its own.
    let elsewhere = door.ask(Method::GET, "/api/v1/stats", None).header("host", "evil.example:9180").send().await;
    assert_eq!(elsewhere.expect("answered").status(), StatusCode::FORBIDDEN);
    let elsewhere = door.ask(Method::GET, "/api/v1/verify", None).header("sec-fetch-site", "cross-site").send().await;
    assert_eq!(elsewhere.expect("answered").status(), StatusCode::FORBIDDEN);
    door.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_everything_needs_it_and_it_opens_everything() {
    let mut door = Door::open(Some(TOKEN)).await;
    let id = door.dead().await;
    let wrong = [None, Some(""), Some("another"), Some("a-token-of-the-operatoR")];
    for path in CHANGES {
        for token in wrong {
            assert_eq!(door.status(Method::POST, path, token).await, StatusCode::UNAUTHORIZED, "{path}");
        }
        let status = door.status(Method::POST, path, Some(TOKEN)).await;
        assert!(status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN, "{path}: {status}");
    }
    for path in ["/metrics", "/api/v1/stats", "/api/v1/live", "/api/v1/tail", "/api/v1/export"] {
        for token in wrong {
            assert_eq!(door.status(Method::GET, path, token).await, StatusCode::UNAUTHORIZED, "{path}");
        }
        assert_eq!(door.status(Method::GET, path, Some(TOKEN)).await, StatusCode::OK, "{path}");
    }
    for path in ["/", "/healthz", "/readyz", "/assets/door.json"] {
        assert_eq!(door.status(Method::GET, path, None).await, StatusCode::OK, "{path}");
    }
    let shown = door.ask(Method::GET, &format!("/api/v1/events/{id}"), Some(TOKEN)).send().await.expect("answered");
    assert!(shown.text().await.expect("a text").contains("nobody's business"));
    // A dead letter again, as the page asks for it.
    door.rig.handler("all").answer(|_| Answer::Status(200, ""));
    let asked = json!({ "id": null, "selector": { "destination": "all", "state": "dead", "cause": "refused: HTTP 422" }, "dry_run": false, "reason": "from the dashboard" });
    let request = door.ask(Method::POST, "/api/v1/replays", Some(TOKEN)).header("content-type", "application/json");
    let made = request.body(asked.to_string()).send().await.expect("answered");
    let made: Value = serde_json::from_slice(&made.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(made[0]["matched"], 1, "{made}");
    door.rig.until("it is delivered", |stats| view(stats, "all").delivered == 1).await;
    door.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_told_to_take_nothing_from_elsewhere_and_the_page_finds_all_it_asks_for() {
    let door = Door::open(None).await;
    let page = door.ask(Method::GET, "/", None).send().await.expect("answered");
    for (name, part) in [
        ("content-security-policy", "default-src 'none'"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        let told = page.headers()[name].to_str().expect("text").to_owned();
        assert!(told.contains(part), "{name}: {told}");
    }
    assert!(page.headers().get("access-control-allow-origin").is_none());
    let page = page.text().await.expect("a page");
    let script =
        door.ask(Method::GET, "/assets/app.js", None).send().await.expect("answered").text().await.expect("text");
    let named = |text: &str, quote: char, prefix: &str| -> Vec<String> {
        let parts = text.split(quote).filter(|part| part.starts_with(prefix));
        parts.map(|part| part.split(['?', '$']).next().unwrap_or_default().to_owned()).collect()
    };
    let assets = named(&page, '"', "/assets/");
    assert_eq!(assets.len(), 3, "{assets:?}");
    let asked = [named(&script, '"', "/api/"), named(&script, '`', "/api/")].concat();
    assert!(asked.len() >= 8, "{asked:?}");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing from elsewhere");
    for path in assets.into_iter().chain(asked) {
        let status = door.status(Method::GET, &path, None).await;
        // What is asked with a body, or with an id, is there as well.
        let there = [StatusCode::OK, StatusCode::METHOD_NOT_ALLOWED].contains(&status) || path == "/api/v1/events/";
        assert!(there, "{path}: {status}");
    }
    door.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_moment_reaches_the_page_and_an_open_page_does_not_hold_the_service() {
    let mut door = Door::open(None).await;
    let mut live = door.ask(Method::GET, "/api/v1/live", None).send().await.expect("answered");
    assert_eq!(live.headers()["content-type"], "text/event-stream");
    let mut delivered = async |count: u64| {
        within("the moment", async {
            let mut text = String::new();
            loop {
                let piece = live.chunk().await.expect("it goes on").expect("more");
                text += &String::from_utf8_lossy(&piece);
                while let Some((event, rest)) = text.clone().split_once("\n\n") {
                    rest.clone_into(&mut text);
                    let stats: Stats = serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
                    if stats.live && view(&stats, "all").delivered == count {
                        return;
                    }
                }
            }
        })
        .await;
    };
    delivered(0).await;
    door.rig.message(1, "x", &["all"]);
    delivered(1).await;
    let plots =
        door.ask(Method::GET, "/api/v1/plots", None).send().await.expect("answered").text().await.expect("text");
    assert!(plots.contains("<svg") && plots.contains("last 1 min"), "{plots}");
    // The page stays open, another one reads nothing at all, and a third says nothing: the outbox is free nevertheless.
    use tokio::io::AsyncWriteExt;
    let mut deaf = tokio::net::TcpStream::connect(&door.address).await.expect("connected");
    let head = format!("GET /api/v1/live HTTP/1.1\r\nhost: {}\r\n\r\n", door.address);
    deaf.write_all(head.as_bytes()).await.expect("written");
    let _silent = tokio::net::TcpStream::connect(&door.address).await.expect("connected");
    door.service.stop().await;
    let again = door.rig.start().await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_or_open_to_all_without_a_token_is_refused_in_words() {
    let door = Door::open(None).await;
    let other = Rig::new(&[("all", "")], "").await;
    let config = std::fs::read_to_string(other.config()).expect("read");
    let with = |listen: &str| config.replace("listen = \"off\"", &format!("listen = \"{listen}\""));
    std::fs::write(other.config(), with(&door.address)).expect("written");
    let output = other.run(&["run"]).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(75), "{words}");
    assert!(words.contains("admin.listen") && words.contains("\"off\""), "{words}");
    std::fs::write(other.config(), with("0.0.0.0:9180")).expect("written");
    let problems = load(&Source { file: Some(other.config()), env: Vec::new() }).expect_err("refused").to_string();
    assert!(problems.contains("admin.token: found nothing, expected a token"), "{problems}");
    door.service.stop().await;
}
