//! `deriv`, `predict_linear`, `double_exponential_smoothing` over floats.
//!
//! *Invariants:* the sums of the least-squares line are compensated, in order of time.
//!
//! *Not here:* windows with native histograms (`functions::histogram_range`).

use super::kahan;
use super::window::{ABSENT, Kernel, Points, Window};

/// Slope (per second) of the least-squares line through samples, and its value at `origin`.
pub fn linear_regression(ts: &[i64], vs: &[f64], origin: i64) -> (f64, f64) {
    let first = vs[0];
    let (mut n, mut constant) = (0.0, true);
    let (mut x, mut y, mut xy, mut xx) = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0));
    for (&t, &v) in ts.iter().zip(vs) {
        constant &= n == 0.0 || v == first;
        n += 1.0;
        let at = (t - origin) as f64 / 1e3;
        x = kahan::add(at, x.0, x.1);
        y = kahan::add(v, y.0, y.1);
        xy = kahan::add(at * v, xy.0, xy.1);
        xx = kahan::add(at * at, xx.0, xx.1);
    }
    if constant {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (x, y, xy, xx) = (x.0 + x.1, y.0 + y.1, xy.0 + xy.1, xx.0 + xx.1);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

/// `deriv`.
#[derive(Clone)]
pub struct Deriv;

impl Kernel for Deriv {
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, _window: Window) -> f64 {
        if hi - lo < 2 {
            return ABSENT;
        }
        // A time near the samples keeps the sums small and so exact.
        linear_regression(&points.ts[lo..hi], &points.vs[lo..hi], points.ts[lo]).0
    }
}

/// `predict_linear`.
#[derive(Clone)]
pub struct PredictLinear {
    /// How far ahead, seconds, for each step.
    pub ahead: Vec<f64>,
}

impl Kernel for PredictLinear {
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, window: Window) -> f64 {
        if hi - lo < 2 {
            return ABSENT;
        }
        let (slope, intercept) = linear_regression(&points.ts[lo..hi], &points.vs[lo..hi], window.t);
        slope * self.ahead[window.step] + intercept
    }
}

/// `double_exponential_smoothing`; factors are checked by the caller.
#[derive(Clone)]
pub struct Smoothing {
    /// Smoothing factor for each step.
    pub smoothing: Vec<f64>,
    /// Trend factor for each step.
    pub trend: Vec<f64>,
}

impl Kernel for Smoothing {
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, window: Window) -> f64 {
        if hi - lo < 2 {
            return ABSENT;
        }
        let (sf, tf) = (self.smoothing[window.step], self.trend[window.step]);
        let vs = &points.vs[lo..hi];
        let (mut s0, mut s1, mut b) = (0.0, vs[0], vs[1] - vs[0]);
        for (i, v) in vs.iter().enumerate().skip(1) {
            if i > 1 {
                b = tf * (s1 - s0) + (1.0 - tf) * b;
            }
            (s0, s1) = (s1, sf * v + (1.0 - sf) * (s1 + b));
        }
        s1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_line_through_points_on_a_line() {
        let ts = [0, 1000, 2000, 3000];
        assert_eq!(linear_regression(&ts, &[1.0, 3.0, 5.0, 7.0], 0), (2.0, 1.0));
        assert_eq!(linear_regression(&ts, &[4.0; 4], 0), (0.0, 4.0));
        assert!(linear_regression(&ts, &[f64::INFINITY; 4], 0).0.is_nan());
    }
}
