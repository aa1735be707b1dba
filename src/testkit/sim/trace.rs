//! What happened: a hash of all events, and on request their text.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// Everything that happened so far.
pub(super) struct Trace {
    begun: Instant,
    hash: Mutex<Xxh3>,
    print: bool,
    events: AtomicU64,
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Self { begun: Instant::now(), hash: Mutex::new(Xxh3::new()), print, events: AtomicU64::new(0) }
    }

    /// An event worth printing.
    pub(super) fn event(&self, text: impl FnOnce() -> String) {
        let text = text();
        self.note(&[xxhash_rust::xxh3::xxh3_64(text.as_bytes())]);
        if self.print {
            println!("{:>10.3} ms  {text}", self.begun.elapsed().as_secs_f64() * 1e3);
        }
    }

    /// An event that only counts.
    pub(super) fn note(&self, words: &[u64]) {
        self.events.fetch_add(1, Ordering::Relaxed);
        let mut hash = self.hash.lock();
        hash.write_u64(self.begun.elapsed().as_micros() as u64);
        words.iter().for_each(|word| hash.write_u64(*word));
    }

    pub(super) fn digest(&self) -> u64 {
        self.hash.lock().digest()
    }
}
