//! What the node takes on at the same time: request bytes in work, memory of heads, windows waiting for the bucket.
//!
//! *Invariants:* a request is let in or refused as a whole, before it is decoded. Figures of heads are as old as the last
//! [`Gate::observe`], so bounds are kept with room to spare.
//!
//! *Not here:* limits of tenants (`ingest::admit`).

use std::sync::atomic::{AtomicU64, Ordering};

use super::IngestError;
use super::metrics::Metrics;

/// Bounds of the node.
#[derive(Debug, Clone, Copy)]
pub struct GateOptions {
    /// Most request bytes (compressed, times four for what they become) in work.
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
    metrics: Metrics,
}

/// A request that was let in; dropping it makes room.
pub struct Pass<'a> {
    gate: &'a Gate,
    bytes: u64,
}

/// A decompressed request and its batch are about this many times its compressed body.
const EXPANSION: u64 = 4;

impl Gate {
    /// An empty node's gate.
    pub fn new(options: GateOptions, metrics: Metrics) -> Self {
        Self { options, inflight: AtomicU64::new(0), head: AtomicU64::new(0), backlog: AtomicU64::new(0), metrics }
    }

    /// Notes how much the heads hold, and how much of it waits for the bucket.
    pub fn observe(&self, head_bytes: u64, backlog_bytes: u64) {
        self.head.store(head_bytes, Ordering::Relaxed);
        self.backlog.store(backlog_bytes, Ordering::Relaxed);
    }

    /// Lets a request of `body` bytes in, or says what is full.
    pub fn enter(&self, body: usize) -> Result<Pass<'_>, IngestError> {
        let bytes = body as u64 * EXPANSION;
        let refuse = |what: String| {
            self.metrics.overloaded.inc();
            Err(IngestError::Overloaded(what))
        };
        let (head, backlog) = (self.head.load(Ordering::Relaxed), self.backlog.load(Ordering::Relaxed));
        if head > self.options.head_bytes {
            return refuse(format!("heads hold {head} bytes, head.max_memory_bytes is {}", self.options.head_bytes));
        }
        if backlog > self.options.backlog_bytes {
            let limit = self.options.backlog_bytes;
            return refuse(format!("{backlog} bytes wait for the bucket, flush.max_backlog_bytes is {limit}"));
        }
        let before = self.inflight.fetch_add(bytes, Ordering::Relaxed);
        let pass = Pass { gate: self, bytes };
        // A single request is always let in, however large: its size was bounded when it was read.
        if before > 0 && before + bytes > self.options.inflight_bytes {
            return refuse(format!(
                "{before} bytes of requests are in work, write.max_inflight_bytes would be exceeded"
            ));
        }
        self.metrics.inflight_bytes.set((before + bytes) as i64);
        Ok(pass)
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
        let first = gate.enter(200).unwrap();
        assert!(gate.enter(100).is_err());
        assert!(gate.enter(50).is_ok());
        drop(first);
        assert!(gate.enter(100).is_ok());
        assert!(gate.enter(10_000).is_ok(), "a single large request passes");
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
