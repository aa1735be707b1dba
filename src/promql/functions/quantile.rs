//! Quantiles of values and of classic histogram buckets.
//!
//! *Invariants:* results equal Prometheus' `quantile.go` for equal input; nothing panics on NaN.
//!
//! *Not here:* native histograms (`promql::histogram`), grouping of bucket series (`exec::classic`).

use std::cmp::Ordering;

/// NaN first, then ascending.
pub fn nan_first(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
    }
}

/// The `q`-quantile of values in any order (they get sorted), interpolated between the two nearest.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // Zeros have signs, which must not depend on the order of the values.
    values.sort_unstable_by(|a, b| nan_first(a, b).then_with(|| a.total_cmp(b)));
    let n = values.len() as f64;
    let rank = q * (n - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(n - 1.0);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

/// A bucket of a classic histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Upper bound (`le`).
    pub upper: f64,
    /// Observations up to it.
    pub count: f64,
}

/// What had to be repaired to make bucket counts ascend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repair {
    /// Lowest repaired bound.
    pub min: f64,
    /// Highest repaired bound.
    pub max: f64,
    /// Largest difference.
    pub diff: f64,
}

/// The `q`-quantile of buckets in any order, and what had to be repaired.
pub fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Repair>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !sort_and_merge(buckets) {
        return (f64::NAN, None);
    }
    let repair = repair(buckets);
    if buckets.len() < 2 {
        return (f64::NAN, None);
    }
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if observations == 0.0 {
        return (f64::NAN, None);
    }
    let mut rank = q * observations;
    let b = buckets[..last].partition_point(|b| b.count < rank || rank.is_nan());
    if b == last {
        return (buckets[last - 1].upper, repair);
    }
    if b == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, repair);
    }
    let (mut start, end, mut count) = (0.0, buckets[b].upper, buckets[b].count);
    if b > 0 {
        start = buckets[b - 1].upper;
        count -= buckets[b - 1].count;
        rank -= buckets[b - 1].count;
    }
    (start + (end - start) * (rank / count), repair)
}

/// The share of observations between `lower` and `upper`.
pub fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !sort_and_merge(buckets) {
        return f64::NAN;
    }
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let (mut rank, mut lower_rank, mut upper_rank) = (0.0, None, None);
    for (i, b) in buckets.iter().enumerate() {
        let from = match i {
            0 if b.upper > 0.0 => 0.0,
            0 => f64::NEG_INFINITY,
            _ => buckets[i - 1].upper,
        };
        let inside = b.count - rank;
        for (edge, slot) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if slot.is_none() && from >= edge {
                *slot = Some(rank);
            } else if slot.is_none() && b.upper > edge {
                // Nothing is known about where inside an infinite bucket observations lie: the lowest counts as a whole,
                // the highest not at all.
                *slot = Some(if from.is_infinite() {
                    b.count
                } else if b.upper.is_infinite() {
                    rank
                } else {
                    rank + inside * ((edge - from) / (b.upper - from))
                });
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank = b.count;
    }
    (upper_rank.unwrap_or(count).min(count) - lower_rank.unwrap_or(count).min(count)) / count
}

/// Sorts buckets and merges those of one bound; `false` when the highest is not +Inf.
fn sort_and_merge(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.upper.partial_cmp(&b.upper).unwrap_or(Ordering::Equal));
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
    true
}

/// Makes counts ascend: differences in the last bits silently, others reported.
fn repair(buckets: &mut [Bucket]) -> Option<Repair> {
    const TOLERANCE: f64 = 1e-12;
    let mut previous = buckets[0].count;
    let mut repair: Option<Repair> = None;
    for b in &mut buckets[1..] {
        let current = b.count;
        if current == previous {
            continue;
        }
        if (current - previous).abs() / (current.abs() + previous.abs()) <= TOLERANCE {
            b.count = previous;
            continue;
        }
        if current < previous {
            let diff = previous - current;
            let r = repair.get_or_insert(Repair { min: b.upper, max: b.upper, diff });
            (r.max, r.diff) = (b.upper, r.diff.max(diff));
            b.count = previous;
            continue;
        }
        previous = current;
    }
    repair
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolates_between_values() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0]), 2.0);
        assert_eq!(quantile(1.0, &mut [3.0, 1.0, f64::NAN]), 3.0);
        assert!(quantile(0.0, &mut [f64::NAN, 1.0]).is_nan());
        assert_eq!(quantile(-1.0, &mut [1.0]), f64::NEG_INFINITY);
    }

    #[test]
    fn reports_forced_monotonicity() {
        let of =
            |counts: &[(f64, f64)]| counts.iter().map(|&(upper, count)| Bucket { upper, count }).collect::<Vec<_>>();
        let (v, repair) = bucket_quantile(0.5, &mut of(&[(1.0, 10.0), (2.0, 8.0), (f64::INFINITY, 20.0)]));
        assert_eq!((v, repair.map(|r| (r.min, r.diff))), (1.0, Some((2.0, 2.0))));
        assert!(bucket_quantile(0.5, &mut of(&[(1.0, 10.0), (2.0, 20.0)])).0.is_nan());
        assert_eq!(bucket_quantile(0.5, &mut of(&[(1.0, 10.0), (f64::INFINITY, 10.0)])).0, 0.5);
    }
}
