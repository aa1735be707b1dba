//! Functions of windows that hold native histograms, alone or next to floats.
//!
//! *Invariants:* the annotations are Prometheus' own; the same finding in many windows of a series is worded once.
//!
//! *Not here:* what is computed of histograms (`functions::histogram_range`), of floats (`exec::range`).

use std::sync::Arc;

use super::column::Sample;
use super::histogram_notes as wording;
use super::reader::RangeSamples;
use crate::model::labels::Quoted;
use crate::promql::annotations::Annotations;
use crate::promql::functions::histogram_extended::Extended;
use crate::promql::functions::histogram_range::{Counter, Finding, Findings, Rate, Transitions, instant, total};
use crate::promql::functions::window::{Edges, Window};
use crate::promql::plan::RangeVector;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;

/// The samples inside of a window.
#[derive(Clone, Copy)]
pub struct Inside<'a> {
    /// Samples of the series.
    pub samples: &'a RangeSamples,
    /// Which floats are inside.
    pub floats: Edges,
    /// Which histograms are inside; at least one.
    pub histograms: Edges,
}

/// A function of windows with histograms.
#[derive(Debug, Clone)]
pub struct HistogramFunction {
    function: FunctionName,
    rate: Rate,
    /// `anchored` or `smoothed`.
    extended: Option<Extended>,
    counter: Counter,
    transitions: Transitions,
    /// What was found in the windows of a series.
    found: Findings,
}

impl HistogramFunction {
    /// A function of a range vector.
    pub fn new(function: FunctionName, range: &RangeVector) -> Self {
        let per = if function == FunctionName::Rate { range.windows.range as f64 / 1000.0 } else { 0.0 };
        let counter = function != FunctionName::Delta;
        let extended = Extended { counter, per, smoothed: range.smoothed };
        Self {
            function,
            rate: Rate { counter, per },
            extended: (range.anchored || range.smoothed).then_some(extended),
            counter: Counter::default(),
            transitions: Transitions::default(),
            found: Findings::default(),
        }
    }

    /// Prepares for the windows of a series.
    pub fn begin(&mut self, samples: &RangeSamples) {
        use FunctionName as F;
        self.found = Findings::default();
        match self.function {
            F::Rate | F::Increase => {
                let mut points = samples.histogram_points();
                if self.extended.is_some() {
                    points.starts = &[];
                }
                self.counter.scan(points);
            }
            F::Resets | F::Changes => {
                let resets = self.function == F::Resets;
                self.transitions.scan(resets, samples.points(), samples.histogram_points());
            }
            _ => {}
        }
    }

    /// Evaluates one window of an `anchored` or `smoothed` selector, with samples from `before` on.
    pub fn eval_extended(
        &mut self,
        extended: Extended,
        inside: Inside<'_>,
        window: Window,
        before: i64,
    ) -> Option<Sample> {
        let Inside { samples, floats, histograms } = inside;
        if matches!(self.function, FunctionName::Resets | FunctionName::Changes) {
            return self.transitions.count_anchored(before, window.start, window.end).map(Sample::Float);
        }
        // Floats within the reach of the lookback count, whether or not they could be an edge.
        if floats.lo < floats.hi {
            self.found.add(Finding::MixedFloats);
            return None;
        }
        let (points, edges) = (samples.histogram_points(), (histograms.lo, histograms.hi));
        let difference = extended.eval(&self.counter, points, edges, window, &mut self.found)?;
        Some(Sample::Histogram(Arc::new(difference)))
    }

    /// `anchored` or `smoothed`.
    pub fn extended(&self) -> Option<Extended> {
        self.extended
    }

    /// Evaluates one window; `float` is what the function makes of the floats alone.
    pub fn eval(&mut self, inside: Inside<'_>, float: Option<f64>, window: Window) -> Option<Sample> {
        use FunctionName as F;
        let Inside { samples, floats, histograms } = inside;
        let mixed = floats.lo < floats.hi;
        let histogram = |h| Sample::Histogram(Arc::new(h));
        match self.function {
            F::CountOverTime => Some(Sample::Float((floats.hi - floats.lo + histograms.hi - histograms.lo) as f64)),
            F::PresentOverTime | F::AbsentOverTime => Some(Sample::Float(1.0)),
            F::FirstOverTime | F::LastOverTime | F::TsOfFirstOverTime | F::TsOfLastOverTime => {
                Some(self.edge(inside, mixed))
            }
            F::Resets | F::Changes => Some(Sample::Float(self.transitions.count(window.start, window.end))),
            F::Irate | F::Idelta => self.instant(inside, float),
            F::Rate | F::Increase | F::Delta | F::SumOverTime | F::AvgOverTime if mixed => {
                self.found.add(Finding::MixedFloats);
                None
            }
            F::Rate | F::Increase | F::Delta => {
                let (points, edges) = (samples.histogram_points(), (histograms.lo, histograms.hi));
                self.rate.eval(&self.counter, points, edges, window, &mut self.found).map(histogram)
            }
            F::SumOverTime | F::AvgOverTime => {
                let hs = &samples.histograms[histograms.lo..histograms.hi];
                total(self.function == F::SumOverTime, hs, &mut self.found).map(histogram)
            }
            // The others are about floats only.
            _ => {
                self.found.add_if(mixed, Finding::IgnoredHistograms);
                float.map(Sample::Float)
            }
        }
    }

