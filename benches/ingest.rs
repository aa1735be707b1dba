//! From a decoded batch to a shard's log entry and into its head: resolve + encode, decode + apply.
//!
//! Throughput counts samples.

#![allow(clippy::expect_used, missing_docs, reason = "a failure of the bench itself")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use metrolith::head::{Head, HeadOptions};
use metrolith::ingest::entry::{SectionBuilder, SeriesRef, append_entry};
use metrolith::ingest::exposition::push;
use metrolith::ingest::series_budget::SeriesBudgets;
use metrolith::ingest::shard::{ShardMachine, ShardState, SharedShard};
use metrolith::model::{Batch, Labels, SampleRow, TenantId};
use metrolith::raft::StateMachine;
use parking_lot::RwLock;

const SERIES: u32 = 2000;
const OUT_OF_ORDER_MS: i64 = 3_600_000;

/// One scrape of 2,000 series with ten labels each.
fn batch(t: i64) -> Batch {
    let mut batch = Batch::default();
    for n in 0..SERIES {
        let pairs = [
            ("__name__", format!("http_requests_total_{}", n % 40)),
            ("cluster", "eu-central-1".to_owned()),
            ("container", format!("container-{}", n % 20)),
            ("endpoint", "http-metrics".to_owned()),
            ("env", "production".to_owned()),
            ("instance", format!("10.0.{}.{}:9100", n / 256, n % 256)),
            ("job", format!("service-{}", n % 50)),
            ("namespace", format!("namespace-{}", n % 30)),
            ("node", format!("ip-10-0-12-{}", n % 200)),
            ("pod", format!("workload-7f9c6d5b8-{n}")),
        ];
        let labels = Labels::from_pairs(pairs);
        push(&mut batch, &TenantId::anonymous(), &labels, SampleRow { t, v: f64::from(n) + t as f64, start: 0 });
    }
    batch
}

fn encode(head: &Head, tenant: &TenantId, batch: &Batch) -> Bytes {
    let mut section = SectionBuilder::default();
    let keys = batch.series.iter().map(|row| (row.hash, batch.labels_of(row)));
    let known = head.tenant(tenant).map(|t| head.lookup_all(t, keys).collect::<Vec<_>>());
    for (i, row) in batch.series.iter().enumerate() {
        let series = match known.as_ref().and_then(|ids| ids[i]) {
            Some(id) => SeriesRef::Known(id.0),
            None => section.new_series(row.hash, batch.labels_of(row)),
        };
        section.rows_of(series, batch, row);
    }
    let section = section.finish(tenant.as_str(), OUT_OF_ORDER_MS);
    append_entry([section.as_slice()].into_iter())
}

fn shard() -> (ShardMachine, SharedShard) {
    let state = Arc::new(RwLock::new(ShardState::new(Head::new(HeadOptions::default(), 0))));
    (ShardMachine::new(Arc::clone(&state), SeriesBudgets::default()), state)
}

fn benches(c: &mut Criterion) {
    let tenant = TenantId::anonymous();
    let (mut machine, state) = shard();
    let first = encode(&state.read().head, &tenant, &batch(0));
    machine.apply(1, &first);
    let known = batch(15_000);
    let entry = encode(&state.read().head, &tenant, &known);
    println!(
        "check: {} series, {} bytes an entry of {SERIES} known series",
        state.read().series_of(&tenant),
        entry.len()
    );

    let mut group = c.benchmark_group("ingest");
    group.throughput(Throughput::Elements(u64::from(SERIES)));
    group.bench_function("resolve_encode/2000_known", |b| {
        let state = state.read();
        b.iter(|| black_box(encode(&state.head, &tenant, black_box(&known))));
    });
    group.bench_function("apply/2000_new", |b| {
        b.iter_batched(shard, |(mut machine, _state)| black_box(machine.apply(1, &first)), BatchSize::LargeInput);
    });
    let mut t = 15_000;
    group.bench_function("apply/2000_known", |b| {
        b.iter_batched(
            || {
                t += 15_000;
                encode(&state.read().head, &tenant, &batch(t))
            },
            |entry| black_box(machine.apply(1, &entry)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
