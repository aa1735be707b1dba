//! Instant vector selectors: for each step the newest sample within the lookback.
//!
//! *Invariants:* the window is open on the left; a stale marker hides its series until the next sample. One pass over
//! the samples whatever the number of steps.
//!
//! *Not here:* range vectors (`exec::range`).

use super::column::Column;
use super::error::Error;
use crate::model::{Columns, is_stale};
use crate::promql::functions::rate::interpolate;
use crate::promql::functions::window::{Windows, seek};
use crate::promql::plan::Pick;

/// Fills `out` with what a selector sees of one series.
pub fn select(samples: &Columns, windows: &Windows, pick: Pick, out: &mut Column) -> Result<(), Error> {
    out.reset(windows.grid.len());
    if pick == Pick::Smoothed {
        return smoothed(samples, windows, out);
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
    Ok(())
}

/// A value on the line between the neighbours of each step; the last one goes on within the lookback.
fn smoothed(samples: &Columns, windows: &Windows, out: &mut Column) -> Result<(), Error> {
    let live = |i: &usize| !is_stale(samples.values[*i]);
    let kept: Vec<usize> = (0..samples.len()).filter(live).collect();
    let point = |i: usize| (samples.timestamps[kept[i]], samples.values[kept[i]]);
    for step in 0..out.values.len() {
        let window = windows.window(step);
        let after = kept.partition_point(|i| samples.timestamps[*i] < window.end);
        let inside = |i: usize| point(i).0 > window.start && point(i).0 <= window.end + windows.after;
        let right = (after < kept.len() && inside(after)).then_some(after);
        let left = after.checked_sub(1).filter(|i| inside(*i));
        if !samples.histograms.is_empty() && (left.is_some() || right.is_some()) {
            return Err(Error::query("smoothed and anchored modifiers do not work with native histograms"));
        }
        out.values[step] = match (left, right) {
            (_, Some(r)) if point(r).0 == window.end => point(r).1,
            (Some(l), Some(r)) => interpolate(point(l), point(r), window.end, false),
            (Some(l), None) => point(l).1,
            (None, _) => continue,
        };
    }
    Ok(())
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
        select(&columns, &windows, Pick::Value, &mut out).unwrap();
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
