//! What the bucket and its cache did, as counters.
//!
//! *Invariants:* handles are cheap clones of atomics: no lock, no label lookup on a hot path.
//!
//! *Not here:* the backlog of commits (`meta::metrics`).

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

/// Counters of this module.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Range requests to the bucket made by the cache or by uncached readers.
    pub fetch_requests: Counter,
    /// Bytes those requests brought.
    pub fetch_bytes: Counter,
    /// Requests that failed after their retries.
    pub fetch_errors: Counter,
    /// Pieces of files found in memory or on disk.
    pub cache_hits: Counter,
    /// Pieces of files that had to be fetched.
    pub cache_misses: Counter,
    /// Pieces of files awaited from a fetch another reader had begun.
    pub cache_shared: Counter,
    /// Table versions written to the bucket.
    pub versions_written: Counter,
    /// Table versions found already there, with the same bytes.
    pub versions_repeated: Counter,
    /// Checkpoints written.
    pub checkpoints_written: Counter,
    /// Log entries read to bring a table up to date.
    pub versions_read: Counter,
    /// Orphaned files removed.
    pub orphans_removed: Counter,
}

impl Metrics {
    /// Registers every counter.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let mut add = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        add("bucket_fetch_requests", "Range requests to the bucket", &m.fetch_requests);
        add("bucket_fetch_errors", "Range requests to the bucket that failed after retries", &m.fetch_errors);
        add("cache_hits", "Pieces of data files found in the cache", &m.cache_hits);
        add("cache_misses", "Pieces of data files fetched from the bucket", &m.cache_misses);
        add("cache_shared_fetches", "Pieces of data files awaited from another reader's fetch", &m.cache_shared);
        add("catalog_versions_written", "Table versions written to the bucket", &m.versions_written);
        add(
            "catalog_versions_repeated",
            "Table versions found in the bucket with the same bytes",
            &m.versions_repeated,
        );
        add("catalog_versions_read", "Table versions read from the bucket", &m.versions_read);
        add("catalog_checkpoints_written", "Table checkpoints written", &m.checkpoints_written);
        add("gc_orphans_removed", "Files without a catalog entry that were removed", &m.orphans_removed);
        registry.register_with_unit(
            "bucket_fetched",
            "Bytes fetched from the bucket by range requests",
            Unit::Bytes,
            m.fetch_bytes.clone(),
        );
        m
    }
}
