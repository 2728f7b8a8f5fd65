//! `health`: whether the running service is alive, or ready. For a container's check: no shell, no other tool.

use std::path::Path;

use super::access::{Live, socket};
use super::exit::{Exit, Failure, say};

pub(super) async fn run(dir: &Path, ready: bool) -> Result<Exit, Failure> {
    // For a container's check there is one code that is not 0.
    let knocked = Live::knock(dir).await.map_err(|failure| Failure::new(failure.words))?;
    let Some(live) = knocked else {
        return Err(Failure::new(format!("no service answers at {}", socket(dir).display())));
    };
    let (status, words) = live.get_text(if ready { "/readyz" } else { "/healthz" }).await?;
    say(&format!("{}\n", words.trim()))?;
    Ok(if status == 200 { Exit::Done } else { Exit::Failed })
}
