//! Binary operators on single samples and on columns.
//!
//! *Invariants:* an operator that has no meaning for a pair of sample types drops the pair and says so.
//!
//! *Not here:* which series are paired (`join`).

use std::sync::Arc;

use super::column::{Column, Sample, ScalarColumn};
use super::histogram_notes as wording;
use crate::model::{Histogram, ResetHint};
use crate::promql::annotations::Annotations;
use crate::promql::functions::math::{arithmetic, compare};
use crate::promql::functions::window::{ABSENT, is_absent};
use crate::promql::histogram::{Combined, Keep, add, compacted, divided, same, scaled, sub, trimmed};
use crate::promql::operator::BinaryOp;
use crate::promql::position::Span;

/// Whether the outcome of an operator is another metric: its name is dropped.
pub fn changes_meaning(op: BinaryOp) -> bool {
    use BinaryOp as B;
    matches!(op, B::Add | B::Sub | B::Mul | B::Div | B::Mod | B::Pow | B::Atan2)
}

/// An operator and how its outcome is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Elements {
    /// Operator.
    pub op: BinaryOp,
    /// Comparisons answer 0 or 1.
    pub return_bool: bool,
    /// Place of the operation in the text.
    pub span: Span,
}

impl Elements {
    /// Whether the operator has a meaning for a pair of samples: one without is dropped as if it had not been matched.
    pub fn is_possible(&self, lhs: &Sample, rhs: &Sample) -> bool {
        use BinaryOp as B;
        use Sample::{Float as F, Histogram as H};
        let trims = matches!(self.op, B::TrimUpper | B::TrimLower);
        match (lhs, rhs) {
            (F(_), F(_)) => !trims,
            (F(_), H(_)) => self.op == B::Mul,
            (H(_), F(_)) => trims || matches!(self.op, B::Mul | B::Div),
            (H(a), H(b)) if matches!(self.op, B::Add | B::Sub) => a.is_custom() == b.is_custom(),
            (H(_), H(_)) => matches!(self.op, B::Eq | B::Ne),
        }
    }

    /// What the operator makes of a pair: `None` where the types do not fit or a comparison filters it out.
    pub fn pair(&self, lhs: &Sample, rhs: &Sample, notes: &mut Annotations) -> Option<Sample> {
        use Sample::{Float as F, Histogram as H};
        let histogram = |h: Histogram| Some(H(Arc::new(compacted(h))));
        match (lhs, rhs) {
            (F(a), F(b)) if !matches!(self.op, BinaryOp::TrimUpper | BinaryOp::TrimLower) => {
                let v = self.floats(*a, *b);
                return (!is_absent(v)).then_some(F(v));
            }
            (F(a), H(b)) if self.op == BinaryOp::Mul => return histogram(scaled(b, *a)),
            (H(a), F(b)) if self.op == BinaryOp::Mul => return histogram(scaled(a, *b)),
            (H(a), F(b)) if self.op == BinaryOp::Div => return histogram(divided(a, *b)),
            (H(a), F(b)) if self.op == BinaryOp::TrimUpper => return histogram(trimmed(a, *b, Keep::Below)),
            (H(a), F(b)) if self.op == BinaryOp::TrimLower => return histogram(trimmed(a, *b, Keep::Above)),
            (H(a), H(b)) if matches!(self.op, BinaryOp::Eq | BinaryOp::Ne) => {
                let keep = same(a, b) == (self.op == BinaryOp::Eq);
                let bool_value = F(f64::from(keep));
                return if self.return_bool { Some(bool_value) } else { keep.then(|| lhs.clone()) };
            }
            (H(a), H(b)) if matches!(self.op, BinaryOp::Add | BinaryOp::Sub) => {
                return self.histograms(a, b, notes).map(|h| H(Arc::new(h)));
            }
            _ => {}
        }
        let word = |s: &Sample| if matches!(s, F(_)) { "float" } else { "histogram" };
        let (op, left, right) = (self.op, word(lhs), word(rhs));
        let text = format!("incompatible sample types encountered for binary operator \"{op}\": {left} {op} {right}");
        notes.info(self.span, text);
        None
    }

    /// The sum or difference of two histograms; `None` where their buckets do not fit.
    fn histograms(&self, a: &Histogram, b: &Histogram, notes: &mut Annotations) -> Option<Histogram> {
        let subtract = self.op == BinaryOp::Sub;
        let (operation, combined) = if subtract { ("subtraction", sub(a, b)) } else { ("addition", add(a, b)) };
        let Ok(Combined { mut histogram, hints_clash, bounds_reconciled }) = combined else {
            let text = format!("incompatible bucket layout encountered for binary operator {}", self.op);
            notes.warning(self.span, text);
            return None;
        };
        if hints_clash {
            notes.warning(self.span, wording::conflicting_resets(operation));
        }
        if bounds_reconciled {
            notes.info(self.span, wording::reconciled_bounds(operation));
        }
        if subtract {
            histogram.reset_hint = ResetHint::Gauge;
        }
        Some(histogram)
    }

