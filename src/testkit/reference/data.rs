//! Which stored samples a selector sees.
//!
//! *Invariants:* both the lookback of an instant vector and the window of a range vector are open on the left and closed
//! on the right. A stale marker is no sample; for an instant vector it also hides what is older.
//!
//! *Not here:* offsets and `@` (`evaluator`), what is computed of a window (`range_call`).

use std::sync::Arc;

use super::apart::is_reset;
use super::value::Sample;
use crate::model::{Columns, Histogram, Labels, Matcher, ResetHint};
use crate::testkit::memory_source::MemorySource;

/// A sample with its times.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub t: i64,
    /// Start timestamp; 0 is none.
    pub start: i64,
    pub sample: Sample,
}

impl Point {
    fn is_stale(&self) -> bool {
        match &self.sample {
            Sample::Float(v) => crate::model::is_stale(*v),
            Sample::Histogram(h) => h.is_stale(),
        }
    }
}

/// A float with its times.
#[derive(Debug, Clone, Copy)]
pub(super) struct FloatPoint {
    pub t: i64,
    pub start: i64,
    pub v: f64,
}

/// A native histogram with its times.
#[derive(Debug, Clone)]
pub(super) struct HistogramPoint {
    pub t: i64,
    pub start: i64,
    pub h: Arc<Histogram>,
}

/// What a range selector sees of one series at one step.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    /// Left edge (outside of the window).
    pub start: i64,
    /// Right edge (inside of the window).
    pub end: i64,
    pub floats: Vec<FloatPoint>,
    pub histograms: Vec<HistogramPoint>,
}

impl Window {
    /// The samples in `(start - before, end + after]`.
    pub fn of(points: &[Point], start: i64, end: i64, (before, after): (i64, i64)) -> Self {
        let mut window = Self { start, end, ..Self::default() };
        for p in points.iter().filter(|p| p.t > start - before && p.t <= end + after && !p.is_stale()) {
            match &p.sample {
                Sample::Float(v) => window.floats.push(FloatPoint { t: p.t, start: p.start, v: *v }),
                Sample::Histogram(h) => {
                    window.histograms.push(HistogramPoint { t: p.t, start: p.start, h: Arc::clone(h) });
                }
            }
        }
        window
    }

    /// All samples in order of time.
    pub fn points(&self) -> Vec<Point> {
        let floats = self.floats.iter().map(|p| Point { t: p.t, start: p.start, sample: Sample::Float(p.v) });
        let histogram = |p: &HistogramPoint| Sample::Histogram(Arc::clone(&p.h));
        let histograms = self.histograms.iter().map(|p| Point { t: p.t, start: p.start, sample: histogram(p) });
        let mut all: Vec<Point> = floats.chain(histograms).collect();
        all.sort_by_key(|p| p.t);
        all
    }

    /// Whether the window holds nothing.
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    /// Whether the window holds floats as well as native histograms.
    pub fn is_mixed(&self) -> bool {
        !self.floats.is_empty() && !self.histograms.is_empty()
    }
}

/// The series that fulfil all conditions, by labels, with all their samples.
pub(super) fn select(data: &MemorySource, matchers: &[Matcher]) -> Vec<(Labels, Vec<Point>)> {
    let wanted = |labels: &Labels| matchers.iter().all(|m| m.matches(labels.get(&m.name)));
    let found = data.iter().filter(|(labels, _)| wanted(labels));
    found.map(|(labels, columns)| (labels.clone(), points_of(columns))).collect()
}

fn points_of(columns: &Columns) -> Vec<Point> {
    let point = |i: usize| Point {
        t: columns.timestamps[i],
        start: columns.start(i),
        sample: match columns.histogram(i) {
            Some(h) => Sample::Histogram(Arc::clone(h)),
            None => Sample::Float(columns.values[i]),
        },
    };
    (0..columns.len()).map(point).collect()
}

/// The samples as they are read where no buckets are looked at: schema, count and sum, and each histogram but the first says
/// whether it begins anew, found out on the way by comparing it with the one before it.
pub(super) fn without_buckets(points: &[Point]) -> Vec<Point> {
    let mut out = points.to_vec();
    for i in 0..points.len() {
        let Sample::Histogram(h) = &points[i].sample else { continue };
        let mut reset_hint = h.reset_hint;
        if let Some(Sample::Histogram(before)) = i.checked_sub(1).map(|before| &points[before].sample)
            && reset_hint == ResetHint::Unknown
            && !before.is_stale()
            && !h.is_stale()
        {
            reset_hint = if is_reset(h, before) { ResetHint::Reset } else { ResetHint::NotReset };
        }
        let bare = Histogram { reset_hint, schema: h.schema, count: h.count, sum: h.sum, ..Histogram::default() };
        out[i].sample = Sample::Histogram(Arc::new(bare));
    }
    out
}

/// The newest sample at `t` that is not older than the lookback.
pub(super) fn newest(points: &[Point], t: i64, lookback: i64) -> Option<&Point> {
    points.iter().rfind(|p| p.t <= t).filter(|p| p.t > t - lookback && !p.is_stale())
}
