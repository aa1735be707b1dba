//! Compensated summation (Neumaier), in Prometheus' order of operations.
//!
//! *Invariants:* results are bit-equal to `util/kahansum` for equal inputs in equal order.
//!
//! *Not here:* sums of histograms.

/// Adds `inc` to the running sum `sum` with compensation `c`; returns both anew.
#[inline(always)]
pub fn add(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    if t.is_infinite() {
        return (t, 0.0);
    }
    // The smaller of the two lost low bits.
    let lost = if sum.abs() >= inc.abs() { (sum - t) + inc } else { (inc - t) + sum };
    (t, c + lost)
}

/// A compensated running mean that survives sums beyond the range of `f64`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The sum, or once it would overflow the mean.
    value: f64,
    c: f64,
    count: f64,
    incremental: bool,
}

impl Mean {
    /// The mean of one value.
    #[inline(always)]
    pub fn of(first: f64) -> Self {
        Self { value: first, c: 0.0, count: 1.0, incremental: false }
    }

    /// Takes one more value.
    #[inline(always)]
    pub fn push(&mut self, v: f64) {
        self.count += 1.0;
        if !self.incremental {
            let (sum, c) = add(v, self.value, self.c);
            if !sum.is_infinite() {
                (self.value, self.c) = (sum, c);
                return;
            }
            self.incremental = true;
            self.value /= self.count - 1.0;
            self.c /= self.count - 1.0;
        }
        let q = (self.count - 1.0) / self.count;
        (self.value, self.c) = add(v / self.count, q * self.value, q * self.c);
    }

    /// Takes the mean of values that come after all of these.
    pub fn merge(&mut self, after: &Self) {
        let count = self.count + after.count;
        if !self.incremental && !after.incremental {
            let (sum, c) = add(after.value, self.value, self.c);
            if !sum.is_infinite() {
                *self = Self { value: sum, c: c + after.c, count, incremental: false };
                return;
            }
        }
        let (mean, mean_c) = self.as_mean();
        let (other, other_c) = after.as_mean();
        let (own, others) = (self.count / count, after.count / count);
        let (value, c) = add(others * other, own * mean, own * mean_c);
        // What a sum without bounds has lost is nothing.
        let c = if value.is_infinite() { c } else { c + others * other_c };
        *self = Self { value, c, count, incremental: true };
    }

    fn as_mean(&self) -> (f64, f64) {
        if self.incremental { (self.value, self.c) } else { (self.value / self.count, self.c / self.count) }
    }

    /// Value, what it lost, and the number of values, which is negative where the value is a mean rather than a sum.
    pub fn to_parts(self) -> [f64; 3] {
        [self.value, self.c, if self.incremental { -self.count } else { self.count }]
    }

    /// What [`Mean::to_parts`] took apart.
    pub fn from_parts([value, c, count]: [f64; 3]) -> Self {
        Self { value, c, count: count.abs(), incremental: count < 0.0 }
    }

    /// The mean so far.
    #[inline(always)]
    pub fn get(&self) -> f64 {
        if self.incremental { self.value + self.c } else { self.value / self.count + self.c / self.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_small_terms_next_to_large_ones() {
        let (mut sum, mut c) = (0.0, 0.0);
        for v in [1.0, 1e100, 1.0, -1e100] {
            (sum, c) = add(v, sum, c);
        }
        assert_eq!(sum + c, 2.0);
    }

    #[test]
    fn mean_does_not_overflow() {
        let mut mean = Mean::of(f64::MAX);
        mean.push(f64::MAX);
        assert_eq!(mean.get(), f64::MAX);
    }

    fn of(values: &[f64]) -> Mean {
        let mut mean = Mean::of(values[0]);
        values[1..].iter().for_each(|v| mean.push(*v));
        mean
    }

    #[test]
    fn merged_means_are_the_mean_of_all() {
        let all = [1.0, 1e100, 1.0, -1e100, 4.0, 0.25, -7.5, 2.0];
        for cut in 1..all.len() {
            let mut mean = of(&all[..cut]);
            mean.merge(&Mean::from_parts(of(&all[cut..]).to_parts()));
            assert_eq!(mean.get(), of(&all).get(), "{cut}");
        }
    }

    #[test]
    fn merged_means_overflow_only_where_values_do() {
        const MAX: f64 = f64::MAX;
        for (a, b, mean) in [
            (&[MAX][..], &[MAX][..], MAX),
            (&[MAX, MAX], &[MAX, MAX], MAX),
            (&[MAX, MAX], &[2.0, 2.0], MAX / 2.0 + 1.0),
            (&[2.0, 2.0], &[MAX, MAX], MAX / 2.0 + 1.0),
            (&[f64::INFINITY], &[1.0], f64::INFINITY),
            (&[1.0], &[f64::NEG_INFINITY], f64::NEG_INFINITY),
        ] {
            let mut merged = of(a);
            merged.merge(&Mean::from_parts(of(b).to_parts()));
            assert_eq!(merged.get(), mean, "{a:?} {b:?}");
        }
        let mut merged = of(&[f64::INFINITY]);
        merged.merge(&of(&[f64::NEG_INFINITY]));
        assert!(merged.get().is_nan());
    }
}
