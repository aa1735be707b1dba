//! Real scrapes as blocks: every sample comes back bit for bit, and the bytes per sample stay within the bar.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path as FsPath;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use metrolith::block::{BlockReader, BlockWriter, FileRef, SeriesInput, WriterOptions, order};
use metrolith::model::labels::series_hash;
use metrolith::model::time::{WINDOW_MS, window_start};
use metrolith::model::{BlockName, Columns, Epoch, Labels, ShardId, TenantId};
use metrolith::testkit;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Most bytes a sample of a 2 h flush may take, labels included.
const BAR: f64 = 0.33;

fn batches(path: &FsPath) -> impl Iterator<Item = RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.with_batch_size(65_536).build().unwrap().map(Result::unwrap)
}

fn labels_by_id(dir: &FsPath) -> BTreeMap<i32, Labels> {
    let mut all = BTreeMap::new();
    for batch in batches(&dir.join("real_series.parquet")) {
        let ids = batch.column_by_name("series_id").unwrap().as_primitive::<Int32Type>().clone();
        let maps = batch.column_by_name("labels").unwrap().as_map().clone();
        for i in 0..ids.len() {
            let entries = maps.value(i);
            let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            let pairs = (0..entries.len()).map(|n| (names.value(n), values.value(n)));
            all.insert(ids.value(i), Labels::from_pairs(pairs));
        }
    }
    all
}

/// The samples of the second window of the data: the first whole one.
fn second_window(dir: &FsPath) -> BTreeMap<i32, Columns> {
    let mut start = None;
    let mut all: BTreeMap<i32, Columns> = BTreeMap::new();
    for batch in batches(&dir.join("real_samples.parquet")) {
        let ids = batch.column_by_name("series_id").unwrap().as_primitive::<Int32Type>().clone();
        let times = batch.column_by_name("timestamp_ms").unwrap().as_primitive::<Int64Type>().clone();
        let values = batch.column_by_name("value").unwrap().as_primitive::<Float64Type>().clone();
        for i in 0..ids.len() {
            let t = times.value(i);
            let start = *start.get_or_insert(window_start(t) + WINDOW_MS);
            if window_start(t) == start {
                all.entry(ids.value(i)).or_default().push_float(t, values.value(i));
            }
        }
    }
    all
}

fn bits(samples: &Columns) -> Vec<(i64, u64)> {
    samples.timestamps.iter().copied().zip(samples.values.iter().map(|v| v.to_bits())).collect()
}

#[tokio::test]
async fn a_flush_of_real_scrapes_is_exact_and_small() {
    let Some(dir) = testkit::shared().map(|dir| dir.join("data")) else { return };
    let (labels, samples) = (labels_by_id(&dir), second_window(&dir));
    let tenant = TenantId::anonymous();
    let name = BlockName::of_flush(Epoch(1), ShardId(0), 0, 1);
    let mut series: Vec<(&Labels, &Columns)> = samples.iter().map(|(id, s)| (&labels[id], s)).collect();
    series.sort_by(|a, b| order::compare(a.0, b.0));
    let mut writer = BlockWriter::new(WriterOptions::flush(name).for_tenant(&tenant)).unwrap();
    for (labels, samples) in &series {
        let hash = series_hash(tenant.as_str(), labels.canonical());
        writer.push(SeriesInput { labels, hash, samples, exemplars: &[] }).unwrap();
    }
    let block = writer.finish().unwrap();
    let bytes: usize = block.files.iter().map(|f| f.bytes.len()).sum();
    let per_sample = bytes as f64 / block.samples as f64;
    println!("{} series, {} samples, {bytes} bytes, {per_sample:.3} bytes per sample", block.series, block.samples);
    assert_eq!(block.samples, series.iter().map(|(_, s)| s.len() as u64).sum::<u64>());
    assert!(block.samples > 2_000_000, "a whole window of the data has more samples than {}", block.samples);
    assert!(per_sample <= BAR, "{per_sample} bytes per sample");

    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut files = Vec::new();
    for file in block.files {
        let path = Path::from(file.kind.as_str());
        files.push(FileRef { kind: file.kind, path: path.clone(), size: file.bytes.len() as u64 });
        store.put(&path, file.bytes.into()).await.unwrap();
    }
    let reader = BlockReader::open(store, files).await.unwrap();
    let (mut scan, mut read) = (reader.read_all(512), 0);
    while let Some(found) = scan.next().await.unwrap() {
        for one in found {
            let (labels, samples) = series[read];
            assert_eq!(&one.labels, labels);
            assert!(bits(&one.samples) == bits(samples), "samples of {labels} differ");
            read += 1;
        }
    }
    assert_eq!(read, series.len());
}
