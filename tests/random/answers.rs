//! Whether two evaluators gave the same answer.
//!
//! *Invariants:* floats agree to the last bit (any NaN is like another); native histograms within a few roundings, since
//! the order in which their buckets are added is nobody's promise. Errors agree in kind and text, annotations in text.

use metrolith::error::HasKind;
use metrolith::model::Histogram;
use metrolith::promql::annotations::Severity;
use metrolith::promql::exec::column::Sample;
use metrolith::promql::exec::error::Error;
use metrolith::promql::exec::result::{InstantSample, QueryResult, QueryValue};
use metrolith::promql::histogram::compacted;

/// An answer.
pub type Answer = Result<QueryResult, Error>;

/// What is different, if anything. `ordered` says that the order of an instant vector means something.
pub fn difference(query: &str, ordered: bool, want: &Answer, got: &Answer) -> Option<String> {
    match (want, got) {
        (Err(want), Err(got)) => {
            let (a, b) = (error_text(want), error_text(got));
            (a != b || want.kind() != got.kind()).then(|| format!("errors: reference {a:?}, engine {b:?}"))
        }
        (Err(want), Ok(got)) => Some(format!("reference fails: {want}; engine answers {:?}", got.value)),
        (Ok(want), Err(got)) => Some(format!("engine fails: {got}; reference answers {:?}", want.value)),
        (Ok(want), Ok(got)) => {
            if !same_value(&want.value, &got.value, ordered) {
                return Some(format!("values:\n  reference {:?}\n  engine    {:?}", want.value, got.value));
            }
            let notes = |r: &QueryResult, s| r.annotations.render(s, query, 0);
            [Severity::Warning, Severity::Info].into_iter().find_map(|severity| {
                let (a, b) = (notes(want, severity), notes(got, severity));
                (a != b).then(|| format!("annotations:\n  reference {a:?}\n  engine    {b:?}"))
            })
        }
    }
}

/// The text of an error, without what depends on which of several mistakes was found first.
fn error_text(e: &Error) -> String {
    let text = e.to_string();
    if text.starts_with("found duplicate series") { "found duplicate series".to_owned() } else { text }
}

fn same_value(want: &QueryValue, got: &QueryValue, ordered: bool) -> bool {
    match (want, got) {
        (QueryValue::Scalar(t, a), QueryValue::Scalar(u, b)) => t == u && same_float(*a, *b),
        (QueryValue::String(t, a), QueryValue::String(u, b)) => t == u && a == b,
        (QueryValue::Vector(a), QueryValue::Vector(b)) => {
            // Among equal values no order is promised.
            let in_order = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_sample(&a.sample, &b.sample));
            let (mut a, mut b) = (a.clone(), b.clone());
            a.sort_by(|x, y| x.labels.cmp(&y.labels));
            b.sort_by(|x, y| x.labels.cmp(&y.labels));
            let same = |(x, y): (&_, &_)| same_element(x, y);
            (in_order || !ordered) && a.len() == b.len() && a.iter().zip(&b).all(same)
        }
        (QueryValue::Matrix(a), QueryValue::Matrix(b)) => {
            let floats = |a: &[(i64, f64)], b: &[(i64, f64)]| {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && same_float(a.1, b.1))
            };
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    a.labels == b.labels
                        && floats(&a.floats, &b.floats)
                        && a.histograms.len() == b.histograms.len()
                        && a.histograms.iter().zip(&b.histograms).all(|(a, b)| a.0 == b.0 && same_histogram(&a.1, &b.1))
                })
        }
        _ => false,
    }
}

fn same_element(a: &InstantSample, b: &InstantSample) -> bool {
    a.labels == b.labels && a.t == b.t && same_sample(&a.sample, &b.sample)
}

fn same_sample(a: &Sample, b: &Sample) -> bool {
    match (a, b) {
        (Sample::Float(a), Sample::Float(b)) => same_float(*a, *b),
        (Sample::Histogram(a), Sample::Histogram(b)) => same_histogram(a, b),
        _ => false,
    }
}

fn same_float(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a.to_bits() == b.to_bits()
}

fn nearly(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-12 * (a.abs() + b.abs())
}

fn same_histogram(a: &Histogram, b: &Histogram) -> bool {
    let (a, b) = (compacted(a.clone()), compacted(b.clone()));
    let all = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| nearly(*a, *b));
    a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && a.custom_values == b.custom_values
        && nearly(a.count, b.count)
        && nearly(a.sum, b.sum)
        && nearly(a.zero_count, b.zero_count)
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && all(&a.positive, &b.positive)
        && all(&a.negative, &b.negative)
}
