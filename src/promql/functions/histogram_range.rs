//! Functions of ranges of native histograms: rates, sums, means, transitions.
//!
//! *Invariants:* what lies between two neighbouring samples (a reset, a change) is worked out once per series, not once
//! per window. A function of a window is one of a slice of samples and the window's bounds, nothing else.
//!
//! *Not here:* floats (`rate`, `over_time`), the wording of what is found (`exec::range_histogram`), arithmetic
//! (`promql::histogram`).

use std::sync::Arc;

use super::rate::{is_start_overlap, is_start_reset};
use super::window::{Points, Window};
use crate::model::{Histogram, ResetHint};
use crate::promql::histogram::accumulator::Added;
use crate::promql::histogram::{Accumulator, Compensated, Mean, detect_reset, divided, same};

/// Native histograms of one series: no stale markers, no floats.
#[derive(Debug, Clone, Copy)]
pub struct HistogramPoints<'a> {
    /// Milliseconds, strictly ascending.
    pub ts: &'a [i64],
    /// Histograms.
    pub hs: &'a [Arc<Histogram>],
    /// Start timestamps (0 is none), or empty where none is known.
    pub starts: &'a [i64],
}

impl HistogramPoints<'_> {
    /// Whether the counter began anew at a sample, compared with the one before it.
    pub fn is_reset(&self, i: usize) -> bool {
        let (ts, starts) = (self.ts, self.starts);
        let by_start = !starts.is_empty() && is_start_reset(starts[i - 1], ts[i - 1], starts[i], ts[i]);
        by_start || detect_reset(&self.hs[i], &self.hs[i - 1])
    }

    /// Whether a sample claims to have begun before the previous one was taken.
    fn is_overlap(&self, i: usize) -> bool {
        !self.starts.is_empty() && is_start_overlap(self.starts[i - 1], self.ts[i - 1], self.starts[i])
    }
}

/// What the author of a query should know about a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A counter function of a gauge.
    NotCounter,
    /// A gauge function of a counter.
    NotGauge,
    /// Exponential and custom buckets: no result.
    MixedSchemas,
    /// Floats and histograms: no result.
    MixedFloats,
    /// Floats and histograms: the histograms were ignored.
    IgnoredHistograms,
    /// Custom bounds were reconciled while adding.
    ReconciledAddition,
    /// Custom bounds were reconciled while subtracting.
    ReconciledSubtraction,
    /// Custom bounds were reconciled while aggregating.
    ReconciledAggregation,
    /// Some are known to follow a reset and others known not to.
    ConflictingResets,
    /// Samples contradict each other about when the counter began.
    StartOverlap,
}

/// A set of [`Finding`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings(u16);

impl Findings {
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        self.0 |= 1 << finding as u16;
    }

    /// Adds one if something holds.
    pub fn add_if(&mut self, holds: bool, finding: Finding) {
        if holds {
            self.add(finding);
        }
    }

    /// Adds all of another set.
    pub fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether one is in the set.
    pub fn has(self, finding: Finding) -> bool {
        self.0 & (1 << finding as u16) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which reset hints were seen among histograms that are summed up.
#[derive(Debug, Clone, Copy, Default)]
pub struct HintsSeen {
    reset: bool,
    not_reset: bool,
}

impl HintsSeen {
    /// Takes one more.
    pub fn see(&mut self, hint: ResetHint) {
        self.reset |= hint == ResetHint::Reset;
        self.not_reset |= hint == ResetHint::NotReset;
    }

    /// Whether they contradict each other.
    pub fn conflict(self) -> bool {
        self.reset && self.not_reset
    }
}

/// Where a counter of histograms begins anew; with what a rate needs to know about the whole series.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    resets: Vec<u32>,
    /// Samples that claim to have begun before the previous one was taken.
    overlaps: Vec<u32>,
    /// Some histogram is a gauge or has another schema than the first.
    varied: bool,
}

