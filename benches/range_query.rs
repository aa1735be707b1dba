//! The same range query over a head and over a block, decoding included.
//!
//! Throughput counts samples read.

#![allow(clippy::expect_used, missing_docs, reason = "a failure of the bench itself")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::BoxFuture;
use metrolith::block::{BlockReader, BlockWriter, FileRef, SeriesInput, WriterOptions, order};
use metrolith::chunk::ChunkCursor;
use metrolith::error::{Error, HasKind};
use metrolith::head::{Head, HeadOptions};
use metrolith::model::labels::series_hash;
use metrolith::model::{BlockName, Columns, Epoch, Labels, ShardId, StepGrid, TenantId};
use metrolith::promql::exec::control::CancelToken;
use metrolith::promql::exec::helpers::Helpers;
use metrolith::promql::exec::{Engine, Times};
use metrolith::promql::source::{SampleCursor, SelectRequest, SelectedSeries, SeriesSet, Source};
use metrolith::promql::{ParseOptions, parse};
use metrolith::query::gather::Gathered;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

const SERIES: usize = 1000;
const SAMPLES: i64 = 480;
const INTERVAL_MS: i64 = 15_000;
const QUERY: &str = "sum by (job) (rate(x_total[5m]))";

fn labels(n: usize) -> Labels {
    let (job, instance) = (format!("job-{}", n % 10), format!("host-{n}:9100"));
    Labels::from_pairs([("__name__", "x_total"), ("job", &job), ("instance", &instance), ("zone", "eu-1")])
}

fn value(n: usize, i: i64) -> f64 {
    (i * 100 + (n as i64 * 31 + i * 17) % 50) as f64
}

struct HeadSource(Head);

struct HeadCursor(ChunkCursor);

impl SampleCursor for HeadCursor {
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        self.0.next(out).map_err(|e| Error::new(e.kind(), e.to_string()))
    }

    fn fork(&self) -> Box<dyn SampleCursor> {
        Box::new(Self(self.0.clone()))
    }
}

impl Source for HeadSource {
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        let found = self.0.select(&TenantId::anonymous(), &request.matchers, request.range);
        let series = found.into_iter().map(|s| SelectedSeries {
            labels: s.labels.clone(),
            place: 0,
            partition: 0,
            batch: 0,
            cursor: Box::new(HeadCursor(s.into_cursor())),
        });
        let mut series: Vec<_> = series.collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Box::pin(async { Ok(SeriesSet { series, warnings: Vec::new() }) })
    }
}

/// Packed as it was fetched, as queries of a node read it.
struct Packed<'a>(&'a BlockReader);

impl Source for Packed<'_> {
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        Box::pin(async {
            let found = self.0.select_packed(&request.matchers, request.range).await;
            let mut gathered = Gathered::default();
            gathered.add_block((1, 1), found.map_err(|e| Error::new(e.kind(), e.to_string()))?);
            Ok(SeriesSet { series: gathered.into_series(|_| 0), warnings: Vec::new() })
        })
    }
}

struct BlockSource(BlockReader);

struct Whole(Option<Columns>);

impl SampleCursor for Whole {
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        let samples = self.0.take();
        let some = samples.is_some();
        *out = samples.unwrap_or_default();
        Ok(some)
    }

    fn fork(&self) -> Box<dyn SampleCursor> {
        Box::new(Self(self.0.clone()))
    }
}

impl Source for BlockSource {
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        Box::pin(async {
            let found = self.0.select(&request.matchers, request.range).await;
            let found = found.map_err(|e| Error::new(e.kind(), e.to_string()))?;
            let series = found.into_iter().map(|s| SelectedSeries {
                labels: s.labels,
                place: 0,
                partition: 0,
                batch: 0,
                cursor: Box::new(Whole(Some(s.samples))),
            });
            let mut series: Vec<_> = series.collect();
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            Ok(SeriesSet { series, warnings: Vec::new() })
        })
    }
}

fn head() -> HeadSource {
    let (mut head, tenant) = (Head::new(HeadOptions::default(), 0), TenantId::anonymous());
    let ids: Vec<_> = (0..SERIES)
        .map(|n| {
            let labels = labels(n);
            head.get_or_create(&tenant, series_hash(tenant.as_str(), labels.canonical()), labels.canonical())
        })
        .collect();
    for i in 0..SAMPLES {
        for (n, id) in ids.iter().enumerate() {
            head.append_float(*id, i * INTERVAL_MS, value(n, i), 0, i64::MAX);
        }
    }
    HeadSource(head)
}

async fn block() -> BlockSource {
    let tenant = TenantId::anonymous();
    let name = BlockName::of_flush(Epoch(1), ShardId(0), 0, 1);
    let mut writer = BlockWriter::new(WriterOptions::flush(name).for_tenant(&tenant)).expect("a writer");
    let mut all: Vec<_> = (0..SERIES).map(|n| (labels(n), n)).collect();
    all.sort_by(|a, b| order::compare(&a.0, &b.0));
    for (labels, n) in &all {
        let mut samples = Columns::default();
        (0..SAMPLES).for_each(|i| samples.push_float(i * INTERVAL_MS, value(*n, i)));
        let hash = series_hash(tenant.as_str(), labels.canonical());
        writer.push(SeriesInput { labels, hash, samples: &samples, exemplars: &[] }).expect("a series");
    }
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut files = Vec::new();
    for file in writer.finish().expect("a block").files {
        let path = Path::from(file.kind.as_str());
        files.push(FileRef { kind: file.kind, path: path.clone(), size: file.bytes.len() as u64 });
        store.put(&path, file.bytes.into()).await.expect("put");
    }
    BlockSource(BlockReader::open(store, files).await.expect("open"))
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (head, block) = (head(), runtime.block_on(block()));
    let packed = Packed(&block.0);
    let sources: [(&str, &dyn Source, usize); 5] = [
        ("head", &head, 1),
        ("head_2threads", &head, 2),
        ("block", &block, 1),
        ("packed", &packed, 1),
        ("packed_2threads", &packed, 2),
    ];
    let ast = parse(QUERY, ParseOptions::default()).expect("a query");
    let grid = StepGrid { start: 300_000, end: (SAMPLES - 1) * INTERVAL_MS, step: 60_000 };
    let cancel = CancelToken::default();
    let mut group = c.benchmark_group("query");
    group.sample_size(20);
    for (name, source, threads) in sources {
        let engine = Engine::default().with_helpers(Helpers::new(threads - 1));
        let run = || runtime.block_on(engine.query(source, &ast, Times::Range(grid), &cancel)).expect("an answer");
        let read = run().stats.samples_read;
        println!("check: query/range_{name} reads {read} samples");
        group.throughput(Throughput::Elements(read));
        group.bench_function(format!("range_{name}/1000x2h"), |b| b.iter(|| black_box(run())));
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
