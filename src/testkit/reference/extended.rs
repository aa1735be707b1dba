//! `anchored` and `smoothed`: windows that know what lies beyond their edges.
//!
//! *Invariants:* `anchored` takes the last sample at or before the window for the value at its left edge; `smoothed` puts
//! both edges on the line between their neighbours. Nothing is extrapolated: where nothing lies beyond an edge, the
//! nearest sample inside stands for it.
//!
//! *Not here:* plain windows (`rate`).

use super::apart::{Apart, is_reset};
use super::data::{FloatPoint, HistogramPoint, Point, Window};
use super::evaluator::Evaluator;
use super::notes::{self, Doing};
use super::range_call::WindowCall;
use super::value::Sample;
use crate::model::{Histogram, ResetHint};
use crate::promql::exec::error::Error;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;

/// The value at `t` on the line between two samples; a counter that fell in between began anew at zero.
fn on_line(a: &FloatPoint, b: &FloatPoint, t: i64, is_counter: bool) -> f64 {
    let from = if is_counter && b.v < a.v { 0.0 } else { a.v };
    from + (b.v - from) * (t - a.t) as f64 / (b.t - a.t) as f64
}

/// A part of what a histogram has counted, bucket by bucket: empty ones stay, as nothing is put together.
fn share_of(h: &Histogram, through: f64) -> Histogram {
    let part = |counts: &[f64]| counts.iter().map(|v| v * through).collect();
    Histogram {
        integer: false,
        zero_count: h.zero_count * through,
        count: h.count * through,
        sum: h.sum * through,
        positive: part(&h.positive),
        negative: part(&h.negative),
        ..h.clone()
    }
}

/// Indexes of the samples at or next beyond the edges of a window; `None` where no sample counts.
fn bracket(times: &[i64], window: &Window, smoothed: bool) -> Option<(usize, usize)> {
    let newest = times.len().checked_sub(1)?;
    let first = times[..newest].iter().filter(|t| **t <= window.start).count().saturating_sub(1);
    let last = if smoothed { times[..newest].iter().filter(|t| **t < window.end).count() } else { newest };
    let nothing_after_start = times[last] <= window.start;
    let nothing_before_end = smoothed && times[first] > window.end;
    (!nothing_after_start && !nothing_before_end).then_some((first, last))
}

/// Values of floats at both edges.
fn edge_values(
    points: &[FloatPoint],
    window: &Window,
    (first, last): (usize, usize),
    smoothed: bool,
    is_counter: bool,
) -> (f64, f64) {
    let left = match smoothed && points[first].t < window.start {
        true => on_line(&points[first], &points[first + 1], window.start, is_counter),
        false => points[first].v,
    };
    let right = match smoothed && last > 0 && points[last].t > window.end {
        true => on_line(&points[last - 1], &points[last], window.end, is_counter),
        false => points[last].v,
    };
    (left, right)
}

/// The samples of a window with one at each edge.
pub(super) fn with_edges(window: &Window, smoothed: bool) -> Vec<FloatPoint> {
    let times: Vec<i64> = window.floats.iter().map(|p| p.t).collect();
    let Some(found) = bracket(&times, window, smoothed) else { return Vec::new() };
    let (left, right) = edge_values(&window.floats, window, found, smoothed, false);
    let edge = |t, v| FloatPoint { t, start: 0, v };
    let inside = window.floats.iter().filter(|p| p.t > window.start && p.t < window.end).copied();
    [edge(window.start, left)].into_iter().chain(inside).chain([edge(window.end, right)]).collect()
}

