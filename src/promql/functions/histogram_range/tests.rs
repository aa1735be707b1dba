//! Functions of ranges of native histograms, by small examples.

use super::*;

fn of(count: f64, hint: ResetHint) -> Arc<Histogram> {
    let span = crate::model::Span { offset: 0, length: 1 };
    let (positive, positive_spans) = (vec![count], vec![span]);
    Arc::new(Histogram { reset_hint: hint, count, sum: 2.0 * count, positive, positive_spans, ..Histogram::default() })
}

fn counts(counts: &[f64]) -> Vec<Arc<Histogram>> {
    counts.iter().map(|c| of(*c, ResetHint::Unknown)).collect()
}

fn increase(hs: &[Arc<Histogram>], range: i64) -> (Option<f64>, Findings) {
    let ts: Vec<i64> = (0..hs.len() as i64).map(|i| i * 60_000).collect();
    let points = HistogramPoints { ts: &ts, hs, starts: &[] };
    let mut counter = Counter::default();
    counter.scan(points);
    let end = ts[ts.len() - 1];
    let window = Window { start: end - range, end, t: end, step: 0 };
    let lo = ts.partition_point(|t| *t <= window.start);
    let mut found = Findings::default();
    let rate = Rate { counter: true, per: 0.0 };
    (rate.eval(&counter, points, (lo, hs.len()), window, &mut found).map(|h| h.count), found)
}

#[test]
fn an_increase_adds_what_resets_lost() {
    // 10 → 12, anew at 1, → 4: 4 − 10 + 12, over 3 of 3 minutes; the first sample lies on the open edge.
    assert_eq!(increase(&counts(&[0.0, 10.0, 12.0, 1.0, 4.0]), 240_000).0, Some(6.0 * (3.0 + 1.0) / 3.0));
    assert_eq!(increase(&counts(&[1.0]), 60_000).0, None);
}

#[test]
fn a_first_sample_before_a_reset_counts_for_nothing() {
    let mut hs = counts(&[9.0, 1.0, 3.0]);
    hs[0] = Arc::new(Histogram { schema: -53, custom_values: vec![1.0], ..(*hs[0]).clone() });
    // From nothing to three in two minutes, and the millisecond before.
    assert_eq!(increase(&hs, 120_001).0, Some(3.0 * (120.001 / 120.0)));
    hs[2] = Arc::clone(&hs[0]);
    let (got, found) = increase(&hs, 120_001);
    assert!(got.is_none() && found.has(Finding::MixedSchemas));
}

#[test]
fn gauges_are_found_wherever_they_are() {
    let mut hs = counts(&[1.0, 2.0, 3.0]);
    assert!(increase(&hs, 180_000).1.is_empty());
    hs[1] = of(2.0, ResetHint::Gauge);
    assert!(increase(&hs, 180_000).1.has(Finding::NotCounter));
}

#[test]
fn conflicting_hints_are_found_in_sums() {
    let hs = [of(1.0, ResetHint::Reset), of(2.0, ResetHint::NotReset)];
    let mut found = Findings::default();
    assert_eq!(total(true, &hs, &mut found).map(|h| h.count), Some(3.0));
    assert_eq!(total(false, &hs, &mut found).map(|h| h.count), Some(1.5));
    assert!(found.has(Finding::ConflictingResets) && !found.has(Finding::ReconciledAggregation));
}

#[test]
fn floats_and_histograms_differ() {
    let hs = counts(&[5.0, 5.0]);
    let floats = Points { ts: &[0, 10, 40], vs: &[1.0, 1.0, 0.0], starts: &[] };
    let mut transitions = Transitions::default();
    transitions.scan(false, floats, HistogramPoints { ts: &[20, 30], hs: &hs, starts: &[] });
    assert_eq!(
        [(-1, 40), (0, 20), (10, 30), (20, 40), (30, 40)].map(|(a, b)| transitions.count(a, b)),
        [2., 1., 0., 1., 0.]
    );
}
