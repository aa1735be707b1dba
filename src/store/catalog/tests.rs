//! A table's log as a whole: written, read back, brought up to date, checkpointed, damaged.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;
use crate::error::{HasKind, Kind};
use crate::model::{BlockName, Epoch, ShardId, TenantId, TimeRange};
use crate::store::faulty::{Fault, Faulty, Op};
use crate::store::layout::{self, DataFile};
use crate::store::metrics::Metrics;
use crate::store::{Bucket, Error};

const HOUR: i64 = 3_600_000;
const START: i64 = 1_700_006_400_000;

fn tenant() -> TenantId {
    TenantId::new("team-1").unwrap()
}

fn schema() -> TableSchema {
    let column =
        |name: &str, kind: &str| format!(r#"{{"name":"{name}","type":"{kind}","nullable":true,"metadata":{{}}}}"#);
    let columns: Vec<_> =
        [("block", "string"), ("series_id", "integer"), ("resolution", "string"), ("kind", "string"), ("date", "date")]
            .map(|(name, kind)| column(name, kind))
            .to_vec();
    TableSchema { version: 1, json: format!(r#"{{"type":"struct","fields":[{}]}}"#, columns.join(",")).into() }
}

/// The `samples` and `series` files of the `n`-th flush of shard 3.
pub(crate) fn files_of_flush(n: u64) -> Vec<AddFile> {
    let window_start = START + n as i64 * 2 * HOUR;
    let block = BlockName::of_flush(Epoch(1), ShardId(3), window_start, n);
    let file = |kind: &str| AddFile {
        file: DataFile::new("raw", kind, window_start, block.clone()),
        size: 1000 + n,
        modified_ms: window_start + 3 * HOUR,
        stats: FileStats {
            rows: 10 + n,
            min: BTreeMap::from([("series_id".into(), 0.into())]),
            max: BTreeMap::from([("series_id".into(), (9 + n).into())]),
            nulls: BTreeMap::from([("series_id".into(), 0)]),
        },
        tags: BlockTags {
            range: TimeRange::new(window_start, window_start + 2 * HOUR - 1),
            shard: Some(ShardId(3)),
            epoch: Some(Epoch(1)),
            window_start,
            generation: 0,
            sequence: n,
            samples: 480 * n,
        },
    };
    vec![file("samples"), file("series")]
}

fn content(version: u64) -> Bytes {
    let lines =
        actions::commit_lines("shard-1-3", version, START + version as i64 * 2 * HOUR, &files_of_flush(version), &[]);
    if version > 0 {
        return lines;
    }
    let table = actions::table_lines("7f2b0d3c-0000-4000-8000-000000000001", &schema(), START, true);
    [table, lines].concat().into()
}

async fn write_versions(bucket: &Bucket, versions: std::ops::Range<u64>) {
    for version in versions {
        write_version(bucket, &Metrics::default(), &tenant(), version, &content(version)).await.unwrap();
    }
}

#[test]
fn lines_are_pinned() {
    let text = String::from_utf8(content(0).to_vec()).unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION");
    assert_eq!(text, include_str!("golden_version_0.json"), "tables in buckets look like this");
}

#[tokio::test]
async fn a_version_is_written_once_whatever_the_bucket_answers() {
    let (ours, other) = (content(0), content(1));
    for fault in [Fault::None, Fault::LostAnswer, Fault::Before, Fault::FalseConflict, Fault::IgnoreCondition] {
        let memory = Arc::new(InMemory::new());
        let bucket = Faulty::over(memory.clone(), move |op, _| if op == Op::Create { fault } else { Fault::None });
        let first = write_version(&bucket, &Metrics::default(), &tenant(), 0, &ours).await;
        let landed = bucket.get_if_exists(&layout::log_entry(&tenant(), 0)).await.unwrap();
        match fault {
            Fault::None | Fault::IgnoreCondition => assert_eq!(first.unwrap(), Written::Now),
            Fault::LostAnswer => assert_eq!(first.unwrap(), Written::Before),
            Fault::Before | Fault::FalseConflict => {
                assert_eq!(first.unwrap_err().kind(), Kind::Unavailable);
                assert_eq!(landed, None);
                continue;
            }
        }
        assert_eq!(landed, Some(ours.clone()), "{fault:?}");
        assert_eq!(write_version(&bucket, &Metrics::default(), &tenant(), 0, &ours).await.unwrap(), Written::Before);
        let conflict = write_version(&bucket, &Metrics::default(), &tenant(), 0, &other).await.unwrap_err();
        assert_eq!(conflict.kind(), Kind::Corrupt);
        assert_eq!(bucket.get(&layout::log_entry(&tenant(), 0)).await.unwrap(), ours, "not overwritten, {fault:?}");
    }
}

#[tokio::test]
async fn snapshots_group_files_into_blocks_and_find_them_by_time() {
    let bucket = Bucket::open("memory://").unwrap();
    write_versions(&bucket, 0..5).await;
    let tables = Tables::new(bucket, Metrics::default());
    let snapshot = tables.at(&tenant(), Some(4), |_| None).await.unwrap();
    assert_eq!((snapshot.version(), snapshot.blocks().len(), snapshot.schema_version()), (Some(4), 5, 1));
    assert_eq!(snapshot.transactions().get("shard-1-3"), Some(&4));
    let block = &snapshot.blocks()[2];
    assert_eq!(block.tags, files_of_flush(2)[0].tags);
    let samples = block.file("samples").unwrap();
    assert_eq!((samples.size, samples.rows, &samples.key), (1002, 12, &files_of_flush(2)[0].file.key(&tenant())));
    let names = |range| snapshot.blocks_in("raw", range).map(|b| b.tags.sequence).collect::<Vec<_>>();
    assert_eq!(names(TimeRange::new(START + 2 * HOUR, START + 4 * HOUR)), [1, 2]);
    assert_eq!(names(TimeRange::new(START - HOUR, START - 1)), [0; 0]);
    assert_eq!(names(TimeRange::all()), [0, 1, 2, 3, 4]);
    assert_eq!(snapshot.blocks_in("5m", TimeRange::all()).count(), 0);
}

#[tokio::test]
async fn flushes_leave_the_past_as_it_is_and_other_commits_do_not() {
    let bucket = Bucket::open("memory://").unwrap();
    write_versions(&bucket, 0..3).await;
    let tables = Tables::new(bucket.clone(), Metrics::default());
    let history = |version| {
        let (tables, tenant) = (&tables, tenant());
        async move { tables.at(&tenant, Some(version), |_| None).await.unwrap().history() }
    };
    assert_eq!(history(2).await, None);
    let gone: Vec<_> = files_of_flush(0)
        .iter()
        .map(|add| RemoveFile { file: add.file.clone(), size: add.size, data_change: true })
        .collect();
    let write = |version, app, adds: Vec<AddFile>, gone: Vec<RemoveFile>| {
        let (bucket, lines) = (&bucket, actions::commit_lines(app, version, START + 20 * HOUR, &adds, &gone));
        async move { write_version(bucket, &Metrics::default(), &tenant(), version, &lines).await.unwrap() }
    };
    write(3, "shard-1-3", files_of_flush(3), vec![]).await;
    assert_eq!(history(3).await, None);
    write(4, "compactor", vec![], gone).await;
    assert_eq!(history(4).await, Some(4));
    let rewritten = RemoveFile { file: files_of_flush(1)[0].file.clone(), size: 1, data_change: false };
    write(5, "compactor", files_of_flush(5), vec![rewritten]).await;
    assert_eq!(history(5).await, Some(4), "a compaction changes no data");
    write(6, "importer", files_of_flush(6), vec![]).await;
    assert_eq!(history(6).await, Some(6), "not of the shard whose transaction it is");
    let mut several = files_of_flush(7);
    several[1].tags.shard = None;
    write(7, "shard-1-3", several, vec![]).await;
    assert_eq!(history(7).await, Some(7));
    checkpoint::write(&bucket, &tables.latest(&tenant()).await.unwrap()).await.unwrap();
    let read = Tables::new(bucket, Metrics::default()).latest(&tenant()).await.unwrap();
    assert_eq!(read.history(), Some(7));
}

#[tokio::test]
async fn refreshes_read_each_version_once_and_pending_ones_not_at_all() {
    let bucket = Bucket::open("memory://").unwrap();
    write_versions(&bucket, 0..3).await;
    let metrics = Metrics::default();
    let tables = Tables::new(bucket.clone(), metrics.clone());
    assert_eq!(tables.at(&tenant(), None, |_| None).await.unwrap().version(), None);
    tables.at(&tenant(), Some(2), |_| None).await.unwrap();
    assert_eq!(metrics.versions_read.get(), 3);
    // Versions 3 and 4 are decided, not yet copied.
    let pending = |version| (version >= 3).then(|| content(version));
    let newest = tables.at(&tenant(), Some(4), pending).await.unwrap();
    assert_eq!((newest.version(), newest.blocks().len(), metrics.versions_read.get()), (Some(4), 5, 3));
    assert_eq!(tables.at(&tenant(), Some(1), |_| None).await.unwrap().version(), Some(4), "never goes back");
    let missing = tables.at(&tenant(), Some(9), |_| None).await.unwrap_err();
    assert!(matches!(missing, Error::NoVersion { version: 5, .. }), "{missing}");
    assert_eq!(tables.exactly(&tenant(), 1).await.unwrap().version(), Some(1));
    assert_eq!(Tables::new(bucket, metrics).latest(&tenant()).await.unwrap().version(), Some(2));
}

#[tokio::test]
async fn checkpoints_hold_the_same_table_and_save_reading() {
    let bucket = Bucket::open("memory://").unwrap();
    write_versions(&bucket, 0..6).await;
    // Version 6 removes the files of flush 0.
    let gone: Vec<_> = files_of_flush(0)
        .iter()
        .map(|add| RemoveFile { file: add.file.clone(), size: add.size, data_change: false })
        .collect();
    let lines = actions::commit_lines("compactor", 1, START + 20 * HOUR, &[], &gone);
    write_version(&bucket, &Metrics::default(), &tenant(), 6, &lines).await.unwrap();
    let replayed = Tables::new(bucket.clone(), Metrics::default()).latest(&tenant()).await.unwrap();
    checkpoint::write(&bucket, &replayed).await.unwrap();
    write_version(&bucket, &Metrics::default(), &tenant(), 7, &content(7)).await.unwrap();

    let metrics = Metrics::default();
    let tables = Tables::new(bucket.clone(), metrics.clone());
    let read = tables.at(&tenant(), Some(6), |_| None).await.unwrap();
    assert_eq!(metrics.versions_read.get(), 0);
    assert_eq!(read.blocks(), replayed.blocks());
    assert_eq!(read.transactions(), replayed.transactions());
    assert_eq!((read.table_id(), read.schema_version()), (replayed.table_id(), 1));
    assert_eq!(read.removed_at(&gone[0].file.relative()), Some(START + 20 * HOUR));
    assert!(!read.has_file(&gone[0].file.relative()) && read.has_file(&files_of_flush(5)[1].file.relative()));
    assert_eq!(tables.latest(&tenant()).await.unwrap().version(), Some(7));
    assert_eq!(metrics.versions_read.get(), 1);
}

#[tokio::test]
async fn a_damaged_checkpoint_costs_time_and_nothing_else() {
    let bucket = Bucket::open("memory://").unwrap();
    write_versions(&bucket, 0..3).await;
    let snapshot = Tables::new(bucket.clone(), Metrics::default()).latest(&tenant()).await.unwrap();
    checkpoint::write(&bucket, &snapshot).await.unwrap();
    let key = layout::checkpoint(&tenant(), 2);
    let whole = bucket.get(&key).await.unwrap();
    for at in (0..whole.len()).step_by(97) {
        let mut damaged = whole.to_vec();
        damaged[at] ^= 0x55;
        damaged.truncate(whole.len() - at % 3);
        bucket.put(&key, damaged.into()).await.unwrap();
        // A flip inside a value may go unseen by Parquet; the table's shape must hold all the same.
        let read = Tables::new(bucket.clone(), Metrics::default()).latest(&tenant()).await.unwrap();
        assert_eq!(read.version(), Some(2));
    }
    bucket.put(&layout::last_checkpoint(&tenant()), Bytes::from_static(b"{")).await.unwrap();
    assert_eq!(Tables::new(bucket, Metrics::default()).latest(&tenant()).await.unwrap().blocks().len(), 3);
}

#[tokio::test]
async fn tombstones_are_forgotten_after_their_time() {
    let mut snapshot = TableSnapshot::empty(&tenant());
    let gone = RemoveFile { file: files_of_flush(0)[0].file.clone(), size: 1, data_change: false };
    let lines = |bytes: Bytes| actions::parse_lines(&bytes).unwrap();
    snapshot.apply(0, lines(content(0))).unwrap();
    snapshot.apply(1, lines(actions::commit_lines("c", 1, START, &[], std::slice::from_ref(&gone)))).unwrap();
    assert_eq!(snapshot.removed_at(&gone.file.relative()), Some(START));
    snapshot.apply(2, lines(actions::commit_lines("c", 2, START + snapshot::TOMBSTONE_MS, &[], &[]))).unwrap();
    assert_eq!(snapshot.removed_at(&gone.file.relative()), None);
    assert!(snapshot.apply(4, Vec::new()).unwrap_err().contains("expected 3"));
}

proptest! {
    #[test]
    fn log_entries_survive_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..2000, at in 0usize..2000) {
        let mut snapshot = TableSnapshot::empty(&tenant());
        if let Ok(lines) = actions::parse_lines(&bytes) {
            let _ = snapshot.apply(0, lines);
        }
        // And a real one with a hole in it.
        let whole = content(0);
        bytes.truncate(20);
        let mut damaged = whole[..cut.min(whole.len())].to_vec();
        damaged.splice(at.min(damaged.len()).., bytes);
        if let Ok(lines) = actions::parse_lines(&damaged) {
            let _ = snapshot.apply(0, lines);
            snapshot.index();
        }
    }
}
