//! Sequences of values as test scripts write them: `1+2x3 _ {{sum:5 count:3 buckets:[1 2]}}x4`.
//!
//! *Invariants:* sequences are bounded: a script cannot ask for more values than [`VALUES_LIMIT`].
//!
//! *Not here:* commands (`parse`).

use std::sync::Arc;

use crate::model::time::parse_duration_ms;
use crate::model::{Histogram, ResetHint, Span, stale_nan};
use crate::promql::histogram;
use crate::testkit::memory_source::Point;

/// Most values of one sequence.
const VALUES_LIMIT: usize = 1_000_000;

/// A value as written, and whether a reset hint was.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The sample.
    pub point: Point,
    /// The script names the reset hint: it is compared.
    pub has_hint: bool,
}

/// Reads a whole sequence; `None` is a missing point.
pub fn parse_values(text: &str) -> Result<Vec<Option<Written>>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        rest = if rest.starts_with("{{") { histograms(rest, &mut out)? } else { floats(rest, &mut out)? };
        if out.len() > VALUES_LIMIT {
            return Err("too many values".into());
        }
        rest = rest.trim_start();
    }
    Ok(out)
}

fn number(text: &str) -> Result<f64, String> {
    if text == "stale" {
        return Ok(stale_nan());
    }
    let plain = text.trim_start_matches(['+', '-']);
    let special = plain.eq_ignore_ascii_case("inf") || plain.eq_ignore_ascii_case("nan");
    let digits = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !special && !digits {
        return Err(format!("invalid number {text:?}"));
    }
    text.parse().map_err(|_| format!("invalid number {text:?}"))
}

fn times(text: &str) -> Result<usize, String> {
    let n: usize = text.parse().map_err(|_| format!("invalid repetition {text:?}"))?;
    if n > VALUES_LIMIT { Err("too many values".into()) } else { Ok(n) }
}

/// Where the sign of an increment stands: not at the front, not in an exponent.
fn increment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (1..bytes.len()).find(|i| matches!(bytes[*i], b'+' | b'-') && !matches!(bytes[i - 1], b'e' | b'E'))
}

fn floats<'a>(text: &'a str, out: &mut Vec<Option<Written>>) -> Result<&'a str, String> {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (item, rest) = text.split_at(end);
    let float = |v: f64| Some(Written { point: Point::Float(v), has_hint: false });
    let (base, count) = match item.split_once('x') {
        Some((base, count)) => (base, Some(times(count)?)),
        None => (item, None),
    };
    if base == "_" {
        out.extend(std::iter::repeat_n(None, count.unwrap_or(1)));
        return Ok(rest);
    }
    let Some(count) = count else {
        out.push(float(number(base)?));
        return Ok(rest);
    };
    let Some(at) = increment(base) else {
        out.extend(std::iter::repeat_n(float(number(base)?), count + 1));
        return Ok(rest);
    };
    // A running sum: its rounding is part of what scripts expect.
    let (mut v, step) = (number(&base[..at])?, number(&base[at..])?);
    for _ in 0..=count {
        out.push(float(v));
        v += step;
    }
    Ok(rest)
}

fn histograms<'a>(text: &'a str, out: &mut Vec<Option<Written>>) -> Result<&'a str, String> {
    let (mut current, mut has_hint, rest) = histogram(text)?;
    let mut push = |h: &Histogram, has_hint: bool| {
        out.push(Some(Written { point: Point::Histogram(Arc::new(h.clone())), has_hint }));
    };
    let end = |rest: &str| rest.find(char::is_whitespace).unwrap_or(rest.len());
    if let Some(count) = rest.strip_prefix('x') {
        let (count, rest) = count.split_at(end(count));
        (0..=times(count)?).for_each(|_| push(&current, has_hint));
        return Ok(rest);
    }
    let Some(sign) = rest.chars().next().filter(|c| matches!(c, '+' | '-')) else {
        push(&current, has_hint);
        return Ok(rest);
    };
    let (step, step_hint, rest) = histogram(&rest[1..])?;
    let count = rest.strip_prefix('x').ok_or("expected xN after a histogram increment")?;
    let (count, rest) = count.split_at(end(count));
    if current.schema > step.schema {
        return Err("error combining histograms: cannot merge from schema to a lower one".into());
    }
    has_hint = step_hint;
    push(&current, has_hint);
    for _ in 0..times(count)? {
        let combined = if sign == '+' { histogram::add(&current, &step) } else { histogram::sub(&current, &step) };
        current = combined.map_err(|_| "incompatible histograms")?.histogram;
        if has_hint {
            current.reset_hint = step.reset_hint;
        }
        push(&current, has_hint);
    }
    Ok(rest)
}

