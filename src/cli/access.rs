//! How the verbs of `outbox` reach it: through the socket of the running service, else by opening the directory. Deliberately
//! absent: what they ask.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::exit::{Exit, Failure};
use crate::admin::SOCKET_NAME;
use crate::outbox::{Lock, Look, OutboxError, Store};

/// How long the service may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to say that it is alive.
const KNOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to read everything it has.
const LONG_PATIENCE: Duration = Duration::from_secs(3600);
/// As long as an answer without an end may take: the client knows no "forever".
const FOREVER: Duration = Duration::from_secs(365 * 86_400);
/// How long a service that is just starting, or a verb that is just ending, is waited for.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// How long is waited between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest path of a socket, in bytes, on Linux.
const SOCKET_PATH_BYTES: usize = 107;

/// A way to the outbox.
pub(super) enum Access<T> {
    /// The service runs.
    Live(Live),
    /// It does not, and we have opened the directory.
    Offline(T),
}

/// Where the service listens.
pub(super) fn socket(dir: &Path) -> PathBuf {
    dir.join(SOCKET_NAME)
}

impl Access<Look> {
    /// Finds the way for who only looks: nothing is written.
    pub(super) async fn to_look(dir: &Path) -> Result<Self, Failure> {
        Self::patiently(dir, || Look::open(dir, "outbox", Duration::ZERO)).await
    }
}

impl Access<Store> {
    /// Finds the way for who changes something.
    pub(super) async fn to_change(dir: &Path) -> Result<Self, Failure> {
        Self::patiently(dir, || Store::open_existing(dir, "outbox", Duration::ZERO)).await
    }
}

impl<T> Access<T> {
    /// Finds the running service, or opens the directory; one that is just starting is waited for.
    pub(super) async fn patiently(dir: &Path, open: impl Fn() -> Result<T, OutboxError>) -> Result<Self, Failure> {
        let start = std::time::Instant::now();
        loop {
            if let Some(live) = Live::knock(dir).await? {
                return Ok(Self::Live(live));
            }
            match open() {
                Ok(opened) => return Ok(Self::Offline(opened)),
                // Whoever holds the lock may be about to listen.
                Err(OutboxError::Locked { .. }) if start.elapsed() < START_PATIENCE => tokio::time::sleep(PAUSE).await,
                Err(OutboxError::Locked { dir, holder }) => {
                    let words = if holder.contains("(outbox") {
                        let dir = dir.display();
                        format!(
                            "outbox in {dir} is looked at by another command, {holder}; try again when it has ended"
                        )
                    } else {
                        format!(
                            "outbox in {} is in use by {holder}, and nothing answers at {}: it starts, stops, or hangs; try again in a moment, and if that does not help, end that process: what it has acknowledged is on disk",
                            dir.display(),
                            socket(&dir).display()
                        )
                    };
                    return Err(Failure { words, exit: Exit::Unavailable });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whoever has the outbox does not answer.
fn hangs(dir: &Path) -> Failure {
    let holder = Lock::holder(dir).unwrap_or_else(|_| "the service".to_owned());
    let listens = socket(dir);
    let words = format!(
        "{holder} listens at {} and does not answer: it hangs, stops, or the machine is overloaded; try again in a moment, and if that does not help, end that process and start it again: what it has acknowledged is on disk",
        listens.display()
    );
    Failure { words, exit: Exit::Unavailable }
}

/// The running service.
pub(super) struct Live(reqwest::Client);

impl Live {
    /// The service that answers at the socket in `dir`, if one does.
    pub(super) async fn knock(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = socket(dir);
        if path.as_os_str().len() > SOCKET_PATH_BYTES {
            return Err(Failure::new(format!(
                "{} is too long for a socket ({SOCKET_PATH_BYTES} bytes); use a shorter outbox.dir",
                path.display()
            )));
        }
        match UnixStream::connect(&path).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            // Not the socket refuses, but the directory that it would be in.
            Err(error) if error.kind() == ErrorKind::PermissionDenied && path.try_exists().is_err() => {
                return Err(OutboxError::of_store(dir, &error.into()).into());
            }
            Err(error) => {
                let remedy = match error.kind() {
                    ErrorKind::PermissionDenied => {
                        "; only the user that the service runs as may ask it: run this as that user"
                    }
                    _ => "",
                };
                return Err(Failure::new(format!("{}: {error}{remedy}", path.display())));
            }
        }
        let client = reqwest::Client::builder().unix_socket(path).timeout(PATIENCE).no_proxy().build();
        let live = Self(client.map_err(|error| Failure::new(error.to_string()))?);
        // The kernel lets in whoever knocks at a process that hangs.
        match timeout(KNOCK_PATIENCE, live.get_text("/healthz")).await {
            Ok(Ok(_)) => Ok(Some(live)),
            // It ends at this moment.
            Ok(Err(_)) => Ok(None),
            Err(_) => Err(hangs(dir)),
        }
    }

    pub(super) async fn get_text(&self, path: &str) -> Result<(u16, String), Failure> {
        let answer = self.0.get(format!("http://service{path}")).send().await.map_err(silent)?;
        Ok((answer.status().as_u16(), answer.text().await.map_err(silent)?))
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, Failure> {
        let answer = self.0.get(format!("http://service{path}")).query(query).send().await.map_err(silent)?;
        read(answer).await
    }

    /// As [`Live::get`], for what takes as long as it takes.
    pub(super) async fn get_slowly<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = self.0.get(format!("http://service{path}")).timeout(LONG_PATIENCE);
        read(request.send().await.map_err(silent)?).await
    }

    /// An answer without an end, to be read piece by piece: who reads it says how long is too long.
    pub(super) async fn follow(&self, path: &str, query: &impl Serialize) -> Result<reqwest::Response, Failure> {
        let request = self.0.get(format!("http://service{path}")).query(query).timeout(FOREVER);
        let answer =
            timeout(PATIENCE, request.send()).await.map_err(|_| Failure::new("the service does not answer"))?;
        let answer = answer.map_err(silent)?;
        if answer.status() == StatusCode::OK { Ok(answer) } else { Err(refused(answer).await?) }
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::new(error.to_string()))?;
        let request =
            self.0.post(format!("http://service{path}")).header("content-type", "application/json").body(body);
        // What changes many rows takes as long as it takes.
        let request = request.timeout(LONG_PATIENCE);
        read(request.send().await.map_err(silent)?).await
    }
}

async fn read<T: DeserializeOwned>(answer: reqwest::Response) -> Result<T, Failure> {
    if answer.status() != StatusCode::OK {
        return Err(refused(answer).await?);
    }
    let body = answer.bytes().await.map_err(silent)?;
    serde_json::from_slice(&body)
        .map_err(|error| Failure::new(format!("the service answers something else than expected: {error}")))
}

/// What an answer that is no success says.
async fn refused(answer: reqwest::Response) -> Result<Failure, Failure> {
    #[derive(serde::Deserialize)]
    struct Told {
        error: String,
    }
    let status = answer.status();
    let body = answer.bytes().await.map_err(silent)?;
    let told: Option<Told> = serde_json::from_slice(&body).ok();
    Ok(Failure::new(told.map_or_else(|| format!("the service answers HTTP {status}"), |told| told.error)))
}

fn silent(error: reqwest::Error) -> Failure {
    Failure::new(format!("the service does not answer: {}", error.without_url()))
}
