//! Calendar functions of a Unix time in seconds, UTC.
//!
//! *Invariants:* defined for every float: what does not fit a whole number is taken as Go on amd64 takes it (the least
//! `i64`), and dates follow the proleptic Gregorian calendar without bounds.
//!
//! *Not here:* `time()` and `timestamp()` (`exec`).

use crate::promql::signature::FunctionName;

/// The calendar function called `name`, if it is one.
pub fn calendar(name: FunctionName) -> Option<fn(f64) -> f64> {
    use FunctionName as F;
    Some(match name {
        F::DaysInMonth => |t| days_in_month(Civil::at(t)),
        F::DayOfMonth => |t| Civil::at(t).day as f64,
        F::DayOfWeek => |t| (seconds(t).div_euclid(DAY) + 4).rem_euclid(7) as f64,
        F::DayOfYear => |t| day_of_year(seconds(t)),
        F::Hour => |t| (seconds(t).rem_euclid(DAY) / 3600) as f64,
        F::Minute => |t| (seconds(t).rem_euclid(3600) / 60) as f64,
        F::Month => |t| Civil::at(t).month as f64,
        F::Year => |t| Civil::at(t).year as f64,
        _ => return None,
    })
}

const DAY: i64 = 86_400;

fn seconds(t: f64) -> i64 {
    // The floats next to the bounds of i64 are the bounds themselves: -2^63 and 2^63.
    const BOUND: f64 = (1u64 << 63) as f64;
    if (-BOUND..BOUND).contains(&t) { t as i64 } else { i64::MIN }
}

struct Civil {
    year: i64,
    month: i64,
    day: i64,
}

impl Civil {
    fn at(t: f64) -> Self {
        Self::of_day(seconds(t).div_euclid(DAY))
    }

    /// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant's `civil_from_days`).
    fn of_day(days: i64) -> Self {
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        Self { year: yoe + era * 400 + i64::from(month <= 2), month, day: doy - (153 * mp + 2) / 5 + 1 }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(c: Civil) -> f64 {
    match c.month {
        2 => 28.0 + f64::from(is_leap(c.year)),
        4 | 6 | 9 | 11 => 30.0,
        _ => 31.0,
    }
}

fn day_of_year(t: i64) -> f64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let c = Civil::of_day(t.div_euclid(DAY));
    let leap_day = i64::from(c.month > 2 && is_leap(c.year));
    (BEFORE[(c.month - 1) as usize] + leap_day + c.day) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(t: f64) -> Vec<f64> {
        use FunctionName as F;
        [F::Year, F::Month, F::DayOfMonth, F::DayOfWeek, F::DayOfYear, F::Hour, F::Minute, F::DaysInMonth]
            .map(|name| calendar(name).unwrap()(t))
            .to_vec()
    }

    #[test]
    fn knows_dates_before_and_after_the_epoch() {
        assert_eq!(all(0.0), [1970., 1., 1., 4., 1., 0., 0., 31.]);
        assert_eq!(all(1_456_790_399.0), [2016., 2., 29., 1., 60., 23., 59., 29.]);
        assert_eq!(all(-1.0), [1969., 12., 31., 3., 365., 23., 59., 31.]);
        assert_eq!(all(1_230_768_000.0), [2009., 1., 1., 4., 1., 0., 0., 31.]);
    }

    #[test]
    fn survives_any_float() {
        for t in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e300, i64::MAX as f64] {
            all(t);
        }
    }
}