impl Counter {
    /// Looks through a series.
    pub fn scan(&mut self, points: HistogramPoints<'_>) {
        self.resets.clear();
        self.overlaps.clear();
        self.resets.extend((1..points.hs.len()).filter(|i| points.is_reset(*i)).map(|i| i as u32));
        self.overlaps.extend((1..points.hs.len()).filter(|i| points.is_overlap(*i)).map(|i| i as u32));
        let schema = points.hs.first().map(|h| h.schema);
        self.varied = points.hs.iter().any(|h| h.reset_hint == ResetHint::Gauge || Some(h.schema) != schema);
    }

    /// Samples after `lo` and before `hi` that begin anew.
    pub(super) fn within(&self, lo: usize, hi: usize) -> impl Iterator<Item = usize> {
        within(&self.resets, lo, hi)
    }
}

/// Those of ascending places that are after `lo` and before `hi`.
fn within(at: &[u32], lo: usize, hi: usize) -> impl Iterator<Item = usize> {
    let from = at.partition_point(|i| *i as usize <= lo);
    at[from..].iter().map(|i| *i as usize).take_while(move |i| *i < hi)
}

/// `rate`, `increase` and `delta`.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Correct for resets.
    pub counter: bool,
    /// Seconds to divide by; 0 for none.
    pub per: f64,
}

impl Rate {
    /// The value for the samples `lo..hi` in a window. `counter` has seen the series.
    pub fn eval(
        self,
        counter: &Counter,
        points: HistogramPoints<'_>,
        (lo, hi): (usize, usize),
        window: Window,
        found: &mut Findings,
    ) -> Option<Histogram> {
        let (first, n) = (&points.hs[lo], hi - lo);
        // A counter known to have begun inside the window stood at zero then.
        let start = if self.counter && !points.starts.is_empty() { points.starts[lo] } else { 0 };
        let from_start = start != 0 && start > window.start && start < points.ts[lo];
        if n < 2 && !from_start {
            return None;
        }
        let mut own = Findings::default();
        let outcome = match n {
            1 => Ok(Accumulator::of(first)),
            _ => self.difference(counter, points, lo, hi, &mut own).and_then(|mut difference| {
                if from_start {
                    add(&mut difference, first, 1.0, &mut own).map_err(|_| Mixed::AtEdges)?;
                }
                Ok(difference)
            }),
        };
        let mut difference = match outcome {
            Ok(difference) => difference,
            Err(mixed) => {
                // Of buckets that do not even fit at the edges the rest is said too.
                if mixed == Mixed::AtEdges {
                    found.merge(own);
                }
                found.add(Finding::MixedSchemas);
                return None;
            }
        };
        found.merge(own);
        let span = Span { first_t: points.ts[lo], last_t: points.ts[hi - 1], gaps: n - 1 };
        let start = from_start.then_some(start);
        let factor = self.factor(span, start, window, (first.count, difference.count()));
        difference.map(|v| v * factor);
        let reset_hint = if n == 1 { first.reset_hint } else { ResetHint::Gauge };
        Some(Histogram { reset_hint, ..difference.finish() })
    }

    /// Last minus first sample, with what was lost at resets.
    fn difference(
        self,
        counter: &Counter,
        points: HistogramPoints<'_>,
        lo: usize,
        hi: usize,
        found: &mut Findings,
    ) -> Result<Accumulator<f64>, Mixed> {
        let (first, last) = (&points.hs[lo], &points.hs[hi - 1]);
        let gauges = [first, last].map(|h| h.reset_hint == ResetHint::Gauge);
        found.add_if(self.counter && gauges.contains(&true), Finding::NotCounter);
        // Where the second sample begins anew, it does not matter how the first looks: it counts for nothing.
        let second = &points.hs[lo + 1];
        let anew = self.counter && counter.within(lo, lo + 2).next().is_some();
        let nothing =
            Histogram { schema: second.schema, custom_values: second.custom_values.clone(), ..Histogram::default() };
        let base = if anew { &nothing } else { &**first };
        let mut out = Accumulator::of(last);
        if last.is_custom() != base.is_custom() {
            return Err(Mixed::AtEdges);
        }
        // Before zero buckets meet, so that these meet at the resolution of the outcome.
        out.reduce_to(base.schema);
        if self.counter && counter.varied {
            for h in &points.hs[lo + 1..hi - 1] {
                found.add_if(h.reset_hint == ResetHint::Gauge, Finding::NotCounter);
                if h.is_custom() != base.is_custom() {
                    return Err(Mixed::Inside);
                }
                out.reduce_to(h.schema);
            }
        }
        add(&mut out, base, -1.0, found)?;
        if self.counter {
            for i in counter.within(lo + 1, hi) {
                add(&mut out, &points.hs[i - 1], 1.0, found)?;
            }
            found.add_if(within(&counter.overlaps, lo, hi).next().is_some(), Finding::StartOverlap);
        } else {
            found.add_if(gauges.contains(&false), Finding::NotGauge);
        }
        Ok(out)
    }

