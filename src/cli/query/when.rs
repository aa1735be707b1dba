//! Moments and durations as people type them.

use anyhow::{Context, anyhow};

use crate::model::time::parse_duration_ms;

/// Steps a range query without `--step` has at most.
const STEPS: i64 = 120;

/// A moment, milliseconds: `now`, `-1h`, `now-1h`, `now+5m`, RFC 3339, or Unix seconds.
pub(super) fn parse_ms(text: &str, now_ms: i64) -> anyhow::Result<i64> {
    let wrong = || anyhow!("expected now, -1h, 2026-06-01T12:00:00Z or Unix seconds, got {text:?}");
    let relative = text.strip_prefix("now").unwrap_or(text);
    if relative.is_empty() {
        return if text.is_empty() { Err(wrong()) } else { Ok(now_ms) };
    }
    if let Some((sign, distance)) = match relative.as_bytes()[0] {
        b'-' => Some((-1, &relative[1..])),
        b'+' => Some((1, &relative[1..])),
        _ => None,
    } && let Ok(ms) = parse_duration_ms(distance)
    {
        return Ok(now_ms + sign * ms);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        return if ms.abs() < 9e15 { Ok(ms as i64) } else { Err(wrong()) };
    }
    let moment: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    Ok(moment.as_millisecond())
}

/// A duration, milliseconds: `30s` or a number of seconds.
pub(super) fn duration_ms(text: &str) -> anyhow::Result<i64> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds.abs() < 9e12 => Ok((seconds * 1000.0).round() as i64),
        _ => parse_duration_ms(text).map_err(anyhow::Error::msg).context("expected a duration such as 30s"),
    }
}

/// Seconds as the API takes them.
pub(super) fn seconds(ms: i64) -> String {
    format!("{}{}.{:03}", if ms < 0 { "-" } else { "" }, ms.abs() / 1000, ms.abs() % 1000)
}

/// A round step that gives a range no more than [`STEPS`] of them.
pub(super) fn nice_step_ms(range_ms: i64) -> i64 {
    const NICE_S: [i64; 14] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
    let least = range_ms / STEPS;
    let nice = NICE_S.iter().map(|s| s * 1000).find(|ms| *ms >= least);
    nice.unwrap_or_else(|| (least / 7_200_000 + 1) * 7_200_000)
}

/// `2026-06-01 12:00:00`, with milliseconds where there are any; UTC.
pub(super) fn show(seconds: f64) -> String {
    let ms = (seconds * 1000.0).round() as i64;
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(moment) => moment.to_string().replace('T', " ").trim_end_matches('Z').to_owned(),
        Err(_) => seconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_780_000_000_000;

    #[test]
    fn reads_moments_as_people_type_them() {
        for (text, ms) in [
            ("now", NOW),
            ("-1h", NOW - 3_600_000),
            ("now-1h30m", NOW - 5_400_000),
            ("now+5m", NOW + 300_000),
            ("1780000000.5", NOW + 500),
            ("-12", -12_000),
            ("2026-05-28T20:26:40Z", NOW),
            ("2026-05-28T22:26:40+02:00", NOW),
        ] {
            assert_eq!(parse_ms(text, NOW).unwrap(), ms, "{text}");
        }
        for bad in ["", "yesterday", "now1h", "1h", "inf", "NaN", "2026-05-28", "-", "now-"] {
            assert!(parse_ms(bad, NOW).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_are_round_and_few() {
        assert_eq!(nice_step_ms(3_600_000), 30_000);
        assert_eq!(nice_step_ms(0), 1000);
        for range in [1, 60_000, 86_400_000, 365 * 86_400_000] {
            assert!(range / nice_step_ms(range) <= STEPS, "{range}");
        }
    }

    #[test]
    fn writes_moments_and_seconds() {
        assert_eq!(show(1_780_000_000.0), "2026-05-28 20:26:40");
        assert_eq!(show(1_780_000_000.25), "2026-05-28 20:26:40.25");
        assert_eq!(seconds(-1_500), "-1.500");
        assert_eq!(seconds(NOW + 7), "1780000000.007");
        assert_eq!(duration_ms("90").unwrap(), 90_000);
        assert_eq!(duration_ms("1m").unwrap(), 60_000);
        assert!(duration_ms("soon").is_err());
    }
}
