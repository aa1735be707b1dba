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
}
