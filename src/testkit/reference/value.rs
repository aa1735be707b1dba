//! What expressions yield: series of samples by step.
//!
//! *Invariants:* a series has samples only at steps of the grid it was evaluated on (a range vector at its own times).
//!
//! *Not here:* stored samples (`data`).

use std::collections::BTreeMap;

use crate::model::{Labels, METRIC_NAME, StepGrid};
use crate::promql::exec::error::Error;

pub(super) use crate::promql::exec::column::Sample;

/// Samples by time, milliseconds.
pub(super) type Samples = BTreeMap<i64, Sample>;

/// A series of an instant vector over all steps of a query.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    pub labels: Labels,
    /// The name is still in `labels` but is to be removed at the end of the query.
    pub dropped: bool,
    pub samples: Samples,
}

/// One series of an instant vector at one step.
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub labels: Labels,
    pub dropped: bool,
    pub sample: Sample,
    /// Which series of the operand it stems from: results keep the order of the series they are made of.
    pub from: usize,
}

/// The value of an expression.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A number for each step.
    Scalar(BTreeMap<i64, f64>),
    /// Bytes.
    Text(Box<[u8]>),
    /// An instant vector for each step.
    Vector(Vec<Series>),
    /// A range vector: only as the answer of an instant query.
    Matrix(Vec<Series>),
}

/// The instant vector at one step, in the order of the series.
pub(super) fn at(series: &[Series], t: i64) -> Vec<Element> {
    let element = |(from, s): (usize, &Series)| {
        let sample = s.samples.get(&t)?.clone();
        Some(Element { labels: s.labels.clone(), dropped: s.dropped, sample, from })
    };
    series.iter().enumerate().filter_map(element).collect()
}

/// Puts the instant vectors of several steps together: elements of equal labels are one series. Twice the same labels at
/// one step is an error. A single step stays as it is, in the order of its elements too.
pub(super) fn collect(steps: Vec<(i64, Vec<Element>)>, equal_labels_fail: bool) -> Result<Vec<Series>, Error> {
    let single = steps.len() == 1;
    let mut out: Vec<(usize, Series)> = Vec::new();
    for (t, elements) in steps {
        for Element { labels, dropped, sample, from } in elements {
            let known = out.iter().position(|(_, s)| s.labels == labels);
            let known = known.filter(|_| !single || equal_labels_fail);
            let n = known.unwrap_or_else(|| {
                out.push((from, Series { labels, dropped, samples: Samples::new() }));
                out.len() - 1
            });
            out[n].0 = out[n].0.min(from);
            if out[n].1.samples.insert(t, sample).is_some() {
                return Err(Error::same_labels());
            }
        }
    }
    if !single {
        out.sort_by_key(|(from, _)| *from);
    }
    Ok(out.into_iter().map(|(_, series)| series).collect())
}

/// The value of one step on all steps.
pub(super) fn repeated(once: Value, grid: StepGrid) -> Value {
    match once {
        Value::Scalar(steps) => match steps.into_values().next() {
            Some(v) => Value::Scalar(grid.iter().map(|t| (t, v)).collect()),
            None => Value::Scalar(BTreeMap::new()),
        },
        Value::Vector(mut series) => {
            for s in &mut series {
                if let Some(sample) = s.samples.values().next().cloned() {
                    s.samples = grid.iter().map(|t| (t, sample.clone())).collect();
                }
            }
            Value::Vector(series)
        }
        other => other,
    }
}

/// Makes one series of those with equal labels; an error where two of them have a sample at the same time.
pub(super) fn merge(series: Vec<Series>) -> Result<Vec<Series>, Error> {
    let mut out: Vec<Series> = Vec::new();
    for s in series {
        let Some(same) = out.iter_mut().find(|o| o.labels == s.labels) else {
            out.push(s);
            continue;
        };
        for (t, sample) in s.samples {
            if same.samples.insert(t, sample).is_some() {
                return Err(Error::same_labels());
            }
        }
    }
    Ok(out)
}

/// Fails where two series have the same labels, whether or not they have a sample at the same time.
pub(super) fn check_distinct(series: &[Series]) -> Result<(), Error> {
    let equal = |i: usize| series[..i].iter().any(|s| s.labels == series[i].labels);
    if (0..series.len()).any(equal) { Err(Error::same_labels()) } else { Ok(()) }
}

/// Whether a label tells what metric a series is of: its name, type or unit.
pub(super) fn is_metadata(name: &str) -> bool {
    name == METRIC_NAME || name == "__type__" || name == "__unit__"
}

/// The labels without name, type and unit.
pub(super) fn without_metadata(labels: &Labels) -> Labels {
    labels.to_builder().retain(|name| !is_metadata(name)).build()
}
