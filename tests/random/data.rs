//! Random series: floats and native histograms with gaps, stale markers, resets and special values.
//!
//! *Invariants:* few names and label values, so that queries find something and labels collide. Samples ascend in time.

use std::sync::Arc;

use metrolith::model::{Histogram, Labels, ResetHint, Span, stale_nan};
use metrolith::testkit::memory_source::{MemorySource, Point};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Distance of samples, milliseconds.
pub const SCRAPE: i64 = 15_000;
/// Most samples of a series: ten minutes.
const SAMPLES: usize = 40;

/// Bounds of custom buckets.
const BOUNDS: &[&[f64]] = &[&[1.0, 5.0], &[1.0, 2.0, 5.0], &[-1.0, 1.0], &[2.0, 7.0]];

/// What a sample is made of.
#[derive(Debug, Clone)]
enum Cell {
    Missing,
    Float(f64),
    /// So many times the series' histogram.
    Histogram(u8),
    Stale,
}

/// A series as it was drawn.
#[derive(Debug, Clone)]
pub struct RandomSeries {
    labels: Vec<(&'static str, &'static str)>,
    cells: Vec<Cell>,
    /// How much later than the grid samples are.
    late: i64,
    /// Start timestamps, as distances before samples; 0 is none.
    start_before: Vec<i64>,
    base: Histogram,
}

/// Series to query.
#[derive(Debug, Clone)]
pub struct RandomData(pub Vec<RandomSeries>);

impl RandomData {
    /// The series, stored. Of two with the same labels the first is taken.
    pub fn source(&self) -> MemorySource {
        let mut source = MemorySource::new();
        let mut seen = Vec::new();
        for series in &self.0 {
            let labels = Labels::from_pairs(series.labels.iter().copied());
            if seen.contains(&labels) {
                continue;
            }
            seen.push(labels.clone());
            for (i, cell) in series.cells.iter().enumerate() {
                let t = i as i64 * SCRAPE + series.late;
                let before = series.start_before.get(i).copied().unwrap_or(0);
                let point = match cell {
                    Cell::Missing => continue,
                    Cell::Float(v) => Point::Float(*v),
                    Cell::Stale => Point::Float(stale_nan()),
                    Cell::Histogram(n) => Point::Histogram(Arc::new(times(&series.base, f64::from(*n)))),
                };
                source.append(&labels, t, if before == 0 { 0 } else { t - before }, &point).unwrap();
            }
        }
        source
    }
}

fn times(h: &Histogram, n: f64) -> Histogram {
    let all = |counts: &[f64]| counts.iter().map(|c| c * n).collect();
    Histogram {
        count: h.count * n,
        sum: h.sum * n,
        zero_count: h.zero_count * n,
        positive: all(&h.positive),
        negative: all(&h.negative),
        ..h.clone()
    }
}

/// Any data.
pub fn data() -> impl Strategy<Value = RandomData> {
    vec(series(), 1..9).prop_map(RandomData)
}

fn series() -> impl Strategy<Value = RandomSeries> {
    prop_oneof![
        4 => float_series("m", gauge().boxed()),
        4 => float_series("c_total", counter().boxed()),
        2 => buckets(),
        3 => histograms("h"),
        1 => histograms("c_total"),
        1 => info(),
    ]
}

fn labels(name: &'static str) -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let optional = |label, values: &'static [&'static str]| select(values).prop_map(move |v| (label, v));
    let a = optional("a", &["x", "y", "z", ""]);
    let b = optional("b", &["1", "2", ""]);
    let job = optional("job", &["", "", "j"]);
    let declared = optional("__type__", &["", "", "", "", "counter", "gauge"]);
    (a, b, job, declared).prop_map(move |(a, b, job, declared)| vec![("__name__", name), a, b, job, declared])
}

fn float_series(name: &'static str, cells: BoxedStrategy<Vec<Cell>>) -> BoxedStrategy<RandomSeries> {
    (labels(name), cells, late(), starts())
        .prop_map(|(labels, cells, late, start_before)| RandomSeries {
            labels,
            cells,
            late,
            start_before,
            base: Histogram::default(),
        })
        .boxed()
}

fn late() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(7_300)]
}

fn starts() -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![
        3 => Just(Vec::new()),
        1 => vec(select(&[0, 0, 15_000, 15_000, 30_000, 1, 45_000, 100_000][..]), SAMPLES),
    ]
}

fn gauge() -> impl Strategy<Value = Vec<Cell>> {
    vec(
        prop_oneof![
            8 => (0..20i32).prop_map(|v| Cell::Float(f64::from(v))),
            4 => (-500..500i32).prop_map(|v| Cell::Float(f64::from(v) / 10.0)),
            2 => Just(Cell::Missing),
            1 => Just(Cell::Stale),
            1 => select(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, -0.0, 1e-300, 1e17][..])
                .prop_map(Cell::Float),
        ],
        1..SAMPLES,
    )
}

