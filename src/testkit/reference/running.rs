//! Sums and means of floats that lose no low bits (Neumaier).
//!
//! *Invariants:* the order of operations is that of Prometheus' `kahansum`, so that results agree to the last bit.
//!
//! *Not here:* native histograms (`native`).

/// A running sum with what its additions lost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sum {
    pub value: f64,
    pub lost: f64,
}

impl Sum {
    /// Adds one number.
    pub fn add(self, v: f64) -> Self {
        let value = self.value + v;
        if value.is_infinite() {
            return Self { value, lost: 0.0 };
        }
        let lost = if self.value.abs() >= v.abs() { (self.value - value) + v } else { (v - value) + self.value };
        Self { value, lost: self.lost + lost }
    }

    /// The sum.
    pub fn total(self) -> f64 {
        self.value + self.lost
    }
}

/// The mean: the sum divided by the count as long as the sum is finite; from there on the mean is moved by each number.
pub(super) fn mean(values: &[f64]) -> f64 {
    let mut sum = Sum { value: values.first().copied().unwrap_or(f64::NAN), lost: 0.0 };
    let mut moving: Option<Sum> = None;
    for (i, v) in values.iter().enumerate().skip(1) {
        let count = (i + 1) as f64;
        let mean = match moving {
            Some(mean) => mean,
            None => {
                let next = sum.add(*v);
                if !next.value.is_infinite() {
                    sum = next;
                    continue;
                }
                Sum { value: sum.value / (count - 1.0), lost: sum.lost / (count - 1.0) }
            }
        };
        let q = (count - 1.0) / count;
        moving = Some(Sum { value: q * mean.value, lost: q * mean.lost }.add(v / count));
    }
    let count = values.len() as f64;
    moving.map_or(sum.value / count + sum.lost / count, Sum::total)
}

/// The variance, by Welford with compensation.
pub(super) fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares) = (Sum::default(), Sum::default());
    for (i, v) in values.iter().enumerate() {
        let delta = v - mean.total();
        mean = mean.add(delta / (i + 1) as f64);
        squares = squares.add(delta * (v - mean.total()));
    }
    squares.total() / values.len() as f64
}

/// The `q`-quantile: on the line between the two nearest of the sorted values; NaN counts as the least.
pub(super) fn quantile(q: f64, values: &[f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_nan()).collect();
    let mut numbers: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    numbers.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.extend(numbers);
    let last = (sorted.len() - 1) as f64;
    let rank = q * last;
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(last);
    let weight = rank - rank.floor();
    sorted[lower as usize] * (1.0 - weight) + sorted[upper as usize] * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_survive_next_to_large_ones() {
        let sum = [1.0, 1e100, 1.0, -1e100].into_iter().fold(Sum::default(), Sum::add);
        assert_eq!(sum.total(), 2.0);
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
    }

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(quantile(0.5, &[3.0, 1.0]), 2.0);
        assert_eq!(quantile(1.5, &[3.0]), f64::INFINITY);
        assert!(quantile(0.0, &[1.0, f64::NAN]).is_nan());
    }
}
