//! demo
use super::exit::{Exit, Failure};
use tokio_util::sync::CancellationToken;
pub(super) async fn run(_seed: Option<u64>, _stop: CancellationToken) -> Result<Exit, Failure> {
    Ok(Exit::Done)
}
