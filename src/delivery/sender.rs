//! One attempt at one delivery: a request goes out, an outcome comes back. Connections are kept alive; redirects are not
//! followed, proxies are not used. Deliberately absent: retries, waits, what an outcome means for the queue.

use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, Url};

use super::request::{Attempt, body, headers, sign};
use super::settings::Settings;
use super::signature::SigningKey;
use crate::domain::delivery::{EXCERPT_BYTES, Failure, Outcome, Verdict, excerpt, judge, retry_after};
use crate::domain::time::Moment;

/// How much of an answer's body is read so that the connection can be used again; a longer one costs the connection.
const BODY_BYTES: usize = 64 << 10;
/// How long the rest of an answer may take once its status is known.
const BODY_PATIENCE: Duration = Duration::from_secs(2);
/// How long an idle connection is kept. A name is looked up for each new connection, so this is also how long a handler that
/// has moved may still be looked for where it was, once nothing is sent there.
const IDLE: Duration = Duration::from_secs(60);
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
    client: Client,
    url: Url,
    keys: Vec<SigningKey>,
    reject_on: Vec<u16>,
}

impl Sender {
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, SenderError> {
        let name = settings.name.to_string();
        let url = Url::parse(&settings.url)
            .map_err(|error| SenderError::Url { name: name.clone(), why: error.to_string() })?;
        let mut fixed = HeaderMap::new();
        for (header, value) in &settings.headers {
            let refused = || SenderError::Header { name: name.clone(), header: header.clone() };
            let key = HeaderName::from_bytes(header.as_bytes()).map_err(|_| refused())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| refused())?;
            value.set_sensitive(true);
            fixed.insert(key, value);
        }
        let unusable =
            |error: reqwest::Error| SenderError::Client { name: name.clone(), why: innermost(&error.without_url()) };
        let ca = settings.ca.iter().map(|ca| Certificate::from_der(ca)).collect::<Result<Vec<_>, _>>();
        let client = Client::builder()
            .user_agent(concat!("event-router/", env!("CARGO_PKG_VERSION")))
            .default_headers(fixed)
            .redirect(Policy::none())
            .no_proxy()
            .timeout(settings.timeout)
            .pool_max_idle_per_host(settings.concurrency)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .tls_certs_merge(ca.map_err(unusable)?)
            .build()
            .map_err(unusable)?;
        Ok(Self { client, url, keys: settings.keys.clone(), reject_on: settings.reject_on.clone() })
    }

    /// Makes one attempt; `now` is what the request says of its time. Returns the outcome and how long it took.
    /// Dropping it abandons the attempt: the handler may have taken the event all the same.
    pub async fn attempt(&self, attempt: &Attempt, now: Moment) -> (Outcome, Duration) {
        let start = Instant::now();
        let body = body(attempt);
        let mut headers = headers(attempt, now);
        sign(&mut headers, &self.keys, &body);
        let request = self.client.post(self.url.clone()).headers(headers).body(body);
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
        let verdict = judge(status, &self.reject_on);
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
