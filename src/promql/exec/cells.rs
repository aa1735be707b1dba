//! What a group of an aggregation keeps for each step.
//!
//! *Invariants:* cells of one operation and number of steps have one shape. Merging is a function of the two cells alone, so
//! cells of the same series merged in the same order are the same bit for bit, wherever they were computed.
//!
//! *Not here:* which cells there are and in which order they are merged (`aggregate`), native histograms (`histogram_cell`).

use crate::promql::functions::kahan::{self, Mean};
use crate::promql::functions::window::{ABSENT, is_absent};
use crate::promql::operator::AggregateOp;

/// One place per step; [`ABSENT`] in the first column where there was no sample yet.
#[derive(Debug, Clone)]
pub enum Cells {
    /// Compensated sums.
    Sum {
        /// The sum.
        sum: Vec<f64>,
        /// What it lost.
        c: Vec<f64>,
    },
    /// Means.
    Avg(Vec<Option<Mean>>),
    /// Lowest values.
    Min(Vec<f64>),
    /// Highest values.
    Max(Vec<f64>),
    /// Numbers of samples.
    Count(Vec<f64>),
    /// Ones.
    Group(Vec<f64>),
    /// Squared distances from the mean, means, numbers.
    Variance {
        /// Sum of squared distances.
        m2: Vec<f64>,
        /// Mean.
        mean: Vec<f64>,
        /// Number of samples.
        count: Vec<f64>,
    },
}

impl Cells {
    /// Cells without a sample.
    pub fn new(op: AggregateOp, steps: usize) -> Self {
        let empty = || vec![ABSENT; steps];
        let zero = || vec![0.0; steps];
        match op {
            AggregateOp::Avg => Self::Avg(vec![None; steps]),
            AggregateOp::Min => Self::Min(empty()),
            AggregateOp::Max => Self::Max(empty()),
            AggregateOp::Count => Self::Count(empty()),
            AggregateOp::Group => Self::Group(empty()),
            AggregateOp::Stddev | AggregateOp::Stdvar => Self::Variance { m2: empty(), mean: zero(), count: zero() },
            _ => Self::Sum { sum: empty(), c: zero() },
        }
    }

    /// Bytes of one step.
    pub fn bytes_per_step(op: AggregateOp) -> usize {
        match op {
            AggregateOp::Avg => size_of::<Option<Mean>>(),
            AggregateOp::Min | AggregateOp::Max | AggregateOp::Count | AggregateOp::Group => 8,
            AggregateOp::Stddev | AggregateOp::Stdvar => 24,
            _ => 16,
        }
    }

    /// Whether there was a float on a step.
    pub fn has(&self, step: usize) -> bool {
        match self {
            Self::Avg(means) => means[step].is_some(),
            Self::Sum { sum: v, .. } | Self::Min(v) | Self::Max(v) | Self::Count(v) | Self::Group(v) => {
                !is_absent(v[step])
            }
            Self::Variance { m2, .. } => !is_absent(m2[step]),
        }
    }

