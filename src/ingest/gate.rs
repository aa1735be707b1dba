//! What the node takes on at the same time: request bytes in work, memory of heads, windows waiting for the bucket.
//!
//! *Invariants:* a request is let in or refused as a whole, before it is decoded. Figures of heads are as old as the last
//! [`Gate::observe`], so bounds are kept with room to spare.
//!
//! *Not here:* limits of tenants (`ingest::admit`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::IngestError;
use super::metrics::Metrics;

/// Bounds of the node.
#[derive(Debug, Clone, Copy)]
pub struct GateOptions {
    /// Most request bytes in work: bodies, and what they become when they are unpacked.
    pub inflight_bytes: u64,
    /// Most bytes of heads.
    pub head_bytes: u64,
    /// Most bytes of closed windows that are not in the bucket.
    pub backlog_bytes: u64,
}

/// Lets requests in.
pub struct Gate {
    options: GateOptions,
    inflight: AtomicU64,
    head: AtomicU64,
    backlog: AtomicU64,
    closed: AtomicBool,
    metrics: Metrics,
}

/// A request that was let in; dropping it makes room.
pub struct Pass<'a> {
    gate: &'a Gate,
    bytes: u64,
}

impl Pass<'_> {
    /// Takes room for `bytes` more, which are known now: what the body becomes when it is unpacked.
    pub fn grow(&mut self, bytes: usize) -> Result<(), IngestError> {
        self.bytes += bytes as u64;
        self.gate.take(bytes as u64)
    }
}

impl Gate {
    /// An empty node's gate.
    pub fn new(options: GateOptions, metrics: Metrics) -> Self {
        let zero = || AtomicU64::new(0);
        Self { options, inflight: zero(), head: zero(), backlog: zero(), closed: AtomicBool::new(false), metrics }
    }

    /// Notes how much the heads hold, and how much of it waits for the bucket.
    pub fn observe(&self, head_bytes: u64, backlog_bytes: u64) {
        self.head.store(head_bytes, Ordering::Relaxed);
        self.backlog.store(backlog_bytes, Ordering::Relaxed);
    }

    /// From now on nothing is let in.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Lets a request in whose body has `bytes`, before it is read; or says what is full.
    pub fn enter(&self, bytes: usize) -> Result<Pass<'_>, IngestError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(IngestError::Stopping);
        }
        let (head, backlog) = (self.head.load(Ordering::Relaxed), self.backlog.load(Ordering::Relaxed));
        if head > self.options.head_bytes {
            let limit = self.options.head_bytes;
            return self.refuse(format!("heads hold {head} bytes, head.max_memory_bytes is {limit}"));
        }
        if backlog > self.options.backlog_bytes {
            let limit = self.options.backlog_bytes;
            return self.refuse(format!("{backlog} bytes wait for the bucket, flush.max_backlog_bytes is {limit}"));
        }
        let pass = Pass { gate: self, bytes: bytes as u64 };
        self.take(bytes as u64)?;
        Ok(pass)
    }

    /// Counts bytes that a pass already owns, so that a refused one gives them back.
    fn take(&self, bytes: u64) -> Result<(), IngestError> {
        let held = self.inflight.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.metrics.inflight_bytes.set(held as i64);
        let limit = self.options.inflight_bytes;
        // A single request is always let in: its size was bounded when it was read.
        if held > limit && held > bytes {
            return self
                .refuse(format!("requests in work would hold {held} bytes, write.max_inflight_bytes is {limit}"));
        }
        Ok(())
    }

    fn refuse<T>(&self, what: String) -> Result<T, IngestError> {
        self.metrics.overloaded.inc();
        Err(IngestError::Overloaded(what))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let before = self.gate.inflight.fetch_sub(self.bytes, Ordering::Relaxed);
        self.gate.metrics.inflight_bytes.set(before.saturating_sub(self.bytes) as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        let options = GateOptions { inflight_bytes: 1000, head_bytes: 100, backlog_bytes: 50 };
        Gate::new(options, Metrics::register(&mut prometheus_client::registry::Registry::default()))
    }

    #[test]
    fn refuses_what_does_not_fit_and_makes_room_again() {
        let gate = gate();
        let mut first = gate.enter(200).unwrap();
        first.grow(600).unwrap();
        assert!(gate.enter(201).is_err());
        let mut second = gate.enter(150).unwrap();
        assert!(second.grow(100).is_err());
        drop((first, second));
        assert_eq!(gate.inflight.load(Ordering::Relaxed), 0, "refused bytes come back too");
        assert!(gate.enter(10_000).is_ok(), "a single large request passes");
        gate.close();
        assert!(matches!(gate.enter(1), Err(IngestError::Stopping)));
    }

    #[test]
    fn refuses_while_memory_or_backlog_is_over_its_bound() {
        let gate = gate();
        gate.observe(101, 0);
        assert!(gate.enter(1).is_err());
        gate.observe(100, 51);
        assert!(gate.enter(1).is_err());
        gate.observe(100, 50);
        assert!(gate.enter(1).is_ok());
    }
}
