//! The head: appending, resolving, selecting, snapshots; prints bytes per series first.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metrolith::head::{Head, HeadOptions};
use metrolith::model::labels::series_hash;
use metrolith::model::{Columns, Labels, MatchOp, Matcher, SeriesId, TenantId, TimeRange};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const START: i64 = 1_700_006_400_000;
const STEP: i64 = 15_000;
const LIMIT: i64 = 3_600_000;

/// Ten labels: 40 metrics on many pods, as an exporter fleet has them.
fn labels(n: usize) -> Labels {
    let (metric, pod) = (n % 40, n / 40);
    let text = |prefix: &str, n: usize| format!("{prefix}{n}");
    Labels::from_pairs([
        ("__name__", text("http_server_requests_seconds_metric_", metric)),
        ("cluster", "eu-central-1".into()),
        ("container", text("container-", pod % 20)),
        ("endpoint", "http-metrics".into()),
        ("env", "production".into()),
        ("instance", format!("10.{}.{}.{}:9100", pod / 65536, pod / 256 % 256, pod % 256)),
        ("job", text("kubernetes-service-", pod % 50)),
        ("namespace", text("namespace-", pod % 30)),
        ("node", text("ip-10-0-12-", pod % 200)),
        ("pod", text("workload-deployment-7f9c6d5b8-", pod)),
    ])
}

/// Value shapes of the field: constants, counters with uneven steps, two-digit decimals.
fn value(series: usize, i: i64) -> f64 {
    let noise =
        (series as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(i as u64).wrapping_mul(0xd134_2543_de82_ef95);
    let noise = (noise >> 33) as i64;
    match series % 10 {
        0..=3 => series as f64,
        4..=5 => (1000 * i + noise % 100) as f64,
        6..=7 => {
            if noise % 4 == 0 {
                (i / 8) as f64
            } else {
                (i / 8 + 1) as f64
            }
        }
        8 => (50_000 + noise % 1000) as f64 / 100.0,
        _ => noise as f64 / 7.0,
    }
}

fn tenant() -> TenantId {
    TenantId::anonymous()
}

fn filled(series: usize, scrapes: i64) -> (Head, Vec<SeriesId>) {
    let mut head = Head::new(HeadOptions::default(), 0);
    let ids: Vec<_> = (0..series)
        .map(|n| {
            let l = labels(n);
            head.get_or_create(&tenant(), series_hash(tenant().as_str(), l.canonical()), l.canonical())
        })
        .collect();
    for i in 0..scrapes {
        for (n, id) in ids.iter().enumerate() {
            head.append_float(*id, START + i * STEP, value(n, i), 0, LIMIT);
        }
    }
    (head, ids)
}

fn allocated() -> usize {
    let _ = tikv_jemalloc_ctl::epoch::advance();
    tikv_jemalloc_ctl::stats::allocated::read().unwrap_or_default()
}

fn memory(_: &mut Criterion) {
    for (heads, series, scrapes) in [(1, 200_000, 20), (12, 200_000 / 12, 20), (1, 50_000, 720)] {
        let before = allocated();
        let filled: Vec<_> = (0..heads).map(|_| filled(series, scrapes).0).collect();
        let all = heads * series;
        println!(
            "memory: {heads} heads x {series} series x {scrapes} samples: {} B per series allocated, {} B by own count",
            (allocated() - before) / all,
            filled.iter().map(Head::bytes).sum::<usize>() / all,
        );
    }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("head/append");
    let (mut head, ids) = filled(20_000, 20);
    let mut i = 20;
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("in_order", |b| {
        b.iter(|| {
            for (n, id) in ids.iter().enumerate() {
                black_box(head.append_float(*id, START + i * STEP, value(n, i), 0, LIMIT));
            }
            i += 1;
        });
    });
    group.bench_function("duplicate", |b| {
        b.iter(|| {
            for (n, id) in ids.iter().enumerate() {
                black_box(head.append_float(*id, START + (i - 1) * STEP, value(n, i - 1), 0, LIMIT));
            }
        });
    });
}

fn resolve(c: &mut Criterion) {
    let mut group = c.benchmark_group("head/resolve");
    for series in [20_000usize, 200_000] {
        let (head, ids) = filled(series, 1);
        let t = tenant();
        let sets: Vec<_> = (0..series).map(labels).map(|l| (series_hash(t.as_str(), l.canonical()), l)).collect();
        group.throughput(Throughput::Elements(series as u64));
        group.bench_function(BenchmarkId::new("known", series), |b| {
            let tenant = head.tenant(&t).unwrap_or_else(|| panic!("tenant"));
            b.iter(|| {
                let keys = sets.iter().map(|(hash, l)| (*hash, l.canonical()));
                assert!(head.lookup_all(tenant, keys).eq(ids.iter().map(|id| Some(*id))));
            });
        });
        group.bench_function(BenchmarkId::new("new", series), |b| {
            b.iter(|| {
                let mut head = Head::new(HeadOptions::default(), 0);
                for (hash, l) in &sets {
                    black_box(head.get_or_create(&t, *hash, l.canonical()));
                }
            });
        });
    }
}

fn select(c: &mut Criterion) {
    let mut group = c.benchmark_group("head/select");
    let (head, _) = filled(20_000, 240);
    let t = tenant();
    let metric = Matcher::equal("__name__", "http_server_requests_seconds_metric_4");
    let pod = Matcher::equal("pod", "workload-deployment-7f9c6d5b8-77");
    let regex = Matcher::new("pod", MatchOp::Regex, "workload-.*-1.*").unwrap_or_else(|e| panic!("{e}"));
    for (name, matchers) in
        [("one", vec![metric.clone(), pod]), ("metric", vec![metric.clone()]), ("regex", vec![metric, regex])]
    {
        group.bench_function(BenchmarkId::new("find", name), |b| {
            b.iter(|| head.select(&t, &matchers, TimeRange::all()))
        });
    }
    let found = head.select(&t, &[], TimeRange::all());
    group.throughput(Throughput::Elements(found.iter().map(|s| s.samples() as u64).sum()));
    group.bench_function("decode", |b| {
        let mut out = Columns::default();
        b.iter(|| {
            for series in &found {
                let mut cursor = series.cursor();
                while cursor.next(&mut out).unwrap_or_else(|e| panic!("{e}")) {
                    black_box(&out);
                }
            }
        });
    });
}

fn snapshot(c: &mut Criterion) {
    let (head, _) = filled(200_000, 20);
    let mut bytes = Vec::new();
    head.snapshot().write(&mut bytes).unwrap_or_else(|e| panic!("{e}"));
    println!("snapshot: {} bytes for 200000 series x 20 samples", bytes.len());
    let mut group = c.benchmark_group("head/snapshot");
    group.sample_size(10);
    group.bench_function("capture", |b| b.iter(|| head.snapshot()));
    group.bench_function("capture_write", |b| b.iter(|| head.snapshot().write(&mut std::io::sink())));
    group.bench_function("restore", |b| b.iter(|| Head::restore(&mut &bytes[..], 0).map(|h| h.stats())));
}

criterion_group!(benches, memory, append, resolve, select, snapshot);
criterion_main!(benches);
