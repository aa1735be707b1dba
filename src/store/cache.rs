//! A bounded cache of data files, in memory and on local disk, as a store over the bucket.
//!
//! Files are cut into aligned pieces of 64 KiB, the unit of caching. Exact ranges were the alternative: they waste nothing
//! on the first read, but two queries that overlap share nothing, the number of entries is unbounded by the file's size,
//! and a page index read next to a footer is fetched twice. A piece costs about a millisecond of transfer, a tenth of a
//! request's latency; neighbouring pieces that miss are fetched by one request, across small gaps too.
//!
//! *Invariants:* data files never change, so nothing is ever invalidated; the namespace keeps a bucket that was made anew
//! apart from the old one. A piece is fetched once however many readers miss it together. What is cached is bounded in
//! bytes; a failing disk makes misses, not errors. Only ranges are cached: whole reads, listings and writes pass through.
//!
//! *Not here:* which ranges are read (`block`), the bucket's retries (`bucket`).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use foyer::{BlockEngineConfig, Code, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder};
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared, join_all};
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128;

use super::counted::{self, FetchStats};
use super::error::Error;
use super::metrics::Metrics;

/// The unit of caching.
pub const PIECE_BYTES: u64 = 64 << 10;
/// Most pieces one request fetches (4 MiB).
const PIECES_PER_FETCH: u64 = 64;
/// Pieces nobody asked for that are fetched rather than sending another request.
const GAP_PIECES: u64 = 4;
/// What an entry costs in memory besides its bytes.
const ENTRY_OVERHEAD: usize = 160;

/// Sizes and place of a cache.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Bytes in memory.
    pub memory_bytes: usize,
    /// Directory and bytes on disk; `None` for memory alone.
    pub disk: Option<(PathBuf, usize)>,
    /// Sets the files of one cluster and bucket apart from those of another: cluster id and bucket URL.
    pub namespace: String,
}

/// A piece of a file: the file's key (hashed with the namespace, 128 bits) and the number of the piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PieceKey {
    file: u128,
    piece: u64,
}

impl Code for PieceKey {
    fn encode(&self, writer: &mut impl std::io::Write) -> foyer::Result<()> {
        writer.write_all(&self.file.to_le_bytes()).map_err(foyer::Error::io_error)?;
        writer.write_all(&self.piece.to_le_bytes()).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl std::io::Read) -> foyer::Result<Self> {
        let (mut file, mut piece) = ([0; 16], [0; 8]);
        reader.read_exact(&mut file).map_err(foyer::Error::io_error)?;
        reader.read_exact(&mut piece).map_err(foyer::Error::io_error)?;
        Ok(Self { file: u128::from_le_bytes(file), piece: u64::from_le_bytes(piece) })
    }

    fn estimated_size(&self) -> usize {
        24
    }
}

/// What a request brought: pieces in order, the last one short at the end of the file.
type Pieces = Arc<Vec<Bytes>>;
type Fetching = BoxFuture<'static, Result<Pieces, Arc<object_store::Error>>>;

struct Inner {
    store: Arc<dyn ObjectStore>,
    cache: HybridCache<PieceKey, Bytes>,
    namespace: String,
    metrics: Metrics,
    /// Requests on their way, by piece, with the first piece of the request.
    inflight: Mutex<HashMap<PieceKey, (WeakShared<Fetching>, u64)>>,
}

/// A store whose range reads go through the cache; a cheap handle.
#[derive(Clone)]
pub struct CachedStore {
    inner: Arc<Inner>,
}

/// Forgets a request when it is done, or dropped by everyone who waited for it.
struct Landing {
    inner: Arc<Inner>,
    keys: Vec<PieceKey>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut inflight = self.inner.inflight.lock();
        for key in &self.keys {
            inflight.remove(key);
        }
    }
}