    /// What the difference is multiplied with: the share of the window that the series is taken to cover. `counts` are
    /// those of the first sample and of the difference.
    fn factor(self, span: Span, start: Option<i64>, window: Window, counts: (f64, f64)) -> f64 {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let mut to_start = seconds(span.first_t - window.start);
        let mut to_end = seconds(window.end - span.last_t);
        let mut sampled = seconds(span.last_t - span.first_t);
        let average = if span.gaps == 0 { 0.0 } else { sampled / span.gaps as f64 };
        let threshold = average * 1.1;
        if let Some(start) = start {
            (to_start, sampled) = (0.0, seconds(span.last_t - start));
        } else {
            if to_start >= threshold {
                to_start = average / 2.0;
            }
            let (first, difference) = counts;
            if self.counter && difference > 0.0 && first >= 0.0 {
                to_start = to_start.min(sampled * (first / difference));
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let factor = (sampled + to_start + to_end) / sampled;
        if self.per != 0.0 { factor / self.per } else { factor }
    }
}

/// Where exponential and custom buckets met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixed {
    /// In the samples that count for most: the rest is said too.
    AtEdges,
    /// Elsewhere: nothing else is worth saying.
    Inside,
}

/// Where the samples of a window lie, milliseconds.
#[derive(Clone, Copy)]
struct Span {
    first_t: i64,
    last_t: i64,
    gaps: usize,
}

/// Adds or subtracts; resets are dealt with elsewhere, so conflicting hints do not matter.
pub(super) fn add(to: &mut Accumulator<f64>, h: &Histogram, sign: f64, found: &mut Findings) -> Result<(), Mixed> {
    let Added { bounds_reconciled, .. } = to.add(h, sign).map_err(|_| Mixed::Inside)?;
    let finding = if sign < 0.0 { Finding::ReconciledSubtraction } else { Finding::ReconciledAddition };
    found.add_if(bounds_reconciled, finding);
    Ok(())
}

/// `irate` (`rate`) and `idelta` of the samples `i - 1` and `i`.
pub fn instant(rate: bool, points: HistogramPoints<'_>, i: usize, found: &mut Findings) -> Option<Histogram> {
    let (before, after) = (&points.hs[i - 1], &points.hs[i]);
    let mut own = Findings::default();
    let gauges = [before, after].map(|h| h.reset_hint == ResetHint::Gauge);
    if rate {
        own.add_if(gauges.contains(&true), Finding::NotCounter);
    } else {
        own.add_if(gauges.contains(&false), Finding::NotGauge);
    }
    let mut out = Accumulator::<f64>::of(after);
    if (!rate || !points.is_reset(i)) && add(&mut out, before, -1.0, &mut own).is_err() {
        own.add(Finding::MixedSchemas);
        found.merge(own);
        return None;
    }
    found.merge(own);
    let out = Histogram { reset_hint: ResetHint::Gauge, ..out.finish() };
    let seconds = (points.ts[i] - points.ts[i - 1]) as f64 / 1000.0;
    Some(if rate { divided(&out, seconds) } else { out })
}

/// `sum_over_time` (or else `avg_over_time`).
pub fn total(sum: bool, hs: &[Arc<Histogram>], found: &mut Findings) -> Option<Histogram> {
    let (first, rest) = hs.split_first()?;
    let (mut own, mut hints) = (Findings::default(), HintsSeen::default());
    hs.iter().for_each(|h| hints.see(h.reset_hint));
    own.add_if(hints.conflict(), Finding::ConflictingResets);
    let mut take = |added: Result<Added, _>| match added {
        Ok(added) => {
            own.add_if(added.bounds_reconciled, Finding::ReconciledAggregation);
            true
        }
        Err(_) => {
            // Nothing else is worth saying then.
            own = Findings::default();
            own.add(Finding::MixedSchemas);
            false
        }
    };
    let out = if sum {
        let mut total = Accumulator::<Compensated>::of(first);
        rest.iter().all(|h| take(total.add(h, 1.0))).then(|| total.finish())
    } else {
        let mut mean = Mean::of(first);
        rest.iter().all(|h| take(mean.push(h))).then(|| mean.finish())
    };
    found.merge(own);
    out
}

/// `resets` and `changes` of series in which floats and histograms follow each other.
#[derive(Debug, Clone, Default)]
pub struct Transitions {
    ts: Vec<i64>,
    /// Samples that differ from the one before, by their place in `ts`.
    at: Vec<u32>,
}

impl Transitions {
    /// Looks through a series for `resets`, or else for `changes`.
    pub fn scan(&mut self, resets: bool, floats: Points<'_>, histograms: HistogramPoints<'_>) {
        self.ts.clear();
        self.at.clear();
        let (mut f, mut h) = (0, 0);
        // The kind of the sample before; none yet.
        let mut before = None;
        while f < floats.ts.len() || h < histograms.ts.len() {
            let is_float = match (floats.ts.get(f), histograms.ts.get(h)) {
                (Some(float), Some(histogram)) => float < histogram,
                (float, _) => float.is_some(),
            };
            let differs = match (before, is_float) {
                (None, _) => false,
                (Some(true), true) => float_differs(resets, floats, f),
                (Some(false), false) if resets => histograms.is_reset(h),
                (Some(false), false) => !same(&histograms.hs[h], &histograms.hs[h - 1]),
                _ => true,
            };
            if differs {
                self.at.push(self.ts.len() as u32);
            }
            self.ts.push(if is_float { floats.ts[f] } else { histograms.ts[h] });
            (f, h) = if is_float { (f + 1, h) } else { (f, h + 1) };
            before = Some(is_float);
        }
    }

