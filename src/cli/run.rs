//! `run`: the service.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use crate::app;
use crate::app::log::Dropped;
use crate::app::{log, supervise};
use crate::clock::Clock;
use crate::config::{Format, Loaded};
use crate::metrics::Metrics;

pub(super) async fn run(loaded: Loaded, stop: CancellationToken) -> Result<Exit, Failure> {
    let settings_of_log = loaded.log;
    let settings = loaded.service()?;
    let workstream = settings.workstream_log.as_ref().map(|to| log::workstream(to, &settings.service_name)).transpose();
    let workstream = workstream.map_err(|error| Failure::new(format!("workstream_log: {error}")))?;
    let (layer, sender) = workstream.map(|(layer, sender, dropped)| (layer, (sender, dropped))).unzip();
    log::init(settings_of_log.format == Format::Json, settings_of_log.level, layer).map_err(Failure::new)?;
    let (end, ended) = oneshot::channel();
    let metrics = Metrics::default();
    let lost = sender.as_ref().map(|(_, dropped)| dropped.clone());
    metrics.read(
        "event_router_log_records_dropped_total",
        "Records that did not reach the workstream log",
        move || lost.as_ref().map_or(0, Dropped::count),
    );
    let sending = sender.map(|(sender, dropped)| (supervise::beside(sender.run(ended)), dropped));
    let result = app::run(settings, Clock::system(), metrics, stop).await;
    drop(end);
    if let Some((sending, dropped)) = sending {
        // A sender that panicked has nothing more to say.
        let _ended = sending.await;
        if dropped.count() > 0 {
            tracing::warn!(
                dropped = dropped.count(),
                "records did not reach the workstream log: its endpoint was away or too slow"
            );
        }
    }
    result?;
    Ok(Exit::Done)
}
