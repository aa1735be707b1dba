//! Functions of windows that hold native histograms, alone or next to floats.
//!
//! *Invariants:* the annotations are Prometheus' own.
//!
//! *Not here:* arithmetic on histograms (`promql::histogram`).

use std::sync::Arc;

use super::column::Sample;
use super::error::Error;
use super::range::later;
use crate::model::{Histogram, Labels};
use crate::promql::annotations::Annotations;
use crate::promql::functions::window::Window;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;

/// The samples of a window.
#[derive(Clone, Copy)]
pub struct Inside<'a> {
    /// Timestamps and values of floats.
    pub floats: (&'a [i64], &'a [f64]),
    /// Timestamps and native histograms; at least one.
    pub histograms: (&'a [i64], &'a [Arc<Histogram>]),
}

/// Evaluates one window that holds histograms; `float` is what the function makes of the floats alone.
pub fn eval(
    function: FunctionName,
    inside: Inside<'_>,
    float: Option<f64>,
    _window: Window,
    labels: &Labels,
    span: Span,
    notes: &mut Annotations,
) -> Result<Option<Sample>, Error> {
    use FunctionName as F;
    let (floats, histograms) = (inside.floats, inside.histograms);
    let mixed = !floats.0.is_empty();
    let metric = labels.metric();
    match function {
        F::CountOverTime => Ok(Some(Sample::Float((floats.0.len() + histograms.0.len()) as f64))),
        F::PresentOverTime | F::AbsentOverTime => Ok(Some(Sample::Float(1.0))),
        F::FirstOverTime | F::LastOverTime => {
            let first = function == F::FirstOverTime;
            let at = |n: usize| if first { 0 } else { n.saturating_sub(1) };
            let (f, h) = (at(floats.0.len()), at(histograms.0.len()));
            let float = mixed.then(|| (floats.0[f], floats.1[f]));
            Ok(later(float, Some((histograms.0[h], &histograms.1[h])), first))
        }
        F::TsOfFirstOverTime => {
            let t = floats.0.first().copied().unwrap_or(i64::MAX).min(histograms.0[0]);
            Ok(Some(Sample::Float(t as f64 / 1000.0)))
        }
        F::TsOfLastOverTime => {
            let last = histograms.0[histograms.0.len() - 1];
            Ok(Some(Sample::Float(floats.0.last().copied().unwrap_or(i64::MIN).max(last) as f64 / 1000.0)))
        }
        F::Rate | F::Increase | F::Delta | F::Irate | F::Idelta | F::SumOverTime | F::AvgOverTime if mixed => {
            let text = format!("encountered a mix of histograms and floats for metric name {metric:?}");
            notes.warning(span, text);
            Ok(None)
        }
        F::Rate | F::Increase | F::Delta if histograms.0.len() < 2 => Ok(None),
        F::Irate | F::Idelta if histograms.0.len() < 2 => Ok(None),
        F::Rate | F::Increase | F::Delta => Err(Error::HistogramUnsupported("rate, increase and delta")),
        F::Irate | F::Idelta => Err(Error::HistogramUnsupported("irate and idelta")),
        F::SumOverTime | F::AvgOverTime => Err(Error::HistogramUnsupported("sum_over_time and avg_over_time")),
        F::Resets | F::Changes => Err(Error::HistogramUnsupported("resets and changes")),
        // The others are about floats only.
        _ => {
            if mixed {
                let text = "ignored histograms in a range containing both floats and histograms for metric name";
                notes.info(span, format!("{text} {metric:?}"));
            }
            Ok(float)
        }
        .map(|v| v.map(Sample::Float)),
    }
}
