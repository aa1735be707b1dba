//! Windows of a range selector sliding over the decoded samples of one series.
//!
//! *Invariants:* windows are open on the left and closed on the right; both edges move forward only, so a series is
//! walked once whatever the number of steps. [`ABSENT`] is no result of any arithmetic.
//!
//! *Not here:* what is computed inside a window (`rate`, `over_time`, `regression`), decoding (`exec::reader`).

use crate::model::{STALE_NAN_BITS, StepGrid};

/// Marks a step without a sample in a column of floats.
///
/// It is the stale marker, a signalling NaN: stored ones never get past a selector and no operation yields one, so no
/// bitmap is needed next to the values.
pub const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether a column holds nothing at this place.
#[inline(always)]
pub fn is_absent(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// Float samples of one series: no stale markers, no histograms.
#[derive(Debug, Clone, Copy)]
pub struct Points<'a> {
    /// Milliseconds, strictly ascending.
    pub ts: &'a [i64],
    /// Values.
    pub vs: &'a [f64],
    /// Start timestamps (0 is none), or empty where none is known.
    pub starts: &'a [i64],
}

/// Where the windows of a range selector lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Windows {
    /// Steps of the result.
    pub grid: StepGrid,
    /// How far the window's end lies before its step, milliseconds.
    pub offset: i64,
    /// Length of the window, milliseconds.
    pub range: i64,
    /// The time `@` fixes instead of the step.
    pub at: Option<i64>,
    /// How far samples before the window are wanted too (`anchored`, `smoothed`), milliseconds.
    pub before: i64,
    /// How far samples after the window are wanted too (`smoothed`), milliseconds.
    pub after: i64,
}

impl Windows {
    /// The window of one step.
    #[inline(always)]
    pub fn window(&self, step: usize) -> Window {
        let t = self.grid.at(step);
        let end = self.at.unwrap_or(t) - self.offset;
        Window { start: end - self.range, end, t, step }
    }
}

/// One window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Left edge, outside.
    pub start: i64,
    /// Right edge, inside.
    pub end: i64,
    /// Timestamp of the step.
    pub t: i64,
    /// Number of the step.
    pub step: usize,
}

/// A function of the samples `lo..hi` of a series, called with edges that never go back.
pub trait Kernel {
    /// Called once for each series, before the first window.
    fn begin(&mut self, _points: Points<'_>) {}

    /// The value for one non-empty window, or [`ABSENT`].
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, window: Window) -> f64;
}

/// First and last (exclusive) sample of a window, moved from step to step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Edges {
    /// First sample inside.
    pub lo: usize,
    /// First sample behind.
    pub hi: usize,
}

impl Edges {
    /// Moves to the samples in `(start, end]`.
    #[inline(always)]
    pub fn advance(&mut self, ts: &[i64], start: i64, end: i64) {
        self.hi = seek(ts, self.hi, end);
        self.lo = seek(ts, self.lo, start);
        // A window before the first sample, or an empty one.
        self.hi = self.hi.max(self.lo);
    }
}

/// First index at or after `from` whose timestamp is greater than `t`: a few single steps, then doubling ones, so that
/// neither a step of the scrape interval nor a jump over a day is slow.
#[inline(always)]
pub fn seek(ts: &[i64], from: usize, t: i64) -> usize {
    let mut at = from;
    for _ in 0..4 {
        if at >= ts.len() || ts[at] > t {
            return at;
        }
        at += 1;
    }
    let mut width = 8;
    while at + width < ts.len() && ts[at + width] <= t {
        at += width;
        width *= 2;
    }
    let end = (at + width).min(ts.len());
    at + ts[at..end].partition_point(|x| *x <= t)
}

/// Samples in windows between two looks at the cancellation.
const CHECK_EVERY: usize = 1 << 18;

/// Runs a kernel over all windows of one series.
pub fn run<K: Kernel>(kernel: &mut K, points: Points<'_>, windows: &Windows, out: &mut [f64]) {
    run_until(kernel, points, windows, out, &|| false);
}

/// As [`run`]. It ends early, with windows left out, once `stopped` says so: one series may have as many windows of as many
/// samples as a query may have at all.
pub fn run_until<K: Kernel>(
    kernel: &mut K,
    points: Points<'_>,
    windows: &Windows,
    out: &mut [f64],
    stopped: &dyn Fn() -> bool,
) {
    kernel.begin(points);
    let (mut edges, mut seen) = (Edges::default(), 0);
    for (step, slot) in out.iter_mut().enumerate() {
        let window = windows.window(step);
        edges.advance(points.ts, window.start - windows.before, window.end + windows.after);
        *slot = if edges.lo < edges.hi { kernel.eval(points, edges.lo, edges.hi, window) } else { ABSENT };
        seen += edges.hi - edges.lo;
        if seen >= CHECK_EVERY {
            seen = 0;
            if stopped() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeks_near_and_far() {
        let ts: Vec<i64> = (0..1000).map(|i| i * 10).collect();
        for from in [0, 3, 500] {
            for t in [-5, 0, 9, 10, 55, 4999, 5000, 9990, 99_999] {
                let want = ts.partition_point(|x| *x <= t).max(from);
                assert_eq!(seek(&ts, from, t), want, "from {from} to {t}");
            }
        }
    }

    #[test]
    fn no_arithmetic_yields_the_absent_marker() {
        for v in [ABSENT + 1.0, ABSENT * 0.0, -(-(ABSENT) + 0.0), ABSENT.sqrt(), f64::NAN] {
            assert!(!is_absent(v));
        }
        assert!(is_absent(ABSENT));
    }
}