/// Reads `{{key:value …}}`; returns the histogram, whether it names a reset hint, and what follows.
fn histogram(text: &str) -> Result<(Histogram, bool, &str), String> {
    let inner = text.strip_prefix("{{").ok_or("expected {{")?;
    let end = inner.find("}}").ok_or("histogram is not closed")?;
    let (mut h, mut has_hint) = (Histogram::default(), false);
    let (mut offset, mut n_offset) = (0, 0);
    let mut rest = inner[..end].trim_start();
    let mut seen: Vec<String> = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':').ok_or_else(|| format!("expected key:value in {rest:?}"))?;
        let key = key.trim().to_ascii_lowercase();
        let value_end = match after.strip_prefix('[') {
            Some(list) => list.find(']').ok_or("list is not closed")? + 2,
            None => after.find(char::is_whitespace).unwrap_or(after.len()),
        };
        let (value, after) = after.split_at(value_end);
        if seen.contains(&key) {
            return Err(format!("duplicate key {key:?} in histogram"));
        }
        let int = || value.parse::<i32>().map_err(|_| format!("invalid {key} {value:?}"));
        match key.as_str() {
            "schema" => h.schema = int()?,
            "sum" => h.sum = number(value)?,
            "count" => h.count = number(value)?,
            "z_bucket" => h.zero_count = number(value)?,
            "z_bucket_w" => h.zero_threshold = number(value)?,
            "buckets" => h.positive = list(value)?,
            "n_buckets" => h.negative = list(value)?,
            "custom_values" => h.custom_values = list(value)?,
            "offset" => offset = int()?,
            "n_offset" => n_offset = int()?,
            "counter_reset_hint" => {
                has_hint = true;
                h.reset_hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    other => return Err(format!("unknown reset hint {other:?}")),
                };
            }
            other => return Err(format!("unknown key {other:?} in histogram")),
        }
        seen.push(key);
        rest = after.trim_start();
    }
    let spans = |counts: &[f64], offset: i32| match counts.len() {
        0 => Vec::new(),
        n => vec![Span { offset, length: n as u32 }],
    };
    h.positive_spans = spans(&h.positive, offset);
    h.negative_spans = spans(&h.negative, n_offset);
    Ok((h, has_hint, &inner[end + 2..]))
}

fn list(text: &str) -> Result<Vec<f64>, String> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or("expected a list")?;
    inner.split_whitespace().map(number).collect()
}

/// Reads the items of a line of start timestamps: `-1m -30s-1mx2 _`. Milliseconds before (or after) the sample.
pub fn parse_starts(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        let (base, count) = match item.rsplit_once('x') {
            Some((base, count)) => (base, Some(times(count)?)),
            None => (item, None),
        };
        if base == "_" {
            out.extend(std::iter::repeat_n(None, count.unwrap_or(1)));
            continue;
        }
        let (mut v, step) = match increment(base) {
            Some(at) => (duration(&base[..at])?, duration(&base[at..])?),
            None => (duration(base)?, 0),
        };
        for _ in 0..=count.unwrap_or(0) {
            out.push(Some(v));
            v += step;
        }
    }
    Ok(out)
}

fn duration(text: &str) -> Result<i64, String> {
    match text.strip_prefix('-') {
        Some(rest) => Ok(-parse_duration_ms(rest)?),
        None => parse_duration_ms(text.strip_prefix('+').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats_of(text: &str) -> Vec<Option<f64>> {
        let float = |w: Written| match w.point {
            Point::Float(v) => v,
            Point::Histogram(h) => h.count,
        };
        parse_values(text).unwrap().into_iter().map(|w| w.map(float)).collect()
    }

    #[test]
    fn expands_sequences() {
        assert_eq!(floats_of("0+10x2 _ 5x1"), [Some(0.), Some(10.), Some(20.), None, Some(5.), Some(5.)]);
        assert_eq!(
            floats_of("1-1x1 -2-3x1 _x2 1e-2"),
            [Some(1.), Some(0.), Some(-2.), Some(-5.), None, None, Some(0.01)]
        );
        assert_eq!(floats_of("{{count:3}}x1 {{count:1}}+{{count:2}}x1"), [Some(3.), Some(3.), Some(1.), Some(3.)]);
        for bad in ["abc", "1+x2", "1x", "{{count:1", "{{count:1 count:2}}", "{{what:1}}", "1x99999999"] {
            assert!(parse_values(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_start_timestamps() {
        assert_eq!(parse_starts("-30s-1mx1 _ 0").unwrap(), [Some(-30_000), Some(-90_000), None, Some(0)]);
    }
}
