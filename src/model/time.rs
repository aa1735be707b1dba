//! Time ranges, step grids, and durations as Prometheus writes them.
//!
//! *Invariants:* all times are milliseconds; a [`TimeRange`] is closed on both sides.
//!
//! *Not here:* reading the clock (`env::clock`), calendars (`promql::functions::time`).

use std::fmt::Write;

/// Milliseconds in a flush window (2 h).
pub const WINDOW_MS: i64 = 2 * 3600 * 1000;

/// Start of the window that holds `t`.
pub fn window_start(t: i64) -> i64 {
    t.div_euclid(WINDOW_MS) * WINDOW_MS
}

/// A closed range of timestamps, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First timestamp inside.
    pub start: i64,
    /// Last timestamp inside.
    pub end: i64,
}

impl TimeRange {
    /// From `start` to `end`, both inside.
    pub fn new(start: i64, end: i64) -> Self {
        Self { start, end }
    }

    /// Everything.
    pub fn all() -> Self {
        Self { start: i64::MIN, end: i64::MAX }
    }

    /// Whether `t` is inside.
    pub fn contains(&self, t: i64) -> bool {
        self.start <= t && t <= self.end
    }

    /// Whether the two share a timestamp.
    pub fn overlaps(&self, other: &TimeRange) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether no timestamp is inside.
    pub fn is_empty(&self) -> bool {
        self.start > self.end
    }
}

/// The timestamps of a range query: `start, start + step, …` up to and including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepGrid {
    /// First step, milliseconds.
    pub start: i64,
    /// Last timestamp that may be a step.
    pub end: i64,
    /// Distance of steps, milliseconds; at least 1. An instant query has one step and any distance.
    pub step: i64,
}

impl StepGrid {
    /// The grid of an instant query.
    pub fn instant(t: i64) -> Self {
        Self { start: t, end: t, step: 1 }
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        let span = self.end.saturating_sub(self.start);
        if span < 0 { 0 } else { (span / self.step.max(1)) as usize + 1 }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `i`-th step.
    pub fn at(&self, i: usize) -> i64 {
        self.start + i as i64 * self.step
    }

    /// All steps in order.
    pub fn iter(&self) -> impl Iterator<Item = i64> + use<> {
        let grid = *self;
        (0..grid.len()).map(move |i| grid.at(i))
    }
}

const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a Prometheus duration (`1h30m`, `0`, `15s`): units descending, each at most once, whole numbers.
pub fn parse_duration_ms(text: &str) -> Result<i64, String> {
    let wrong = || format!("not a valid duration string: {text:?}");
    if text == "0" {
        return Ok(0);
    }
    let (mut rest, mut total, mut next_unit) = (text, 0i64, 0usize);
    if text.is_empty() {
        return Err("empty duration string".into());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let at = UNITS.iter().position(|(u, _)| *u == &rest[..unit_len]).ok_or_else(wrong)?;
        if at < next_unit {
            return Err(wrong());
        }
        next_unit = at + 1;
        rest = &rest[unit_len..];
        total = number
            .checked_mul(UNITS[at].1)
            .and_then(|ms| total.checked_add(ms))
            .ok_or_else(|| "duration out of range".to_owned())?;
    }
    Ok(total)
}

/// Writes a duration as Prometheus does: the largest units that divide it, `0s` for zero.
pub fn format_duration_ms(ms: i64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    let mut rest = ms.unsigned_abs();
    if ms < 0 {
        out.push('-');
    }
    for (unit, size) in UNITS {
        let size = size as u64;
        // Years, weeks and days are only used when they divide the rest, so that 90 min past a day stays readable.
        let exact_only = matches!(unit, "y" | "w" | "d");
        if exact_only && !rest.is_multiple_of(size) {
            continue;
        }
        if rest >= size {
            let _ = write!(out, "{}{unit}", rest / size);
            rest %= size;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_durations() {
        for (text, ms) in
            [("0", 0), ("1h30m", 5_400_000), ("15s", 15_000), ("1d", 86_400_000), ("1y1ms", 31_536_000_001)]
        {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for bad in ["", "1", "h", "1m1h", "1m1m", "-1s", "1.5h", "99999999999999y", "1 h"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
        for (ms, text) in [(0, "0s"), (5_400_000, "1h30m"), (86_400_000, "1d"), (90_000_000, "25h"), (1, "1ms")] {
            assert_eq!(format_duration_ms(ms), text);
        }
    }

    #[test]
    fn grids_include_the_end_only_when_hit() {
        assert_eq!(StepGrid { start: 0, end: 10, step: 4 }.iter().collect::<Vec<_>>(), [0, 4, 8]);
        assert_eq!(StepGrid::instant(7).iter().collect::<Vec<_>>(), [7]);
    }
}
