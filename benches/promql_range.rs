//! Range queries over a day of 15-second samples in memory: what evaluation alone costs, decoding left out.
//!
//! Names are `promql/range/<case>`; throughput counts samples read.

#![allow(clippy::expect_used, missing_docs, reason = "a failure of the bench itself")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metrolith::model::{Columns, Labels, StepGrid};
use metrolith::promql::exec::control::CancelToken;
use metrolith::promql::exec::{Engine, Times};
use metrolith::promql::{ParseOptions, parse};
use metrolith::testkit::memory_source::MemorySource;

const SERIES: u64 = 1000;
const SAMPLES: i64 = 5760;
const INTERVAL_MS: i64 = 15_000;

/// Two counters of each of 1,000 targets, with resets.
fn source() -> MemorySource {
    let mut source = MemorySource::new();
    for target in 0..SERIES {
        let (job, instance) = (format!("job-{}", target % 10), format!("host-{target}:9100"));
        for name in ["x", "y"] {
            let (mut columns, mut v) = (Columns::default(), target as f64);
            for i in 0..SAMPLES {
                v = if i % 997 == 0 { 0.0 } else { v + (i * 7919 % 13) as f64 };
                columns.push_float(i * INTERVAL_MS, v);
            }
            let pairs = [("__name__", name), ("job", &job), ("instance", &instance), ("zone", "eu-1")];
            source.insert(Labels::from_pairs(pairs), columns);
        }
    }
    source
}

fn range(c: &mut Criterion) {
    let (source, engine, cancel) = (source(), Engine::default(), CancelToken::default());
    let mut group = c.benchmark_group("promql/range");
    group.sample_size(10);
    for (case, query, step) in [
        ("sum_rate_by_job", "sum(rate(x[5m])) by (job)", INTERVAL_MS),
        ("sum_rate_by_job_1m", "sum(rate(x[5m])) by (job)", 60_000),
        ("dashboard", r#"rate(x{instance="host-7:9100"}[5m])"#, 60_000),
        ("max_over_time", "max(max_over_time(x[5m])) by (job)", INTERVAL_MS),
        ("avg_over_time", "avg(avg_over_time(x[5m])) by (job)", INTERVAL_MS),
        ("join", "x / on (instance, job) y", 60_000),
        ("topk", "topk(5, x)", 60_000),
    ] {
        let ast = parse(query, ParseOptions::all()).expect("the query is valid");
        let times = Times::Range(StepGrid { start: 0, end: (SAMPLES - 1) * INTERVAL_MS, step });
        let run = || futures::executor::block_on(engine.query(&source, &ast, times, &cancel)).expect("it is answered");
        group.throughput(Throughput::Elements(run().stats.samples_read));
        group.bench_with_input(BenchmarkId::from_parameter(case), &(), |b, ()| b.iter(|| black_box(run())));
    }
    group.finish();
}

criterion_group!(benches, range);
criterion_main!(benches);
