//! Merging blocks: series of several blocks in one order, samples once, exemplars with them; which days are ripe.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::merge::{Input, Merge, Merged, together};
use super::plan::{DAY_MS, Ripe, jobs};
use crate::block::{BlockReader, BlockWriter, FileRef, SeriesInput, WriterOptions, order};
use crate::model::labels::series_hash;
use crate::model::{BlockName, Columns, Epoch, Exemplar, Histogram, Labels, ResetHint, ShardId, TenantId, TimeRange};
use crate::store::TableSnapshot;
use crate::store::catalog::actions::{commit_lines, parse_lines};
use crate::store::catalog::{AddFile, BlockTags, FileStats};
use crate::store::layout::DataFile;

fn floats(samples: &[(i64, f64)]) -> Columns {
    let mut columns = Columns::default();
    samples.iter().for_each(|(t, v)| columns.push_float(*t, *v));
    columns
}

fn labels(metric: &str, i: usize) -> Labels {
    Labels::from_pairs([("__name__", metric), ("job", "j"), ("i", &i.to_string())])
}

/// A block of these series, read back from a store.
async fn block(name: &str, rank: u64, mut series: Vec<(Labels, Columns, Vec<Exemplar>)>) -> Input {
    series.sort_by(|a, b| order::compare(&a.0, &b.0));
    let name = BlockName(name.into());
    let mut writer = BlockWriter::new(WriterOptions::flush(name.clone())).unwrap();
    for (labels, samples, exemplars) in &series {
        let hash = series_hash("t", &labels.to_string());
        writer.push(SeriesInput { labels, hash, samples, exemplars }).unwrap();
    }
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut files = Vec::new();
    for file in writer.finish().unwrap().files {
        let path = Path::from(format!("{}/{}", name, file.kind.as_str()));
        let size = file.bytes.len() as u64;
        store.put(&path, Bytes::clone(&file.bytes).into()).await.unwrap();
        files.push(FileRef { kind: file.kind, path, size });
    }
    Input { name, rank: (1, rank), reader: BlockReader::open(store, files).await.unwrap() }
}

async fn all(inputs: Vec<Input>) -> Vec<Merged> {
    let (mut merge, mut found) = (Merge::new(inputs).await.unwrap(), Vec::new());
    while let Some(series) = merge.next().await.unwrap() {
        found.push(series);
    }
    found
}

#[tokio::test]
async fn series_of_all_blocks_come_once_and_in_block_order() {
    let exemplar = |t: i64| Exemplar { labels: Labels::from_pairs([("trace", "x")]), value: 1.0, t };
    let early = block(
        "a",
        1,
        vec![
            (labels("z", 1), floats(&[(1, 1.0), (2, 2.0)]), vec![exemplar(2)]),
            (labels("a", 1), floats(&[(1, 5.0)]), vec![]),
        ],
    );
    let late = block(
        "b",
        2,
        vec![
            (labels("z", 1), floats(&[(3, 3.0)]), vec![exemplar(3), exemplar(2)]),
            (labels("m", 7), floats(&[(9, 9.0)]), vec![]),
        ],
    );
    // In whatever order the blocks are given.
    let found = all(vec![late.await, early.await]).await;
    let brief: Vec<_> = found.iter().map(|m| (m.labels.clone(), m.samples.clone(), m.exemplars.len())).collect();
    assert_eq!(
        brief,
        [
            (labels("a", 1), floats(&[(1, 5.0)]), 0),
            (labels("m", 7), floats(&[(9, 9.0)]), 0),
            (labels("z", 1), floats(&[(1, 1.0), (2, 2.0), (3, 3.0)]), 2),
        ]
    );
}

#[tokio::test]
async fn blocks_of_more_series_than_are_fetched_at_once_are_merged_whole() {
    let series = |from: usize| {
        (from..from + 5000).map(|i| (labels("m", i), floats(&[(from as i64, i as f64)]), vec![])).collect::<Vec<_>>()
    };
    let found = all(vec![block("a", 1, series(0)).await, block("b", 2, series(2500)).await]).await;
    assert_eq!(found.len(), 7500);
    assert!(found.is_sorted_by(|a, b| order::compare(&a.labels, &b.labels).is_lt()));
    assert_eq!(found.iter().map(|m| m.samples.len()).sum::<usize>(), 10_000);
}

