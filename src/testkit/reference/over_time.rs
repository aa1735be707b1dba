//! `*_over_time`: what single windows add up to.
//!
//! *Invariants:* functions of floats pass over native histograms in the window and say so where there are both.
//!
//! *Not here:* rates (`rate`), slopes (`trend`).

use super::aggregate::Summed;
use super::data::Window;
use super::evaluator::Evaluator;
use super::notes;
use super::range_call::WindowCall;
use super::running::{self, Sum};
use super::value::Sample;
use crate::model::Histogram;
use crate::promql::signature::FunctionName;

impl Evaluator<'_> {
    /// A function of one window.
    pub(super) fn over_time(&mut self, call: &WindowCall<'_>) -> Option<Sample> {
        use FunctionName as F;
        let window = call.window;
        let points = window.points();
        let (first, last) = (points.first()?, points.last()?);
        let seconds = |t: i64| Some(Sample::Float(t as f64 / 1000.0));
        match call.function {
            F::CountOverTime => return Some(Sample::Float(points.len() as f64)),
            F::PresentOverTime | F::AbsentOverTime => return Some(Sample::Float(1.0)),
            F::FirstOverTime => return Some(first.sample.clone()),
            F::LastOverTime => return Some(last.sample.clone()),
            F::TsOfFirstOverTime => return seconds(first.t),
            F::TsOfLastOverTime => return seconds(last.t),
            F::SumOverTime | F::AvgOverTime if !window.histograms.is_empty() => {
                if window.is_mixed() {
                    self.notes.warning(call.span, notes::floats_and_histograms(call.metric));
                    return None;
                }
                let histograms: Vec<(&str, &Histogram)> =
                    window.histograms.iter().map(|p| (call.metric, &*p.h)).collect();
                return self.sum_of_histograms(&histograms, call.function == F::AvgOverTime, Summed::Window, call.span);
            }
            _ => {}
        }
        if window.floats.is_empty() {
            return None;
        }
        if call.function == F::QuantileOverTime && !(0.0..=1.0).contains(&call.params[0]) {
            self.notes.warning(call.span, notes::bad_quantile(call.params[0]));
        }
        if window.is_mixed() {
            self.notes.info(call.span, notes::ignored_in_range(call.metric));
        }
        Some(Sample::Float(of_floats(call, window)))
    }
}

fn of_floats(call: &WindowCall<'_>, window: &Window) -> f64 {
    use FunctionName as F;
    let values: Vec<f64> = window.floats.iter().map(|p| p.v).collect();
    match call.function {
        F::SumOverTime => values.iter().fold(Sum::default(), |sum, v| sum.add(*v)).total(),
        F::AvgOverTime => running::mean(&values),
        F::MinOverTime => extreme(window, |v, best| v < best).1,
        F::MaxOverTime => extreme(window, |v, best| v > best).1,
        // The last of several equal ones.
        F::TsOfMinOverTime => extreme(window, |v, best| v <= best).0 as f64 / 1000.0,
        F::TsOfMaxOverTime => extreme(window, |v, best| v >= best).0 as f64 / 1000.0,
        F::StdvarOverTime => running::variance(&values),
        F::StddevOverTime => running::variance(&values).sqrt(),
        F::QuantileOverTime => running::quantile(call.params[0], &values),
        _ => median_deviation(&values),
    }
}

/// Time and value of the best sample; anything is better than NaN.
fn extreme(window: &Window, better: fn(f64, f64) -> bool) -> (i64, f64) {
    let mut best = (window.floats[0].t, window.floats[0].v);
    for p in &window.floats {
        if better(p.v, best.1) || best.1.is_nan() {
            best = (p.t, p.v);
        }
    }
    best
}

/// The median of the distances from the median.
fn median_deviation(values: &[f64]) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let median = running::quantile(0.5, values);
    let distances: Vec<f64> = values.iter().map(|v| (v - median).abs()).collect();
    running::quantile(0.5, &distances)
}
