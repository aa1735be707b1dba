//! A node's clocks: both follow simulated time, and the wall clock may jump.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::env::Clock;

/// Wall time at the beginning of a simulation, milliseconds.
pub(super) const BEGIN_MS: i64 = 1_700_000_000_000;

/// A node's clocks.
pub(super) struct SimClock {
    origin: Instant,
    skew_ms: AtomicI64,
}

impl SimClock {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), skew_ms: AtomicI64::new(0) }
    }

    /// Lets the wall clock be wrong by this much from now on.
    pub(super) fn skew(&self, ms: i64) {
        self.skew_ms.store(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        BEGIN_MS + self.origin.elapsed().as_millis() as i64 + self.skew_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}
