//! A native histogram to which others are added.
//!
//! *Invariants:* exponential histograms of different resolution meet at the lower one, zero buckets at the wider one,
//! custom buckets at the bounds both have. Exponential and custom buckets never meet. Nothing is allocated where the
//! buckets of what is added are there already.
//!
//! *Not here:* means (`mean`), how numbers are added (`cell`).

use super::cell::Cell;
use super::side::{Coarser, Side, coarser, steps};
use crate::model::buckets::{exponential_bound, indexed};
use crate::model::histogram::CUSTOM_BUCKETS_SCHEMA;
use crate::model::{Histogram, ResetHint};

/// Exponential and custom buckets cannot be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncompatibleSchemas;

/// What there is to say about an addition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// One operand is known to be a reset and the other known not to be.
    pub hints_clash: bool,
    /// Custom bounds differed and were cut down to the common ones.
    pub bounds_reconciled: bool,
}

/// A histogram under construction.
#[derive(Debug, Clone)]
pub struct Accumulator<C> {
    reset_hint: ResetHint,
    schema: i32,
    zero_threshold: f64,
    zero: C,
    count: C,
    sum: C,
    positive: Side<C>,
    negative: Side<C>,
    bounds: Vec<f64>,
}

impl<C: Cell> Accumulator<C> {
    /// Begins with a histogram.
    pub fn of(h: &Histogram) -> Self {
        Self {
            reset_hint: h.reset_hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero: C::of(h.zero_count),
            count: C::of(h.count),
            sum: C::of(h.sum),
            positive: Side::of(&h.positive_spans, &h.positive),
            negative: Side::of(&h.negative_spans, &h.negative),
            bounds: h.custom_values.clone(),
        }
    }

    /// Adds a histogram, or subtracts it (`sign` is −1).
    pub fn add(&mut self, h: &Histogram, sign: f64) -> Result<Added, IncompatibleSchemas> {
        let custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
        if custom != h.is_custom() {
            return Err(IncompatibleSchemas);
        }
        let hints_clash = hints_clash(self.reset_hint, h.reset_hint);
        self.reset_hint = combined_hint(self.reset_hint, h.reset_hint);
        self.count.absorb(C::of(h.count), sign);
        self.sum.absorb(C::of(h.sum), sign);
        let bounds_reconciled = custom && self.reconcile_bounds(h);
        if custom {
            let bounds = (&h.custom_values, &self.bounds);
            let cells = indexed(&h.positive_spans, &h.positive).map(|(at, c)| (at, C::of(c)));
            if bounds_reconciled {
                self.positive.add(cells.map(|(at, c)| (to_common(at, bounds.0, bounds.1), c)), sign);
            } else {
                self.positive.add(cells, sign);
            }
        } else {
            self.add_exponential(h, sign);
        }
        Ok(Added { hints_clash, bounds_reconciled })
    }

    fn add_exponential(&mut self, h: &Histogram, sign: f64) {
        let zero = self.reconcile_zero(h);
        self.zero.absorb(zero.cell, sign);
        self.reduce_to(h.schema);
        let by = steps(h.schema, self.schema);
        // Without buckets that became part of the zero bucket.
        let cells = |spans, counts, skip| indexed(spans, counts).skip(skip).map(|(at, c)| (at, C::of(c)));
        self.positive.add(Coarser::of(cells(&h.positive_spans, &h.positive, zero.positive), by), sign);
        self.negative.add(Coarser::of(cells(&h.negative_spans, &h.negative, zero.negative), by), sign);
    }

    /// Lowers the resolution to that of `schema`, if it is higher.
    pub fn reduce_to(&mut self, schema: i32) {
        if self.schema == CUSTOM_BUCKETS_SCHEMA || schema >= self.schema {
            return;
        }
        let by = steps(self.schema, schema);
        self.positive.remap(|at| coarser(at, by));
        self.negative.remap(|at| coarser(at, by));
        self.schema = schema;
    }

    /// Cuts custom bounds down to those that `h` has too; whether any differed.
    fn reconcile_bounds(&mut self, h: &Histogram) -> bool {
        if self.bounds == h.custom_values {
            return false;
        }
        let common: Vec<f64> = self.bounds.iter().copied().filter(|b| h.custom_values.contains(b)).collect();
        self.positive.remap(|at| to_common(at, &self.bounds, &common));
        self.bounds = common;
        true
    }

