//! HTTP to VK: one call out, bytes or an error back. Token and key travel in the body and the query and never appear in an
//! error. Deliberately absent: retries, reading what an answer means (`wire`), what to do then (`session`).

use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response, Url};

use super::settings::Settings;
use super::wire::{self, ApiError, LongPollSettings, Refusal, SessionReply};
use crate::domain::convert::mend;
use crate::domain::ids::Ts;

/// The largest answer that is read.
pub const BODY_BYTES: usize = 32 << 20;
/// How much longer than VK holds a poll open we wait for its answer.
const POLL_MARGIN: Duration = Duration::from_secs(10);
/// How long a call of the API may take.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

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
    #[error("VK answers HTTP {0}")]
    Http(u16),
    /// An answer over the bound.
    #[error("VK's answer is larger than {} MiB", BODY_BYTES >> 20)]
    TooLarge,
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
}

impl Client {
    /// # Errors
    /// When the address cannot be used or TLS cannot be set up.
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        let base = settings.api_url.trim_end_matches('/');
        let methods = Url::parse(&format!("{base}/method/")).map_err(|error| ClientError::Url(error.to_string()))?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("event-router/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_PATIENCE)
            .build()
            .map_err(|error| ClientError::Build(innermost(&error.without_url())))?;
        Ok(Self { http, settings: settings.clone(), methods })
    }

    /// Asks for a Long Poll session.
    ///
    /// # Errors
    /// When VK gives none.
    pub async fn session(&self) -> Result<SessionReply, CallError> {
        let group = self.settings.group_id.to_string();
        let body = self.call("groups.getLongPollServer", &[("group_id", &group)]).await?;
        let session = wire::session_reply(&mend(&body))?;
        let server = Url::parse(&session.server).map_err(|_| unusable_server())?;
        // The key would travel in the clear.
        let plain = server.scheme() == "http" && self.methods.scheme() != "http";
        if plain || !matches!(server.scheme(), "http" | "https") { Err(unusable_server()) } else { Ok(session) }
    }

    /// Polls: the answer as it came, at most [`BODY_BYTES`]. Dropping it is safe: VK gives the same again.
    ///
    /// # Errors
    /// When there is no whole answer with HTTP 200.
    pub async fn poll(&self, session: &SessionReply, ts: &Ts) -> Result<Bytes, CallError> {
        let wait = self.settings.wait;
        let url = Url::parse(&session.server).map_err(|_| unusable_server())?;
        let query = [
            ("act", "a_check"),
            ("key", session.key.expose()),
            ("ts", ts.as_str()),
            ("wait", &wait.as_secs().to_string()),
        ];
        answer(self.http.get(url).query(&query).timeout(wait + POLL_MARGIN)).await
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

    /// Calls a method of the API: the answer as it came.
    ///
    /// # Errors
    /// When there is no whole answer with HTTP 200.
    pub async fn call(&self, method: &str, parameters: &[(&str, &str)]) -> Result<Bytes, CallError> {
        let url = self.methods.join(method).map_err(|error| CallError::Network(error.to_string()))?;
        let fixed = [("access_token", self.settings.token.expose()), ("v", &self.settings.api_version), ("lang", "ru")];
        let form: Vec<_> = parameters.iter().chain(&fixed).collect();
        answer(self.http.post(url).form(&form).timeout(CALL_PATIENCE)).await
    }
}

fn unusable_server() -> CallError {
    CallError::Unreadable(wire::WireError { what: "the server of the session is no https address".to_owned() })
}

async fn answer(request: RequestBuilder) -> Result<Bytes, CallError> {
    let response = request.send().await.map_err(network)?;
    if response.status().as_u16() != 200 {
        return Err(CallError::Http(response.status().as_u16()));
    }
    read(response).await
}

async fn read(mut response: Response) -> Result<Bytes, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(network)? {
        if body.len() + chunk.len() > BODY_BYTES {
            return Err(CallError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Bytes::from(body))
}

fn network(error: reqwest::Error) -> CallError {
    let error = error.without_url();
    if error.is_timeout() { CallError::Timeout } else { CallError::Network(innermost(&error)) }
}

/// The last words of an error's chain: what the system said.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
