//! `rate`, `increase`, `delta`, `irate`, `idelta`, `resets`, `changes` over floats.
//!
//! *Invariants:* the order of floating-point operations is that of Prometheus' `extrapolatedRate`, so results are
//! bit-equal; a window costs O(1) plus the resets inside it, however many samples it holds.
//!
//! *Not here:* native histograms (`functions::histogram_range`).

use super::window::{ABSENT, Kernel, Points, Window, Windows};

/// Whether a start timestamp says that the counter began anew between two samples.
///
/// A start equal to the previous timestamp is a reset only where the previous sample began before it: it is a delta
/// series then. Without a previous start, or with one at its own sample, the series is cumulative since a time nobody
/// knows; a previous start after its own sample says nothing.
pub fn is_start_reset(previous_start: i64, previous_t: i64, start: i64, t: i64) -> bool {
    if start == 0 || start >= t || start < previous_t {
        return false;
    }
    start > previous_t || (previous_start != 0 && previous_start < previous_t)
}

/// Whether a sample claims to have begun before the previous one was taken, without being its continuation.
pub fn is_start_overlap(previous_start: i64, previous_t: i64, start: i64) -> bool {
    start != 0 && start < previous_t && start != previous_start
}

/// Whether samples of one window contradict each other about when the counter began. A window with any of `others` does
/// not count: those are samples of another kind, next to which there is no rate.
pub fn starts_overlap(ts: &[i64], starts: &[i64], others: &[i64], windows: &Windows) -> bool {
    let overlap = |i: &usize| is_start_overlap(starts[i - 1], ts[i - 1], starts[*i]);
    let mut pairs = (1..starts.len()).filter(overlap).peekable();
    if pairs.peek().is_none() {
        return false;
    }
    let pairs: Vec<usize> = pairs.collect();
    (0..windows.grid.len()).any(|step| {
        let window = windows.window(step);
        // Of the pairs that begin inside the window the first ends first.
        let first = pairs.partition_point(|i| ts[i - 1] <= window.start);
        pairs.get(first).is_some_and(|i| ts[*i] <= window.end)
            && !others.iter().any(|t| *t > window.start && *t <= window.end)
    })
}

/// Which samples begin a new life of the counter, ascending; with a cursor that follows the windows.
#[derive(Clone, Default)]
struct Resets {
    at: Vec<u32>,
    from: usize,
}

impl Resets {
    fn scan(&mut self, points: Points<'_>) {
        self.at.clear();
        self.from = 0;
        let drops = points.vs.windows(2).enumerate().filter(|(_, w)| w[1] < w[0]).map(|(i, _)| i as u32 + 1);
        if points.starts.is_empty() {
            self.at.extend(drops);
            return;
        }
        let (ts, starts) = (points.ts, points.starts);
        self.at.extend(
            (1..ts.len())
                .filter(|i| {
                    points.vs[*i] < points.vs[i - 1] || is_start_reset(starts[i - 1], ts[i - 1], starts[*i], ts[*i])
                })
                .map(|i| i as u32),
        );
    }

    /// The resets between two samples of `lo..hi`.
    #[inline(always)]
    fn within(&mut self, lo: usize, hi: usize) -> &[u32] {
        while self.from < self.at.len() && self.at[self.from] as usize <= lo {
            self.from += 1;
        }
        let tail = &self.at[self.from..];
        if tail.first().is_none_or(|first| *first as usize >= hi) {
            return &[];
        }
        &tail[..tail.partition_point(|i| (*i as usize) < hi)]
    }
}

/// `rate`, `increase` and `delta`.
#[derive(Clone)]
pub struct Extrapolated {
    counter: bool,
    /// Seconds to divide by; 0 for none.
    per: f64,
    resets: Resets,
    shape: Shape,
    extrapolation: Extrapolation,
}

impl Extrapolated {
    fn new(counter: bool, per: f64) -> Self {
        Self {
            counter,
            per,
            resets: Resets::default(),
            shape: Shape::default(),
            extrapolation: Extrapolation::default(),
        }
    }

    /// `rate(…[range])`, with `range` in milliseconds.
    pub fn rate(range: i64) -> Self {
        Self::new(true, range as f64 / 1000.0)
    }

    /// `increase`.
    pub fn increase() -> Self {
        Self::new(true, 0.0)
    }

    /// `delta`.
    pub fn delta() -> Self {
        Self::new(false, 0.0)
    }
}

impl Kernel for Extrapolated {
    fn begin(&mut self, points: Points<'_>) {
        if self.counter {
            self.resets.scan(points);
        }
    }