    /// The outcome for two floats; [`ABSENT`] where a comparison filters the pair out.
    #[inline(always)]
    fn floats(&self, a: f64, b: f64) -> f64 {
        if !self.op.is_comparison() {
            return arithmetic(self.op, a, b);
        }
        let keep = compare(self.op, a, b);
        if self.return_bool {
            f64::from(keep)
        } else if keep {
            a
        } else {
            ABSENT
        }
    }

    /// Two columns step by step: `out` gets a sample where both have one (and a comparison keeps it).
    pub fn columns(&self, lhs: &Column, rhs: &Column, out: &mut Column, notes: &mut Annotations) {
        let trims = matches!(self.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        if !lhs.histograms.is_empty() || !rhs.histograms.is_empty() || trims {
            for step in 0..lhs.values.len() {
                if let (Some(l), Some(r)) = (lhs.sample(step), rhs.sample(step))
                    && let Some(sample) = self.pair(&l, &r, notes)
                {
                    out.put(step, sample);
                }
            }
            return;
        }
        let (a, b, out) = (&lhs.values, &rhs.values, &mut out.values);
        match self.op {
            BinaryOp::Add => zip(a, b, out, |a, b| a + b),
            BinaryOp::Sub => zip(a, b, out, |a, b| a - b),
            BinaryOp::Mul => zip(a, b, out, |a, b| a * b),
            BinaryOp::Div => zip(a, b, out, |a, b| a / b),
            _ => zip(a, b, out, |a, b| self.floats(a, b)),
        }
    }

    /// A column and a scalar; a comparison keeps the column's samples, whichever side they are on.
    pub fn with_scalar(&self, column: &mut Column, scalar: &ScalarColumn, scalar_left: bool, notes: &mut Annotations) {
        let trims = matches!(self.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        if !column.histograms.is_empty() || trims {
            return self.samples_with_scalar(column, scalar, scalar_left, notes);
        }
        let filter = self.op.is_comparison() && !self.return_bool;
        let values = &mut column.values;
        match (self.op, scalar_left) {
            _ if filter => each(values, scalar, |v, s| {
                let (a, b) = if scalar_left { (s, v) } else { (v, s) };
                if compare(self.op, a, b) { v } else { ABSENT }
            }),
            (BinaryOp::Add, _) => each(values, scalar, |v, s| v + s),
            (BinaryOp::Mul, _) => each(values, scalar, |v, s| v * s),
            (BinaryOp::Sub, false) => each(values, scalar, |v, s| v - s),
            (BinaryOp::Div, false) => each(values, scalar, |v, s| v / s),
            (_, false) => each(values, scalar, |v, s| self.floats(v, s)),
            (_, true) => each(values, scalar, |v, s| self.floats(s, v)),
        }
    }

    fn samples_with_scalar(
        &self,
        column: &mut Column,
        scalar: &ScalarColumn,
        scalar_left: bool,
        notes: &mut Annotations,
    ) {
        let filter = self.op.is_comparison() && !self.return_bool;
        let steps = column.values.len();
        let before = std::mem::replace(column, Column::absent(steps));
        for step in 0..steps {
            let Some(sample) = before.sample(step) else { continue };
            let s = Sample::Float(scalar.at(step));
            let (l, r) = if scalar_left { (&s, &sample) } else { (&sample, &s) };
            if let Some(found) = self.pair(l, r, notes) {
                column.put(step, if filter { sample } else { found });
            }
        }
    }
}

#[inline(always)]
fn zip(a: &[f64], b: &[f64], out: &mut [f64], f: impl Fn(f64, f64) -> f64) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        if !is_absent(*a) && !is_absent(*b) {
            *out = f(*a, *b);
        }
    }
}

#[inline(always)]
fn each(values: &mut [f64], scalar: &ScalarColumn, f: impl Fn(f64, f64) -> f64) {
    let present = |v: f64, s: f64| if is_absent(v) { v } else { f(v, s) };
    match scalar {
        ScalarColumn::Same(s) => values.iter_mut().for_each(|v| *v = present(*v, *s)),
        ScalarColumn::Steps(steps) => values.iter_mut().zip(steps).for_each(|(v, s)| *v = present(*v, *s)),
    }
}
