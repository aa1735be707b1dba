//! Instant vector selectors: for each step the newest sample within the lookback.
//!
//! *Invariants:* the window is open on the left; a stale marker hides its series until the next sample. One pass over
//! the samples whatever the number of steps.
//!
//! *Not here:* range vectors (`exec::range`).

use std::sync::Arc;

use super::column::{Column, Sample};
use crate::model::{Columns, ResetHint, is_stale};
use crate::promql::functions::histogram_range::{Finding, Findings};
use crate::promql::functions::window::{Windows, seek};
use crate::promql::functions::{histogram_extended, rate};
use crate::promql::histogram::detect_reset;
use crate::promql::plan::Pick;

/// Fills `out` with what a selector sees of one series.
pub fn select(samples: &Columns, windows: &Windows, pick: Pick, out: &mut Column, found: &mut Findings) {
    out.reset(windows.grid.len());
    if pick == Pick::Smoothed {
        return smoothed(samples, windows, out, found);
    }
    let ts = &samples.timestamps;
    let mut histograms = samples.histograms.as_slice();
    let mut next = 0;
    for step in 0..out.values.len() {
        let window = windows.window(step);
        next = seek(ts, next, window.end);
        let Some(at) = next.checked_sub(1) else { continue };
        let v = samples.values[at];
        if ts[at] <= window.start || is_stale(v) {
            continue;
        }
        match pick {
            Pick::Timestamp => out.values[step] = ts[at] as f64 / 1000.0,
            Pick::StartTimestamp => out.values[step] = samples.start(at) as f64 / 1000.0,
            Pick::InfoTimestamp if samples.histogram(at).is_none() => out.values[step] = ts[at] as f64 / 1000.0,
            _ if histograms.is_empty() => out.values[step] = v,
            _ => {
                histograms = &histograms[histograms.partition_point(|(i, _)| (*i as usize) < at)..];
                match histograms.first() {
                    Some((i, h)) if *i as usize == at => out.histograms.push((step as u32, h.clone())),
                    _ => out.values[step] = v,
                }
            }
        }
    }
}

/// A value on the line between the neighbours of each step; the last one goes on within the lookback.
fn smoothed(samples: &Columns, windows: &Windows, out: &mut Column, found: &mut Findings) {
    let live = |i: &usize| !is_stale(samples.values[*i]);
    let kept: Vec<usize> = (0..samples.len()).filter(live).collect();
    let time = |i: usize| samples.timestamps[kept[i]];
    for step in 0..out.values.len() {
        let window = windows.window(step);
        let after = kept.partition_point(|i| samples.timestamps[*i] < window.end);
        let inside = |i: usize| time(i) > window.start && time(i) <= window.end + windows.after;
        let right = (after < kept.len() && inside(after)).then_some(after);
        let left = after.checked_sub(1).filter(|i| inside(*i));
        if !samples.histograms.is_empty() {
            let reach = (window.start, window.end + windows.after);
            let at = |i: usize| kept[i];
            if let Some(sample) = smoothed_histogram(samples, (left.map(at), right.map(at)), window.end, reach, found) {
                out.put(step, sample);
            }
            continue;
        }
        let point = |i: usize| (time(i), samples.values[kept[i]]);
        out.values[step] = match (left, right) {
            (_, Some(r)) if time(r) == window.end => point(r).1,
            (Some(l), Some(r)) => rate::interpolate(point(l), point(r), window.end, false),
            (Some(l), None) => point(l).1,
            (None, _) => continue,
        };
    }
}

/// As [`smoothed`] for one step of a series with histograms; `reach` are the bounds of the lookback on both sides.
fn smoothed_histogram(
    samples: &Columns,
    (left, right): (Option<usize>, Option<usize>),
    t: i64,
    reach: (i64, i64),
    found: &mut Findings,
) -> Option<Sample> {
    let [from, to] = [reach.0, reach.1].map(|edge| samples.timestamps.partition_point(|t| *t <= edge));
    let live = (from..to).filter(|i| !is_stale(samples.values[*i]));
    let histograms = live.clone().filter(|i| samples.histogram(*i).is_some()).count();
    if (1..live.count()).contains(&histograms) {
        found.add(Finding::MixedFloats);
        return None;
    }
    let as_it_is = |i: usize| match samples.histogram(i) {
        Some(h) => Sample::Histogram(Arc::clone(h)),
        None => Sample::Float(samples.values[i]),
    };
    let (l, r) = match (left, right) {
        (_, Some(r)) if samples.timestamps[r] == t => return Some(as_it_is(r)),
        (Some(l), None) => return Some(as_it_is(l)),
        (Some(l), Some(r)) => (l, r),
        (None, _) => return None,
    };
    let (Some(before), Some(after)) = (samples.histogram(l), samples.histogram(r)) else {
        let point = |i: usize| (samples.timestamps[i], samples.values[i]);
        return Some(Sample::Float(rate::interpolate(point(l), point(r), t, false)));
    };
    let gauge = [before, after].iter().any(|h| h.reset_hint == ResetHint::Gauge);
    let reset = !gauge && detect_reset(after, before);
    let (before, after) = ((samples.timestamps[l], &**before), (samples.timestamps[r], &**after));
    match histogram_extended::interpolate(before, after, t, reset, found) {
        Ok(h) => Some(Sample::Histogram(Arc::new(h))),
        Err(_) => {
            found.add(Finding::MixedSchemas);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{StepGrid, stale_nan};
    use crate::promql::functions::window::is_absent;

    fn at(samples: &[(i64, f64)], t: i64, lookback: i64) -> Option<f64> {
        let mut columns = Columns::default();
        samples.iter().for_each(|(t, v)| columns.push_float(*t, *v));
        let windows = Windows { grid: StepGrid::instant(t), offset: 0, range: lookback, at: None, before: 0, after: 0 };
        let mut out = Column::default();
        select(&columns, &windows, Pick::Value, &mut out, &mut Findings::default());
        (!is_absent(out.values[0])).then_some(out.values[0])
    }

    #[test]
    fn the_lookback_is_open_on_the_left() {
        assert_eq!(at(&[(0, 1.0)], 9, 10), Some(1.0));
        assert_eq!(at(&[(0, 1.0)], 10, 10), None);
        assert_eq!(at(&[(0, 1.0)], -1, 10), None);
    }

    #[test]
    fn a_stale_marker_hides_older_samples() {
        assert_eq!(at(&[(0, 1.0), (5, stale_nan())], 6, 10), None);
        assert_eq!(at(&[(0, 1.0), (5, stale_nan()), (6, 2.0)], 6, 10), Some(2.0));
    }
}
