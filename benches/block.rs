//! Writing and reading blocks: `block/{write,read_full,read_1pct}/<series>`, a 2 h window of generated scrapes.
//!
//! The element count of every bench is samples, so criterion's throughput is samples per second. A check value is printed:
//! if it changes, the benches measure something else than before.

#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "a bench: the macros document nothing, and a failure should stop it"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metrolith::block::{Block, BlockReader, BlockWriter, FileRef, SeriesInput, WriterOptions, order};
use metrolith::model::labels::series_hash;
use metrolith::model::{BlockName, Columns, Epoch, Labels, MatchOp, Matcher, ShardId, TimeRange};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

const START: i64 = 1_780_272_000_000;
const SCRAPES: i64 = 480;
const SERIES: usize = 4_000;

/// 100 series on each target; shapes as exporters have them: counters, decimals, constants, the odd irrational double.
fn generate(series: usize) -> Vec<(Labels, Columns)> {
    let mut random = 42u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let jitter: Vec<Vec<i64>> =
        (0..series.div_ceil(100)).map(|_| (0..SCRAPES).map(|_| next(8) as i64).collect()).collect();
    let mut out: Vec<(Labels, Columns)> = (0..series)
        .map(|i| {
            let (metric, target) = (i % 100, i / 100);
            let labels = Labels::from_pairs([
                ("__name__", format!("metric_{metric:03}_total")),
                ("instance", format!("10.0.{}.{}:9100", target / 250, target % 250)),
                ("job", format!("job-{}", target % 7)),
            ]);
            let mut samples = Columns::default();
            let mut level = next(1_000_000) as f64;
            for (scrape, jitter) in (0..SCRAPES).zip(&jitter[target]) {
                level += match metric % 5 {
                    0 => next(100) as f64,
                    1 => 0.0,
                    2 => next(1000) as f64 / 100.0 - 5.0,
                    3 => next(4) as f64 * 4096.0,
                    _ => next(1000) as f64 / 7.0,
                };
                let value = if metric % 5 == 2 { (level * 100.0).round() / 100.0 } else { level };
                samples.push_float(START + scrape * 15_000 + target as i64 * 37 % 15_000 + jitter, value);
            }
            (labels, samples)
        })
        .collect();
    out.sort_by(|a, b| order::compare(&a.0, &b.0));
    out
}

fn write(series: &[(Labels, Columns)]) -> Block {
    let name = BlockName::of_flush(Epoch(1), ShardId(0), START, 1);
    let mut writer = BlockWriter::new(WriterOptions::flush(name)).expect("default options");
    for (labels, samples) in series {
        let hash = series_hash("bench", labels.canonical());
        writer.push(SeriesInput { labels, hash, samples, exemplars: &[] }).expect("sorted series");
    }
    writer.finish().expect("block")
}

async fn open(block: &Block) -> BlockReader {
    let store = Arc::new(InMemory::new());
    let mut files = Vec::new();
    for file in &block.files {
        let path = Path::from(format!("{}.parquet", file.kind));
        store.put(&path, file.bytes.clone().into()).await.expect("put to memory");
        files.push(FileRef { kind: file.kind, path, size: file.bytes.len() as u64 });
    }
    BlockReader::open(store as Arc<dyn ObjectStore>, files).await.expect("open what was written")
}

async fn read_all(reader: &BlockReader) -> usize {
    let (mut scan, mut samples) = (reader.read_all(1000), 0);
    while let Some(series) = scan.next().await.expect("read what was written") {
        samples += series.iter().map(|s| s.samples.len()).sum::<usize>();
    }
    samples
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let series = generate(SERIES);
    let block = write(&series);
    let bytes: usize = block.files.iter().map(|f| f.bytes.len()).sum();
    println!("check: {} samples in {bytes} bytes", block.samples);
    let reader = runtime.block_on(open(&block));
    let mut group = c.benchmark_group("block");
    group.sample_size(20).throughput(Throughput::Elements(block.samples));
    group.bench_function(BenchmarkId::new("write", SERIES), |b| b.iter(|| write(black_box(&series))));
    group.bench_function(BenchmarkId::new("read_full", SERIES), |b| b.iter(|| runtime.block_on(read_all(&reader))));
    // One instance of 40 on 40 of 100 metrics.
    let matchers = [
        Matcher::new("__name__", MatchOp::Regex, "metric_0[0-3]._total").expect("pattern"),
        Matcher::equal("instance", "10.0.0.17:9100"),
    ];
    group.throughput(Throughput::Elements(SERIES as u64 / 100 * SCRAPES as u64));
    group.bench_function(BenchmarkId::new("read_1pct", SERIES), |b| {
        b.iter(|| runtime.block_on(reader.select(black_box(&matchers), TimeRange::all())).expect("select"));
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