    #[inline(always)]
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, window: Window) -> f64 {
        let n = hi - lo;
        // A counter known to have begun inside the window stood at zero then.
        let start = if self.counter && !points.starts.is_empty() { points.starts[lo] } else { 0 };
        let from_start = start != 0 && start > window.start && start < points.ts[lo];
        if n < 2 && !from_start {
            return ABSENT;
        }
        let (first, last) = (points.vs[lo], points.vs[hi - 1]);
        let mut result = last - first;
        if self.counter {
            for &i in self.resets.within(lo, hi) {
                result += points.vs[i as usize - 1];
            }
        }
        if from_start {
            // From zero: taken off and put back, because that is how Prometheus rounds.
            result += first;
        }
        let first_t = if from_start { start } else { points.ts[lo] };
        let last_t = points.ts[hi - 1];
        let to_start = if from_start { 0 } else { first_t - window.start };
        let between = last_t - points.ts[lo];
        let shape = Shape { to_start, between, covered: last_t - first_t, to_end: window.end - last_t, gaps: n - 1 };
        if shape != self.shape {
            (self.shape, self.extrapolation) = (shape, Extrapolation::of(shape, self.per));
        }
        let zero_first = if self.counter && !from_start { first } else { f64::NAN };
        result * self.extrapolation.factor(result, zero_first, self.per)
    }
}

/// How samples lie in a window, milliseconds: with regular scrapes the same from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Shape {
    to_start: i64,
    /// From the first sample to the last.
    between: i64,
    /// As `between`, but from the start of the counter where that is known to lie in the window.
    covered: i64,
    to_end: i64,
    gaps: usize,
}

/// What the difference between last and first sample is multiplied with: the share of the window that the series is
/// taken to cover. Kept from step to step, since it takes six divisions.
#[derive(Debug, Clone, Copy, Default)]
struct Extrapolation {
    sampled: f64,
    to_start: f64,
    to_end: f64,
    factor: f64,
}

impl Extrapolation {
    fn of(shape: Shape, per: f64) -> Self {
        let mut to_start = shape.to_start as f64 / 1000.0;
        let mut to_end = shape.to_end as f64 / 1000.0;
        let sampled = shape.covered as f64 / 1000.0;
        // The start of a counter is no scrape, so it tells nothing of the interval; one sample alone goes nowhere.
        let average = shape.between as f64 / 1000.0 / shape.gaps.max(1) as f64;
        // Samples this close to an edge are taken to go on up to it; otherwise the series is taken to begin or end half
        // an interval away.
        let threshold = average * 1.1;
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        Self { sampled, to_start, to_end, factor: factor(sampled, to_start, to_end, per) }
    }

    /// The factor for a counter whose first value is `first` (NaN for gauges): it does not reach below zero.
    #[inline(always)]
    fn factor(&self, result: f64, first: f64, per: f64) -> f64 {
        // Without a division where zero is clearly farther away than the edge.
        let near_zero = result > 0.0 && first >= 0.0 && self.sampled * first <= self.to_start * result * (1.0 + 1e-9);
        if near_zero {
            let to_zero = self.sampled * (first / result);
            if to_zero < self.to_start {
                return factor(self.sampled, to_zero, self.to_end, per);
            }
        }
        self.factor
    }
}

fn factor(sampled: f64, to_start: f64, to_end: f64, per: f64) -> f64 {
    let factor = (sampled + to_start + to_end) / sampled;
    if per != 0.0 { factor / per } else { factor }
}

/// `rate`, `increase` and `delta` of `anchored` and `smoothed` selectors: no extrapolation, the edges are samples before
/// (and after) the window, or points on the line between them.
#[derive(Clone)]
pub struct Extended {
    /// Counter (correct for resets) rather than gauge.
    pub counter: bool,
    /// Seconds to divide by; 0 for none.
    pub per: f64,
    /// `smoothed` rather than `anchored`.
    pub smoothed: bool,
}

/// The value at `t` on the line between two samples; a counter that fell is taken to have restarted at zero.
pub fn interpolate(left: (i64, f64), right: (i64, f64), t: i64, counter: bool) -> f64 {
    let from = if counter && right.1 < left.1 { 0.0 } else { left.1 };
    from + (right.1 - from) * (t - left.0) as f64 / (right.0 - left.0) as f64
}

/// The last sample at or before the window's start (or the first of all), as an offset into `ts`.
pub(super) fn anchor(ts: &[i64], start: i64) -> usize {
    ts[..ts.len() - 1].partition_point(|t| *t <= start).saturating_sub(1)
}

