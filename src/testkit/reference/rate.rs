//! `rate`, `increase`, `delta`, `irate`, `idelta`, `resets`, `changes`.
//!
//! *Invariants:* a counter begins anew where its value falls or its start timestamp says so. Floats and native histograms
//! in one window have no rate. Rates of histograms are gauges.
//!
//! *Not here:* `anchored` and `smoothed` (`extended`).

use super::apart::{Apart, is_reset};
use super::data::{FloatPoint, HistogramPoint, Point, Window};
use super::evaluator::Evaluator;
use super::native;
use super::notes::{self, Doing};
use super::range_call::WindowCall;
use super::value::Sample;
use crate::model::{Histogram, ResetHint};
use crate::promql::signature::FunctionName;

/// Whether a start timestamp says that the counter began anew between two samples. A start at the very time of the
/// previous sample does so only if that one's start is known: then samples are deltas, else the start is not known.
fn start_says_reset((start_before, t_before): (i64, i64), (start, t): (i64, i64)) -> bool {
    if start == 0 || start >= t || start < t_before {
        return false;
    }
    let known_before = start_before != 0 && start_before < t_before;
    start > t_before || known_before
}

/// Whether a sample is said to have started before the previous one was taken, though not at its start.
fn start_overlaps((start_before, t_before): (i64, i64), start: i64) -> bool {
    start != 0 && start < t_before && start != start_before
}

fn float_resets(a: &FloatPoint, b: &FloatPoint) -> bool {
    b.v < a.v || start_says_reset((a.start, a.t), (b.start, b.t))
}

fn histogram_resets(a: &HistogramPoint, b: &HistogramPoint) -> bool {
    start_says_reset((a.start, a.t), (b.start, b.t)) || is_reset(&b.h, &a.h)
}

/// When samples of a window were taken: first, last, and how many.
struct Taken {
    first: i64,
    last: i64,
    count: usize,
}

