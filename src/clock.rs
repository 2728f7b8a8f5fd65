//! The wall clock as a seam: loops hold a [`Clock`], everything below them gets [`Moment`]s. The waits of the loop towards VK
//! are made with it, so that a test can let a month pass in a minute. Deliberately absent: time zones, time-outs of HTTP.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::time::Moment;

/// Where the present moment comes from.
#[derive(Clone, Default)]
pub struct Clock(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    System,
    Standing(Arc<AtomicI64>),
    Hasty {
        from: Moment,
        since: Instant,
        times: u32,
    },
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// A clock that stands until [`Clock::set`] moves it, for tests.
    #[must_use]
    pub fn standing(at: Moment) -> Self {
        Self(Kind::Standing(Arc::new(AtomicI64::new(at.0))))
    }

    /// A clock that goes so many times as fast as the machine's, for tests.
    #[must_use]
    pub fn hasty(from: Moment, times: u32) -> Self {
        Self(Kind::Hasty { from, since: Instant::now(), times: times.max(1) })
    }

    /// Moves a standing clock; any other is left alone.
    pub fn set(&self, at: Moment) {
        if let Kind::Standing(standing) = &self.0 {
            standing.store(at.0, Ordering::SeqCst);
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Kind::Standing(standing) => Moment(standing.load(Ordering::SeqCst)),
            Kind::Hasty { from, since, times } => from.plus(since.elapsed().saturating_mul(*times)),
            Kind::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Moment(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }

    /// Waits for a span of this clock's time; a standing clock waits as the machine's does.
    pub async fn sleep(&self, span: Duration) {
        let times = match &self.0 {
            Kind::Hasty { times, .. } => *times,
            Kind::System | Kind::Standing(_) => 1,
        };
        tokio::time::sleep(span / times).await;
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::System => "Clock(system)",
            Kind::Standing(_) => "Clock(standing)",
            Kind::Hasty { .. } => "Clock(hasty)",
        })
    }
}