impl Kernel for Extended {
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, window: Window) -> f64 {
        let (ts, vs) = (&points.ts[lo..hi], &points.vs[lo..hi]);
        let mut first = anchor(ts, window.start);
        let mut last = ts.len() - 1;
        if self.smoothed {
            last = ts[..last].partition_point(|t| *t < window.end);
        }
        if ts[last] <= window.start || (self.smoothed && ts[first] > window.end) {
            return ABSENT;
        }
        let at = |i: usize| (ts[i], vs[i]);
        let left = if self.smoothed && ts[first] < window.start {
            interpolate(at(first), at(first + 1), window.start, self.counter)
        } else {
            vs[first]
        };
        let right = if self.smoothed && last > 0 && ts[last] > window.end {
            interpolate(at(last - 1), at(last), window.end, self.counter)
        } else {
            vs[last]
        };
        let mut result = right - left;
        if self.counter {
            // Samples on the edges are part of `left` and `right` already.
            first += usize::from(ts[first] <= window.start);
            let end = last + usize::from(ts[last] < window.end);
            // What resets took away is added up on its own first, as Prometheus does.
            let (mut previous, mut lost) = (left, 0.0);
            for &v in vs.get(first..end).unwrap_or_default().iter().chain([&right]) {
                if v < previous {
                    lost += previous;
                }
                previous = v;
            }
            result += lost;
        }
        if self.per != 0.0 { result / self.per } else { result }
    }
}

/// `irate` and `idelta`: the last two samples.
#[derive(Clone)]
pub struct Instant {
    /// `irate` rather than `idelta`.
    pub rate: bool,
}

impl Kernel for Instant {
    #[inline(always)]
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, _window: Window) -> f64 {
        if hi - lo < 2 {
            return ABSENT;
        }
        let (a, b) = (hi - 2, hi - 1);
        let (before, after) = (points.vs[a], points.vs[b]);
        let start_reset = |s: &[i64]| is_start_reset(s[a], points.ts[a], s[b], points.ts[b]);
        let reset = self.rate && (after < before || (!points.starts.is_empty() && start_reset(points.starts)));
        let difference = if reset { after } else { after - before };
        if self.rate { difference / ((points.ts[b] - points.ts[a]) as f64 / 1000.0) } else { difference }
    }
}

/// `resets` and `changes`: how many neighbours in the window differ in a way.
#[derive(Clone)]
pub struct Transitions {
    /// `resets` rather than `changes`.
    pub resets: bool,
    /// `anchored`: the last sample before the window takes part.
    pub anchored: bool,
    at: Vec<u32>,
    lo: usize,
    hi: usize,
}

impl Transitions {
    /// `resets` (or else `changes`), `anchored` or not.
    pub fn new(resets: bool, anchored: bool) -> Self {
        Self { resets, anchored, at: Vec::new(), lo: 0, hi: 0 }
    }
}

impl Kernel for Transitions {
    fn begin(&mut self, points: Points<'_>) {
        (self.lo, self.hi) = (0, 0);
        self.at.clear();
        let starts = points.starts;
        let counts = |i: usize| {
            let (a, b) = (points.vs[i - 1], points.vs[i]);
            if self.resets {
                b < a
                    || (!starts.is_empty() && is_start_reset(starts[i - 1], points.ts[i - 1], starts[i], points.ts[i]))
            } else {
                b != a && !(a.is_nan() && b.is_nan())
            }
        };
        let at: Vec<u32> = (1..points.vs.len()).filter(|i| counts(*i)).map(|i| i as u32).collect();
        self.at = at;
    }