impl Evaluator<'_> {
    /// `rate`, `increase` and `delta` of an anchored or smoothed range vector.
    pub(super) fn extended_rate(&mut self, call: &WindowCall<'_>) -> Option<Sample> {
        let window = call.window;
        if window.is_mixed() {
            self.notes.warning(call.span, notes::floats_and_histograms(call.metric));
            return None;
        }
        if !window.histograms.is_empty() {
            return self.extended_histogram_rate(call);
        }
        let times: Vec<i64> = window.floats.iter().map(|p| p.t).collect();
        let found = bracket(&times, window, call.smoothed)?;
        let is_counter = call.function != FunctionName::Delta;
        let (left, right) = edge_values(&window.floats, window, found, call.smoothed, is_counter);
        let mut increase = right - left;
        if is_counter {
            let inside = window.floats.iter().filter(|p| p.t > window.start && p.t < window.end).map(|p| p.v);
            let mut lost = 0.0;
            let mut before = left;
            for v in inside.chain([right]) {
                if v < before {
                    lost += before;
                }
                before = v;
            }
            increase += lost;
        }
        let seconds = call.range as f64 / 1000.0;
        Some(Sample::Float(if call.function == FunctionName::Rate { increase / seconds } else { increase }))
    }

    fn extended_histogram_rate(&mut self, call: &WindowCall<'_>) -> Option<Sample> {
        let (window, points) = (call.window, &call.window.histograms);
        let times: Vec<i64> = points.iter().map(|p| p.t).collect();
        let (first, last) = bracket(&times, window, call.smoothed)?;
        let is_counter = call.function != FunctionName::Delta;
        let used = &points[first..=last];
        if used.iter().any(|p| p.h.is_custom() != used[0].h.is_custom()) {
            self.notes.warning(call.span, notes::exponential_and_custom(call.metric));
            return None;
        }
        let is_gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
        if is_counter && used.iter().any(|p| is_gauge(&p.h)) {
            self.notes.warning(call.span, notes::not_a_counter(call.metric));
        }
        let left = match call.smoothed && points[first].t < window.start {
            true => self.histogram_on_line(call, &points[first], &points[first + 1], window.start, is_counter)?,
            false => (*points[first].h).clone(),
        };
        let right = match call.smoothed && last > 0 && points[last].t > window.end {
            true => self.histogram_on_line(call, &points[last - 1], &points[last], window.end, is_counter)?,
            false => (*points[last].h).clone(),
        };
        if !is_counter && [&left, &right].iter().any(|h| !is_gauge(h)) {
            self.notes.warning(call.span, notes::not_a_gauge(call.metric));
        }
        let mut increase = Apart::of(&right);
        self.subtract_histogram(call, &mut increase, &left)?;
        if is_counter {
            self.add_lost(call, &mut increase, (first, last), &left, &right)?;
        }
        if call.function == FunctionName::Rate {
            increase.scale(|v| v / (call.range as f64 / 1000.0));
        }
        increase.hint = ResetHint::Gauge;
        Some(Sample::Histogram(increase.whole().into()))
    }

    /// Adds what resets between the edges took away.
    fn add_lost(
        &mut self,
        call: &WindowCall<'_>,
        increase: &mut Apart,
        (first, last): (usize, usize),
        left: &Histogram,
        right: &Histogram,
    ) -> Option<()> {
        let points = &call.window.histograms;
        let (mut before, mut next) = (left, first + 1);
        let left_is_between = call.smoothed && points[first].t < call.window.start;
        if left_is_between && is_reset(&points[first + 1].h, &points[first].h) {
            // The left edge lies after that reset already.
            (before, next) = (&points[first + 1].h, first + 2);
        }
        if next > last {
            return Some(());
        }
        // The last sample is there as the right edge.
        let mut lost: Option<Apart> = None;
        for h in points[next..last].iter().map(|p| &*p.h).chain([right]) {
            if is_reset(h, before) {
                match &mut lost {
                    None => lost = Some(Apart::of(before)),
                    Some(lost) => self.add_histogram(call, lost, before)?,
                }
            }
            before = h;
        }
        match lost {
            Some(lost) => self.add_histogram(call, increase, &lost.whole()),
            None => Some(()),
        }
    }

    fn histogram_on_line(
        &mut self,
        call: &WindowCall<'_>,
        a: &HistogramPoint,
        b: &HistogramPoint,
        t: i64,
        is_counter: bool,
    ) -> Option<Histogram> {
        self.between(a, b, t, is_counter, call.metric, call.span)
    }

    /// The histogram at `t` between two others; `None`, with a warning, where they do not go together.
    fn between(
        &mut self,
        a: &HistogramPoint,
        b: &HistogramPoint,
        t: i64,
        is_counter: bool,
        metric: &str,
        span: Span,
    ) -> Option<Histogram> {
        if t == a.t || t == b.t {
            return Some(if t == a.t { (*a.h).clone() } else { (*b.h).clone() });
        }
        if a.h.is_custom() != b.h.is_custom() {
            self.notes.warning(span, notes::exponential_and_custom(metric));
            return None;
        }
        let through = (t - a.t) as f64 / (b.t - a.t) as f64;
        if is_counter && is_reset(&b.h, &a.h) {
            return Some(share_of(&b.h, through));
        }
        let mut out = Apart::of(&b.h);
        for (sign, doing) in [(-1.0, Doing::Subtraction), (1.0, Doing::Addition)] {
            match out.add(&a.h, sign) {
                Ok(noticed) if noticed.bounds_reconciled => self.notes.info(span, notes::bounds_reconciled(doing)),
                Ok(_) => {}
                Err(_) => {
                    self.notes.warning(span, notes::exponential_and_custom(metric));
                    return None;
                }
            }
            if sign < 0.0 {
                out.scale(|v| v * through);
            }
        }
        Some(out.whole())
    }

    /// What a smoothed instant vector selector sees at `t`.
    pub(super) fn smoothed_sample(
        &mut self,
        metric: &str,
        points: &[Point],
        t: i64,
        span: Span,
    ) -> Result<Option<Sample>, Error> {
        let lookback = self.options.lookback;
        let around = Window::of(points, t - lookback, t + lookback, (0, 0));
        if around.is_mixed() {
            self.notes.warning(span, notes::floats_and_histograms(metric));
            return Ok(None);
        }
        if !around.histograms.is_empty() {
            let before = around.histograms.iter().rfind(|p| p.t <= t);
            let after = around.histograms.iter().find(|p| p.t >= t);
            return Ok(match (before, after) {
                (Some(a), Some(b)) => {
                    // A line with a gauge at either end is a gauge's.
                    let is_counter = [a, b].iter().all(|p| p.h.reset_hint != ResetHint::Gauge);
                    self.between(a, b, t, is_counter, metric, span).map(|h| Sample::Histogram(h.into()))
                }
                (Some(a), None) => Some(Sample::Histogram(a.h.clone())),
                (None, _) => None,
            });
        }
        let before = around.floats.iter().rfind(|p| p.t <= t);
        let after = around.floats.iter().find(|p| p.t >= t);
        Ok(match (before, after) {
            (Some(a), _) if a.t == t => Some(Sample::Float(a.v)),
            (Some(a), Some(b)) => Some(Sample::Float(on_line(a, b, t, false))),
            (Some(a), None) => Some(Sample::Float(a.v)),
            (None, _) => None,
        })
    }
}
