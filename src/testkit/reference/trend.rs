//! `deriv`, `predict_linear`, `double_exponential_smoothing`.
//!
//! *Invariants:* two floats are needed; native histograms are passed over.
//!
//! *Not here:* rates (`rate`).

use super::data::FloatPoint;
use super::evaluator::Evaluator;
use super::notes;
use super::range_call::WindowCall;
use super::running::Sum;
use super::value::Sample;
use crate::promql::exec::error::Error;
use crate::promql::signature::FunctionName;

impl Evaluator<'_> {
    /// A trend over one window.
    pub(super) fn trend(&mut self, call: &WindowCall<'_>) -> Result<Option<Sample>, Error> {
        let floats = &call.window.floats;
        if call.function == FunctionName::DoubleExponentialSmoothing {
            check_factor("smoothing", "sf", call.params[0])?;
            check_factor("trend", "tf", call.params[1])?;
        }
        if call.window.is_mixed() {
            self.notes.info(call.span, notes::ignored_in_range(call.metric));
        }
        if floats.len() < 2 {
            return Ok(None);
        }
        Ok(Some(Sample::Float(match call.function {
            // A time near the samples, so that the products stay small.
            FunctionName::Deriv => least_squares(floats, floats[0].t).0,
            FunctionName::PredictLinear => {
                let (slope, intercept) = least_squares(floats, call.t);
                slope * call.params[0] + intercept
            }
            _ => smoothed(floats, call.params[0], call.params[1]),
        })))
    }
}

fn check_factor(what: &str, short: &str, v: f64) -> Result<(), Error> {
    if v <= 0.0 || v >= 1.0 {
        // Go's `%f`.
        let v = if v.is_infinite() { format!("{}Inf", if v > 0.0 { "+" } else { "-" }) } else { format!("{v:.6}") };
        return Err(Error::query(format!("invalid {what} factor. Expected: 0 < {short} < 1, got: {v}")));
    }
    Ok(())
}

/// Slope per second of the least-squares line, and its value at `origin`.
fn least_squares(points: &[FloatPoint], origin: i64) -> (f64, f64) {
    let first = points[0].v;
    if points[1..].iter().all(|p| p.v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let x = |p: &FloatPoint| (p.t - origin) as f64 / 1000.0;
    let sum = |f: &dyn Fn(&FloatPoint) -> f64| points.iter().fold(Sum::default(), |sum, p| sum.add(f(p))).total();
    let n = points.len() as f64;
    let (sum_x, sum_y) = (sum(&x), sum(&|p| p.v));
    let (sum_xy, sum_xx) = (sum(&|p| x(p) * p.v), sum(&|p| x(p) * x(p)));
    let covariance = sum_xy - sum_x * sum_y / n;
    let variance = sum_xx - sum_x * sum_x / n;
    let slope = covariance / variance;
    (slope, sum_y / n - slope * sum_x / n)
}

/// Holt's smoothing: the value and the trend each move a part of the way to what the next sample says.
fn smoothed(points: &[FloatPoint], smoothing: f64, trend_factor: f64) -> f64 {
    let mut before = 0.0;
    let mut value = points[0].v;
    let mut trend = points[1].v - points[0].v;
    for (i, p) in points.iter().enumerate().skip(1) {
        let x = smoothing * p.v;
        if i > 1 {
            trend = trend_factor * (value - before) + (1.0 - trend_factor) * trend;
        }
        let y = (1.0 - smoothing) * (value + trend);
        (before, value) = (value, x + y);
    }
    value
}
