//! Functions of one float, and the arithmetic of binary operators.
//!
//! *Invariants:* pure; NaN in, NaN out unless said otherwise.
//!
//! *Not here:* calendars (`functions::time`), histograms (`promql::histogram`).

use std::f64::consts::PI;

use crate::promql::operator::BinaryOp;
use crate::promql::signature::FunctionName;

/// The function of one float called `name`, if it is one.
pub fn unary(name: FunctionName) -> Option<fn(f64) -> f64> {
    use FunctionName as F;
    Some(match name {
        F::Abs => f64::abs,
        F::Ceil => f64::ceil,
        F::Floor => f64::floor,
        F::Exp => f64::exp,
        F::Sqrt => f64::sqrt,
        F::Ln => f64::ln,
        F::Log2 => f64::log2,
        F::Log10 => f64::log10,
        F::Sin => f64::sin,
        F::Cos => f64::cos,
        F::Tan => f64::tan,
        F::Asin => f64::asin,
        F::Acos => f64::acos,
        F::Atan => f64::atan,
        F::Sinh => f64::sinh,
        F::Cosh => f64::cosh,
        F::Tanh => f64::tanh,
        F::Asinh => asinh,
        F::Acosh => f64::acosh,
        F::Atanh => f64::atanh,
        F::Deg => |v| v * 180.0 / PI,
        F::Rad => |v| v * PI / 180.0,
        F::Sgn => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return None,
    })
}

/// Rust's own loses all digits for large negative arguments.
fn asinh(v: f64) -> f64 {
    v.abs().asinh().copysign(v)
}

/// `round(v, to)`: ties go up; the inverse of `to` is used because it rounds better.
#[inline(always)]
pub fn round(v: f64, to: f64) -> f64 {
    let inverse = 1.0 / to;
    (v * inverse + 0.5).floor() / inverse
}

/// `clamp(v, min, max)` where `min <= max`; NaN stays.
#[inline(always)]
pub fn clamp(v: f64, min: f64, max: f64) -> f64 {
    go_max(min, go_min(max, v))
}

/// The greater, NaN if one is NaN, +0 over −0.
pub fn go_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if a == f64::INFINITY || b == f64::INFINITY { f64::INFINITY } else { f64::NAN };
    }
    if a == b && a == 0.0 { if a.is_sign_negative() { b } else { a } } else { a.max(b) }
}

/// The lesser, NaN if one is NaN, −0 under +0.
pub fn go_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY { f64::NEG_INFINITY } else { f64::NAN };
    }
    if a == b && a == 0.0 { if a.is_sign_negative() { a } else { b } } else { a.min(b) }
}

/// An arithmetic operator on two floats; comparisons answer 1 or 0. Set and trim operators have no meaning here: NaN.
#[inline(always)]
pub fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        op if op.is_comparison() => f64::from(compare(op, a, b)),
        _ => f64::NAN,
    }
}

/// A comparison of two floats.
#[inline(always)]
pub fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_ties_up() {
        assert_eq!([round(-0.5, 1.0), round(0.5, 1.0), round(7.0, 5.0)], [0.0, 1.0, 5.0]);
        assert_eq!(round(0.45, 0.1), 0.5);
    }

    #[test]
    fn clamps_but_keeps_nan() {
        assert_eq!(clamp(5.0, 1.0, 3.0), 3.0);
        assert!(clamp(f64::NAN, 1.0, 3.0).is_nan());
        assert!(clamp(2.0, f64::NAN, 3.0).is_nan());
    }

    #[test]
    fn asinh_is_odd() {
        assert_eq!(asinh(-1e10), -asinh(1e10));
    }
}
