//! Floats as text, digit for digit as Go's `strconv` and `fmt` write them.
//!
//! *Invariants:* the shortest forms read back as the same float. NaN is `NaN`, infinities `+Inf` and `-Inf`.
//!
//! *Not here:* reading numbers of queries (`promql::literal`).

/// Decimal without exponent, shortest (`FormatFloat(v, 'f', -1, 64)`).
pub fn format_f(v: f64) -> String {
    special(v).map_or_else(|| v.to_string(), str::to_owned)
}

/// Shortest, with an exponent below 1e-6 and from 1e21: sample values in JSON answers.
pub fn format_json(v: f64) -> String {
    let magnitude = v.abs();
    if magnitude != 0. && magnitude.is_finite() && !(1e-6..1e21).contains(&magnitude) {
        return exponent_form(&format!("{v:e}"));
    }
    format_f(v)
}

/// Shortest, with an exponent below 1e-4 and from 1e6 (`%v`, `%g`, `FormatFloat(v, 'g', -1, 64)`).
pub fn format_g(v: f64) -> String {
    if let Some(text) = special(v) {
        return text.to_owned();
    }
    let scientific = format!("{v:e}");
    let (_, exponent) = split_exponent(&scientific);
    // Whatever the number of digits, Go decides as if six had been asked for.
    if !(-4..6).contains(&exponent) { exponent_form(&scientific) } else { v.to_string() }
}

/// At most `digits` significant digits without trailing zeros (`%.3g`).
pub fn format_g_precision(v: f64, digits: usize) -> String {
    if let Some(text) = special(v) {
        return text.to_owned();
    }
    let digits = digits.max(1);
    let scientific = format!("{v:.*e}", digits - 1);
    let (mantissa, exponent) = split_exponent(&scientific);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        return exponent_form(&format!("{}e{exponent}", trim(mantissa)));
    }
    trim(&format!("{v:.*}", (digits as i32 - 1 - exponent).max(0) as usize))
}

fn special(v: f64) -> Option<&'static str> {
    match v {
        _ if v.is_nan() => Some("NaN"),
        f64::INFINITY => Some("+Inf"),
        f64::NEG_INFINITY => Some("-Inf"),
        _ => None,
    }
}

fn split_exponent(scientific: &str) -> (&str, i32) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    (mantissa, exponent.parse().unwrap_or(0))
}

/// `1e9` to `1e+09`.
fn exponent_form(scientific: &str) -> String {
    let (mantissa, exponent) = split_exponent(scientific);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_floats_as_go_does() {
        // value, %g, 'f' -1, JSON, %.2g
        let rows: [(f64, &str, &str, &str, &str); 14] = [
            (0., "0", "0", "0", "0"),
            (-0., "-0", "-0", "-0", "-0"),
            (1., "1", "1", "1", "1"),
            (0.1, "0.1", "0.1", "0.1", "0.1"),
            (123456., "123456", "123456", "123456", "1.2e+05"),
            (1e6, "1e+06", "1000000", "1000000", "1e+06"),
            (123456789., "1.23456789e+08", "123456789", "123456789", "1.2e+08"),
            (0.0001, "0.0001", "0.0001", "0.0001", "0.0001"),
            (0.000012, "1.2e-05", "0.000012", "0.000012", "1.2e-05"),
            (1.5e-7, "1.5e-07", "0.00000015", "1.5e-07", "1.5e-07"),
            (1e21, "1e+21", "1000000000000000000000", "1e+21", "1e+21"),
            (99.99, "99.99", "99.99", "99.99", "1e+02"),
            (-2.5e-300, "-2.5e-300", &format!("-0.{}25", "0".repeat(299)), "-2.5e-300", "-2.5e-300"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf", "+Inf"),
        ];
        for (v, g, f, json, two) in rows {
            assert_eq!((&*format_g(v), &*format_f(v), &*format_json(v), &*format_g_precision(v, 2)), (g, f, json, two));
        }
        assert_eq!(format_g(f64::NAN), "NaN");
        assert_eq!(format_f(f64::NEG_INFINITY), "-Inf");
    }
}
