//! Real scrapes as blocks: every sample comes back bit for bit, and the bytes per sample stay within the bar.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path as FsPath;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use metrolith::block::{Block, BlockReader, BlockWriter, FileRef, SeriesInput, WriterOptions, order};
use metrolith::model::labels::series_hash;
use metrolith::model::time::window_start;
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

/// All samples by window and series.
fn windows(dir: &FsPath) -> BTreeMap<i64, BTreeMap<i32, Columns>> {
    let mut all: BTreeMap<i64, BTreeMap<i32, Columns>> = BTreeMap::new();
    for batch in batches(&dir.join("real_samples.parquet")) {
        let ids = batch.column_by_name("series_id").unwrap().as_primitive::<Int32Type>().clone();
        let times = batch.column_by_name("timestamp_ms").unwrap().as_primitive::<Int64Type>().clone();
        let values = batch.column_by_name("value").unwrap().as_primitive::<Float64Type>().clone();
        for i in 0..ids.len() {
            let t = times.value(i);
            let window = all.entry(window_start(t)).or_default();
            window.entry(ids.value(i)).or_default().push_float(t, values.value(i));
        }
    }
    all
}

/// One window's series in block order.
fn in_order<'a>(
    labels: &'a BTreeMap<i32, Labels>,
    window: &'a BTreeMap<i32, Columns>,
) -> Vec<(&'a Labels, &'a Columns)> {
    let mut series: Vec<_> = window.iter().map(|(id, samples)| (&labels[id], samples)).collect();
    series.sort_by(|a, b| order::compare(a.0, b.0));
    series
}

fn write(start: i64, series: &[(&Labels, &Columns)]) -> Block {
    let tenant = TenantId::anonymous();
    let name = BlockName::of_flush(Epoch(1), ShardId(0), start, 1);
    let mut writer = BlockWriter::new(WriterOptions::flush(name).for_tenant(&tenant)).unwrap();
    for (labels, samples) in series {
        let hash = series_hash(tenant.as_str(), labels.canonical());
        writer.push(SeriesInput { labels, hash, samples, exemplars: &[] }).unwrap();
    }
    writer.finish().unwrap()
}

async fn assert_reads_back(block: Block, series: &[(&Labels, &Columns)]) {
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

fn bits(samples: &Columns) -> Vec<(i64, u64)> {
    samples.timestamps.iter().copied().zip(samples.values.iter().map(|v| v.to_bits())).collect()
}

#[tokio::test]
async fn flushes_of_real_scrapes_are_exact_and_small() {
    let Some(dir) = testkit::shared().map(|dir| dir.join("data")) else { return };
    let (labels, windows) = (labels_by_id(&dir), windows(&dir));
    let (mut bytes, mut samples) = (0, 0);
    for (n, (start, window)) in windows.iter().enumerate() {
        let series = in_order(&labels, window);
        let block = write(*start, &series);
        assert_eq!(block.samples, series.iter().map(|(_, s)| s.len() as u64).sum::<u64>());
        bytes += block.files.iter().map(|f| f.bytes.len()).sum::<usize>();
        samples += block.samples;
        // Reading is checked on every third window: the whole of the data takes minutes unoptimised.
        if n % 3 == 0 {
            assert_reads_back(block, &series).await;
        }
    }
    let per_sample = bytes as f64 / samples as f64;
    println!("{} windows, {samples} samples, {bytes} bytes, {per_sample:.4} bytes per sample", windows.len());
    assert!(per_sample <= BAR, "{per_sample} bytes per sample");
}
