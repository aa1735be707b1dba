//! What a query cost at the bucket: figures that follow the query's task.
//!
//! *Invariants:* every byte that came over the wire for the query is counted once, also if the query throws it away. Open
//! readers are shared by queries, so the figures belong to the task that reads, not to the store it reads through.
//!
//! *Not here:* totals of the node (`metrics`), who fetches (`cache`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Figures of one query; shared by everything that fetches for it.
#[derive(Debug, Default)]
pub struct FetchStats {
    /// Requests sent to the bucket.
    pub requests: AtomicU64,
    /// Bytes asked of the bucket.
    pub bytes: AtomicU64,
    /// Pieces found in the cache.
    pub cache_hits: AtomicU64,
    /// Pieces that had to be fetched.
    pub cache_misses: AtomicU64,
}

/// [`FetchStats`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FetchTotals {
    /// Requests sent to the bucket.
    pub requests: u64,
    /// Bytes asked of the bucket.
    pub bytes: u64,
    /// Pieces found in the cache.
    pub cache_hits: u64,
    /// Pieces that had to be fetched.
    pub cache_misses: u64,
}

impl FetchStats {
    /// The figures now.
    pub fn totals(&self) -> FetchTotals {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        FetchTotals {
            requests: read(&self.requests),
            bytes: read(&self.bytes),
            cache_hits: read(&self.cache_hits),
            cache_misses: read(&self.cache_misses),
        }
    }

    pub(crate) fn fetched(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

tokio::task_local! {
    static COUNTING: Arc<FetchStats>;
}

/// Runs a future whose reads are counted into `stats`.
pub async fn counting<F: Future>(stats: Arc<FetchStats>, future: F) -> F::Output {
    COUNTING.scope(stats, future).await
}

/// The figures of the query that runs here, if one does.
pub(crate) fn current() -> Option<Arc<FetchStats>> {
    COUNTING.try_with(Arc::clone).ok()
}
