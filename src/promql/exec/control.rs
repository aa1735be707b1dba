//! What bounds a running query: samples, bytes, cancellation.
//!
//! *Invariants:* every series checks for cancellation; every column kept is counted before it is made.
//!
//! *Not here:* the clock: whoever started the query cancels it when its time is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::counts::SampleCounts;
use super::error::Error;

const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const TIMED_OUT: u8 = 2;

/// A running query as others see it: they may stop it, and watch what it holds.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<Signals>);

#[derive(Debug, Default)]
struct Signals {
    state: AtomicU8,
    peak_bytes: AtomicUsize,
}

impl CancelToken {
    /// The client went away.
    pub fn cancel(&self) {
        self.0.state.store(CANCELLED, Ordering::Relaxed);
    }

    /// The query's time is up.
    pub fn time_out(&self) {
        self.0.state.store(TIMED_OUT, Ordering::Relaxed);
    }

    /// An error once the query is to stop.
    pub fn check(&self) -> Result<(), Error> {
        match self.0.state.load(Ordering::Relaxed) {
            RUNNING => Ok(()),
            TIMED_OUT => Err(Error::TimedOut),
            _ => Err(Error::Cancelled),
        }
    }

    /// Most bytes of columns the evaluation has held at once so far.
    pub fn peak_bytes(&self) -> usize {
        self.0.peak_bytes.load(Ordering::Relaxed)
    }
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
#[derive(Debug)]
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
    peak_bytes: usize,
    watched: CancelToken,
}

impl Budget {
    /// Nothing held yet; the peak shows in `watched`.
    pub fn new(limits: Limits, watched: &CancelToken) -> Self {
        Self {
            limits,
            bytes: 0,
            samples: 0,
            peak_samples: 0,
            samples_read: 0,
            counts: None,
            peak_bytes: 0,
            watched: watched.clone(),
        }
    }

    /// Takes `samples` and `bytes` until they are released.
    pub fn hold(&mut self, samples: usize, bytes: usize) -> Result<(), Error> {
        self.samples += samples;
        self.bytes += bytes;
        self.peak_samples = self.peak_samples.max(self.samples);
        if self.bytes > self.peak_bytes {
            self.peak_bytes = self.bytes;
            self.watched.0.peak_bytes.store(self.bytes, Ordering::Relaxed);
        }
        if self.samples > self.limits.max_samples {
            return Err(Error::TooManySamples);
        }
        if self.bytes > self.limits.max_bytes {
            return Err(Error::TooManyBytes { limit: self.limits.max_bytes });
        }
        Ok(())
    }

    /// Gives back what [`Budget::hold`] took.
    pub fn release(&mut self, samples: usize, bytes: usize) {
        self.samples = self.samples.saturating_sub(samples);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
