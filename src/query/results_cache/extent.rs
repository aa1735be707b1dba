//! Finished steps in a row, and putting some together.
//!
//! *Invariants:* steps are numbered on a [`Raster`], so that equal numbers mean equal times. Series are sorted by labels
//! and have a sample each; samples lie on steps of the extent and ascend.
//!
//! *Not here:* which extents a query uses (`cover`), how long they are kept (`lru`).

use std::sync::Arc;

use crate::model::StepGrid;
use crate::promql::annotations::Annotations;
use crate::promql::exec::result::RangeSeries;

/// The times that queries of one step and alignment have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Raster {
    /// Distance of steps, milliseconds; positive.
    pub step: i64,
    /// Time of step 0: from 0 up to the distance.
    pub phase: i64,
}

impl Raster {
    /// The raster that a grid's steps lie on.
    pub fn of(grid: StepGrid) -> Self {
        Self { step: grid.step, phase: grid.start.rem_euclid(grid.step) }
    }

    /// The number of the last step at or before a time.
    pub fn number(&self, t: i64) -> i64 {
        t.saturating_sub(self.phase).div_euclid(self.step)
    }

    /// The time of a step.
    pub fn time(&self, number: i64) -> i64 {
        self.phase.saturating_add(number.saturating_mul(self.step))
    }

    /// Steps as a grid.
    pub fn grid(&self, steps: Steps) -> StepGrid {
        StepGrid { start: self.time(steps.first), end: self.time(steps.last), step: self.step }
    }

    /// The steps of a grid, which has one at least.
    pub fn steps(&self, grid: StepGrid) -> Steps {
        let first = self.number(grid.start);
        Steps { first, last: first + grid.len() as i64 - 1 }
    }
}

/// Steps in a row by their numbers, both ends inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// First.
    pub first: i64,
    /// Last; before the first if there is none.
    pub last: i64,
}

impl Steps {
    /// How many.
    pub fn count(&self) -> usize {
        usize::try_from(self.last.saturating_sub(self.first).saturating_add(1)).unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// Those that are also in `other`.
    pub fn clip(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    /// Whether all of `other` are among them.
    pub fn contains(&self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether there is no step between the two that neither has.
    pub fn touches(&self, other: Self) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }
}

/// What was said about steps: its positions point into the very text.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Warnings and infos.
    pub annotations: Annotations,
    /// The query's text.
    pub text: Arc<str>,
}

/// Finished steps.
#[derive(Debug)]
pub struct Extent {
    /// Which.
    pub steps: Steps,
    /// Their samples.
    pub series: Vec<RangeSeries>,
    /// What was said, if anything: on which of the steps is not known.
    pub said: Option<Said>,
}

impl Extent {
    /// Heap bytes, and its own.
    pub fn bytes(&self) -> usize {
        // Annotations are a handful of texts with positions; two hundred bytes are a generous one.
        let said = self.said.as_ref().map_or(0, |said| said.text.len() + 200 * said.annotations.len());
        size_of::<Self>() + said + self.series.iter().map(bytes_of).sum::<usize>()
    }
}

fn bytes_of(s: &RangeSeries) -> usize {
    let histograms: usize = s.histograms.iter().map(|(_, h)| 16 + h.heap_bytes()).sum();
    size_of::<RangeSeries>() + s.labels.heap_bytes() + size_of::<(i64, f64)>() * s.floats.len() + histograms
}

/// Series of which the samples on some steps are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Sorted by labels.
    pub series: &'a [RangeSeries],
    /// Times of the first and last step.
    pub times: (i64, i64),
}

impl<'a> Part<'a> {
    fn within<T>(&self, samples: &'a [(i64, T)]) -> &'a [(i64, T)] {
        let from = samples.partition_point(|(t, _)| *t < self.times.0);
        let to = samples.partition_point(|(t, _)| *t <= self.times.1);
        &samples[from..to.max(from)]
    }

    /// Bytes that its samples take, labels (which are shared) left out.
    pub fn bytes(&self) -> usize {
        let of = |s: &'a RangeSeries| {
            let histograms = self.within(&s.histograms);
            size_of::<RangeSeries>() + 16 * (self.within(&s.floats).len() + histograms.len())
        };
        self.series.iter().map(of).sum()
    }
}

/// The series of parts that follow each other in time.
pub fn join(parts: &[Part<'_>]) -> Vec<RangeSeries> {
    let mut at = vec![0; parts.len()];
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.series.len()).max().unwrap_or(0));
    loop {
        let heads = parts.iter().zip(&at).filter_map(|(part, at)| part.series.get(*at));
        let Some(labels) = heads.map(|s| &s.labels).min() else { return out };
        let mut one = RangeSeries { labels: labels.clone(), ..RangeSeries::default() };
        let of_it = |part: &Part<'_>, at: usize| part.series.get(at).is_some_and(|s| s.labels == one.labels);
        let members: Vec<usize> = (0..parts.len()).filter(|i| of_it(&parts[*i], at[*i])).collect();
        let slices = members.iter().map(|i| (&parts[*i], &parts[*i].series[at[*i]]));
        one.floats.reserve_exact(slices.clone().map(|(part, s)| part.within(&s.floats).len()).sum());
        for (part, s) in slices {
            one.floats.extend_from_slice(part.within(&s.floats));
            one.histograms.extend_from_slice(part.within(&s.histograms));
        }
        members.into_iter().for_each(|i| at[i] += 1);
        if !one.floats.is_empty() || !one.histograms.is_empty() {
            out.push(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn series(name: &str, times: &[i64]) -> RangeSeries {
        let floats = times.iter().map(|t| (*t, *t as f64)).collect();
        RangeSeries { labels: Labels::from_pairs([("a", name)]), floats, histograms: Vec::new() }
    }

    #[test]
    fn steps_have_the_same_numbers_whatever_the_range() {
        let grid = StepGrid { start: -25, end: 17, step: 10 };
        let raster = Raster::of(grid);
        assert_eq!(raster, Raster { step: 10, phase: 5 });
        assert_eq!(raster.steps(grid), Steps { first: -3, last: 1 });
        assert_eq!(raster.grid(Steps { first: -3, last: 1 }), StepGrid { end: 15, ..grid });
        assert_eq!((raster.number(14), raster.number(15), raster.number(i64::MIN)), (0, 1, i64::MIN.div_euclid(10)));
        assert_eq!(raster.time(-3), -25);
    }

    #[test]
    fn steps_touch_where_none_is_missing() {
        let at = |first, last| Steps { first, last };
        assert!(at(0, 4).touches(at(5, 9)) && at(5, 9).touches(at(0, 4)) && at(0, 9).touches(at(3, 4)));
        assert!(!at(0, 4).touches(at(6, 9)) && !at(6, 9).touches(at(0, 4)));
        assert!(at(0, 9).contains(at(0, 9)) && !at(0, 9).contains(at(5, 10)));
        assert_eq!((at(0, 9).clip(at(5, 20)), at(0, 4).count(), at(3, 2).count()), (at(5, 9), 5, 0));
    }

    #[test]
    fn parts_are_joined_by_labels_and_only_within_their_times() {
        let (early, late) =
            ([series("x", &[0, 10, 20]), series("z", &[10])], [series("x", &[20, 30]), series("y", &[40])]);
        let parts = [Part { series: &early, times: (5, 15) }, Part { series: &late, times: (20, 30) }];
        assert_eq!(join(&parts), [series("x", &[10, 20, 30]), series("z", &[10])]);
        assert_eq!(parts[0].bytes(), 2 * size_of::<RangeSeries>() + 2 * 16);
        assert_eq!(join(&[]), []);
    }
}
