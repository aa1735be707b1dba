//! What bounds a running query: samples, bytes, cancellation.
//!
//! *Invariants:* every series checks for cancellation; every column kept is counted when it is made, and counts until the
//! node that uses it is done. What is counted here is taken from the query's [`Meter`] too, in steps, so that a column
//! costs no atomic operation.
//!
//! *Not here:* the clock: whoever started the query cancels it when its time is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::counts::SampleCounts;
use super::error::Error;
use crate::error;

/// Bytes taken from a meter at a time.
const STEP_BYTES: usize = 256 << 10;

const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const TIMED_OUT: u8 = 2;

/// Stops a running query from outside.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicU8>);

impl CancelToken {
    /// The client went away.
    pub fn cancel(&self) {
        self.0.store(CANCELLED, Ordering::Relaxed);
    }

    /// The query's time is up.
    pub fn time_out(&self) {
        self.0.store(TIMED_OUT, Ordering::Relaxed);
    }

    /// An error once the query is to stop.
    pub fn check(&self) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            RUNNING => Ok(()),
            TIMED_OUT => Err(Error::TimedOut),
            _ => Err(Error::Cancelled),
        }
    }
}

/// Where the bytes of an evaluation are accounted for together with what was fetched for it, and with other queries.
pub trait Meter: Send + Sync {
    /// Takes bytes, all of them or none.
    fn take(&self, bytes: usize) -> Result<(), error::Error>;

    /// Gives back what was taken.
    fn give_back(&self, bytes: usize);
}

/// Limits of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most samples in memory at once; a histogram counts for several.
    pub max_samples: usize,
    /// Most bytes of columns in memory at once.
    pub max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_samples: 50_000_000, max_bytes: 1 << 30 }
    }
}

/// What a running query holds.
pub struct Budget {
    limits: Limits,
    bytes: usize,
    samples: usize,
    /// Highest number of samples held so far.
    pub peak_samples: usize,
    /// Samples read from storage so far.
    pub samples_read: u64,
    /// Samples per step, where the caller wants to know.
    pub counts: Option<Box<SampleCounts>>,
    cancel: CancelToken,
    meter: Option<Arc<dyn Meter>>,
    /// Bytes taken from the meter: at least `bytes`.
    metered: usize,
}

impl Budget {
    /// Nothing held yet; bytes are taken from `meter` too, if there is one.
    pub fn new(limits: Limits, cancel: &CancelToken, meter: Option<Arc<dyn Meter>>) -> Self {
        Self {
            limits,
            bytes: 0,
            samples: 0,
            peak_samples: 0,
            samples_read: 0,
            counts: None,
            cancel: cancel.clone(),
            meter,
            metered: 0,
        }
    }

    /// An error once the query is to stop.
    pub fn check(&self) -> Result<(), Error> {
        self.cancel.check()
    }

    /// Takes `samples` and `bytes` until they are released, or the node in work is done.
    pub fn hold(&mut self, samples: usize, bytes: usize) -> Result<(), Error> {
        self.samples += samples;
        self.bytes = self.bytes.saturating_add(bytes);
        self.peak_samples = self.peak_samples.max(self.samples);
        if self.samples > self.limits.max_samples {
            return Err(Error::TooManySamples);
        }
        if self.bytes > self.limits.max_bytes {
            return Err(Error::TooManyBytes { limit: self.limits.max_bytes });
        }
        self.take_missing()
    }

    /// Fails where `bytes` more would be too many, before they are allocated.
    pub fn room(&mut self, bytes: usize) -> Result<(), Error> {
        self.hold(0, bytes)?;
        self.release(0, bytes);
        Ok(())
    }

    /// Gives back what [`Budget::hold`] took.
    pub fn release(&mut self, samples: usize, bytes: usize) {
        self.samples = self.samples.saturating_sub(samples);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.give_surplus_back();
    }

    /// From now on just this is held.
    pub fn settle(&mut self, samples: usize, bytes: usize) -> Result<(), Error> {
        (self.samples, self.bytes) = (samples, bytes);
        self.give_surplus_back();
        self.hold(0, 0)
    }

    fn take_missing(&mut self) -> Result<(), Error> {
        let Some(meter) = self.meter.as_ref().filter(|_| self.bytes > self.metered) else { return Ok(()) };
        let missing = self.bytes - self.metered;
        let step = missing.next_multiple_of(STEP_BYTES);
        // Near the limit there may be room for what is needed, and none for a whole step.
        let taken = match meter.take(step) {
            Ok(()) => step,
            Err(_) => meter.take(missing).map(|()| missing).map_err(Error::Bytes)?,
        };
        self.metered += taken;
        Ok(())
    }

    fn give_surplus_back(&mut self) {
        let surplus = self.metered.saturating_sub(self.bytes);
        if let Some(meter) = self.meter.as_ref().filter(|_| surplus >= 2 * STEP_BYTES) {
            // One step is kept: what is released is mostly taken again.
            meter.give_back(surplus - STEP_BYTES);
            self.metered -= surplus - STEP_BYTES;
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.give_back(self.metered);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::error::Kind;

    /// Counts what is taken, and how often.
    #[derive(Default)]
    struct Counting {
        held: AtomicUsize,
        calls: AtomicUsize,
    }

    impl Meter for Counting {
        fn take(&self, bytes: usize) -> Result<(), error::Error> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.held.load(Ordering::Relaxed) + bytes > 10 * STEP_BYTES + 7 {
                return Err(error::Error::new(Kind::Limited, "full"));
            }
            self.held.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        }

        fn give_back(&self, bytes: usize) {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    #[test]
    fn small_columns_are_metered_in_steps_and_everything_comes_back() {
        let meter = Arc::new(Counting::default());
        let mut budget = Budget::new(Limits::default(), &CancelToken::default(), Some(meter.clone()));
        for _ in 0..10_000 {
            budget.hold(1, 100).unwrap();
        }
        let held = || meter.held.load(Ordering::Relaxed);
        assert!((1_000_000..1_000_000 + STEP_BYTES).contains(&held()), "{}", held());
        assert!(meter.calls.load(Ordering::Relaxed) < 6);
        budget.release(10_000, 1_000_000);
        assert!(held() <= 2 * STEP_BYTES);
        drop(budget);
        assert_eq!(held(), 0);
    }

    #[test]
    fn what_fits_without_a_whole_step_is_had_and_what_does_not_is_refused_before_it_is_made() {
        let meter = Arc::new(Counting::default());
        let mut budget = Budget::new(Limits::default(), &CancelToken::default(), Some(meter.clone()));
        budget.hold(0, 10 * STEP_BYTES + 3).unwrap();
        budget.room(4).unwrap();
        assert!(matches!(budget.room(5), Err(Error::Bytes(e)) if e.message == "full"));
    }
}
