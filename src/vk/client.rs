//! HTTP to VK: one call out, bytes or an error back. Token and key travel in the body and the query and never appear in an
//! error. Deliberately absent: retries, reading what an answer means (`wire`), what to do then (`session`).

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::redirect::Policy;
use reqwest::{Certificate, RequestBuilder, Response, Url};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::settings::Settings;
use super::wire::{self, ApiError, LongPollSettings, Refusal, SessionReply};
use crate::domain::convert::mend;
use crate::domain::ids::Ts;

/// The largest answer that is read at first.
pub const BODY_BYTES: usize = 32 << 20;
/// How often that doubles while polls fail: VK does not say how much it gives at once, and an answer that is refused today is
/// the same tomorrow.
const STRETCHES: u32 = 4;
/// How long the answer of a poll may take to come in, from its first byte on, as long as something comes: a backlog is large.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);
/// How much longer than VK holds a poll open we wait for its answer.
const POLL_MARGIN: Duration = Duration::from_secs(10);
/// How long a call of the API may take.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// What is wrong with a server that is not polled.
const UNUSABLE_SERVER: &str = "the server of the session is no https address";

/// What to do about a certificate that is not believed.
const STRANGE_CERTIFICATE: &str = "if a proxy or a simulator ends TLS here, name its CA in vk.ca_file";

/// Why a call brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection, or one that broke.
    #[error("VK cannot be reached: {0}")]
    Network(String),
    /// No answer in time.
    #[error("VK gave no answer in time")]
    Timeout,
    /// An answer of HTTP that is no success.
    #[error("VK answers HTTP {0}{between}", between = if (300..400).contains(.0) { ": something between here and VK answers in its place (a proxy, a page to log in)" } else { "" })]
    Http(u16),
    /// An answer over the bound.
    #[error("VK's answer is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
    /// An answer that is none.
    #[error(transparent)]
    Unreadable(#[from] wire::WireError),
    /// An error of the API.
    #[error(transparent)]
    Api(ApiError),
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Api(error) => Self::Api(error),
            Refusal::Wire(error) => Self::Unreadable(error),
        }
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of the API is none.
    #[error("vk.api_url cannot be used: {0}")]
    Url(String),
    /// The HTTP client could not be made.
    #[error("the HTTP client for VK could not be made: {0}; are the system's CA certificates installed?")]
    Build(String),
}

/// Calls VK.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    settings: Settings,
    methods: Url,
    poll_margin: Duration,
    call_patience: Duration,
    /// Shared by all clones: VK counts the calls of a community.
    pace: Arc<DefaultDirectRateLimiter>,
}

