//! What is done to the samples of one series, one by one.
//!
//! *Invariants:* a stage never adds samples; histograms are dropped by functions of floats.
//!
//! *Not here:* the functions themselves (`functions::math`, `functions::time`).

use std::sync::Arc;

use super::binary::{self, Elements};
use super::column::{ScalarColumn, Series};
use crate::model::{Histogram, StepGrid};
use crate::promql::annotations::Annotations;
use crate::promql::functions::math;
use crate::promql::functions::window::{ABSENT, is_absent};
use crate::promql::histogram::scaled;
use crate::promql::operator::BinaryOp;
use crate::promql::position::Span;

/// An operation on every sample of a series.
pub enum Stage {
    /// `-v`.
    Negate,
    /// A function of one float.
    Math(fn(f64) -> f64),
    /// `round(v, to)`.
    Round(ScalarColumn),
    /// `clamp(v, min, max)`.
    Clamp(ScalarColumn, ScalarColumn),
    /// An operator with a scalar.
    Scalar {
        /// Operator.
        op: BinaryOp,
        /// The scalar.
        scalar: ScalarColumn,
        /// The scalar is the left operand.
        left: bool,
        /// `bool`.
        return_bool: bool,
        /// Place of the operation in the text.
        span: Span,
    },
    /// `timestamp(v)`: the step itself, seconds.
    StepTime(StepGrid),
    /// `start_timestamp(v)`: computed samples have none.
    Nothing,
    /// A function of one histogram.
    Histogram(fn(&Histogram) -> f64),
}

impl Stage {
    /// Whether the outcome is no longer the metric it was.
    pub fn drops_name(&self) -> bool {
        match self {
            Self::Scalar { op, return_bool, .. } => *return_bool || binary::changes_meaning(*op),
            _ => true,
        }
    }

    /// Whether type and unit stay when the name goes.
    pub fn keeps_metadata(&self) -> bool {
        matches!(self, Self::Histogram(_))
    }

    /// Applies it.
    pub fn apply(&self, series: &mut Series, notes: &mut Annotations) {
        let column = &mut series.column;
        match self {
            Self::Negate => {
                map(&mut column.values, |_, v| -v);
                for (_, h) in &mut column.histograms {
                    *h = Arc::new(scaled(h, -1.0));
                }
            }
            Self::Scalar { op, scalar, left, return_bool, span } => {
                let elements = Elements { op: *op, return_bool: *return_bool, span: *span };
                elements.with_scalar(column, scalar, *left, notes);
            }
            Self::Histogram(f) => {
                column.values.fill(ABSENT);
                for (step, h) in std::mem::take(&mut column.histograms) {
                    column.values[step as usize] = f(&h);
                }
            }
            Self::StepTime(grid) => {
                for step in 0..column.values.len() {
                    if column.has(step) {
                        column.values[step] = grid.at(step) as f64 / 1000.0;
                    }
                }
                column.histograms.clear();
            }
            Self::Math(f) => map_floats(series, |_, v| f(v)),
            Self::Round(to) => map_floats(series, |step, v| math::round(v, to.at(step))),
            Self::Clamp(min, max) => map_floats(series, |step, v| {
                let (min, max) = (min.at(step), max.at(step));
                if max < min { ABSENT } else { math::clamp(v, min, max) }
            }),
            Self::Nothing => {
                column.values.fill(ABSENT);
                column.histograms.clear();
            }
        }
    }
}

fn map_floats(series: &mut Series, f: impl Fn(usize, f64) -> f64) {
    series.column.histograms.clear();
    map(&mut series.column.values, f);
}

#[inline(always)]
fn map(values: &mut [f64], f: impl Fn(usize, f64) -> f64) {
    for (step, v) in values.iter_mut().enumerate() {
        if !is_absent(*v) {
            *v = f(step, *v);
        }
    }
}
