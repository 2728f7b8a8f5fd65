//! The unix socket: made with mode 0600 before anyone can reach it, removed at the end. Deliberately absent: what is
//! answered (`api`).

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::Extension;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::api::{Door, router};
use super::tcp::Bodies;

/// Its name in the outbox's directory.
pub const SOCKET_NAME: &str = "admin.sock";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It could not be made.
    #[error(
        "the operator's socket {path} cannot be made: {source}; a socket's path has at most 107 bytes, and the directory must be writable"
    )]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody can listen there.
    #[error(
        "admin.listen: {listen} cannot be listened at: {source}; give another address, or \"off\": the commands use the socket in outbox.dir"
    )]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It broke.
    #[error("the operator's door broke: {0}")]
    Serve(io::Error),
}

/// A socket that listens.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens in `dir`. What an earlier process left is replaced: whoever holds the outbox's lock is alone there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn bind(dir: &Path) -> Result<Self, AdminError> {
        let path = dir.join(SOCKET_NAME);
        let told = |source: io::Error| AdminError::Bind { path: path.clone(), source };
        let making = dir.join(".admin.new");
        remove(&making).map_err(told)?;
        let listener = UnixListener::bind(&making).map_err(told)?;
        fs::set_permissions(&making, Permissions::from_mode(0o600)).map_err(told)?;
        fs::rename(&making, &path).map_err(told)?;
        Ok(Self { listener, path })
    }

    /// Answers until `stop`.
    ///
    /// # Errors
    /// When it breaks.
    pub async fn serve(self, door: Door, stop: CancellationToken) -> Result<(), AdminError> {
        let stopped = stop.clone();
        let serve = axum::serve(self.listener, router(door).layer(Extension(Bodies(true))))
            .with_graceful_shutdown(async move { stopped.cancelled().await });
        // A client that does not hang up must not hold the service.
        let result = tokio::select! {
            result = async { serve.await } => result.map_err(AdminError::Serve),
            () = async { stop.cancelled().await; tokio::time::sleep(std::time::Duration::from_millis(500)).await } => Ok(()),
        };
        remove(&self.path).map_err(AdminError::Serve)?;
        result
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
