//! What comes out of the cache, what it asks of the bucket, and what survives.

use std::sync::atomic::AtomicUsize;

use object_store::memory::InMemory;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::store::counted::counting;
use crate::store::faulty::{Fault, Faulty};

fn content(len: usize) -> Bytes {
    (0..len).map(|i| (i * 31 / 7) as u8).collect::<Vec<_>>().into()
}

fn config(memory_bytes: usize, disk: Option<(PathBuf, usize)>) -> CacheConfig {
    CacheConfig { memory_bytes, disk, namespace: "cluster bucket".into() }
}

/// A file of `len` bytes behind a cache, and its key.
async fn cached(len: usize, config: CacheConfig) -> (CachedStore, Metrics, Path) {
    let (memory, key, metrics) = (Arc::new(InMemory::new()), Path::from("a/b.parquet"), Metrics::default());
    memory.put(&key, content(len).into()).await.unwrap();
    (CachedStore::open(memory, config, metrics.clone()).await.unwrap(), metrics, key)
}

#[tokio::test]
async fn ranges_come_out_as_they_are_in_the_file() {
    let len = 700_001;
    let (store, _, key) = cached(len, config(64 << 20, None)).await;
    let whole = content(len);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let ranges = prop::collection::vec((0..len as u64, 1u64..200_000), 1..5);
    for _ in 0..60 {
        let ranges: Vec<_> =
            ranges.new_tree(&mut runner).unwrap().current().into_iter().map(|(s, n)| s..s + n).collect();
        let got = store.get_ranges(&key, &ranges).await.unwrap();
        for (range, bytes) in ranges.iter().zip(&got) {
            assert_eq!(*bytes, whole.slice(range.start as usize..(range.end as usize).min(len)), "{range:?}");
            assert_eq!(store.get_range(&key, range.clone()).await.unwrap(), bytes);
        }
    }
    assert_eq!(store.get_range(&key, 5..5).await.unwrap(), Bytes::new());
    let missing = store.get_range(&Path::from("a/none"), 0..5).await.unwrap_err();
    assert!(matches!(missing, object_store::Error::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn each_piece_is_fetched_once_and_counted_for_the_query_that_fetched_it() {
    let (store, metrics, key) = cached(1 << 20, config(64 << 20, None)).await;
    let (first, second) = (Arc::new(FetchStats::default()), Arc::new(FetchStats::default()));
    // Pieces 0, 1 (adjacent) and 3 (across a small gap): one request; piece 12 another.
    let ranges = [10..PIECE_BYTES + 1, 3 * PIECE_BYTES..3 * PIECE_BYTES + 5, 12 * PIECE_BYTES..12 * PIECE_BYTES + 1];
    counting(first.clone(), store.get_ranges(&key, &ranges)).await.unwrap();
    let totals = first.totals();
    assert_eq!((totals.requests, totals.bytes, totals.cache_hits, totals.cache_misses), (2, 5 * PIECE_BYTES, 0, 4));
    // Piece 2 came with the gap.
    counting(second.clone(), store.get_range(&key, 0..4 * PIECE_BYTES)).await.unwrap();
    let totals = second.totals();
    assert_eq!((totals.requests, totals.bytes, totals.cache_hits, totals.cache_misses), (0, 0, 4, 0));
    assert_eq!((metrics.fetch_requests.get(), metrics.cache_hits.get(), metrics.cache_misses.get()), (2, 4, 4));
}

/// A store that answers range reads only when a permit is given.
fn gated(memory: Arc<InMemory>, calls: Arc<AtomicUsize>, fail: bool) -> Arc<dyn ObjectStore> {
    let bucket = Faulty::over(memory, move |_, _| {
        calls.fetch_add(1, Ordering::SeqCst);
        if fail { Fault::Before } else { Fault::None }
    });
    bucket.store().clone()
}

#[tokio::test]
async fn readers_that_miss_together_share_one_request_and_one_error() {
    for fail in [false, true] {
        let (memory, key, calls) = (Arc::new(InMemory::new()), Path::from("x"), Arc::new(AtomicUsize::new(0)));
        memory.put(&key, content(1 << 20).into()).await.unwrap();
        let store = CachedStore::open(gated(memory, calls.clone(), fail), config(1 << 20, None), Metrics::default())
            .await
            .unwrap();
        // All claims are made before any request is polled.
        let file = 7;
        let claims: Vec<_> = (0..20).flat_map(|_| store.fetches(&key, file, &[2, 3])).collect();
        let results = join_all(claims.into_iter().map(|(_, _, fetch)| fetch)).await;
        assert!(results.iter().all(|r| r.is_err() == fail));
        assert_eq!(calls.load(Ordering::SeqCst), 1, "fail: {fail}");
        assert!(store.inner.inflight.lock().is_empty());
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_nothing_behind() {
    let (store, _, key) = cached(1 << 20, config(1 << 20, None)).await;
    let abandoned = store.fetches(&key, 7, &[1]);
    let other = store.fetches(&key, 7, &[1]);
    drop(abandoned);
    assert_eq!(other[0].2.clone().await.unwrap().len(), 1, "the other one carries it on");
    drop(store.fetches(&key, 7, &[2]));
    assert!(store.inner.inflight.lock().is_empty());
}

#[tokio::test]
async fn memory_is_bounded() {
    let limit = 1 << 20;
    let (store, _, key) = cached(16 << 20, config(limit, None)).await;
    for piece in 0..256 {
        store.get_range(&key, piece * PIECE_BYTES..(piece + 1) * PIECE_BYTES).await.unwrap();
    }
    assert!(store.inner.cache.memory().usage() <= limit, "{}", store.inner.cache.memory().usage());
}

#[tokio::test]
async fn the_disk_keeps_pieces_for_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Some((dir.path().join("cache"), 64 << 20));
    let (store, metrics, key) = cached(1 << 20, config(4 << 20, disk.clone())).await;
    let whole = content(1 << 20);
    assert_eq!(store.get_range(&key, 0..1 << 20).await.unwrap(), whole);
    store.close().await.unwrap();
    drop(store);
    let (store, again, key) = cached(1 << 20, config(4 << 20, disk.clone())).await;
    assert_eq!(store.get_range(&key, 0..1 << 20).await.unwrap(), whole);
    assert_eq!((metrics.fetch_requests.get(), again.fetch_requests.get(), again.cache_hits.get()), (1, 0, 16));
    drop(store);
    // Another cluster over a bucket of the same name must not see them.
    let other = CacheConfig { namespace: "other".into(), ..config(4 << 20, disk) };
    let (store, metrics, key) = cached(1 << 20, other).await;
    store.get_range(&key, 0..1).await.unwrap();
    assert_eq!(metrics.cache_hits.get(), 0);
}
