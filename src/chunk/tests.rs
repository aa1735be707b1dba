//! Round trips, hint rules and hostile bytes.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{Columns, Histogram, ResetHint, Span, TimeRange, stale_nan};

fn pack(samples: &[(i64, f64, i64)]) -> Chunk {
    let (mut encoder, mut starts) = (FloatEncoder::default(), StartRuns::default());
    for (t, v, start) in samples {
        starts.push(encoder.len(), *start);
        encoder.push(*t, *v);
    }
    encoder.finish(Some(&starts)).unwrap()
}

fn unpack(chunk: &Chunk) -> Columns {
    let mut out = Columns::default();
    chunk.decode(&mut out).unwrap();
    out
}

/// Value shapes of the field: constants, counters, decimals, gauges, odd bits.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        3 => Just(0.0),
        3 => (0i64..1 << 40).prop_map(|n| n as f64),
        3 => (-1_000_000i64..1_000_000).prop_map(|n| n as f64 / 100.0),
        1 => (0i64..1 << 50).prop_map(|n| n as f64 / 1e9),
        2 => any::<f64>(),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => prop::sample::select(vec![-0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, stale_nan(), f64::MIN_POSITIVE]),
    ]
}

fn delta() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(15_000), 3 => 14_980i64..15_020, 1 => 1i64..100, 1 => 1i64..4_000_000]
}