impl CachedStore {
    /// A cache over `store`; what an earlier process left on disk is found again.
    pub async fn open(store: Arc<dyn ObjectStore>, config: CacheConfig, metrics: Metrics) -> Result<Self, Error> {
        let path = config.disk.as_ref().map(|(dir, _)| dir.display().to_string()).unwrap_or_default();
        let failed = |e: foyer::Error| Error::Cache { path: path.clone(), reason: e.to_string() };
        let builder = HybridCacheBuilder::new()
            .with_name("pieces")
            .with_flush_on_close(true)
            .memory(config.memory_bytes)
            .with_weighter(|_: &PieceKey, piece: &Bytes| piece.len() + ENTRY_OVERHEAD)
            .storage();
        let builder = match &config.disk {
            None => builder,
            Some((dir, bytes)) => {
                let io = |e: std::io::Error| Error::Cache { path: dir.display().to_string(), reason: e.to_string() };
                std::fs::create_dir_all(dir).map_err(io)?;
                let device = FsDeviceBuilder::new(dir).with_capacity(*bytes).build().map_err(failed)?;
                builder.with_engine_config(BlockEngineConfig::new(device))
            }
        };
        let cache = builder.build().await.map_err(failed)?;
        let inner = Inner { store, cache, namespace: config.namespace, metrics, inflight: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Writes what is only in memory to the disk, so that the next process finds it.
    pub async fn close(&self) -> Result<(), Error> {
        let failed = |e: foyer::Error| Error::Cache { path: String::new(), reason: e.to_string() };
        self.inner.cache.close().await.map_err(failed)
    }

    fn count(&self, pick: fn(&FetchStats) -> &AtomicU64, n: usize) {
        if let Some(stats) = counted::current() {
            pick(&stats).fetch_add(n as u64, Ordering::Relaxed);
        }
    }

    async fn read(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut wanted = BTreeSet::new();
        for range in ranges.iter().filter(|range| range.start < range.end) {
            wanted.extend(range.start / PIECE_BYTES..=(range.end - 1) / PIECE_BYTES);
        }
        let file = xxh3_128(format!("{}\n{location}", self.inner.namespace).as_bytes());
        let pieces = self.pieces(location, file, &wanted).await?;
        Ok(ranges.iter().map(|range| assemble(range, &pieces)).collect())
    }

    /// The wanted pieces of a file, from the cache or fetched.
    async fn pieces(&self, location: &Path, file: u128, wanted: &BTreeSet<u64>) -> Result<HashMap<u64, Bytes>> {
        let look = |&piece: &u64| async move {
            let found = self.inner.cache.get(&PieceKey { file, piece }).await.unwrap_or_else(|e| {
                tracing::debug!(error = %e, "the cache's disk failed, piece fetched instead");
                None
            });
            (piece, found.map(|entry| entry.value().clone()))
        };
        let mut pieces = HashMap::with_capacity(wanted.len());
        let mut missing = Vec::new();
        for (piece, found) in join_all(wanted.iter().map(look)).await {
            match found {
                Some(bytes) => drop(pieces.insert(piece, bytes)),
                None => missing.push(piece),
            }
        }
        // A short piece is a file's last: what lies beyond it does not exist.
        if let Some(last) = pieces.iter().filter(|(_, b)| (b.len() as u64) < PIECE_BYTES).map(|(&n, _)| n).min() {
            missing.retain(|&piece| piece < last);
        }
        self.inner.metrics.cache_hits.inc_by(pieces.len() as u64);
        self.inner.metrics.cache_misses.inc_by(missing.len() as u64);
        self.count(|s| &s.cache_hits, pieces.len());
        self.count(|s| &s.cache_misses, missing.len());
        if !missing.is_empty() {
            let fetches = self.fetches(location, file, &missing);
            let waits = fetches.into_iter().map(|(piece, first, fetch)| async move { (piece, first, fetch.await) });
            for (piece, first, fetched) in join_all(waits).await {
                let fetched = fetched.map_err(|e| shared_error(location, e))?;
                pieces.insert(piece, fetched.get((piece - first) as usize).cloned().unwrap_or_default());
            }
        }
        Ok(pieces)
    }

    /// For every missing piece the request that brings it: one that is on its way already, or a new one.
    fn fetches(&self, location: &Path, file: u128, missing: &[u64]) -> Vec<(u64, u64, Shared<Fetching>)> {
        let key = |piece| PieceKey { file, piece };
        let mut fetches = Vec::with_capacity(missing.len());
        let mut inflight = self.inner.inflight.lock();
        let mut unclaimed = Vec::with_capacity(missing.len());
        for &piece in missing {
            match inflight.get(&key(piece)).and_then(|(fetch, first)| Some((fetch.upgrade()?, *first))) {
                Some((fetch, first)) => fetches.push((piece, first, fetch)),
                None => unclaimed.push(piece),
            }
        }
        self.inner.metrics.cache_shared.inc_by(fetches.len() as u64);
        let near = |a: &u64, b: &u64| b - a <= 1 + GAP_PIECES;
        for run in unclaimed.chunk_by(near) {
            let mut rest = run;
            while let Some(&first) = rest.first() {
                let (request, later) = rest.split_at(rest.partition_point(|piece| piece - first < PIECES_PER_FETCH));
                rest = later;
                let keys: Vec<_> = request.iter().map(|&piece| key(piece)).collect();
                let last = request[request.len() - 1];
                let fetch = self.fetch(location.clone(), file, first..last + 1, keys.clone()).shared();
                if let Some(weak) = fetch.downgrade() {
                    inflight.extend(keys.into_iter().map(|key| (key, (weak.clone(), first))));
                }
                fetches.extend(request.iter().map(|&piece| (piece, first, fetch.clone())));
            }
        }
        fetches
    }

    /// One request for neighbouring pieces; they are in the cache before it is forgotten.
    fn fetch(&self, location: Path, file: u128, pieces: Range<u64>, keys: Vec<PieceKey>) -> Fetching {
        let (inner, stats) = (self.inner.clone(), counted::current());
        let landing = Landing { inner: inner.clone(), keys };
        async move {
            let _landing = landing;
            inner.metrics.fetch_requests.inc();
            let range = pieces.start * PIECE_BYTES..pieces.end * PIECE_BYTES;
            let bytes = inner.store.get_range(&location, range).await.map_err(|e| {
                inner.metrics.fetch_errors.inc();
                Arc::new(e)
            })?;
            inner.metrics.fetch_bytes.inc_by(bytes.len() as u64);
            if let Some(stats) = &stats {
                stats.fetched(bytes.len() as u64);
            }
            // Copies: a slice would keep the whole response alive for as long as one piece is cached.
            let cut: Vec<Bytes> = bytes.chunks(PIECE_BYTES as usize).map(Bytes::copy_from_slice).collect();
            for (piece, bytes) in pieces.zip(&cut) {
                inner.cache.insert(PieceKey { file, piece }, bytes.clone());
            }
            Ok(Arc::new(cut))
        }
        .boxed()
    }
}

/// Cuts `range` out of its pieces; short if the file ends inside.
fn assemble(range: &Range<u64>, pieces: &HashMap<u64, Bytes>) -> Bytes {
    let part = |piece: u64| {
        let bytes = pieces.get(&piece).cloned().unwrap_or_default();
        let base = piece * PIECE_BYTES;
        let start = (range.start.max(base) - base).min(bytes.len() as u64);
        let end = (range.end - base).min(bytes.len() as u64);
        bytes.slice(start as usize..end as usize)
    };
    if range.start >= range.end {
        return Bytes::new();
    }
    let (first, last) = (range.start / PIECE_BYTES, (range.end - 1) / PIECE_BYTES);
    if first == last {
        return part(first);
    }
    let mut out = BytesMut::with_capacity((range.end - range.start).min((last - first + 1) * PIECE_BYTES) as usize);
    (first..=last).for_each(|piece| out.extend_from_slice(&part(piece)));
    out.freeze()
}

/// An error that several readers share, as one of them reports it.
fn shared_error(location: &Path, e: Arc<object_store::Error>) -> object_store::Error {
    match &*e {
        object_store::Error::NotFound { .. } => {
            object_store::Error::NotFound { path: location.to_string(), source: Box::new(e) }
        }
        _ => object_store::Error::Generic { store: "cache", source: Box::new(e) },
    }
}

impl fmt::Debug for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cached({:?})", self.inner.store)
    }
}

impl fmt::Display for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cached({})", self.inner.store)
    }
}

#[async_trait::async_trait]
impl ObjectStore for CachedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.store.put_multipart_opts(location, options).await
    }

    /// A plain bounded range comes from the cache; its `meta` knows no modification time and only the range's end as size.
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let plain = GetOptions { range: None, ..options.clone() };
        let is_plain = !plain.head
            && plain.version.is_none()
            && plain.if_match.is_none()
            && plain.if_none_match.is_none()
            && plain.if_modified_since.is_none()
            && plain.if_unmodified_since.is_none();
        let Some(GetRange::Bounded(range)) = options.range.clone().filter(|_| is_plain) else {
            let result = self.inner.store.get_opts(location, options).await?;
            if let Some(stats) = counted::current() {
                stats.fetched(result.range.end.saturating_sub(result.range.start));
            }
            return Ok(result);
        };
        let bytes = self.read(location, std::slice::from_ref(&range)).await?.swap_remove(0);
        let range = range.start..range.start + bytes.len() as u64;
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: Default::default(),
            size: range.end,
            e_tag: None,
            version: None,
        };
        let payload = GetResultPayload::Stream(Box::pin(futures::stream::once(async { Ok(bytes) })));
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
