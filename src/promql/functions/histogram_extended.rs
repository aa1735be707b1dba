//! `rate`, `increase` and `delta` of native histograms of `anchored` and `smoothed` selectors, and values between two
//! histograms.
//!
//! *Invariants:* the edges are those of floats (`rate::Extended`): samples before and after the window, or points on the
//! line between them. A point on the line across a reset counts from zero, so that reset is not corrected for again.
//!
//! *Not here:* windows without such modifiers (`histogram_range`).

use std::borrow::Cow;

use super::histogram_range::{Counter, Finding, Findings, HistogramPoints, Mixed, add};
use super::rate::anchor;
use super::window::Window;
use crate::model::{Histogram, ResetHint};
use crate::promql::histogram::{Accumulator, scaled};

/// The histogram at `t` on the line between two; after a reset the line begins at nothing.
pub fn interpolate(
    left: (i64, &Histogram),
    right: (i64, &Histogram),
    t: i64,
    reset: bool,
    found: &mut Findings,
) -> Result<Histogram, Mixed> {
    if left.1.is_custom() != right.1.is_custom() {
        return Err(Mixed::Inside);
    }
    let fraction = (t - left.0) as f64 / (right.0 - left.0) as f64;
    if reset {
        return Ok(scaled(right.1, fraction));
    }
    let mut out = Accumulator::<f64>::of(right.1);
    add(&mut out, left.1, -1.0, found)?;
    out.map(|v| v * fraction);
    add(&mut out, left.1, 1.0, found)?;
    Ok(out.finish())
}

/// `rate`, `increase` or `delta`.
#[derive(Debug, Clone, Copy)]
pub struct Extended {
    /// Correct for resets.
    pub counter: bool,
    /// Seconds to divide by; 0 for none.
    pub per: f64,
    /// `smoothed` rather than `anchored`.
    pub smoothed: bool,
}

impl Extended {
    /// Which of the samples from the lookback before a window to that behind it take part: the first and the last.
    /// `None` where the window has no value.
    pub fn bounds(self, ts: &[i64], window: Window) -> Option<(usize, usize)> {
        let mut last = ts.len().checked_sub(1)?;
        let first = anchor(ts, window.start);
        if self.smoothed {
            last = ts[..last].partition_point(|t| *t < window.end);
        }
        (ts[last] > window.start && !(self.smoothed && ts[first] > window.end)).then_some((first, last))
    }

    /// The value for the samples `lo..hi`, which reach beyond the window. `counter` has seen the series.
    pub fn eval(
        self,
        counter: &Counter,
        points: HistogramPoints<'_>,
        (lo, hi): (usize, usize),
        window: Window,
        found: &mut Findings,
    ) -> Option<Histogram> {
        let (first, last) = self.bounds(&points.ts[lo..hi], window)?;
        let mut own = Findings::default();
        match self.difference(counter, points, (lo + first, lo + last), window, &mut own) {
            Ok(mut difference) => {
                found.merge(own);
                if self.per != 0.0 {
                    difference.map(|v| v / self.per);
                }
                Some(Histogram { reset_hint: ResetHint::Gauge, ..difference.finish() })
            }
            Err(_) => {
                // Nothing else is worth saying then.
                found.add(Finding::MixedSchemas);
                None
            }
        }
    }

    fn difference(
        self,
        counter: &Counter,
        points: HistogramPoints<'_>,
        (first, last): (usize, usize),
        window: Window,
        found: &mut Findings,
    ) -> Result<Accumulator<f64>, Mixed> {
        let gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
        if self.counter {
            found.add_if(points.hs[first..=last].iter().any(|h| gauge(h)), Finding::NotCounter);
        } else {
            found.add_if(!gauge(&points.hs[first]) || !gauge(&points.hs[last]), Finding::NotGauge);
        }
        let at = |i: usize| (points.ts[i], &*points.hs[i]);
        let between = |i: usize, t: i64, found: &mut Findings| {
            let reset = self.counter && counter.within(i, i + 2).next().is_some();
            interpolate(at(i), at(i + 1), t, reset, found).map(Cow::Owned)
        };
        let cut_left = self.smoothed && points.ts[first] < window.start;
        let left = match cut_left {
            true => between(first, window.start, found)?,
            false => Cow::Borrowed(at(first).1),
        };
        let right = match self.smoothed && last > 0 && points.ts[last] > window.end {
            true => between(last - 1, window.end, found)?,
            false => Cow::Borrowed(at(last).1),
        };
        let mut out = Accumulator::of(&right);
        add(&mut out, &left, -1.0, found)?;
        if self.counter {
            for i in counter.within(first + usize::from(cut_left), last + 1) {
                add(&mut out, &points.hs[i - 1], 1.0, found)?;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn of(count: f64) -> Arc<Histogram> {
        Arc::new(Histogram { count, sum: count, ..Histogram::default() })
    }

    fn increase(smoothed: bool, samples: &[(i64, f64)], start: i64, end: i64) -> Option<f64> {
        let ts: Vec<i64> = samples.iter().map(|s| s.0).collect();
        let hs: Vec<_> = samples.iter().map(|s| of(s.1)).collect();
        let points = HistogramPoints { ts: &ts, hs: &hs, starts: &[] };
        let mut counter = Counter::default();
        counter.scan(points);
        let window = Window { start, end, t: end, step: 0 };
        let extended = Extended { counter: true, per: 0.0, smoothed };
        extended.eval(&counter, points, (0, hs.len()), window, &mut Findings::default()).map(|h| h.count)
    }

    #[test]
    fn agrees_with_floats() {
        use crate::promql::functions::rate;
        use crate::promql::functions::window::{Kernel, Points, is_absent};
        for seed in 0..2000u64 {
            let value = |i: u64| (seed.wrapping_mul(i * 2 + 3).wrapping_mul(0x9e37_79b9) >> 7) % 9;
            let samples: Vec<_> = (0..1 + seed % 5).map(|i| (i as i64 * 10, value(i) as f64)).collect();
            let (ts, vs): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
            let start = (seed % 53) as i64 - 5;
            let window = Window { start, end: start + 1 + (seed % 17) as i64, t: 0, step: 0 };
            for smoothed in [false, true] {
                let mut floats = rate::Extended { counter: true, per: 0.0, smoothed };
                let points = Points { ts: &ts, vs: &vs, starts: &[] };
                let float = Kernel::eval(&mut floats, points, 0, ts.len(), window);
                let histogram = increase(smoothed, &samples, window.start, window.end);
                match histogram {
                    Some(h) => assert!((float - h).abs() < 1e-9, "{samples:?} {window:?} {smoothed}: {float} {h}"),
                    None => assert!(is_absent(float), "{samples:?} {window:?} {smoothed}: {float}"),
                }
            }
        }
    }
}