#[test]
fn of_samples_at_one_time_the_one_committed_first_stays() {
    let first = floats(&[(10, 1.0), (20, 2.0), (30, 3.0)]);
    let late = floats(&[(5, 0.5), (20, -2.0), (25, 2.5)]);
    let want = floats(&[(5, 0.5), (10, 1.0), (20, 2.0), (25, 2.5), (30, 3.0)]);
    assert_eq!(together(vec![((1, 9), late.clone()), ((1, 1), first.clone())]), want);
    assert_eq!(together(vec![((1, 1), first), ((1, 9), late)]), want);
}

#[test]
fn no_reset_is_not_claimed_across_blocks() {
    let histograms = |samples: &[(i64, ResetHint)]| {
        let mut columns = Columns::default();
        for (t, reset_hint) in samples {
            columns.push_histogram(*t, Arc::new(Histogram { reset_hint: *reset_hint, ..Histogram::default() }));
        }
        columns
    };
    use ResetHint::{NotReset, Unknown};
    let merged = together(vec![
        ((1, 1), histograms(&[(1, Unknown), (3, NotReset), (4, NotReset)])),
        ((1, 2), histograms(&[(2, Unknown)])),
    ]);
    let hints: Vec<_> = merged.histograms.iter().map(|(_, h)| h.reset_hint).collect();
    assert_eq!(hints, [Unknown, Unknown, Unknown, NotReset]);
}

fn added(window_start: i64, sequence: u64, modified_ms: i64) -> AddFile {
    let name = BlockName::of_flush(Epoch(1), ShardId(0), window_start, sequence);
    AddFile {
        file: DataFile::new("raw", "series", window_start, name),
        size: 1,
        modified_ms,
        stats: FileStats::default(),
        tags: BlockTags {
            range: TimeRange::new(window_start, window_start + 1),
            shard: Some(ShardId(0)),
            epoch: Some(Epoch(1)),
            window_start,
            generation: 0,
            sequence,
            samples: 1,
        },
    }
}

fn table(adds: &[AddFile]) -> TableSnapshot {
    let tenant = TenantId::new("t").unwrap();
    let mut table = TableSnapshot::empty(&tenant);
    for line in parse_lines(&commit_lines("shard-1-0", 1, 0, adds, &[])).unwrap() {
        table.apply_line(line).unwrap();
    }
    table.index();
    table
}

#[test]
fn a_period_is_ripe_when_it_is_over_and_quiet_and_has_several_blocks() {
    const HOUR: i64 = 3_600_000;
    let table = table(&[
        added(-2 * HOUR, 1, 50),
        added(-4 * HOUR, 2, 60),
        added(0, 3, 50),
        added(2 * HOUR, 4, 70),
        added(DAY_MS, 5, 50),
    ]);
    let periods = |ripe, except: &[BlockName]| -> Vec<(i64, usize)> {
        jobs(&table, ripe, &except.iter().cloned().collect::<BTreeSet<_>>())
            .iter()
            .map(|j| (j.start, j.blocks.len()))
            .collect()
    };
    assert_eq!(periods(Ripe::ALWAYS, &[]), [(-DAY_MS, 2), (0, 2)]);
    // The day is not over, its first third is.
    assert_eq!(periods(Ripe { ended_by_ms: DAY_MS - 1, quiet_since_ms: 100 }, &[]), [(-DAY_MS, 2), (0, 2)]);
    assert_eq!(periods(Ripe { ended_by_ms: 8 * HOUR - 1, quiet_since_ms: 100 }, &[]), [(-DAY_MS, 2)]);
    assert_eq!(periods(Ripe { ended_by_ms: DAY_MS, quiet_since_ms: 69 }, &[]), [(-DAY_MS, 2)]);
    let bad = BlockName::of_flush(Epoch(1), ShardId(0), 0, 3);
    assert_eq!(periods(Ripe::ALWAYS, &[bad]), [(-DAY_MS, 2)]);
}

#[test]
fn the_parts_of_one_compaction_are_not_merged_again_unless_something_came_late() {
    let part = |part: usize, sequence: u64| {
        let mut add = added(0, sequence, 50);
        add.file.block = BlockName::of_compaction(0, sequence, 7, part);
        (add.tags.shard, add.tags.epoch) = (None, None);
        add
    };
    let sizes = |adds: &[AddFile]| -> Vec<usize> {
        jobs(&table(adds), Ripe::ALWAYS, &BTreeSet::new()).iter().map(|j| j.blocks.len()).collect()
    };
    assert!(sizes(&[part(0, 3), part(1, 3)]).is_empty());
    assert_eq!(sizes(&[part(0, 3), part(1, 3), added(0, 9, 50)]), [3]);
    assert_eq!(sizes(&[part(0, 3), part(0, 4)]), [2]);
}
