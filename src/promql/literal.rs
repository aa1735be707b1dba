//! Values of literals: numbers, durations, strings.
//!
//! *Invariants:* numbers are read as Go's `strconv` reads them: first as an integer with base prefix, then as a float.
//!
//! *Not here:* where a literal ends (`lexer`).

use crate::model::labels::Quoted;

/// Units of durations, largest first, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000_000_000),
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// The value of a number token.
pub(super) fn number(text: &str) -> Result<f64, String> {
    if let Some(n) = integer(text) {
        return Ok(n as f64);
    }
    let error = |what| format!("error parsing number: strconv.ParseFloat: parsing {}: {what}", Quoted(text));
    match text.to_ascii_lowercase().as_str() {
        "inf" => return Ok(f64::INFINITY),
        "nan" => return Ok(f64::NAN),
        _ => {}
    }
    if !underscores_separate_digits(text) {
        return Err(error("invalid syntax"));
    }
    match text.replace('_', "").parse::<f64>() {
        Ok(v) if v.is_infinite() => Err(error("value out of range")),
        Ok(v) => Ok(v),
        Err(_) => Err(error("invalid syntax")),
    }
}

/// `12`, `0x1f`, `0755`, with underscores between digits; `None` for anything else or out of range.
fn integer(text: &str) -> Option<i64> {
    if !underscores_separate_digits(text) {
        return None;
    }
    let plain = text.replace('_', "").to_ascii_lowercase();
    match plain.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None if plain.len() > 1 && plain.starts_with('0') => i64::from_str_radix(&plain[1..], 8).ok(),
        None => plain.parse().ok(),
    }
}

/// An underscore stands between two digits, or between the prefix `0x` and a digit.
fn underscores_separate_digits(text: &str) -> bool {
    let (hex, digits) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let is_digit = |b: u8| b.is_ascii_digit() || hex && b.is_ascii_hexdigit();
    // The prefix counts as a digit.
    let (mut after_digit, mut after_underscore) = (hex, false);
    for b in digits.bytes() {
        if b == b'_' && !after_digit || after_underscore && !is_digit(b) {
            return false;
        }
        after_digit = is_digit(b);
        after_underscore = b == b'_';
    }
    !after_underscore
}

/// The value of a duration token (`1h30m`) in seconds.
pub(super) fn duration_seconds(text: &str) -> Result<f64, String> {
    let wrong = || format!("not a valid duration string: {}", Quoted(text));
    let out_of_range = || "duration out of range".to_owned();
    let (mut rest, mut total, mut next_unit) = (text, 0u64, 0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let (unit, after) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        if unit.is_empty() {
            return Err(wrong());
        }
        let at = UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(|| format!("unknown unit {} in duration {}", Quoted(unit), Quoted(text)))?;
        if at < next_unit {
            return Err(wrong());
        }
        next_unit = at + 1;
        rest = after;
        let part = number.checked_mul(UNITS[at].1).ok_or_else(out_of_range)?;
        total = total.checked_add(part).filter(|ns| *ns <= i64::MAX as u64).ok_or_else(out_of_range)?;
    }
    Ok((total / 1_000_000_000) as f64 + (total % 1_000_000_000) as f64 / 1e9)
}

/// Seconds as whole milliseconds, rounded to nanoseconds first as Prometheus does (so that `4.018` is 4018 ms).
pub(super) fn seconds_to_ms(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64 / 1_000_000
}

/// The bytes of a string token, quotes included in `text`; the lexer has checked its escapes.
pub(super) fn unquote(text: &str) -> Vec<u8> {
    let raw = text.starts_with('`');
    let inner = text.get(1..text.len().max(2) - 1).unwrap_or_default();
    if raw || !inner.contains('\\') {
        // A raw string loses carriage returns, as in Go.
        return if raw { inner.bytes().filter(|b| *b != b'\r').collect() } else { inner.as_bytes().to_vec() };
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let used = unescape(escape, &mut out);
        rest = escape.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Appends what the escape stands for; returns how many bytes it takes, without the backslash.
fn unescape(escape: &str, out: &mut Vec<u8>) -> usize {
    let first = escape.bytes().next().unwrap_or(b'\\');
    let (base, digits, skip) = match first {
        b'x' => (16, 2, 1),
        b'u' => (16, 4, 1),
        b'U' => (16, 8, 1),
        b'0'..=b'7' => (8, 3, 0),
        _ => {
            out.push(match first {
                b'a' => 0x07,
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 0x0b,
                other => other,
            });
            return 1;
        }
    };
    let code = escape.get(skip..skip + digits).and_then(|text| u32::from_str_radix(text, base).ok()).unwrap_or(0);
    if matches!(first, b'u' | b'U') {
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        out.push(code as u8);
    }
    skip + digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_as_go_does() {
        for (text, value) in [
            ("0755", 493.),
            ("08", 8.),
            ("0x1F", 31.),
            ("0x_1f", 31.),
            ("1_000", 1000.),
            ("1_0.5e1_0", 10.5e10),
            (".5", 0.5),
            ("5.", 5.),
            ("1e3", 1000.),
            ("INF", f64::INFINITY),
            ("9223372036854775808", 9223372036854775808.),
        ] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        assert!(number("1e309").unwrap_err().ends_with("value out of range"));
        for bad in ["0x", "0xfffffffffffffffff", "1__0", "1e"] {
            assert!(number(bad).unwrap_err().ends_with("invalid syntax"), "{bad}");
        }
    }

    #[test]
    fn reads_durations() {
        assert_eq!(duration_seconds("1h30m"), Ok(5400.));
        assert_eq!(duration_seconds("1m30ms"), Ok(60.03));
        assert!(duration_seconds("5m1h").unwrap_err().starts_with("not a valid"));
        assert!(duration_seconds("300y").unwrap_err().contains("out of range"));
        assert_eq!(seconds_to_ms(4.018), 4018);
        assert_eq!(seconds_to_ms(-0.0019), -1);
    }

    #[test]
    fn strings_are_bytes() {
        assert_eq!(unquote(r#""a\xff\377\u1234\n\"""#), b"a\xff\xff\xe1\x88\xb4\n\"");
        assert_eq!(unquote(r"`\n`"), br"\n");
        assert_eq!(unquote("''"), b"");
    }
}