    /// Widens the own zero bucket until that of `h` fits; returns what the one of `h` would be.
    fn reconcile_zero(&mut self, h: &Histogram) -> Zero<C> {
        let mut other = Zero { threshold: h.zero_threshold, cell: C::of(h.zero_count), positive: 0, negative: 0 };
        loop {
            if self.zero_threshold > other.threshold {
                other = zero_of(h, self.zero_threshold);
            } else if other.threshold > self.zero_threshold {
                let own =
                    widened(self.zero, other.threshold, self.schema, || self.positive.iter(), || self.negative.iter());
                (self.zero, self.zero_threshold) = (own.cell, own.threshold);
                self.positive.drop_first(own.positive);
                self.negative.drop_first(own.negative);
            } else {
                // They meet, or one of them is no number and never will.
                return other;
            }
        }
    }

    /// Multiplies or divides everything.
    pub fn map(&mut self, f: impl Fn(f64) -> f64) {
        (self.zero, self.count, self.sum) = (self.zero.map(&f), self.count.map(&f), self.sum.map(&f));
        self.positive.map(&f);
        self.negative.map(&f);
    }

    /// Whether any number has become infinite.
    pub fn overflows(&self) -> bool {
        let buckets = self.positive.cells().iter().chain(self.negative.cells());
        [self.zero, self.count, self.sum].iter().chain(buckets).any(|c| c.raw().is_infinite())
    }

    /// Observations so far.
    pub fn count(&self) -> f64 {
        self.count.value()
    }

    /// The histogram, without empty buckets.
    pub fn finish(self) -> Histogram {
        let (positive_spans, positive) = self.positive.into_spans();
        let (negative_spans, negative) = self.negative.into_spans();
        Histogram {
            integer: false,
            schema: self.schema,
            reset_hint: self.reset_hint,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero.value(),
            count: self.count.value(),
            sum: self.sum.value(),
            positive_spans,
            positive,
            negative_spans,
            negative,
            custom_values: self.bounds,
        }
    }
}

/// One of two histograms is known to follow a reset and the other known not to.
fn hints_clash(a: ResetHint, b: ResetHint) -> bool {
    use ResetHint::{NotReset, Reset};
    matches!((a, b), (Reset, NotReset) | (NotReset, Reset))
}

/// What is known of a reset in a sum.
fn combined_hint(a: ResetHint, b: ResetHint) -> ResetHint {
    match (a, b) {
        _ if a == b => a,
        (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    }
}

/// The bucket among fewer bounds that takes in a bucket of `bounds`.
fn to_common(at: i32, bounds: &[f64], common: &[f64]) -> i32 {
    let upper = bounds.get(at.max(0) as usize).copied().unwrap_or(f64::INFINITY);
    common.partition_point(|bound| *bound < upper) as i32
}

/// A zero bucket made wider.
pub(super) struct Zero<C> {
    /// How far it reaches.
    pub threshold: f64,
    /// Observations.
    pub cell: C,
    /// How many positive buckets are part of it.
    positive: usize,
    /// How many negative ones.
    negative: usize,
}

/// What the zero bucket of `h` would be if it reached to `threshold` (at least as far as it does), or to the end of the
/// populated bucket that lies there.
pub(super) fn zero_of<C: Cell>(h: &Histogram, threshold: f64) -> Zero<C> {
    let cells = |spans, counts| indexed(spans, counts).map(|(at, c)| (at, C::of(c)));
    let positive = || cells(&h.positive_spans, &h.positive);
    widened(C::of(h.zero_count), threshold, h.schema, positive, || cells(&h.negative_spans, &h.negative))
}

fn widened<C: Cell, P: Iterator<Item = (i32, C)>, N: Iterator<Item = (i32, C)>>(
    zero: C,
    threshold: f64,
    schema: i32,
    positive: impl Fn() -> P,
    negative: impl Fn() -> N,
) -> Zero<C> {
    let mut wide = threshold;
    loop {
        let mut cell = zero;
        let positive = swallow(positive(), schema, &mut wide, &mut cell);
        let before = wide;
        let negative = swallow(negative(), schema, &mut wide, &mut cell);
        // Where the negative side made it wider, more positive buckets may belong to it.
        if wide <= before || before.is_nan() {
            return Zero { threshold: wide, cell, positive, negative };
        }
    }
}

/// Takes buckets that begin before `wide` into the zero bucket; a populated one that goes beyond makes it wider.
fn swallow<C: Cell>(side: impl Iterator<Item = (i32, C)>, schema: i32, wide: &mut f64, zero: &mut C) -> usize {
    let mut swallowed = 0;
    for (at, cell) in side {
        if exponential_bound(at.saturating_sub(1), schema) >= *wide {
            break;
        }
        zero.absorb(cell, 1.0);
        swallowed += 1;
        let upper = exponential_bound(at, schema);
        if upper > *wide {
            if cell.raw() != 0.0 {
                *wide = upper;
            }
            break;
        }
    }
    swallowed
}
