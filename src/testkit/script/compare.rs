//! Whether results are as a script expects them.
//!
//! *Invariants:* the tolerances are those of `promqltest`.
//!
//! *Not here:* running (`run`).

use std::collections::BTreeMap;

use super::parse::{Eval, Expected, ExpectedSeries, When};
use super::values::Written;
use crate::model::{Histogram, Labels, StepGrid, is_stale};
use crate::promql::annotations::{Annotations, Severity};
use crate::promql::exec::column::Sample;
use crate::promql::exec::result::{InstantSample, QueryValue, RangeSeries};
use crate::promql::histogram::compacted;
use crate::testkit::memory_source::Point;

const EPSILON: f64 = 1e-6;

/// Equal up to a relative difference of 1e-6.
pub fn floats_equal(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

fn histograms_equal(want: &Histogram, got: &Histogram, with_hint: bool) -> bool {
    let (want, got) = (compacted(want.clone()), compacted(got.clone()));
    let all = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| floats_equal(*a, *b));
    want.schema == got.schema
        && want.zero_threshold == got.zero_threshold
        && want.custom_values == got.custom_values
        && floats_equal(want.count, got.count)
        && floats_equal(want.sum, got.sum)
        && floats_equal(want.zero_count, got.zero_count)
        && want.positive_spans == got.positive_spans
        && want.negative_spans == got.negative_spans
        && all(&want.positive, &got.positive)
        && all(&want.negative, &got.negative)
        && (!with_hint || want.reset_hint == got.reset_hint)
}

fn check_sample(labels: &Labels, want: &Written, got: &Sample) -> Result<(), String> {
    let same = match (&want.point, got) {
        (Point::Float(a), Sample::Float(b)) => floats_equal(*a, *b),
        (Point::Histogram(a), Sample::Histogram(b)) => histograms_equal(a, b, want.has_hint),
        _ => false,
    };
    if same { Ok(()) } else { Err(format!("expected {:?} for {labels} but got {got:?}", want.point)) }
}

/// Compares an instant vector.
pub fn check_vector(eval: &Eval, got: &[InstantSample], ordered: bool) -> Result<(), String> {
    for (at, sample) in got.iter().enumerate() {
        let position = eval.series.iter().position(|s| s.labels == sample.labels);
        let position = position.ok_or_else(|| format!("unexpected metric {} in result", sample.labels))?;
        if ordered && position != at {
            return Err(format!("expected {} at position {position} but it is at {at}", sample.labels));
        }
        let want = &eval.series[position];
        match want.points.first() {
            Some(Some(want)) => check_sample(&sample.labels, want, &sample.sample)?,
            _ => return Err(format!("no value is expected for {}", sample.labels)),
        }
    }
    match eval.series.iter().find(|s| !got.iter().any(|g| g.labels == s.labels)) {
        Some(missing) => Err(format!("expected metric {} not found", missing.labels)),
        None => Ok(()),
    }
}

/// Compares a matrix.
pub fn check_matrix(want: &[ExpectedSeries], got: &[RangeSeries], grid: StepGrid) -> Result<(), String> {
    check_sorted(got)?;
    let got_by: BTreeMap<&Labels, &RangeSeries> = got.iter().map(|s| (&s.labels, s)).collect();
    for want in want {
        let Some(got) = got_by.get(&want.labels) else {
            if want.points.iter().all(Option::is_none) {
                continue;
            }
            return Err(format!("expected metric {} not found", want.labels));
        };
        check_series(want, got, grid)?;
    }
    match got.iter().find(|g| !want.iter().any(|w| w.labels == g.labels)) {
        Some(extra) => Err(format!("unexpected metric {} in result, has value {extra:?}", extra.labels)),
        None => Ok(()),
    }
}

/// A matrix is sorted by labels.
pub fn check_sorted(got: &[RangeSeries]) -> Result<(), String> {
    if got.is_sorted_by(|a, b| a.labels < b.labels) { Ok(()) } else { Err("series are not sorted".into()) }
}

fn check_series(want: &ExpectedSeries, got: &RangeSeries, grid: StepGrid) -> Result<(), String> {
    let (mut floats, mut histograms) = (got.floats.iter(), got.histograms.iter());
    let labels = &got.labels;
    for (i, point) in want.points.iter().enumerate() {
        let t = grid.start + i as i64 * grid.step;
        let (Some(written), true) = (point, t <= grid.end) else { continue };
        let found = match &written.point {
            Point::Float(_) => floats.next().map(|(t, v)| (*t, Sample::Float(*v))),
            Point::Histogram(_) => histograms.next().map(|(t, h)| (*t, Sample::Histogram(h.clone()))),
        };
        let Some((got_t, sample)) = found else {
            return Err(format!("{labels}: expected {:?} at {t}, got nothing; result {got:?}", written.point));
        };
        if got_t != t {
            return Err(format!("{labels}: expected {:?} at {t}, got a sample at {got_t}", written.point));
        }
        check_sample(labels, written, &sample).map_err(|e| format!("at {t}: {e}"))?;
    }
    match (floats.next(), histograms.next()) {
        (None, None) => Ok(()),
        extra => Err(format!("{labels}: unexpected samples {extra:?}")),
    }
}

/// Compares annotations, as they are shown for `query`.
pub fn check_annotations(eval: &Eval, query: &str, got: &Annotations) -> Result<(), String> {
    check_severity(&eval.warn, "warning", &got.render(Severity::Warning, query, 0))?;
    check_severity(&eval.info, "info", &got.render(Severity::Info, query, 0))
}

fn check_severity(want: &Expected, word: &str, got: &[String]) -> Result<(), String> {
    if want.none && !got.is_empty() {
        return Err(format!("expected no {word} but got {got:?}"));
    }
    if (want.any || !want.some.is_empty()) && got.is_empty() {
        return Err(format!("expected a {word} but got none"));
    }
    if want.some.is_empty() {
        return Ok(());
    }
    if let Some(unmatched) = want.some.iter().find(|p| !got.iter().any(|g| p.matches(g))) {
        return Err(format!("expected {word} {unmatched:?}, got {got:?}"));
    }
    match got.iter().find(|g| !want.some.iter().any(|p| p.matches(g))) {
        Some(extra) => Err(format!("unexpected {word} {extra:?}")),
        None => Ok(()),
    }
}

/// Compares a value as the eval's own command yields it.
pub fn check_value(eval: &Eval, got: &QueryValue) -> Result<(), String> {
    if let Some(want) = &eval.string {
        return match got {
            QueryValue::String(_, text) if **text == **want => Ok(()),
            other => Err(format!("expected string {:?}, got {other:?}", String::from_utf8_lossy(want))),
        };
    }
    if let Some(want) = eval.scalar {
        return match got {
            QueryValue::Scalar(_, v) if floats_equal(want, *v) => Ok(()),
            QueryValue::Matrix(m) if m.iter().all(|s| s.floats.iter().all(|f| floats_equal(want, f.1))) => Ok(()),
            other => Err(format!("expected scalar {want}, got {other:?}")),
        };
    }
    match (got, eval.when, eval.matrix) {
        (QueryValue::Matrix(m), _, Some(grid)) | (QueryValue::Matrix(m), When::Range(grid), None) => {
            check_matrix(&eval.series, m, grid)
        }
        (QueryValue::Vector(v), When::Instant(_), None) => check_vector(eval, v, eval.ordered),
        (other, ..) => Err(format!("unexpected type of result: {other:?}")),
    }
}
