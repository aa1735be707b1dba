//! What a query cost at the bucket: a store that counts for one query.
//!
//! *Invariants:* every byte that came over the wire for the query is counted once, also if the query throws it away.
//!
//! *Not here:* totals of the node (`metrics`), the cache (`cache` counts into the same [`FetchStats`]).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

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

/// A store that counts what is read through it.
#[derive(Debug, Clone)]
pub struct Counted {
    /// The store.
    pub inner: Arc<dyn ObjectStore>,
    /// Where to count.
    pub stats: Arc<FetchStats>,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counted({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counted {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.inner.get_opts(location, options).await?;
        self.stats.fetched(result.range.end.saturating_sub(result.range.start));
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        object_store::coalesce_ranges(
            ranges,
            |range| async move {
                let bytes = object_store::ObjectStoreExt::get_range(&self.inner, location, range).await?;
                self.stats.fetched(bytes.len() as u64);
                Ok(bytes)
            },
            object_store::OBJECT_STORE_COALESCE_DEFAULT,
        )
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