    /// How many samples in `(start, end]` differ from the one before that is there too.
    pub fn count(&self, start: i64, end: i64) -> f64 {
        let first = self.ts.partition_point(|t| *t <= start);
        let behind = self.ts.partition_point(|t| *t <= end);
        let upto = |i: usize| self.at.partition_point(|at| (*at as usize) < i);
        upto(behind).saturating_sub(upto(first + 1)) as f64
    }

    /// As [`Transitions::count`], and the newest sample in `(before, start]` takes part; `None` without any in
    /// `(start, end]`.
    pub fn count_anchored(&self, before: i64, start: i64, end: i64) -> Option<f64> {
        let first = self.ts.partition_point(|t| *t <= start);
        let found = self.ts.get(first).is_some_and(|t| *t <= end);
        let anchor = first.checked_sub(1).map(|i| self.ts[i]).filter(|t| *t > before);
        found.then(|| self.count(anchor.map_or(start, |t| t - 1), end))
    }
}

fn float_differs(resets: bool, points: Points<'_>, i: usize) -> bool {
    let (a, b) = (points.vs[i - 1], points.vs[i]);
    if !resets {
        return b != a && !(a.is_nan() && b.is_nan());
    }
    let (ts, starts) = (points.ts, points.starts);
    b < a || (!starts.is_empty() && is_start_reset(starts[i - 1], ts[i - 1], starts[i], ts[i]))
}

#[cfg(test)]
mod tests;
