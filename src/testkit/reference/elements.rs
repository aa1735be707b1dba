//! What binary operators make of a pair of samples.
//!
//! *Invariants:* a pair of types the operator has no meaning for yields nothing and an info.
//!
//! *Not here:* which samples are paired (`matching`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::apart::Apart;
use super::evaluator::Evaluator;
use super::native;
use super::notes::{self, Doing};
use super::trim::trimmed;
use super::value::{self, Sample, Series};
use crate::model::{Histogram, ResetHint};
use crate::promql::ast::{Binary, BinaryOp};
use crate::promql::exec::error::Error;
use crate::promql::histogram::{divided, scaled};
use crate::promql::position::Span;

/// An arithmetic operator or comparison (1 or 0) on two floats.
pub(super) fn float_operator(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        _ => f64::from(holds(op, a, b)),
    }
}

fn holds(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Eq => a == b,
        BinaryOp::Ne => a != b,
        BinaryOp::Gt => a > b,
        BinaryOp::Lt => a < b,
        BinaryOp::Ge => a >= b,
        BinaryOp::Le => a <= b,
        _ => false,
    }
}

/// Whether the outcome of an operator is another metric than its operand.
pub(super) fn changes_metric(op: BinaryOp) -> bool {
    use BinaryOp as B;
    matches!(op, B::Add | B::Sub | B::Mul | B::Div | B::Mod | B::Pow | B::Atan2)
}

/// What an operator makes of a pair.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// A sample; of a comparison that holds the left one.
    Sample(Sample),
    /// A comparison that does not hold.
    Filtered,
    /// The operator has no meaning for these types.
    Impossible,
}

impl Outcome {
    fn of_comparison(holds: bool, left: &Sample) -> Self {
        if holds { Self::Sample(left.clone()) } else { Self::Filtered }
    }

    fn of_histogram(h: Histogram) -> Self {
        Self::Sample(Sample::Histogram(Arc::new(h)))
    }

    /// The sample that is left; with `bool` 1 or 0.
    pub fn sample(self, return_bool: bool) -> Option<Sample> {
        match (self, return_bool) {
            (Self::Impossible, _) | (Self::Filtered, false) => None,
            (Self::Sample(sample), false) => Some(sample),
            (Self::Sample(_), true) => Some(Sample::Float(1.0)),
            (Self::Filtered, true) => Some(Sample::Float(0.0)),
        }
    }
}

impl Evaluator<'_> {
    /// Applies an operator to two samples.
    pub fn pair(&mut self, op: BinaryOp, span: Span, lhs: &Sample, rhs: &Sample) -> Outcome {
        use BinaryOp as B;
        use Sample::{Float as F, Histogram as H};
        let trims = matches!(op, B::TrimUpper | B::TrimLower);
        match (lhs, rhs) {
            (F(a), F(b)) if op.is_comparison() => Outcome::of_comparison(holds(op, *a, *b), lhs),
            (F(a), F(b)) if !trims => Outcome::Sample(F(float_operator(op, *a, *b))),
            (F(a), H(b)) if op == B::Mul => Outcome::of_histogram(Apart::of(&scaled(b, *a)).whole()),
            (H(a), F(b)) if op == B::Mul => Outcome::of_histogram(Apart::of(&scaled(a, *b)).whole()),
            (H(a), F(b)) if op == B::Div => Outcome::of_histogram(Apart::of(&divided(a, *b)).whole()),
            (H(a), F(b)) if trims => Outcome::of_histogram(trimmed(a, *b, op == B::TrimUpper)),
            (H(a), H(b)) if op == B::Eq => Outcome::of_comparison(native::equal(a, b), lhs),
            (H(a), H(b)) if op == B::Ne => Outcome::of_comparison(!native::equal(a, b), lhs),
            (H(a), H(b)) if op == B::Add => self.combined(op, span, a, b),
            (H(a), H(b)) if op == B::Sub => self.combined(op, span, a, b),
            _ => {
                let word = |s: &Sample| if matches!(s, F(_)) { "float" } else { "histogram" };
                let what = format!("{} {op} {}", word(lhs), word(rhs));
                let text = format!("incompatible sample types encountered for binary operator \"{op}\": {what}");
                self.notes.info(span, text);
                Outcome::Impossible
            }
        }
    }

    /// The sum or difference of two histograms and what is to be said about it. A difference is a gauge.
    fn combined(&mut self, op: BinaryOp, span: Span, a: &Histogram, b: &Histogram) -> Outcome {
        let mut combined = Apart::of(a);
        let Ok(noticed) = combined.add(b, if op == BinaryOp::Add { 1.0 } else { -1.0 }) else {
            let text = format!("incompatible bucket layout encountered for binary operator {op}");
            self.notes.warning(span, text);
            return Outcome::Impossible;
        };
        let doing = if op == BinaryOp::Add { Doing::Addition } else { Doing::Subtraction };
        if noticed.hints_clash {
            self.notes.warning(span, notes::conflicting_resets(doing));
        }
        if noticed.bounds_reconciled {
            self.notes.info(span, notes::bounds_reconciled(doing));
        }
        if op == BinaryOp::Sub {
            combined.hint = ResetHint::Gauge;
        }
        Outcome::of_histogram(combined.whole())
    }

    /// An operator between each sample of a vector and a scalar.
    pub fn vector_and_scalar(
        &mut self,
        binary: &Binary,
        span: Span,
        vector: &[Series],
        scalar: &BTreeMap<i64, f64>,
        scalar_is_left: bool,
    ) -> Result<Vec<Series>, Error> {
        let mut steps = Vec::new();
        for (t, number) in scalar {
            let number = Sample::Float(*number);
            let mut out = Vec::new();
            for mut element in value::at(vector, *t) {
                let (l, r) = if scalar_is_left { (&number, &element.sample) } else { (&element.sample, &number) };
                let Some(found) = self.pair(binary.op, span, l, r).sample(binary.return_bool) else { continue };
                // A comparison keeps the sample of the vector, whichever side it is on.
                if !binary.op.is_comparison() || binary.return_bool {
                    element.sample = found;
                }
                if changes_metric(binary.op) || binary.return_bool {
                    element.labels = self.drop_name(element.labels, &mut element.dropped);
                }
                out.push(element);
            }
            steps.push((*t, out));
        }
        self.collect(steps)
    }
}
