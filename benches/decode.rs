//! Decoding of write requests, snappy to batch: `decode/<version>/<series>x<labels>`.
//!
//! Throughput is in samples: one per series, as Prometheus sends them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metrolith::ingest::decode::{DecodeLimits, Decoder, Protocol};
use metrolith::model::TenantId;
use metrolith::proto::{prometheus, write_v2};
use prost::Message;

/// `series` label sets of 12 labels, as a Kubernetes scrape has them.
fn label_sets(series: usize) -> Vec<Vec<(String, String)>> {
    let of = |i: usize| {
        let pod = i / 40;
        let pairs = [
            ("__name__", format!("http_request_duration_seconds_bucket_{}", i % 8)),
            ("cluster", "eu-central-1-production".into()),
            ("container", "application-server".into()),
            ("endpoint", "http-metrics".into()),
            ("instance", format!("10.{}.{}.{}:9090", pod / 65536, pod / 256 % 256, pod % 256)),
            ("job", "kubernetes-pods/application-server".into()),
            ("le", format!("{}", (i % 40) as f64 * 0.25)),
            ("method", ["GET", "POST", "PUT"][i % 3].into()),
            ("namespace", "team-payments-production".into()),
            ("pod", format!("application-server-7c9f8d6b5c-{pod:05x}")),
            ("prometheus", "monitoring/prometheus-k8s".into()),
            ("status_code", ["200", "404", "500"][i % 3].into()),
        ];
        pairs.map(|(n, v)| (n.to_owned(), v)).to_vec()
    };
    (0..series).map(of).collect()
}

fn v1(sets: &[Vec<(String, String)>]) -> Vec<u8> {
    let label = |(name, value): &(String, String)| prometheus::Label { name: name.clone(), value: value.clone() };
    let series = |(i, set): (usize, &Vec<(String, String)>)| prometheus::TimeSeries {
        labels: set.iter().map(label).collect(),
        samples: vec![prometheus::Sample { value: i as f64 * 1.5, timestamp: 1_760_000_000_000 + i as i64 }],
        ..Default::default()
    };
    let timeseries = sets.iter().enumerate().map(series).collect();
    prometheus::WriteRequest { timeseries, metadata: vec![] }.encode_to_vec()
}

fn v2(sets: &[Vec<(String, String)>]) -> Vec<u8> {
    let mut symbols = vec![String::new()];
    let mut known = std::collections::HashMap::new();
    let mut symbol = |text: &String| {
        *known.entry(text.clone()).or_insert_with(|| {
            symbols.push(text.clone());
            symbols.len() as u32 - 1
        })
    };
    let timeseries = sets
        .iter()
        .enumerate()
        .map(|(i, set)| write_v2::TimeSeries {
            labels_refs: set.iter().flat_map(|(n, v)| [symbol(n), symbol(v)]).collect(),
            samples: vec![write_v2::Sample {
                value: i as f64 * 1.5,
                timestamp: 1_760_000_000_000 + i as i64,
                start_timestamp: 0,
            }],
            ..Default::default()
        })
        .collect();
    write_v2::Request { symbols, timeseries }.encode_to_vec()
}

fn decode(c: &mut Criterion) {
    let sets = label_sets(2000);
    let (tenant, limits) = (TenantId::anonymous(), DecodeLimits::default());
    for (name, protocol, message) in
        [("remote_write_v1", Protocol::V1, v1(&sets)), ("remote_write_v2", Protocol::V2, v2(&sets))]
    {
        let body = snap::raw::Encoder::new().compress_vec(&message).expect("snappy");
        let mut decoder = Decoder::default();
        decoder.decode(protocol, &body, &tenant, &limits).expect("own request");
        let check = decoder.batch.series.iter().fold(0u64, |h, s| h.wrapping_add(s.hash));
        println!("{name}: {} bytes, {} compressed, check {check:016x}", message.len(), body.len());
        let mut group = c.benchmark_group(format!("decode/{name}"));
        group.throughput(Throughput::Elements(sets.len() as u64));
        group.bench_function(BenchmarkId::from_parameter("2000x12"), |b| {
            b.iter(|| decoder.decode(protocol, &body, &tenant, &limits).expect("own request"));
        });
        group.bench_function(BenchmarkId::from_parameter("2000x12-decompressed"), |b| {
            b.iter(|| decoder.decode_message(protocol, &message, &tenant, &limits).expect("own request"));
        });
        group.finish();
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
