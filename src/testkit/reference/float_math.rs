//! Functions of one float: arithmetic and calendar.
//!
//! *Invariants:* defined for every float. Dates are those of the Gregorian calendar, continued both ways, in UTC.
//!
//! *Not here:* functions of native histograms (`native`).

use std::f64::consts::PI;

use crate::promql::signature::FunctionName;

/// The function of one float called `name`, if it is one.
pub(super) fn function(name: FunctionName) -> Option<fn(f64) -> f64> {
    use FunctionName as F;
    Some(match name {
        F::Abs => f64::abs,
        F::Ceil => f64::ceil,
        F::Floor => f64::floor,
        F::Exp => f64::exp,
        F::Sqrt => f64::sqrt,
        F::Ln => f64::ln,
        F::Log2 => f64::log2,
        F::Log10 => f64::log10,
        F::Sin => f64::sin,
        F::Cos => f64::cos,
        F::Tan => f64::tan,
        F::Asin => f64::asin,
        F::Acos => f64::acos,
        F::Atan => f64::atan,
        F::Sinh => f64::sinh,
        F::Cosh => f64::cosh,
        F::Tanh => f64::tanh,
        // The function is odd; computed directly it loses its digits on the negative side.
        F::Asinh => |v| v.abs().asinh().copysign(v),
        F::Acosh => f64::acosh,
        F::Atanh => f64::atanh,
        F::Deg => |v| v * 180.0 / PI,
        F::Rad => |v| v * PI / 180.0,
        F::Sgn => |v| if v == 0.0 || v.is_nan() { v } else { v.signum() },
        F::Year => |v| date(v).0 as f64,
        F::Month => |v| date(v).1 as f64,
        F::DayOfMonth => |v| date(v).2 as f64,
        F::DayOfYear => day_of_year,
        F::DayOfWeek => |v| (days(v) + 4).rem_euclid(7) as f64,
        F::DaysInMonth => |v| days_in_month(date(v).0, date(v).1) as f64,
        F::Hour => |v| (seconds(v).rem_euclid(86_400) / 3600) as f64,
        F::Minute => |v| (seconds(v).rem_euclid(3600) / 60) as f64,
        _ => return None,
    })
}

/// Whether a function is one of the calendar, which without an argument is about the step.
pub(super) fn is_calendar(name: FunctionName) -> bool {
    use FunctionName as F;
    matches!(
        name,
        F::Year | F::Month | F::DayOfMonth | F::DayOfYear | F::DayOfWeek | F::DaysInMonth | F::Hour | F::Minute
    )
}

/// `round`: to the nearest multiple of `to`, ties up.
pub(super) fn round(v: f64, to: f64) -> f64 {
    let inverse = 1.0 / to;
    (v * inverse + 0.5).floor() / inverse
}

/// Go's `math.Max`: an infinity wins over NaN, +0 over −0.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() && b.is_sign_negative() { -0.0 } else { 0.0 }
    } else if a > b {
        a
    } else {
        b
    }
}

/// Go's `math.Min`.
pub(super) fn min(a: f64, b: f64) -> f64 {
    -max(-a, -b)
}

/// Whole seconds; what does not fit 64 bits is the least of them, as on the machines Prometheus usually runs on.
fn seconds(v: f64) -> i64 {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    if (-BOUND..BOUND).contains(&v) { v as i64 } else { i64::MIN }
}

fn days(v: f64) -> i64 {
    seconds(v).div_euclid(86_400)
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and day of a time: whole cycles of 400 years first, then years and months one by one.
fn date(v: f64) -> (i64, i64, i64) {
    const CYCLE: i64 = 146_097;
    let days = days(v);
    let mut year = 1970 + 400 * days.div_euclid(CYCLE);
    let mut left = days.rem_euclid(CYCLE);
    while left >= 365 + i64::from(is_leap(year)) {
        left -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while left >= days_in_month(year, month) {
        left -= days_in_month(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

fn day_of_year(v: f64) -> f64 {
    let (year, month, day) = date(v);
    ((1..month).map(|m| days_in_month(year, m)).sum::<i64>() + day) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar_both_ways() {
        assert_eq!(date(0.0), (1970, 1, 1));
        assert_eq!(date(1_456_790_399.0), (2016, 2, 29));
        assert_eq!(date(-1.0), (1969, 12, 31));
        assert_eq!(day_of_year(1_483_142_400.0), 366.0);
    }
}