impl Evaluator<'_> {
    /// `rate`, `increase` and `delta`: the increase between first and last sample, extrapolated to the window.
    pub(super) fn extrapolated_rate(&mut self, call: &WindowCall<'_>) -> Option<Sample> {
        let window = call.window;
        if window.is_mixed() {
            self.notes.warning(call.span, notes::floats_and_histograms(call.metric));
            return None;
        }
        if window.histograms.is_empty() { self.float_rate(call, window) } else { self.histogram_rate(call, window) }
    }

    fn float_rate(&mut self, call: &WindowCall<'_>, window: &Window) -> Option<Sample> {
        let points = &window.floats;
        let (first, last) = (points.first()?, points.last()?);
        let is_counter = call.function != FunctionName::Delta;
        let mut increase = last.v - first.v;
        if is_counter {
            if points.windows(2).any(|w| start_overlaps((w[0].start, w[0].t), w[1].start)) {
                self.notes.warning(call.span, notes::start_overlaps(call.metric));
            }
            for pair in points.windows(2).filter(|w| float_resets(&w[0], &w[1])) {
                increase += pair[0].v;
            }
        }
        let taken = Taken { first: first.t, last: last.t, count: points.len() };
        if is_counter && starts_inside(window, first.start, first.t) {
            // At its start the counter stood at zero.
            return Some(Sample::Float((increase + first.v) * factor_from_start(call, &taken, first.start)));
        }
        let zero = (is_counter && increase > 0.0 && first.v >= 0.0).then(|| first.v / increase);
        Some(Sample::Float(increase * factor(call, &taken, zero)?))
    }

    fn histogram_rate(&mut self, call: &WindowCall<'_>, window: &Window) -> Option<Sample> {
        let points = &window.histograms;
        let (first, last) = (points.first()?, points.last()?);
        let is_counter = call.function != FunctionName::Delta;
        let taken = Taken { first: first.t, last: last.t, count: points.len() };
        let from_start = is_counter && starts_inside(window, first.start, first.t);
        let mut increase = match points.len() {
            1 if from_start => Apart::of(&Histogram { schema: first.h.schema, ..empty_like(&first.h) }),
            1 => return None,
            _ => self.histogram_increase(call, points, is_counter)?,
        };
        let factor = if from_start {
            self.add_histogram(call, &mut increase, &first.h)?;
            increase.hint = if points.len() == 1 { first.h.reset_hint } else { increase.hint };
            factor_from_start(call, &taken, first.start)
        } else {
            let count = increase.whole().count;
            let zero = (is_counter && count > 0.0 && first.h.count >= 0.0).then(|| first.h.count / count);
            factor(call, &taken, zero)?
        };
        increase.scale(|v| v * factor);
        Some(Sample::Histogram(increase.whole().into()))
    }

    /// The increase between first and last of at least two histograms.
    fn histogram_increase(
        &mut self,
        call: &WindowCall<'_>,
        points: &[HistogramPoint],
        is_counter: bool,
    ) -> Option<Apart> {
        let (first, last) = (&points[0], &points[points.len() - 1]);
        let gauge = |p: &HistogramPoint| p.h.reset_hint == ResetHint::Gauge;
        if is_counter && points.iter().any(gauge) {
            self.notes.warning(call.span, notes::not_a_counter(call.metric));
        }
        // A reset right after the first sample makes its layout unimportant.
        let mut base = (*first.h).clone();
        if is_counter && histogram_resets(first, &points[1]) {
            base = empty_like(&points[1].h);
        }
        let middle = &points[1..points.len() - 1];
        let custom = |h: &Histogram| h.is_custom();
        let fits =
            custom(&last.h) == custom(&base) && (!is_counter || middle.iter().all(|p| custom(&p.h) == custom(&base)));
        if !fits {
            self.notes.warning(call.span, notes::exponential_and_custom(call.metric));
            return None;
        }
        let mut schema = last.h.schema.min(base.schema);
        if is_counter {
            schema = middle.iter().fold(schema, |least, p| least.min(p.h.schema));
        }
        let mut increase = Apart::of(&last.h);
        increase.coarsen(schema);
        self.subtract_histogram(call, &mut increase, &base)?;
        if is_counter {
            if points.windows(2).any(|w| start_overlaps((w[0].start, w[0].t), w[1].start)) {
                self.notes.warning(call.span, notes::start_overlaps(call.metric));
            }
            let mut before = HistogramPoint { h: base.into(), ..first.clone() };
            for point in &points[1..] {
                if histogram_resets(&before, point) {
                    self.add_histogram(call, &mut increase, &before.h)?;
                }
                before = point.clone();
            }
        } else if !gauge(first) || !gauge(last) {
            self.notes.warning(call.span, notes::not_a_gauge(call.metric));
        }
        increase.hint = ResetHint::Gauge;
        Some(increase)
    }

    /// Adds a histogram; `None` where that is impossible. What is to be said about it is said.
    pub(super) fn add_histogram(&mut self, call: &WindowCall<'_>, to: &mut Apart, h: &Histogram) -> Option<()> {
        self.put_histogram(call, to, h, 1.0, Doing::Addition)
    }

    /// Subtracts a histogram.
    pub(super) fn subtract_histogram(&mut self, call: &WindowCall<'_>, from: &mut Apart, h: &Histogram) -> Option<()> {
        self.put_histogram(call, from, h, -1.0, Doing::Subtraction)
    }

    fn put_histogram(
        &mut self,
        call: &WindowCall<'_>,
        to: &mut Apart,
        h: &Histogram,
        sign: f64,
        doing: Doing,
    ) -> Option<()> {
        match to.add(h, sign) {
            Ok(noticed) if noticed.bounds_reconciled => self.notes.info(call.span, notes::bounds_reconciled(doing)),
            Ok(_) => {}
            Err(_) => {
                self.notes.warning(call.span, notes::exponential_and_custom(call.metric));
                return None;
            }
        }
        Some(())
    }

    /// `irate` and `idelta`: between the last two samples.
    pub(super) fn instant_rate(&mut self, call: &WindowCall<'_>) -> Option<Sample> {
        let points = call.window.points();
        let [.., a, b] = points.as_slice() else { return None };
        let is_rate = call.function == FunctionName::Irate;
        let seconds = (b.t - a.t) as f64 / 1000.0;
        let restarted = is_rate && start_says_reset((a.start, a.t), (b.start, b.t));
        match (&a.sample, &b.sample) {
            (Sample::Float(x), Sample::Float(y)) => {
                let from_zero = restarted || (is_rate && y < x);
                let increase = if from_zero { *y } else { y - x };
                Some(Sample::Float(if is_rate { increase / seconds } else { increase }))
            }
            (Sample::Histogram(x), Sample::Histogram(y)) => {
                let gauges = [x, y].map(|h| h.reset_hint == ResetHint::Gauge);
                if is_rate && gauges.contains(&true) {
                    self.notes.warning(call.span, notes::not_a_counter(call.metric));
                }
                if !is_rate && gauges.contains(&false) {
                    self.notes.warning(call.span, notes::not_a_gauge(call.metric));
                }
                let mut increase = Apart::of(y);
                if !(restarted || (is_rate && is_reset(y, x))) {
                    self.subtract_histogram(call, &mut increase, x)?;
                }
                increase.hint = ResetHint::Gauge;
                if is_rate {
                    increase.scale(|v| v / seconds);
                }
                Some(Sample::Histogram(increase.whole().into()))
            }
            _ => {
                self.notes.warning(call.span, notes::floats_and_histograms(call.metric));
                None
            }
        }
    }

    /// `resets` and `changes`: how many neighbours differ. A float next to a histogram is both.
    pub(super) fn transitions(&mut self, call: &WindowCall<'_>) -> Option<Sample> {
        let mut points = call.window.points();
        if call.anchored {
            // The last sample at or before the window counts as its first.
            points.last().filter(|p| p.t > call.window.start)?;
            let before = points.iter().filter(|p| p.t <= call.window.start).count();
            points.drain(..before.saturating_sub(1));
        }
        let differs = |a: &Point, b: &Point| match (&a.sample, &b.sample, call.function) {
            (Sample::Float(x), Sample::Float(y), FunctionName::Changes) => x != y && !(x.is_nan() && y.is_nan()),
            (Sample::Histogram(x), Sample::Histogram(y), FunctionName::Changes) => !native::equal(x, y),
            (Sample::Float(x), Sample::Float(y), _) => y < x || start_says_reset((a.start, a.t), (b.start, b.t)),
            (Sample::Histogram(x), Sample::Histogram(y), _) => {
                start_says_reset((a.start, a.t), (b.start, b.t)) || is_reset(y, x)
            }
            _ => true,
        };
        let count = points.windows(2).filter(|w| differs(&w[0], &w[1])).count();
        Some(Sample::Float(count as f64))
    }
}

