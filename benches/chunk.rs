//! Chunks: encode and decode of value shapes; prints bytes per sample.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metrolith::chunk::{Chunk, FloatEncoder};
use metrolith::model::Columns;

const SAMPLES: i64 = 480;

fn noise(i: i64) -> i64 {
    ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17).wrapping_mul(0xd134_2543_de82_ef95) >> 34) as i64
}

/// Timestamp and value of sample `i` of a shape.
fn sample(shape: &str, i: i64) -> (i64, f64) {
    let t = i * 15_000;
    match shape {
        "constant" => (t, 17.0),
        "slow" => (t, (i / 20) as f64),
        "jitter" => (t + noise(i) % 7, (i / 20) as f64),
        "counter" => (t, (1000 * i + noise(i) % 100) as f64),
        "decimal" => (t, (100 * i + noise(i) % 200) as f64 / 100.0),
        _ => (t, noise(i) as f64 / 7.0),
    }
}

fn pack(shape: &str) -> Chunk {
    let mut encoder = FloatEncoder::default();
    for i in 0..SAMPLES {
        let (t, v) = sample(shape, i);
        encoder.push(t, v);
    }
    encoder.finish(None).unwrap_or_else(|| panic!("samples"))
}

fn floats(c: &mut Criterion) {
    for shape in ["constant", "slow", "jitter", "counter", "decimal", "noisy"] {
        let chunk = pack(shape);
        println!("chunk: {shape}: {:.3} bytes per sample", chunk.bytes().len() as f64 / SAMPLES as f64);
        let mut group = c.benchmark_group("chunk/encode");
        group.throughput(Throughput::Elements(SAMPLES as u64));
        group.bench_function(BenchmarkId::from_parameter(shape), |b| b.iter(|| pack(black_box(shape))));
        group.finish();
        let mut group = c.benchmark_group("chunk/decode");
        group.throughput(Throughput::Elements(SAMPLES as u64));
        group.bench_function(BenchmarkId::from_parameter(shape), |b| {
            let mut out = Columns::default();
            b.iter(|| {
                out.clear();
                black_box(&chunk).decode(&mut out).unwrap_or_else(|e| panic!("{e}"));
                out.len()
            });
        });
    }
}

criterion_group!(benches, floats);
criterion_main!(benches);
