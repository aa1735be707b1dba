//! Functions of range vectors, fused with their windows.
//!
//! *Invariants:* one call evaluates all steps of one series; matrices are never made. Windows without histograms run
//! the float kernels alone.
//!
//! *Not here:* the kernels (`functions`), what happens to names (`exec::stream`).

use std::sync::Arc;

use super::column::Column;
use super::error::Error;
use super::histogram_notes::start_overlap;
use super::range_histogram::{HistogramFunction, Inside};
use super::reader::RangeSamples;
use crate::model::{Histogram, Labels};
use crate::promql::annotations::Annotations;
use crate::promql::functions::over_time::{Avg, Edge, Extreme, MedianDeviation, Quantile, Sum, Variance};
use crate::promql::functions::rate::{Extended, Extrapolated, Instant, Transitions, starts_overlap};
use crate::promql::functions::regression::{Deriv, PredictLinear, Smoothing};
use crate::promql::functions::window::{self, ABSENT, Edges, Kernel, Points, Windows, is_absent};
use crate::promql::plan::RangeVector;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;

/// A kernel behind one virtual call per series.
pub trait FloatFunction: Send {
    /// All windows of one series.
    fn run(&mut self, points: Points<'_>, windows: &Windows, out: &mut [f64]);

    /// Prepares for single windows of one series.
    fn begin(&mut self, points: Points<'_>);

    /// One non-empty window.
    fn one(&mut self, points: Points<'_>, edges: Edges, window: window::Window) -> f64;

    /// The same for another thread.
    fn fork(&self) -> Box<dyn FloatFunction>;
}

impl<K: Kernel + Clone + Send + 'static> FloatFunction for K {
    fn run(&mut self, points: Points<'_>, windows: &Windows, out: &mut [f64]) {
        window::run(self, points, windows, out);
    }

    fn begin(&mut self, points: Points<'_>) {
        Kernel::begin(self, points);
    }

    fn one(&mut self, points: Points<'_>, edges: Edges, window: window::Window) -> f64 {
        self.eval(points, edges.lo, edges.hi, window)
    }

    fn fork(&self) -> Box<dyn FloatFunction> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn FloatFunction> {
    fn clone(&self) -> Self {
        (**self).fork()
    }
}

/// A function of a range vector, ready for any number of series.
#[derive(Clone)]
pub struct RangeFunction {
    /// Which.
    pub function: FunctionName,
    /// Its windows.
    pub windows: Windows,
    /// Place of the first argument in the text.
    pub span: Span,
    floats: Box<dyn FloatFunction>,
    histograms: HistogramFunction,
    /// A float function that some steps give an invalid quantile.
    bad_quantiles: Vec<(usize, f64)>,
    /// Steps on which a factor makes no sense, with the text of the error: one only if there is anything to smooth.
    bad_factors: Vec<(usize, String)>,
    extended: bool,
    /// Of histograms only count and sum are wanted.
    pub totals: bool,
}

impl RangeFunction {
    /// A function with its scalar arguments, one value per step each.
    pub fn new(
        function: FunctionName,
        range: &RangeVector,
        span: Span,
        mut params: Vec<Vec<f64>>,
    ) -> Result<Self, Error> {
        check_modifiers(function, range)?;
        let extended = range.anchored || range.smoothed;
        let mut param = || if params.is_empty() { Vec::new() } else { params.remove(0) };
        let (mut bad_quantiles, mut bad_factors) = (Vec::new(), Vec::new());
        use FunctionName as F;
        let floats: Box<dyn FloatFunction> = match function {
            F::Rate | F::Increase | F::Delta if extended => Box::new(Extended {
                counter: function != F::Delta,
                per: if function == F::Rate { range.windows.range as f64 / 1000.0 } else { 0.0 },
                smoothed: range.smoothed,
            }),
            F::Rate => Box::new(Extrapolated::rate(range.windows.range)),
            F::Increase => Box::new(Extrapolated::increase()),
            F::Delta => Box::new(Extrapolated::delta()),
            F::Irate => Box::new(Instant { rate: true }),
            F::Idelta => Box::new(Instant { rate: false }),
            F::Resets | F::Changes => Box::new(Transitions::new(function == F::Resets, range.anchored)),
            F::SumOverTime => Box::new(Sum),
            F::AvgOverTime => Box::new(Avg),
            F::CountOverTime => Box::new(Edge::Count),
            F::FirstOverTime => Box::new(Edge::First),
            F::LastOverTime => Box::new(Edge::Last),
            F::TsOfFirstOverTime => Box::new(Edge::FirstTime),
            F::TsOfLastOverTime => Box::new(Edge::LastTime),
            F::MaxOverTime | F::TsOfMaxOverTime => Box::new(Extreme::new(true, function == F::TsOfMaxOverTime)),
            F::MinOverTime | F::TsOfMinOverTime => Box::new(Extreme::new(false, function == F::TsOfMinOverTime)),
            F::StddevOverTime | F::StdvarOverTime => Box::new(Variance { stddev: function == F::StddevOverTime }),
            F::MadOverTime => Box::new(MedianDeviation::default()),
            F::QuantileOverTime => {
                let q = param();
                bad_quantiles = q.iter().copied().enumerate().filter(|(_, q)| !(0.0..=1.0).contains(q)).collect();
                Box::new(Quantile { q, scratch: Vec::new() })
            }
            F::Deriv => Box::new(Deriv),
            F::PredictLinear => Box::new(PredictLinear { ahead: param() }),
            F::DoubleExponentialSmoothing => {
                let (smoothing, trend) = (param(), param());
                bad_factors = check_factors("smoothing", "sf", &smoothing);
                bad_factors.extend(check_factors("trend", "tf", &trend));
                Box::new(Smoothing { smoothing, trend })
            }
            // Also for `absent_over_time`, which asks only whether there is something.
            _ => Box::new(Edge::Present),
        };
        let histograms = HistogramFunction::new(function, range);
        Ok(Self {
            function,
            windows: range.windows,
            span,
            floats,
            histograms,
            bad_quantiles,
            bad_factors,
            extended,
            totals: range.totals,
        })
    }

    /// Evaluates one series on all steps.
    pub fn eval(
        &mut self,
        labels: &Labels,
        samples: &RangeSamples,
        out: &mut Column,
        notes: &mut Annotations,
    ) -> Result<(), Error> {
        for (step, text) in &self.bad_factors {
            let window = self.windows.window(*step);
            let inside = |ts: &[i64]| ts.iter().any(|t| *t > window.start && *t <= window.end);
            if inside(&samples.ts) || inside(&samples.histogram_ts) {
                return Err(Error::query(text.clone()));
            }
        }
        out.reset(self.windows.grid.len());
        if samples.histograms.is_empty() {
            self.floats.run(samples.points(), &self.windows, &mut out.values);
        } else {
            self.eval_mixed(labels, samples, out, notes);
        }
        let counter = matches!(self.function, FunctionName::Rate | FunctionName::Increase) && !self.extended;
        if counter && starts_overlap(&samples.ts, &samples.starts, &samples.histogram_ts, &self.windows) {
            notes.warning(self.span, start_overlap(labels.metric()));
        }
        for (step, q) in &self.bad_quantiles {
            if out.has(*step) {
                let got = crate::model::number::format_g(*q);
                notes.warning(self.span, format!("quantile value should be between 0 and 1, got {got}"));
            }
        }
        Ok(())
    }

    fn eval_mixed(&mut self, labels: &Labels, samples: &RangeSamples, out: &mut Column, notes: &mut Annotations) {
        let points = samples.points();
        self.floats.begin(points);
        self.histograms.begin(samples);
        let (mut floats, mut histograms) = (Edges::default(), Edges::default());
        for step in 0..out.values.len() {
            let window = self.windows.window(step);
            let (start, end) = (window.start - self.windows.before, window.end + self.windows.after);
            floats.advance(points.ts, start, end);
            histograms.advance(&samples.histogram_ts, start, end);
            let value = if floats.lo < floats.hi { self.floats.one(points, floats, window) } else { ABSENT };
            if histograms.lo == histograms.hi {
                out.values[step] = value;
                continue;
            }
            let float = (!is_absent(value)).then_some(value);
            let inside = Inside { samples, floats, histograms };
            let found = match self.histograms.extended() {
                Some(extended) => self.histograms.eval_extended(extended, inside, window, start),
                None => self.histograms.eval(inside, float, window),
            };
            if let Some(sample) = found {
                out.put(step, sample);
            }
        }
        self.histograms.note(labels.metric(), self.span, notes);
    }
}

/// All samples of the first window as they are: a range vector as an answer.
pub fn matrix(samples: &RangeSamples, range: &RangeVector) -> super::result::RangeSeries {
    let windows = &range.windows;
    let window = windows.window(0);
    let (mut floats, mut histograms) = (Edges::default(), Edges::default());
    floats.advance(&samples.ts, window.start - windows.before, window.end + windows.after);
    histograms.advance(&samples.histogram_ts, window.start, window.end);
    let pairs = |e: Edges| samples.ts[e.lo..e.hi].iter().copied().zip(samples.vs[e.lo..e.hi].iter().copied());
    let histogram = |i: usize| (samples.histogram_ts[i], Arc::<Histogram>::clone(&samples.histograms[i]));
    let mut floats: Vec<(i64, f64)> = pairs(floats).collect();
    if range.anchored || range.smoothed {
        floats = extend(&floats, window, range.smoothed);
    }
    let histograms = (histograms.lo..histograms.hi).map(histogram).collect();
    super::result::RangeSeries { labels: Labels::empty(), floats, histograms }
}

/// Puts samples at both edges of the window, as `anchored` and `smoothed` see them.
fn extend(points: &[(i64, f64)], window: window::Window, smoothed: bool) -> Vec<(i64, f64)> {
    use crate::promql::functions::rate::interpolate;
    let Some(mut last) = points.len().checked_sub(1) else { return Vec::new() };
    let mut first = points[..last].partition_point(|p| p.0 <= window.start).saturating_sub(1);
    if smoothed {
        last = points[..last].partition_point(|p| p.0 < window.end);
    }
    if points[last].0 <= window.start {
        return Vec::new();
    }
    let left = if smoothed && points[first].0 < window.start {
        interpolate(points[first], points[first + 1], window.start, false)
    } else {
        points[first].1
    };
    let right = if smoothed && last > 0 && points[last].0 > window.end {
        interpolate(points[last - 1], points[last], window.end, false)
    } else {
        points[last].1
    };
    first += usize::from(points[first].0 <= window.start);
    let end = last + usize::from(points[last].0 < window.end);
    let mut out = vec![(window.start, left)];
    out.extend_from_slice(points.get(first..end).unwrap_or_default());
    out.push((window.end, right));
    out
}

fn check_modifiers(function: FunctionName, range: &RangeVector) -> Result<(), Error> {
    use FunctionName as F;
    let name = crate::promql::signature::FUNCTIONS[function as usize].name;
    let smooth = matches!(function, F::Delta | F::Increase | F::Rate);
    if range.anchored && !smooth && !matches!(function, F::Changes | F::Resets) {
        let allowed = "changes, delta, increase, rate, resets";
        return Err(Error::query(format!("anchored modifier can only be used with: {allowed} - not with {name}")));
    }
    if range.smoothed && !smooth {
        return Err(Error::query(format!(
            "smoothed modifier can only be used with: delta, increase, rate - not with {name}"
        )));
    }
    Ok(())
}

/// The steps on which a factor is not between 0 and 1.
fn check_factors(what: &str, short: &str, values: &[f64]) -> Vec<(usize, String)> {
    let bad = values.iter().enumerate().filter(|(_, v)| **v <= 0.0 || **v >= 1.0);
    bad.map(|(step, v)| (step, format!("invalid {what} factor. Expected: 0 < {short} < 1, got: {v:.6}"))).collect()
}
