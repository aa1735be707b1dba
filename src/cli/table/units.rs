//! Figures as people read them.
//!
//! *Invariants:* a figure that cannot be is `–`, never a made-up one.

/// `1.5 MiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes for each of `of`, to two or three digits that matter.
pub(super) fn per(bytes: u64, of: u64) -> String {
    match of {
        0 => "–".to_owned(),
        _ => format!("{:.3}", bytes as f64 / of as f64),
    }
}

/// `12.3 %` of `whole`.
pub(super) fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => "–".to_owned(),
        _ => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

/// `2026-06-01 12:00:00`, UTC; milliseconds where the calendar ends.
pub(super) fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(moment) => moment.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units_and_few_digits() {
        for (n, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1_048_575, "1.0 MiB"), (u64::MAX, "16384.0 PiB")]
        {
            assert_eq!(bytes(n), text);
        }
        assert_eq!((per(1, 0), per(1, 3)), ("–".into(), "0.333".into()));
        assert_eq!((share(1, 0), share(1, 3)), ("–".into(), "33.3 %".into()));
        assert_eq!(
            (time(1_780_272_000_999), time(i64::MAX)),
            ("2026-06-01 00:00:00".into(), format!("{} ms", i64::MAX))
        );
    }
}