    /// Takes the values of a series.
    pub fn push(&mut self, values: &[f64]) {
        match self {
            Self::Sum { sum, c } => push_sum(sum, c, values),
            Self::Avg(means) => {
                for (mean, v) in means.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
                    match mean {
                        Some(mean) => mean.push(*v),
                        None => *mean = Some(Mean::of(*v)),
                    }
                }
            }
            Self::Min(min) => fold(min, values, lower),
            Self::Max(max) => fold(max, values, higher),
            Self::Count(count) => {
                for (count, _) in count.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
                    *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
                }
            }
            Self::Group(group) => fold(group, values, |_, _| 1.0),
            Self::Variance { m2, mean, count } => {
                for i in 0..values.len() {
                    let v = values[i];
                    if is_absent(v) {
                        continue;
                    }
                    count[i] += 1.0;
                    if is_absent(m2[i]) {
                        mean[i] = v;
                        m2[i] = if v.is_finite() { 0.0 } else { f64::NAN };
                        continue;
                    }
                    let delta = v - mean[i];
                    mean[i] += delta / count[i];
                    m2[i] += delta * (v - mean[i]);
                }
            }
        }
    }

    /// Takes cells of the same operation and number of steps, of series that come after all of these.
    pub fn merge(&mut self, after: &Self) {
        match (self, after) {
            (Self::Sum { sum, c }, Self::Sum { sum: sums, c: lost }) => {
                for ((sum, c), (v, lost)) in sum.iter_mut().zip(c).zip(sums.iter().zip(lost)) {
                    if is_absent(*v) {
                        continue;
                    }
                    if is_absent(*sum) {
                        (*sum, *c) = (*v, *lost);
                    } else {
                        (*sum, *c) = kahan::add(*v, *sum, *c);
                        *c += *lost;
                    }
                }
            }
            (Self::Avg(means), Self::Avg(more)) => {
                for (mean, more) in means.iter_mut().zip(more) {
                    match (mean, more) {
                        (Some(mean), Some(more)) => mean.merge(more),
                        (mean @ None, more) => *mean = *more,
                        (Some(_), None) => {}
                    }
                }
            }
            (Self::Min(min), Self::Min(values)) => fold(min, values, lower),
            (Self::Max(max), Self::Max(values)) => fold(max, values, higher),
            (Self::Count(count), Self::Count(values)) => fold(count, values, |a, v| a + v),
            (Self::Group(group), Self::Group(values)) => fold(group, values, |_, _| 1.0),
            _ => unreachable!("BUG: variances and cells of two operations are not merged"),
        }
    }

    /// The values.
    pub fn finish(&mut self, root: bool) -> Vec<f64> {
        match self {
            Self::Sum { sum, c } => {
                for (sum, c) in sum.iter_mut().zip(c).filter(|(s, _)| !is_absent(**s)) {
                    *sum += *c;
                }
                std::mem::take(sum)
            }
            Self::Avg(means) => means.iter().map(|m| m.map_or(ABSENT, |m| m.get())).collect(),
            Self::Min(v) | Self::Max(v) | Self::Count(v) => std::mem::take(v),
            Self::Group(v) => {
                v.iter_mut().filter(|v| !is_absent(**v)).for_each(|v| *v = 1.0);
                std::mem::take(v)
            }
            Self::Variance { m2, count, .. } => {
                for (m2, n) in m2.iter_mut().zip(count).filter(|(m, _)| !is_absent(**m)) {
                    let variance = *m2 / *n;
                    *m2 = if root { variance.sqrt() } else { variance };
                }
                std::mem::take(m2)
            }
        }
    }

    /// Appends the columns, each value as eight bytes. A mean is three: its value, what it lost, and how many values it is
    /// of, negative where the value is a mean rather than a sum.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut column = |values: &[f64]| values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        match self {
            Self::Sum { sum, c } => [sum, c].into_iter().for_each(|v| column(v)),
            Self::Min(v) | Self::Max(v) | Self::Count(v) | Self::Group(v) => column(v),
            Self::Variance { m2, mean, count } => [m2, mean, count].into_iter().for_each(|v| column(v)),
            Self::Avg(means) => {
                let parts = means.iter().map(|m| m.map_or([ABSENT, 0.0, 0.0], Mean::to_parts));
                parts.for_each(|parts| column(&parts));
            }
        }
    }

    /// Takes off `data` what [`Cells::write`] wrote; `None` where it is too short. Nothing larger than what is there is
    /// allocated.
    pub fn read(op: AggregateOp, steps: usize, data: &mut &[u8]) -> Option<Self> {
        let columns = match op {
            AggregateOp::Min | AggregateOp::Max | AggregateOp::Count | AggregateOp::Group => 1,
            AggregateOp::Avg | AggregateOp::Stddev | AggregateOp::Stdvar => 3,
            _ => 2,
        };
        let bytes = data.split_off(..steps.checked_mul(8 * columns)?)?;
        let values = bytes.as_chunks::<8>().0.iter().map(|v| f64::from_le_bytes(*v));
        let column = |n: usize| values.clone().skip(n * steps).take(steps).collect::<Vec<f64>>();
        Some(match op {
            AggregateOp::Min => Self::Min(column(0)),
            AggregateOp::Max => Self::Max(column(0)),
            AggregateOp::Count => Self::Count(column(0)),
            AggregateOp::Group => Self::Group(column(0)),
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                Self::Variance { m2: column(0), mean: column(1), count: column(2) }
            }
            AggregateOp::Avg => {
                let parts: Vec<f64> = values.collect();
                let mean = |p: &[f64; 3]| (!is_absent(p[0])).then(|| Mean::from_parts(*p));
                Self::Avg(parts.as_chunks::<3>().0.iter().map(mean).collect())
            }
            _ => Self::Sum { sum: column(0), c: column(1) },
        })
    }
}

/// Adds a series to the sums of its group: the hottest loop of most dashboards.
fn push_sum(sum: &mut [f64], c: &mut [f64], values: &[f64]) {
    for ((sum, c), &v) in sum.iter_mut().zip(c).zip(values) {
        if is_absent(v) {
            continue;
        }
        if is_absent(*sum) {
            *sum = v;
        } else {
            (*sum, *c) = kahan::add(v, *sum, *c);
        }
    }
}

#[inline(always)]
fn lower(a: f64, v: f64) -> f64 {
    if a > v || a.is_nan() { v } else { a }
}

#[inline(always)]
fn higher(a: f64, v: f64) -> f64 {
    if a < v || a.is_nan() { v } else { a }
}

#[inline(always)]
fn fold(cells: &mut [f64], values: &[f64], f: impl Fn(f64, f64) -> f64) {
    for (cell, &v) in cells.iter_mut().zip(values) {
        if !is_absent(v) {
            *cell = if is_absent(*cell) { v } else { f(*cell, v) };
        }
    }
}
