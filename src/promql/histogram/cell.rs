//! A number that is added to, plainly or compensated.
//!
//! *Invariants:* plain cells are plain `f64` arithmetic, compensated ones Neumaier's in the order of `util/kahansum`.

use crate::promql::functions::kahan;

/// A number under construction.
pub trait Cell: Copy {
    /// A cell that holds `v`.
    fn of(v: f64) -> Self;

    /// Adds `sign` times another cell; `sign` is 1 or −1.
    fn absorb(&mut self, other: Self, sign: f64);

    /// Multiplies or divides all that is held.
    fn map(self, f: impl Fn(f64) -> f64) -> Self;

    /// The number as far as it is known, without compensation.
    fn raw(self) -> f64;

    /// The number.
    fn value(self) -> f64;

    /// Adds a number.
    #[inline(always)]
    fn add(&mut self, v: f64) {
        self.absorb(Self::of(v), 1.0);
    }
}

impl Cell for f64 {
    #[inline(always)]
    fn of(v: f64) -> Self {
        v
    }

    #[inline(always)]
    fn absorb(&mut self, other: Self, sign: f64) {
        *self += sign * other;
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        f(self)
    }

    fn raw(self) -> f64 {
        self
    }

    fn value(self) -> f64 {
        self
    }
}

/// A compensated sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compensated {
    sum: f64,
    c: f64,
}

impl Cell for Compensated {
    #[inline(always)]
    fn of(v: f64) -> Self {
        Self { sum: v, c: 0.0 }
    }

    #[inline(always)]
    fn absorb(&mut self, other: Self, sign: f64) {
        (self.sum, self.c) = kahan::add(sign * other.sum, self.sum, self.c);
        if other.c != 0.0 {
            (self.sum, self.c) = kahan::add(sign * other.c, self.sum, self.c);
        }
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { sum: f(self.sum), c: f(self.c) }
    }

    fn raw(self) -> f64 {
        self.sum
    }

    fn value(self) -> f64 {
        self.sum + self.c
    }
}