fn samples() -> impl Strategy<Value = Vec<(i64, f64, i64)>> {
    let one =
        (delta(), prop_oneof![2 => value().prop_map(Some), 1 => Just(None)], prop::sample::select(vec![0, 0, 5, 7000]));
    (any::<i32>(), any::<bool>(), prop::collection::vec(one, 1..300)).prop_map(|(first, with_starts, list)| {
        let (mut t, mut v) = (i64::from(first), 0.0);
        list.into_iter()
            .map(|(dt, next, start)| {
                t += dt;
                v = next.unwrap_or(v);
                (t, v, if with_starts { start } else { 0 })
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn floats_come_back_with_their_bits(samples in samples()) {
        let chunk = pack(&samples);
        let out = unpack(&chunk);
        prop_assert_eq!(chunk.len(), samples.len());
        prop_assert_eq!(out.len(), samples.len());
        for (i, (t, v, start)) in samples.iter().enumerate() {
            prop_assert_eq!((out.timestamps[i], out.values[i].to_bits(), out.start(i)), (*t, v.to_bits(), *start));
        }
        prop_assert_eq!(out.starts.is_empty(), samples.iter().all(|s| s.2 == 0));
        let mut bytes = Vec::new();
        chunk.write(&mut bytes);
        prop_assert_eq!(Chunk::take(&mut &bytes[..]).unwrap(), chunk);
    }

    #[test]
    fn hostile_bytes_end_in_an_error_or_bounded_samples(
        mut bytes in prop::collection::vec(any::<u8>(), 16..400),
        kind in 0u8..4,
        count in 0u16..2000,
        first in any::<i32>(),
    ) {
        bytes[0] = kind | (bytes[0] & 0x80);
        bytes[2..4].copy_from_slice(&count.to_le_bytes());
        bytes[8..16].copy_from_slice(&i64::from(first).to_le_bytes());
        if let Ok(chunk) = Chunk::from_bytes(&bytes) {
            let mut out = Columns::default();
            if chunk.decode(&mut out).is_ok() {
                prop_assert!(out.timestamps.is_sorted_by(|a, b| a < b));
                prop_assert_eq!(out.len(), chunk.len());
            }
        }
    }

    #[test]
    fn flipped_bits_of_real_chunks_never_panic(samples in samples(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = pack(&samples).bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(chunk) = Chunk::from_bytes(&bytes) {
            let _ = chunk.decode(&mut Columns::default());
        }
    }

    #[test]
    fn histograms_come_back_and_hostile_copies_never_panic(
        list in prop::collection::vec(histogram(), 1..40),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut encoder = HistogramEncoder::default();
        let (mut chunks, mut packed) = (Vec::new(), Vec::new());
        for (i, h) in list.iter().enumerate() {
            prop_assert_eq!(h.validate(), Ok(()));
            if !encoder.accepts(h) {
                chunks.extend(encoder.finish(None));
                packed.push(Vec::new());
            } else if packed.is_empty() {
                packed.push(Vec::new());
            }
            encoder.push(1000 * i as i64, Arc::new(h.clone()));
            packed.last_mut().unwrap().push(h);
        }
        chunks.extend(encoder.finish(None));
        prop_assert_eq!(chunks.len(), packed.len());
        for (chunk, want) in chunks.iter().zip(packed) {
            let out = unpack(chunk);
            prop_assert_eq!(out.histograms.len(), want.len());
            for ((i, got), want) in out.histograms.iter().zip(want) {
                let hint = match (want.reset_hint, i) {
                    (ResetHint::Gauge, _) => ResetHint::Gauge,
                    (_, 0) => ResetHint::Unknown,
                    _ => ResetHint::NotReset,
                };
                let want = Histogram { reset_hint: hint, ..want.clone() };
                prop_assert_eq!(&**got, &want);
            }
            let mut bytes = chunk.bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(chunk) = Chunk::from_bytes(&bytes) {
                let _ = chunk.decode(&mut Columns::default());
            }
        }
    }
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let spans = prop::collection::vec((0i32..5, 0u32..4), 0..4);
    let side = move || (spans.clone(), prop::collection::vec(0u32..50, 12));
    (side(), side(), prop::sample::select(vec![0, 3, -4, -53]), any::<bool>(), prop::bool::weighted(0.2), 0u32..9)
        .prop_map(|(pos, neg, schema, integer, gauge, zero)| {
            let custom = schema == -53;
            let build = |(spans, counts): (Vec<(i32, u32)>, Vec<u32>)| {
                let spans: Vec<Span> =
                    spans.iter().map(|(offset, length)| Span { offset: *offset, length: *length }).collect();
                let n = spans.iter().map(|s| s.length as usize).sum();
                let scale = if integer { 1.0 } else { 0.3 };
                (spans, counts.into_iter().take(n).map(|c| f64::from(c) * scale).collect::<Vec<_>>())
            };
            let (positive_spans, positive) = build(pos);
            let (negative_spans, negative) = if custom { Default::default() } else { build(neg) };
            let zero_count = if custom { 0.0 } else { f64::from(zero) };
            let count = zero_count + positive.iter().sum::<f64>() + negative.iter().sum::<f64>();
            Histogram {
                integer,
                schema,
                reset_hint: if gauge { ResetHint::Gauge } else { ResetHint::Unknown },
                zero_threshold: if custom { 0.0 } else { 0.001 },
                zero_count,
                count,
                sum: count * 1.5,
                positive_spans,
                positive,
                negative_spans,
                negative,
                custom_values: if custom { (0..32).map(f64::from).collect() } else { Vec::new() },
            }
        })
}

fn simple(buckets: &[u32]) -> Histogram {
    let positive: Vec<f64> = buckets.iter().map(|n| f64::from(*n)).collect();
    Histogram {
        integer: true,
        schema: 1,
        count: positive.iter().sum(),
        sum: 1.0,
        positive_spans: vec![Span { offset: 0, length: buckets.len() as u32 }],
        positive,
        ..Histogram::default()
    }
}

#[test]
fn histogram_chunks_are_cut_where_the_hints_would_lie() {
    let base = simple(&[1, 2, 3]);
    let mut encoder = HistogramEncoder::default();
    encoder.push(0, Arc::new(base.clone()));
    assert!(encoder.accepts(&simple(&[1, 2, 3, 1])), "new buckets stay");
    assert!(!encoder.accepts(&simple(&[2, 1, 9])), "a bucket fell");
    assert!(!encoder.accepts(&simple(&[1, 9])), "a bucket vanished");
    assert!(!encoder.accepts(&Histogram { reset_hint: ResetHint::Reset, ..base.clone() }), "told so");
    assert!(!encoder.accepts(&Histogram { reset_hint: ResetHint::Gauge, ..base.clone() }), "counter to gauge");
    assert!(!encoder.accepts(&Histogram { schema: 2, ..base.clone() }), "schema");
    assert!(!encoder.accepts(&Histogram { zero_threshold: 0.5, ..base.clone() }), "zero threshold");
    assert!(!encoder.accepts(&Histogram { integer: false, ..base.clone() }), "integer to float");
    let stale = Histogram { sum: stale_nan(), ..Histogram::default() };
    assert!(encoder.accepts(&stale));
    encoder.push(1, Arc::new(stale));
    assert!(!encoder.accepts(&base), "after a stale marker");
    let out = unpack(&encoder.finish(None).unwrap());
    assert!(out.histograms[1].1.is_stale() && out.histograms[1].1.positive.is_empty());
}

#[test]
fn merging_overlapping_chunks_prefers_the_first_and_forgets_broken_hints() {
    let floats = |list: &[(i64, f64)]| pack(&list.iter().map(|(t, v)| (*t, *v, 0)).collect::<Vec<_>>());
    let mut cursor = ChunkCursor::new(
        [floats(&[(10, 1.0), (30, 3.0), (40, 4.0)]), floats(&[(20, 2.0), (30, 9.0)]), floats(&[(50, 5.0)])],
        TimeRange::new(20, 50),
    );
    let mut out = Columns::default();
    assert!(cursor.next(&mut out).unwrap());
    assert_eq!((out.timestamps.clone(), out.values.clone()), (vec![20, 30, 40], vec![2.0, 3.0, 4.0]));
    assert!(cursor.next(&mut out).unwrap());
    assert_eq!(out.timestamps, [50]);
    assert!(!cursor.next(&mut out).unwrap());

    let mut encoder = HistogramEncoder::default();
    for t in [10, 30, 40] {
        encoder.push(t, Arc::new(simple(&[1])));
    }
    let mut cursor = ChunkCursor::new([encoder.finish(None).unwrap(), floats(&[(20, 1.0)])], TimeRange::all());
    assert!(cursor.next(&mut out).unwrap());
    let hints: Vec<_> = out.histograms.iter().map(|(i, h)| (*i, h.reset_hint)).collect();
    assert_eq!(hints, [(0, ResetHint::Unknown), (2, ResetHint::Unknown), (3, ResetHint::NotReset)]);
}

#[test]
fn slow_values_take_few_bits() {
    let constant: Vec<_> = (0..480).map(|i| (i * 15_000, 42.0, 0)).collect();
    let counter: Vec<_> = (0..480).map(|i| (i * 15_000, (i * 3) as f64 / 100.0, 0)).collect();
    assert!(pack(&constant).bytes().len() < 160, "{}", pack(&constant).bytes().len());
    assert!(pack(&counter).bytes().len() < 720, "{}", pack(&counter).bytes().len());
}