impl Client {
    /// # Errors
    /// When the address cannot be used or TLS cannot be set up.
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        let base = settings.api_url.trim_end_matches('/');
        let methods = Url::parse(&format!("{base}/method/")).map_err(|error| ClientError::Url(error.to_string()))?;
        let unusable = |error: reqwest::Error| ClientError::Build(innermost(&error.without_url()));
        let ca = settings.ca.iter().map(|ca| Certificate::from_der(ca)).collect::<Result<Vec<_>, _>>();
        let http = reqwest::Client::builder()
            .user_agent(concat!("event-router/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_PATIENCE)
            .tls_certs_merge(ca.map_err(unusable)?)
            .build()
            .map_err(unusable)?;
        let (poll_margin, call_patience) = (POLL_MARGIN, CALL_PATIENCE);
        let pace = Arc::new(RateLimiter::direct(pace()));
        Ok(Self { http, settings: settings.clone(), methods, poll_margin, call_patience, pace })
    }

    /// At what age a session is renewed.
    #[must_use]
    pub fn session_max_age(&self) -> Duration {
        self.settings.session_max_age
    }

    /// Asks for a Long Poll session.
    ///
    /// # Errors
    /// When VK gives none.
    pub async fn session(&self) -> Result<SessionReply, CallError> {
        let group = self.settings.group_id.to_string();
        let body = self.call("groups.getLongPollServer", &[("group_id", &group)]).await?;
        let session = wire::session_reply(&mend(&body))?;
        self.server(&session.server)?;
        Ok(session)
    }

    /// Polls: the answer as it came, at most [`BODY_BYTES`], and more after `failures` in a row. Dropping it is safe: VK gives the
    /// same again.
    ///
    /// # Errors
    /// When there is no whole answer with HTTP 200.
    pub async fn poll(&self, session: &SessionReply, ts: &Ts, failures: u32) -> Result<Bytes, CallError> {
        let wait = self.settings.wait;
        let url = self.server(&session.server)?;
        let query = [
            ("act", "a_check"),
            ("key", session.key.expose()),
            ("ts", ts.as_str()),
            ("wait", &wait.as_secs().to_string()),
        ];
        let begun = timeout(wait + self.poll_margin, begin(self.http.get(url).query(&query))).await;
        let response = begun.unwrap_or(Err(CallError::Timeout))?;
        let whole = read(response, BODY_BYTES << failures.min(STRETCHES), self.poll_margin);
        timeout(ANSWER_PATIENCE, whole).await.unwrap_or(Err(CallError::Timeout))
    }

    /// The community's Long Poll settings.
    ///
    /// # Errors
    /// When VK does not tell.
    pub async fn long_poll_settings(&self) -> Result<LongPollSettings, CallError> {
        let group = self.settings.group_id.to_string();
        let body = self.call("groups.getLongPollSettings", &[("group_id", &group)]).await?;
        Ok(wire::settings_reply(&mend(&body))?)
    }

    /// Messages of a conversation by their numbers in it, at most a hundred, as they came. What VK does not have is not there.
    ///
    /// # Errors
    /// When VK does not tell.
    pub async fn messages(&self, peer: i64, cmids: RangeInclusive<i64>) -> Result<Vec<Box<RawValue>>, CallError> {
        let list = cmids.map(|cmid| cmid.to_string()).collect::<Vec<_>>().join(",");
        let (peer, group) = (peer.to_string(), self.settings.group_id.to_string());
        let asked = [("peer_id", peer.as_str()), ("conversation_message_ids", &list), ("group_id", &group)];
        let body = self.call("messages.getByConversationMessageId", &asked).await?;
        Ok(wire::messages_reply(&mend(&body))?)
    }

    /// Calls a method of the API: the answer as it came. Waits for its turn first: VK takes 20 calls a second.
    ///
    /// # Errors
    /// When there is no whole answer with HTTP 200.
    pub async fn call(&self, method: &str, parameters: &[(&str, &str)]) -> Result<Bytes, CallError> {
        let url = self.methods.join(method).map_err(|error| CallError::Network(error.to_string()))?;
        let fixed = [("access_token", self.settings.token.expose()), ("v", &self.settings.api_version), ("lang", "ru")];
        let form: Vec<_> = parameters.iter().chain(&fixed).collect();
        self.pace.until_ready().await;
        let whole = async { read(begin(self.http.post(url).form(&form)).await?, BODY_BYTES, self.call_patience).await };
        timeout(self.call_patience, whole).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Where to poll. Plain http is taken only where the API itself is asked so: the key would travel in the clear.
    fn server(&self, server: &str) -> Result<Url, CallError> {
        let url = Url::parse(server).ok();
        let fine = |url: &Url| url.scheme() == "https" || url.scheme() == "http" && self.methods.scheme() == "http";
        url.filter(fine).ok_or_else(|| CallError::Unreadable(wire::WireError { what: UNUSABLE_SERVER.to_owned() }))
    }
}

/// In no second more than 20 calls of a community: four at once, and sixteen more.
fn pace() -> Quota {
    const BURST: NonZeroU32 = NonZeroU32::new(4).expect("not zero");
    const EVERY: Duration = Duration::from_micros(62_500);
    Quota::with_period(EVERY).unwrap_or(Quota::per_second(BURST)).allow_burst(BURST)
}

/// Sends a request and reads the head of its answer.
async fn begin(request: RequestBuilder) -> Result<Response, CallError> {
    let response = request.send().await.map_err(network)?;
    match response.status().as_u16() {
        200 => Ok(response),
        status => Err(CallError::Http(status)),
    }
}

/// Reads the rest, as long as nothing takes longer than `patience` to come.
async fn read(mut response: Response, most: usize, patience: Duration) -> Result<Bytes, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) =
        timeout(patience, response.chunk()).await.map_err(|_| CallError::Timeout)?.map_err(network)?
    {
        if body.len() + chunk.len() > most {
            return Err(CallError::TooLarge(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Bytes::from(body))
}

fn network(error: reqwest::Error) -> CallError {
    let error = error.without_url();
    if error.is_timeout() {
        return CallError::Timeout;
    }
    let words = innermost(&error);
    CallError::Network(if words.contains("certificate") { format!("{words}; {STRANGE_CERTIFICATE}") } else { words })
}

/// The last words of an error's chain: what the system said.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;
    use std::io;
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Body;
    use axum::extract::{RawQuery, State};
    use axum::http::{HeaderMap, StatusCode, Uri, header};
    use futures_util::stream;
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::domain::ids::GroupId;
    use crate::secret::Secret;
    use crate::vk::wire::{PollReply, poll_reply};

    const TOKEN: &str = "vk1.a.the-token-nobody-sees";
    const KEY: &str = "the-key";

    /// What a [`FakeVk`] does with a request.
    pub(in crate::vk) enum Reply {
        /// HTTP 200 with this body.
        Says(String),
        /// This status with this body.
        Status(u16, String),
        /// The beginning of a body, then the end of the connection.
        Cut(&'static str),
        /// A body without an end.
        Endless,
        /// Nothing, ever.
        Hangs,
    }

    /// A request as it came.
    #[derive(Clone, Debug)]
    pub(in crate::vk) struct Asked {
        /// The path.
        pub(in crate::vk) path: String,
        /// The words of the query.
        pub(in crate::vk) query: HashMap<String, String>,
        /// The words of the body.
        pub(in crate::vk) form: HashMap<String, String>,
        agent: String,
    }

    type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

    /// A server that answers as a test says and remembers what it was asked.
    pub(in crate::vk) struct FakeVk {
        url: String,
        asked: Arc<Mutex<Vec<Asked>>>,
        task: JoinHandle<io::Result<()>>,
    }

    impl Drop for FakeVk {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl FakeVk {
        pub(in crate::vk) async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
            let script: Arc<Script> = Arc::new(script);
            let app = Router::new().fallback(serve).with_state((Arc::clone(&asked), script));
            let task = tokio::spawn(async move { axum::serve(listener, app).await });
            Self { url, asked, task }
        }

        /// A client of this server.
        pub(in crate::vk) fn client(&self) -> Client {
            drop(rustls::crypto::ring::default_provider().install_default());
            Client::new(&settings(&self.url)).expect("a client")
        }

        /// What it was asked so far.
        pub(in crate::vk) fn asked(&self) -> Vec<Asked> {
            self.asked.lock().expect("whole").clone()
        }
    }

    type Shared = (Arc<Mutex<Vec<Asked>>>, Arc<Script>);

    async fn serve(
        State((all, script)): State<Shared>,
        uri: Uri,
        RawQuery(query): RawQuery,
        headers: HeaderMap,
        body: String,
    ) -> (StatusCode, [(header::HeaderName, String); 1], Body) {
        let agent = headers[header::USER_AGENT].to_str().expect("text").to_owned();
        let (query, form) = (words(&query.unwrap_or_default()), words(&body));
        let asked = Asked { path: uri.path().to_owned(), query, form, agent };
        let reply = script(&asked);
        all.lock().expect("whole").push(asked);
        // A client that followed this would come to the right place.
        let place = [(header::LOCATION, "/method/groups.getLongPollServer".to_owned())];
        let (status, body) = match reply {
            Reply::Says(body) => (200, Body::from(body)),
            Reply::Status(status, body) => (status, Body::from(body)),
            Reply::Cut(start) => {
                (200, Body::from_stream(stream::iter([Ok(start), Err(io::Error::other("the connection ends"))])))
            }
            Reply::Endless => {
                let chunk = Bytes::from(vec![b' '; 1 << 20]);
                (200, Body::from_stream(stream::repeat_with(move || Ok::<_, io::Error>(chunk.clone()))))
            }
            Reply::Hangs => std::future::pending().await,
        };
        (StatusCode::from_u16(status).expect("a status"), place, body)
    }

    fn words(encoded: &str) -> HashMap<String, String> {
        let url = Url::parse(&format!("http://x/?{encoded}")).expect("a URL");
        url.query_pairs().into_owned().collect()
    }

    fn settings(url: &str) -> Settings {
        Settings {
            token: Secret::new(TOKEN),
            group_id: GroupId::new(7).expect("an id"),
            api_url: url.to_owned(),
            api_version: "5.199".to_owned(),
            session_max_age: Duration::from_secs(3600),
            backfill: false,
            wait: Duration::from_secs(1),
            ca: Vec::new(),
        }
    }

    fn opened(server: &str) -> SessionReply {
        SessionReply { server: server.to_owned(), key: Secret::new(KEY), ts: Ts::parse("9").expect("a ts") }
    }

    /// Asks for a session, and polls one, of a server that answers so, and checks that no error shows what it must not.
    async fn check(reply: fn() -> Reply, expected: fn(&CallError) -> bool) {
        let vk = FakeVk::start(move |_| reply()).await;
        check_with(&vk, &vk.client(), expected).await;
    }

    async fn check_with(vk: &FakeVk, client: &Client, expected: fn(&CallError) -> bool) {
        let session = client.session().await.map(drop);
        let polled = client.poll(&opened(&format!("{}/wh7", vk.url)), &Ts::parse("4").expect("a ts"), 0).await;
        // What a poll brings is read by another: as in the loop, both together are the answer.
        let polled = polled.and_then(|body| Ok(poll_reply(&mend(&body)).map(drop)?));
        for error in [session.expect_err("no session"), polled.expect_err("no answer")] {
            assert!(expected(&error), "{error:?}");
            let shown = format!("{error} {error:?}");
            assert!([TOKEN, KEY, "127.0.0.1"].iter().all(|secret| !shown.contains(secret)), "{shown}");
        }
    }

    #[tokio::test]
    async fn every_way_to_fail_is_told_apart_and_shows_no_secret() {
        check(|| Reply::Status(502, format!("<html>key={KEY}</html>")), |e| *e == CallError::Http(502)).await;
        check(|| Reply::Status(429, String::new()), |e| *e == CallError::Http(429)).await;
        check(|| Reply::Status(302, String::new()), |e| *e == CallError::Http(302)).await;
        check(|| Reply::Says(format!("<html>?act=a_check&key={KEY}")), |e| matches!(e, CallError::Unreadable(_))).await;
        check(|| Reply::Says(r#"{"a":1}"#.to_owned()), |e| matches!(e, CallError::Unreadable(_))).await;
        check(|| Reply::Cut(r#"{"ts":"5","updates":["#), |e| matches!(e, CallError::Network(_))).await;
        check(|| Reply::Endless, |e| *e == CallError::TooLarge(BODY_BYTES)).await;
    }

    /// An answer that is refused today is the same tomorrow: what may come in grows while polls fail.
    #[tokio::test]
    async fn the_bound_of_an_answer_grows_with_each_failure() {
        let vk = FakeVk::start(|_| Reply::Endless).await;
        let (client, session) = (vk.client(), opened(&format!("{}/wh7", vk.url)));
        for failures in 0..3 {
            let told = client.poll(&session, &session.ts, failures).await.expect_err("it never ends");
            assert_eq!(told, CallError::TooLarge(BODY_BYTES << failures));
        }
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_given_up() {
        let vk = FakeVk::start(|_| Reply::Hangs).await;
        let mut client = Client { poll_margin: Duration::from_millis(50), ..vk.client() };
        client.call_patience = client.poll_margin;
        client.settings.wait = Duration::ZERO;
        check_with(&vk, &client, |e| *e == CallError::Timeout).await;
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_in_the_words_of_the_system() {
        let vk = FakeVk::start(|_| Reply::Hangs).await;
        let client = vk.client();
        let gone = opened("http://127.0.0.1:1/wh7");
        let error = client.poll(&gone, &gone.ts, 0).await.expect_err("nobody there").to_string();
        assert!(error.starts_with("VK cannot be reached: ") && error.contains("refused"), "{error}");
        assert!(!error.contains(KEY) && !error.contains("wh7"), "{error}");
    }

    #[tokio::test]
    async fn errors_of_the_api_come_with_their_code_and_words() {
        for (code, words) in [(5, "User authorization failed"), (29, "Rate limit reached")] {
            let vk = FakeVk::start(move |_| {
                Reply::Says(format!(
                    r#"{{"error":{{"error_code":{code},"error_msg":"{words}","request_params":[{{"key":"access_token","value":"{TOKEN}"}}]}}}}"#
                ))
            })
            .await;
            let error = vk.client().session().await.expect_err("refused");
            assert_eq!(error, CallError::Api(ApiError { code, message: words.to_owned() }));
            assert_eq!(error.to_string(), format!("VK answers error {code}: {words}"));
        }
    }

    #[tokio::test]
    async fn a_session_is_asked_for_with_the_token_in_the_body_and_polled_with_the_key() {
        let vk = FakeVk::start(|asked| match asked.path.as_str() {
            "/method/groups.getLongPollServer" => {
                Reply::Says(format!(r#"{{"response":{{"key":"{KEY}","server":"http://127.0.0.1:1/wh7","ts":3394}}}}"#))
            }
            _ => Reply::Says("{\"ts\":\"3395\",\"updates\":[{\"type\":\"x\"}]}\r\n".to_owned()),
        })
        .await;
        let client = vk.client();
        let session = client.session().await.expect("a session");
        assert_eq!((session.key.expose(), session.ts.as_str()), (KEY, "3394"));
        let session = SessionReply { server: format!("{}/wh7", vk.url), ..session };
        let body = client.poll(&session, &Ts::parse("42").expect("a ts"), 0).await.expect("an answer");
        let text = mend(&body);
        let reply = poll_reply(&text).expect("read");
        assert!(matches!(&reply, PollReply::Updates { ts, updates } if ts.as_str() == "3395" && updates.len() == 1));

        let [call, poll] = vk.asked().try_into().expect("two requests");
        assert!(call.query.is_empty(), "nothing in the URL, which proxies log: {call:?}");
        let form = |name: &str| call.form.get(name).map(String::as_str);
        assert_eq!([form("access_token"), form("v"), form("group_id")], [Some(TOKEN), Some("5.199"), Some("7")]);
        let query = |name: &str| poll.query.get(name).map(String::as_str);
        assert_eq!(
            [query("act"), query("key"), query("ts"), query("wait")],
            [Some("a_check"), Some(KEY), Some("42"), Some("1")]
        );
        assert_eq!((poll.path.as_str(), poll.query.len()), ("/wh7", 4));
        assert_eq!(poll.agent, concat!("event-router/", env!("CARGO_PKG_VERSION")));
    }

    #[tokio::test]
    async fn a_key_is_never_sent_in_the_clear_when_the_api_is_not() {
        for (server, fine) in [
            ("https://lp.vk.com/wh7", true),
            ("http://10.0.0.1/wh7", true),
            ("lp.vk.com/wh7", false),
            ("ftp://x/", false),
        ] {
            let body = format!(r#"{{"response":{{"key":"{KEY}","server":"{server}","ts":"1"}}}}"#);
            let vk = FakeVk::start(move |_| Reply::Says(body.clone())).await;
            assert_eq!(vk.client().session().await.is_ok(), fine, "{server}");
        }
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::new(&settings("https://api.vk.ru")).expect("a client");
        for (server, fine) in [("https://lp.vk.com/wh7", true), ("http://127.0.0.1/wh7", false)] {
            assert_eq!(client.server(server).is_ok(), fine, "{server}");
        }
    }

    #[tokio::test]
    async fn the_settings_of_long_poll_are_told() {
        let vk = FakeVk::start(|asked| {
            assert_eq!(asked.path, "/method/groups.getLongPollSettings");
            Reply::Says(
                r#"{"response":{"is_enabled":true,"api_version":"5.199","events":{"message_new":1}}}"#.to_owned(),
            )
        })
        .await;
        let told = vk.client().long_poll_settings().await.expect("told");
        assert!(told.is_enabled && told.events["message_new"].0);
    }

    /// However slow the machine: what is paced takes at least its time.
    #[tokio::test]
    async fn thirty_calls_at_once_take_as_long_as_twenty_a_second_allow() {
        let vk = FakeVk::start(|_| Reply::Says("{\"response\":1}".to_owned())).await;
        let client = vk.client();
        let start = std::time::Instant::now();
        let calls = (0..30).map(|_| client.call("users.get", &[]));
        for answer in futures_util::future::join_all(calls).await {
            assert!(answer.is_ok(), "{answer:?}");
        }
        assert!(start.elapsed() >= Duration::from_millis(1_600), "{:?}", start.elapsed());
        assert_eq!(vk.asked().len(), 30);
    }
}