    /// The first or last sample, or its time.
    fn edge(&self, inside: Inside<'_>, mixed: bool) -> Sample {
        use FunctionName as F;
        let Inside { samples, floats, histograms } = inside;
        let first = matches!(self.function, F::FirstOverTime | F::TsOfFirstOverTime);
        let at = |e: Edges| if first { e.lo } else { e.hi - 1 };
        let (h, f) = (at(histograms), mixed.then(|| at(floats)));
        let t = samples.histogram_ts[h];
        let float = f.filter(|f| if first { samples.ts[*f] < t } else { samples.ts[*f] > t });
        match (self.function, float) {
            (F::FirstOverTime | F::LastOverTime, Some(f)) => Sample::Float(samples.vs[f]),
            (F::FirstOverTime | F::LastOverTime, None) => Sample::Histogram(Arc::clone(&samples.histograms[h])),
            (_, f) => Sample::Float(f.map_or(t, |f| samples.ts[f]) as f64 / 1000.0),
        }
    }

    /// `irate` and `idelta` of the last two samples.
    fn instant(&mut self, inside: Inside<'_>, float: Option<f64>) -> Option<Sample> {
        let Inside { samples, floats, histograms } = inside;
        // The newest and the second newest of one kind.
        let nth = |ts: &[i64], e: Edges, n: usize| (e.hi - e.lo >= n).then(|| ts[e.hi - n]);
        let (f1, f2) = (nth(&samples.ts, floats, 1), nth(&samples.ts, floats, 2));
        let (h1, h2) = (nth(&samples.histogram_ts, histograms, 1), nth(&samples.histogram_ts, histograms, 2));
        if f2 > h1 {
            return float.map(Sample::Float);
        }
        if h2 > f1 {
            let rate = self.function == FunctionName::Irate;
            let found = instant(rate, samples.histogram_points(), histograms.hi - 1, &mut self.found);
            return found.map(|h| Sample::Histogram(Arc::new(h)));
        }
        self.found.add_if(f1.is_some(), Finding::MixedFloats);
        None
    }

    /// Says what was found in the windows of a series.
    pub fn note(&self, metric: &str, span: Span, notes: &mut Annotations) {
        note(self.found, metric, span, notes);
    }
}

/// Says what was found in a series.
pub fn note(found: Findings, metric: &str, span: Span, notes: &mut Annotations) {
    use Finding as F;
    if found.is_empty() {
        return;
    }
    let warnings = [
        (F::NotCounter, format!("this native histogram metric is not a counter: {}", Quoted(metric))),
        (F::NotGauge, format!("this native histogram metric is not a gauge: {}", Quoted(metric))),
        (F::MixedSchemas, wording::mixed_schemas(metric)),
        (F::MixedFloats, format!("encountered a mix of histograms and floats for metric name {}", Quoted(metric))),
        (F::ConflictingResets, wording::conflicting_resets("aggregation")),
        (F::StartOverlap, wording::start_overlap(metric)),
    ];
    let ignored = "ignored histograms in a range containing both floats and histograms for metric name";
    let infos = [
        (F::IgnoredHistograms, format!("{ignored} {}", Quoted(metric))),
        (F::ReconciledAddition, wording::reconciled_bounds("addition")),
        (F::ReconciledSubtraction, wording::reconciled_bounds("subtraction")),
        (F::ReconciledAggregation, wording::reconciled_bounds("aggregation")),
    ];
    warnings.into_iter().filter(|(f, _)| found.has(*f)).for_each(|(_, text)| notes.warning(span, text));
    infos.into_iter().filter(|(f, _)| found.has(*f)).for_each(|(_, text)| notes.info(span, text));
}
