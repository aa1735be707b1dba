//! `*_over_time` over floats.
//!
//! *Invariants:* sums are compensated and taken in order of time; a NaN loses against any other value in minima and
//! maxima. Minima, maxima, counts, first and last cost O(1) a step (amortised) whatever the length of the window.
//!
//! *Not here:* windows with native histograms (`functions::histogram_range`).

use std::collections::VecDeque;

use super::kahan::{self, Mean};
use super::quantile::quantile;
use super::window::{Kernel, Points, Window};

/// `sum_over_time`.
#[derive(Clone)]
pub struct Sum;

impl Kernel for Sum {
    #[inline(always)]
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, _window: Window) -> f64 {
        let (mut sum, mut c) = (0.0, 0.0);
        for &v in &points.vs[lo..hi] {
            (sum, c) = kahan::add(v, sum, c);
        }
        if sum.is_infinite() { sum } else { sum + c }
    }
}

/// `avg_over_time`.
#[derive(Clone)]
pub struct Avg;

impl Kernel for Avg {
    #[inline(always)]
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, _window: Window) -> f64 {
        let mut mean = Mean::of(points.vs[lo]);
        for &v in &points.vs[lo + 1..hi] {
            mean.push(v);
        }
        mean.get()
    }
}

/// Functions that look at the window's edges only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// `count_over_time`
    Count,
    /// `present_over_time`
    Present,
    /// `first_over_time`
    First,
    /// `last_over_time`
    Last,
    /// `ts_of_first_over_time`
    FirstTime,
    /// `ts_of_last_over_time`
    LastTime,
}

impl Kernel for Edge {
    #[inline(always)]
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, _window: Window) -> f64 {
        match self {
            Self::Count => (hi - lo) as f64,
            Self::Present => 1.0,
            Self::First => points.vs[lo],
            Self::Last => points.vs[hi - 1],
            Self::FirstTime => points.ts[lo] as f64 / 1000.0,
            Self::LastTime => points.ts[hi - 1] as f64 / 1000.0,
        }
    }
}

/// `min_over_time`, `max_over_time` and the times of their (latest) occurrence.
///
/// A queue keeps the samples that can still become the extreme of some window; its front is that of this one.
#[derive(Clone)]
pub struct Extreme {
    max: bool,
    time: bool,
    queue: VecDeque<u32>,
    seen: usize,
}

impl Extreme {
    /// Maximum (or else minimum); its time (or else its value).
    pub fn new(max: bool, time: bool) -> Self {
        Self { max, time, queue: VecDeque::new(), seen: 0 }
    }

    /// Whether `new` makes the earlier `old` irrelevant. Of equal values the first counts, for times the last.
    #[inline(always)]
    fn beats(&self, new: f64, old: f64) -> bool {
        let strictly = if self.max { new > old } else { new < old };
        strictly || (self.time && new == old)
    }
}

impl Kernel for Extreme {
    fn begin(&mut self, _points: Points<'_>) {
        self.queue.clear();
        self.seen = 0;
    }

    #[inline(always)]
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, _window: Window) -> f64 {
        for i in self.seen.max(lo)..hi {
            let v = points.vs[i];
            if v.is_nan() {
                continue;
            }
            while self.queue.back().is_some_and(|b| self.beats(v, points.vs[*b as usize])) {
                self.queue.pop_back();
            }
            self.queue.push_back(i as u32);
        }
        self.seen = self.seen.max(hi);
        while self.queue.front().is_some_and(|f| (*f as usize) < lo) {
            self.queue.pop_front();
        }
        // Nothing but NaN: its last occurrence.
        let at = self.queue.front().map_or(hi - 1, |f| *f as usize);
        if self.time { points.ts[at] as f64 / 1000.0 } else { points.vs[at] }
    }
}

/// `stddev_over_time` and `stdvar_over_time`: Welford's method, compensated.
#[derive(Clone)]
pub struct Variance {
    /// The square root of it.
    pub stddev: bool,
}

impl Kernel for Variance {
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, _window: Window) -> f64 {
        let (mut count, mut mean, mut c_mean, mut aux, mut c_aux) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &v in &points.vs[lo..hi] {
            count += 1.0;
            let delta = v - (mean + c_mean);
            (mean, c_mean) = kahan::add(delta / count, mean, c_mean);
            (aux, c_aux) = kahan::add(delta * (v - (mean + c_mean)), aux, c_aux);
        }
        let variance: f64 = (aux + c_aux) / count;
        if self.stddev { variance.sqrt() } else { variance }
    }
}

/// `quantile_over_time`.
#[derive(Clone)]
pub struct Quantile {
    /// Which quantile, for each step.
    pub q: Vec<f64>,
    /// Room for sorting.
    pub scratch: Vec<f64>,
}

impl Kernel for Quantile {
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, window: Window) -> f64 {
        self.scratch.clear();
        self.scratch.extend_from_slice(&points.vs[lo..hi]);
        quantile(self.q[window.step], &mut self.scratch)
    }
}

/// `mad_over_time`: the median of the distances to the median.
#[derive(Clone, Default)]
pub struct MedianDeviation {
    scratch: Vec<f64>,
}

impl Kernel for MedianDeviation {
    fn eval(&mut self, points: Points<'_>, lo: usize, hi: usize, _window: Window) -> f64 {
        self.scratch.clear();
        self.scratch.extend_from_slice(&points.vs[lo..hi]);
        if self.scratch.iter().any(|v| v.is_nan()) {
            return f64::NAN;
        }
        let median = quantile(0.5, &mut self.scratch);
        self.scratch.iter_mut().for_each(|v| *v = (*v - median).abs());
        quantile(0.5, &mut self.scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::{Windows, run};
    use super::*;
    use crate::model::StepGrid;

    fn compare(mut kernel: impl Kernel, naive: impl Fn(&[f64]) -> f64) {
        let ts: Vec<i64> = (0..300).map(|i| i * 10).collect();
        let value = |i: u64| if i.is_multiple_of(7) { f64::NAN } else { (i * 7919 % 31) as f64 };
        let vs: Vec<f64> = (0..300).map(value).collect();
        let grid = StepGrid { start: -20, end: 3100, step: 13 };
        let windows = Windows { grid, offset: 0, range: 95, at: None, before: 0, after: 0 };
        let mut out = vec![0.0; grid.len()];
        run(&mut kernel, Points { ts: &ts, vs: &vs, starts: &[] }, &windows, &mut out);
        for (i, t) in grid.iter().enumerate() {
            let inside: Vec<f64> = (0..300).filter(|j| ts[*j] > t - 95 && ts[*j] <= t).map(|j| vs[j]).collect();
            if !inside.is_empty() {
                let want = naive(&inside);
                assert!(out[i] == want || (out[i].is_nan() && want.is_nan()), "at {t}: {} {want}", out[i]);
            }
        }
    }

    #[test]
    fn queue_of_candidates_agrees_with_a_scan() {
        compare(Extreme::new(true, false), |w| w.iter().copied().fold(f64::NAN, f64::max));
        compare(Extreme::new(false, false), |w| w.iter().copied().fold(f64::NAN, f64::min));
    }

    #[test]
    fn sums_and_variances_of_constants() {
        compare(Edge::Count, |w| w.len() as f64);
        compare(Edge::First, |w| w[0]);
        compare(Sum, |w| w.iter().sum());
    }
}
