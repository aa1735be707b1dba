//! How long nothing was answered. Pure.
//!
//! *Invariants:* times are milliseconds since the run began, in order.
//!
//! *Not here:* what was answered (`check`).

/// The longest time without a success between `from` and `to`, both of which count as ends: what began before is not
/// blamed on what happens now, and what still lasts is not forgotten.
pub fn longest(successes: &[u64], from: u64, to: u64) -> u64 {
    let begin = successes.partition_point(|t| *t < from);
    let end = successes.partition_point(|t| *t <= to);
    let mut last = from;
    let mut most = 0;
    for t in successes.get(begin..end).unwrap_or_default().iter().copied().chain([to]) {
        most = most.max(t.saturating_sub(last));
        last = t;
    }
    most
}

/// The share of seconds between `from` and `to` in which there was a success, per cent.
pub fn availability(successes: &[u64], from: u64, to: u64) -> f64 {
    let seconds = (to.saturating_sub(from) / 1000).max(1);
    let alive = (0..seconds).filter(|second| {
        let begin = from + second * 1000;
        let at = successes.partition_point(|t| *t < begin);
        successes.get(at).is_some_and(|t| *t < begin + 1000)
    });
    alive.count() as f64 * 100.0 / seconds as f64
}

/// The value that `per_cent` of the values do not exceed; 0 of none.
pub fn quantile(values: &mut [u64], per_cent: usize) -> u64 {
    values.sort_unstable();
    let rank = (values.len() * per_cent).div_ceil(100).max(1) - 1;
    values.get(rank).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_begins_where_one_looks_and_ends_where_one_stops_looking() {
        let successes = [0, 100, 1_000, 1_100, 5_000];
        assert_eq!(longest(&successes, 100, 1_100), 900);
        assert_eq!(longest(&successes, 500, 1_100), 500);
        assert_eq!(longest(&successes, 1_050, 4_000), 2_900);
        assert_eq!(longest(&successes, 6_000, 9_000), 3_000);
        assert_eq!(longest(&[], 0, 10), 10);
    }

    #[test]
    fn availability_counts_seconds() {
        assert_eq!(availability(&[100, 1_900, 3_500], 0, 4_000), 75.0);
        assert_eq!(availability(&[], 0, 4_000), 0.0);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        assert_eq!(quantile(&mut [5, 1, 3], 50), 3);
        assert_eq!(quantile(&mut [5, 1, 3], 99), 5);
        assert_eq!(quantile(&mut [], 99), 0);
    }
}