fn counter() -> impl Strategy<Value = Vec<Cell>> {
    let step = prop_oneof![
        8 => (0..30u32).prop_map(|v| Some(f64::from(v))),
        2 => (0..300u32).prop_map(|v| Some(f64::from(v) / 7.0)),
        1 => Just(Some(-1.0)),
        2 => Just(None),
    ];
    vec((step, prop_oneof![30 => Just(false), 1 => Just(true)]), 1..SAMPLES).prop_map(|steps| {
        let mut total = 0.0;
        let cell = |(step, stale): (Option<f64>, bool)| match step {
            _ if stale => Cell::Stale,
            None => Cell::Missing,
            Some(step) => {
                // A negative step is a reset.
                total = if step < 0.0 { 0.0 } else { total + step };
                Cell::Float(total)
            }
        };
        steps.into_iter().map(cell).collect()
    })
}

fn buckets() -> impl Strategy<Value = RandomSeries> {
    (float_series("b_bucket", counter().boxed()), select(&["0.1", "1", "10", "+Inf", "+Inf", "0", "-1", "oops"][..]))
        .prop_map(|(mut series, le)| {
            series.labels.push(("le", le));
            series
        })
}

fn info() -> impl Strategy<Value = RandomSeries> {
    let cells =
        vec(prop_oneof![6 => Just(Cell::Float(1.0)), 1 => Just(Cell::Missing), 1 => Just(Cell::Stale)], 1..SAMPLES);
    (float_series("target_info", cells.boxed()), select(&["v1", "v2"][..])).prop_map(|(mut series, version)| {
        series.labels.retain(|(name, _)| *name != "a" && *name != "job");
        series.labels.extend([("job", "j"), ("version", version)]);
        series
    })
}

fn histograms(name: &'static str) -> impl Strategy<Value = RandomSeries> {
    let cell = prop_oneof![
        10 => (0..6u8).prop_map(Cell::Histogram),
        2 => Just(Cell::Missing),
        1 => Just(Cell::Stale),
        1 => (0..9i32).prop_map(|v| Cell::Float(f64::from(v))),
    ];
    let rising = vec(0..2u8, 1..SAMPLES).prop_map(|steps| {
        let mut n = 0u8;
        let cell = |step: u8| {
            n = n.saturating_add(step);
            Cell::Histogram(n)
        };
        steps.into_iter().map(cell).collect::<Vec<_>>()
    });
    let cells = prop_oneof![2 => rising, 1 => vec(cell, 1..SAMPLES)];
    (labels(name), cells, late(), starts(), histogram())
        .prop_map(|(labels, cells, late, start_before, base)| RandomSeries { labels, cells, late, start_before, base })
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let counts = |most: usize| vec((0..5u8).prop_map(f64::from), 0..most);
    let hint = prop_oneof![4 => Just(ResetHint::Unknown), 1 => Just(ResetHint::Gauge)];
    let exponential = (
        select(&[0, 0, 0, 1, 2, -1, 3][..]),
        select(&[0.0, 0.001, 0.5, 1.0, 3.0][..]),
        0..3u8,
        (counts(5), -3..4i32),
        prop_oneof![3 => Just((Vec::new(), 0)), 1 => (counts(4), -2..3i32)],
        hint,
    )
        .prop_map(|(schema, zero_threshold, zero, (positive, offset), (negative, negative_offset), reset_hint)| {
            let zero_count = f64::from(zero);
            let count = zero_count + total(&positive) + total(&negative);
            Histogram {
                schema,
                zero_threshold,
                zero_count,
                count,
                sum: count * 1.5,
                positive_spans: spans(offset, &positive),
                positive,
                negative_spans: spans(negative_offset, &negative),
                negative,
                reset_hint,
                ..Histogram::default()
            }
        });
    let bounds = select(BOUNDS);
    let custom = (bounds, counts(4)).prop_map(|(bounds, positive)| {
        let positive: Vec<f64> = positive.into_iter().take(bounds.len() + 1).collect();
        let count = total(&positive);
        Histogram {
            schema: -53,
            count,
            sum: count * 2.0,
            positive_spans: spans(0, &positive),
            positive,
            custom_values: bounds.to_vec(),
            ..Histogram::default()
        }
    });
    let skewed = prop_oneof![12 => Just(false), 1 => Just(true)];
    (prop_oneof![3 => exponential, 1 => custom], skewed).prop_map(|(mut h, skewed)| {
        if skewed {
            // Observations of NaN: in the count, in no bucket.
            h.count += 2.0;
            h.sum = f64::NAN;
        }
        h
    })
}

fn total(counts: &[f64]) -> f64 {
    counts.iter().fold(0.0, |total, count| total + count)
}

fn spans(offset: i32, counts: &[f64]) -> Vec<Span> {
    if counts.is_empty() { Vec::new() } else { vec![Span { offset, length: counts.len() as u32 }] }
}