/// A histogram without observations that goes together with `h`.
fn empty_like(h: &Histogram) -> Histogram {
    Histogram { schema: h.schema, custom_values: h.custom_values.clone(), ..Histogram::default() }
}

/// Whether the counter is known to have started inside of the window.
fn starts_inside(window: &Window, start: i64, first: i64) -> bool {
    start != 0 && start > window.start && start < first
}

/// What the increase between first and last sample is multiplied with: it is taken to go on to the edges of the window
/// if they are not much further away than samples are from each other, else for half that distance; but never beyond the
/// time at which the counter was zero, which is `zero` times the sampled interval before the first sample.
fn factor(call: &WindowCall<'_>, taken: &Taken, zero: Option<f64>) -> Option<f64> {
    if taken.count < 2 {
        return None;
    }
    let sampled = (taken.last - taken.first) as f64 / 1000.0;
    let average = sampled / (taken.count - 1) as f64;
    let threshold = average * 1.1;
    let reached = |gap: f64| if gap >= threshold { average / 2.0 } else { gap };
    let mut to_start = reached((taken.first - call.window.start) as f64 / 1000.0);
    if let Some(zero) = zero {
        let to_zero = sampled * zero;
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    let to_end = reached((call.window.end - taken.last) as f64 / 1000.0);
    Some(per_second(call, (sampled + to_start + to_end) / sampled))
}

/// The same when the counter is known to have started at zero inside of the window.
fn factor_from_start(call: &WindowCall<'_>, taken: &Taken, start: i64) -> f64 {
    let between = (taken.last - taken.first) as f64 / 1000.0;
    // A single sample says nothing about the distance of samples.
    let average = if taken.count > 1 { between / (taken.count - 1) as f64 } else { 0.0 };
    let gap = (call.window.end - taken.last) as f64 / 1000.0;
    let to_end = if gap >= average * 1.1 { average / 2.0 } else { gap };
    let sampled = (taken.last - start) as f64 / 1000.0;
    per_second(call, if sampled == 0.0 { 1.0 } else { (sampled + 0.0 + to_end) / sampled })
}

fn per_second(call: &WindowCall<'_>, factor: f64) -> f64 {
    if call.function == FunctionName::Rate { factor / (call.range as f64 / 1000.0) } else { factor }
}