    fn eval(&mut self, points: Points<'_>, mut lo: usize, hi: usize, window: Window) -> f64 {
        if self.anchored {
            if points.ts[hi - 1] <= window.start {
                return ABSENT;
            }
            lo += anchor(&points.ts[lo..hi], window.start);
        }
        while self.lo < self.at.len() && self.at[self.lo] as usize <= lo {
            self.lo += 1;
        }
        self.hi = self.hi.max(self.lo);
        while self.hi < self.at.len() && (self.at[self.hi] as usize) < hi {
            self.hi += 1;
        }
        (self.hi - self.lo) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::{is_absent, run};
    use super::*;
    use crate::model::StepGrid;

    fn one<K: Kernel>(mut kernel: K, samples: &[(i64, f64)], t: i64, range: i64) -> f64 {
        let ts: Vec<i64> = samples.iter().map(|s| s.0).collect();
        let vs: Vec<f64> = samples.iter().map(|s| s.1).collect();
        let windows = Windows { grid: StepGrid::instant(t), offset: 0, range, at: None, before: 0, after: 0 };
        let mut out = [0.0];
        run(&mut kernel, Points { ts: &ts, vs: &vs, starts: &[] }, &windows, &mut out);
        out[0]
    }

    #[test]
    fn rate_extrapolates_to_both_edges() {
        let samples: Vec<(i64, f64)> = (0..=10).map(|i| (i * 60_000, i as f64 * 60.0)).collect();
        assert_eq!(one(Extrapolated::rate(300_000), &samples, 600_000, 300_000), 1.0);
        assert_eq!(one(Extrapolated::increase(), &samples, 630_000, 300_000), 300.0);
    }

    #[test]
    fn counter_resets_add_what_was_lost() {
        let samples = [(0, 10.0), (60_000, 20.0), (120_000, 5.0), (180_000, 8.0)];
        // 8 − 20 + 20 over (0, 180 s], extrapolated from 120 s to 180 s but not below zero.
        let got = one(Extrapolated::increase(), &samples, 180_000, 180_000);
        assert_eq!(got, 8.0 * (120.0 + 60.0) / 120.0);
        assert_eq!(one(Transitions::new(true, false), &samples, 180_000, 240_000), 1.0);
    }

    #[test]
    fn one_sample_is_no_rate() {
        assert!(is_absent(one(Extrapolated::rate(60_000), &[(0, 1.0)], 0, 60_000)));
        assert!(is_absent(one(Instant { rate: true }, &[(0, 1.0)], 0, 60_000)));
    }

    #[test]
    fn losses_of_an_anchored_window_are_added_up_before_they_are_added() {
        let kernel = Extended { counter: true, per: 60.0, smoothed: false };
        let points = [(0, 5.0), (15_000, -0.1), (30_000, -0.2)];
        assert_eq!(one(kernel, &points, 30_000, 60_000), (-0.2 - 5.0 + (5.0 + -0.1)) / 60.0);
    }

    #[test]
    fn a_start_tells_a_reset_unless_it_is_nonsense() {
        assert!(is_start_reset(0, 10, 11, 20));
        assert!(is_start_reset(5, 10, 10, 20), "delta: begins where the previous one ended");
        for (previous, start) in [(0, 10), (10, 10), (15, 10), (5, 9), (5, 20), (5, 25), (5, 0)] {
            assert!(!is_start_reset(previous, 10, start, 20), "{previous} then {start}");
        }
    }

    #[test]
    fn starts_overlap_only_inside_of_one_window() {
        let ts = [10, 20, 30, 40];
        let at = |t: i64, range: i64, starts: &[i64; 4]| {
            let windows = Windows { grid: StepGrid::instant(t), offset: 0, range, at: None, before: 0, after: 0 };
            starts_overlap(&ts, starts, &[5], &windows)
        };
        let overlap = [5, 5, 15, 15];
        assert!(!at(40, 40, &overlap), "a sample of another kind is there too");
        assert!(at(40, 35, &overlap));
        assert!(at(30, 11, &overlap));
        assert!(!at(30, 10, &overlap), "the sample before is outside");
        assert!(!at(29, 24, &overlap));
        assert!(!at(40, 20, &overlap), "15 again is a continuation");
        assert!(!at(40, 35, &[5, 10, 20, 0]));
    }

    #[test]
    fn a_rate_since_the_start_rounds_as_the_rate_between_samples_does() {
        let points = Points { ts: &[20_000, 30_000], vs: &[0.2, 0.9], starts: &[10_000, 10_000] };
        let windows =
            Windows { grid: StepGrid::instant(30_000), offset: 0, range: 30_000, at: None, before: 0, after: 0 };
        let mut out = [0.0];
        run(&mut Extrapolated::increase(), points, &windows, &mut out);
        assert_eq!(out[0], 0.9 - 0.2 + 0.2);
        assert_ne!(out[0], 0.9);
    }

    #[test]
    fn a_cursor_over_resets_agrees_with_a_scan_per_window() {
        let ts: Vec<i64> = (0..200).map(|i| i * 1000).collect();
        let vs: Vec<f64> = (0..200u64).map(|i| (i * 7919 % 13) as f64).collect();
        let points = Points { ts: &ts, vs: &vs, starts: &[] };
        let grid = StepGrid { start: -5000, end: 210_000, step: 1500 };
        let windows = Windows { grid, offset: 0, range: 7000, at: None, before: 0, after: 0 };
        let mut fast = vec![0.0; grid.len()];
        run(&mut Extrapolated::increase(), points, &windows, &mut fast);
        for (i, t) in grid.iter().enumerate() {
            let samples: Vec<_> = ts.iter().copied().zip(vs.iter().copied()).collect();
            let slow = one(Extrapolated::increase(), &samples, t, 7000);
            assert_eq!(fast[i].to_bits(), slow.to_bits(), "step {t}");
        }
    }
}
