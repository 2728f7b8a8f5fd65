//! One attempt at one delivery: a request goes out, an outcome comes back. Connections are kept alive; redirects are not
//! followed, proxies are not used. Deliberately absent: retries, waits, what an outcome means for the queue.
//!
//! A name is looked up for each new connection. Connections in use would outlive any change of it, so a destination that
//! is reached by a name gets a new client, and with it new connections, every [`LOOKED_UP_EVERY`]; the old ones end with the
//! requests that are on them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::Resolve;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, Url};

use super::request::{Attempt, body, headers, sign};
use super::settings::Settings;
use crate::domain::delivery::{EXCERPT_BYTES, Failure, Outcome, Verdict, excerpt, judge, retry_after};
use crate::domain::time::Moment;

/// How much of an answer's body is read so that the connection can be used again; a longer one costs the connection.
const BODY_BYTES: usize = 64 << 10;
/// How long the rest of an answer may take once its status is known.
const BODY_PATIENCE: Duration = Duration::from_secs(2);
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How long the connections to a name are kept, however busy: so long a handler that has moved may still be looked for where
/// it was, although somebody answers there.
pub const LOOKED_UP_EVERY: Duration = Duration::from_secs(60);
/// What rustls says of certificates that are not believed, and what to do about it.
const REMEDIES: [(&str, &str); 2] = [
    ("UnknownIssuer", "if its CA is one of your own, name it in ca_file of this destination"),
    ("CaUsedAsEndEntity", "it is a CA's own, and a server needs one that a CA has signed: docs/HANDLERS.md has how"),
];

/// Why a destination cannot be sent to at all.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The URL is none.
    #[error("the url of destination {name} cannot be used: {why}; write it as http://host:port/path")]
    Url {
        /// The destination.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A header cannot be sent.
    #[error("header {header} of destination {name} cannot be sent; use printable ASCII")]
    Header {
        /// The destination.
        name: String,
        /// The header's name.
        header: String,
    },
    /// The HTTP client could not be made.
    #[error("the HTTP client of destination {name} could not be made: {why}")]
    Client {
        /// The destination.
        name: String,
        /// Why.
        why: String,
    },
}

/// Sends to one destination.
pub struct Sender {
    settings: Settings,
    headers: HeaderMap,
    url: Url,
    resolver: Option<Arc<dyn Resolve>>,
    client: Mutex<Made>,
}

/// A client, and when it was first used.
struct Made {
    client: Client,
    since: Option<Moment>,
}

impl Sender {
    /// Names are looked up as the system does it.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, SenderError> {
        Self::with_resolver(settings, None)
    }

    /// The same, with another way to look names up.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn with_resolver(settings: &Settings, resolver: Option<Arc<dyn Resolve>>) -> Result<Self, SenderError> {
        let name = settings.name.to_string();
        let url = Url::parse(&settings.url)
            .map_err(|error| SenderError::Url { name: name.clone(), why: error.to_string() })?;
        let mut headers = HeaderMap::new();
        for (header, value) in &settings.headers {
            let refused = || SenderError::Header { name: name.clone(), header: header.clone() };
            let key = HeaderName::from_bytes(header.as_bytes()).map_err(|_| refused())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| refused())?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let client = client(settings, &url, &headers, resolver.clone())?;
        let client = Mutex::new(Made { client, since: None });
        Ok(Self { settings: settings.clone(), headers, url, resolver, client })
    }

    /// The client of an attempt that is made at `now`.
    fn client(&self, now: Moment) -> Client {
        let mut made = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *made.since.get_or_insert(now);
        // A clock that was set back says nothing of its age.
        let old = since.age(now) >= LOOKED_UP_EVERY || since > now;
        if old && self.url.domain().is_some() {
            // What could be made once can be made again; if not, the old one still serves.
            if let Ok(client) = client(&self.settings, &self.url, &self.headers, self.resolver.clone()) {
                made.client = client;
            }
            made.since = Some(now);
        }
        made.client.clone()
    }

    /// Makes one attempt; `now` is what the request says of its time. Returns the outcome and how long it took.
    /// Dropping it abandons the attempt: the handler may have taken the event all the same.
    pub async fn attempt(&self, attempt: &Attempt<'_>, now: Moment) -> (Outcome, Duration) {
        let start = Instant::now();
        let body = body(attempt);
        let mut headers = headers(attempt, now);
        sign(&mut headers, &self.settings.keys, &body);
        let request = self.client(now).post(self.url.clone()).headers(headers).body(body);
        let outcome = match request.send().await {
            Ok(response) => self.judge(response, now).await,
            Err(error) => Outcome::Failed { failure: failure(error), excerpt: String::new(), retry_after: None },
        };
        (outcome, start.elapsed())
    }

    async fn judge(&self, response: Response, now: Moment) -> Outcome {
        let status = response.status().as_u16();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|value| retry_after(status, value, now));
        let verdict = judge(status, &self.settings.reject_on);
        // The status decides. A body that breaks or drags changes nothing but the connection.
        let body = tokio::time::timeout(BODY_PATIENCE, read(response)).await.unwrap_or_default();
        match verdict {
            Verdict::Success => Outcome::Delivered { status },
            Verdict::Refusal => Outcome::Refused { status, excerpt: excerpt(&body) },
            Verdict::Retry => {
                Outcome::Failed { failure: Failure::Status(status), excerpt: excerpt(&body), retry_after: asked }
            }
        }
    }
}

fn client(
    settings: &Settings,
    url: &Url,
    headers: &HeaderMap,
    resolver: Option<Arc<dyn Resolve>>,
) -> Result<Client, SenderError> {
    let unusable = |error: reqwest::Error| SenderError::Client {
        name: settings.name.to_string(),
        why: innermost(&error.without_url()),
    };
    let ca = settings.ca.iter().map(|ca| Certificate::from_der(ca)).collect::<Result<Vec<_>, _>>();
    let mut builder = Client::builder()
        .user_agent(concat!("event-router/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers.clone())
        .redirect(Policy::none())
        .no_proxy()
        .timeout(settings.timeout)
        .pool_max_idle_per_host(settings.concurrency)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true);
    // Where no TLS is spoken, the system's certificates are not read each time.
    builder = match url.scheme() == "https" {
        true => builder.tls_certs_merge(ca.map_err(unusable)?),
        false => builder.tls_certs_only([]),
    };
    if let Some(resolver) = resolver {
        builder = builder.dns_resolver(resolver);
    }
    builder.build().map_err(unusable)
}

/// The first bytes of a body; reads on, up to a bound, so that the connection can be used again.
async fn read(mut response: Response) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut seen = 0;
    while seen <= BODY_BYTES {
        let Ok(Some(chunk)) = response.chunk().await else { break };
        seen += chunk.len();
        let room = EXCERPT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    kept
}

fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if error.is_timeout() {
        return Failure::Timeout;
    }
    let connect = error.is_connect();
    let mut words = innermost(&error);
    if let Some((_, remedy)) = REMEDIES.iter().find(|(word, _)| words.contains(word)) {
        words = format!("{words}; {remedy}");
    }
    if connect { Failure::Connect(words) } else { Failure::Broken(words) }
}

/// The last words of an error's chain: what the system said.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
