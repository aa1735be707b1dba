//! The buckets of one side of a histogram under construction.
//!
//! *Invariants:* indexes ascend strictly; indexes and cells have one length.
//!
//! *Not here:* what an index means (`model::buckets`), zero buckets and custom bounds (`accumulator`).

use std::iter::Peekable;

use super::cell::Cell;
use crate::model::Span;
use crate::model::buckets::indexed;

/// Buckets by index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Side<C> {
    at: Vec<i32>,
    cells: Vec<C>,
}

impl<C: Cell> Side<C> {
    /// The buckets that spans and counts describe.
    pub fn of(spans: &[Span], counts: &[f64]) -> Self {
        let mut at = Vec::with_capacity(counts.len());
        at.extend(indexed(spans, counts).map(|(at, _)| at));
        let cells = counts[..at.len()].iter().map(|c| C::of(*c)).collect();
        Self { at, cells }
    }

    /// Index and cell of each bucket, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (i32, C)> {
        self.at.iter().copied().zip(self.cells.iter().copied())
    }

    /// The cells.
    pub fn cells(&self) -> &[C] {
        &self.cells
    }

    /// Forgets the first `n` buckets.
    pub fn drop_first(&mut self, n: usize) {
        self.at.drain(..n);
        self.cells.drain(..n);
    }

    /// Changes every cell.
    pub fn map(&mut self, f: impl Fn(f64) -> f64) {
        self.cells.iter_mut().for_each(|c| *c = c.map(&f));
    }

    /// Moves buckets to other indexes, adding up those that meet; `to` must not descend.
    pub fn remap(&mut self, to: impl Fn(i32) -> i32) {
        let mut kept = 0;
        for i in 0..self.at.len() {
            let at = to(self.at[i]);
            if kept > 0 && self.at[kept - 1] == at {
                let cell = self.cells[i];
                self.cells[kept - 1].absorb(cell, 1.0);
                continue;
            }
            (self.at[kept], self.cells[kept]) = (at, self.cells[i]);
            kept += 1;
        }
        self.at.truncate(kept);
        self.cells.truncate(kept);
    }

    /// Adds `sign` times other buckets, in ascending order of index (one index may come several times).
    pub fn add(&mut self, other: impl Iterator<Item = (i32, C)>, sign: f64) {
        let (mut i, mut missing) = (0, Vec::<(i32, C)>::new());
        for (at, cell) in other {
            while i < self.at.len() && self.at[i] < at {
                i += 1;
            }
            if self.at.get(i) == Some(&at) {
                self.cells[i].absorb(cell, sign);
                continue;
            }
            match missing.last_mut() {
                Some((last, into)) if *last == at => into.absorb(cell, sign),
                _ => missing.push((at, cell.map(|v| sign * v))),
            }
        }
        if !missing.is_empty() {
            self.insert(&missing);
        }
    }

    /// Puts in buckets that are not there yet, from the back so that each one moves once.
    fn insert(&mut self, missing: &[(i32, C)]) {
        let mut from = self.at.len();
        let mut to = from + missing.len();
        self.at.resize(to, 0);
        self.cells.resize(to, C::of(0.0));
        for &(at, cell) in missing.iter().rev() {
            while from > 0 && self.at[from - 1] > at {
                (from, to) = (from - 1, to - 1);
                (self.at[to], self.cells[to]) = (self.at[from], self.cells[from]);
            }
            to -= 1;
            (self.at[to], self.cells[to]) = (at, cell);
        }
    }

    /// Spans and counts without empty buckets.
    pub fn into_spans(self) -> (Vec<Span>, Vec<f64>) {
        let (mut spans, mut counts, mut next) = (Vec::<Span>::new(), Vec::with_capacity(self.at.len()), 0i32);
        for (at, cell) in self.iter() {
            let count = cell.value();
            if count == 0.0 {
                continue;
            }
            match spans.last_mut() {
                Some(span) if at == next => span.length += 1,
                _ => spans.push(Span { offset: at.saturating_sub(next), length: 1 }),
            }
            counts.push(count);
            next = at.saturating_add(1);
        }
        (spans, counts)
    }
}

/// How many times the resolution halves from one schema to another.
pub fn steps(from: i32, to: i32) -> u32 {
    from.saturating_sub(to).clamp(0, 31) as u32
}

/// The index of a bucket in a schema `by` steps coarser.
#[inline(always)]
pub fn coarser(at: i32, by: u32) -> i32 {
    (at.saturating_sub(1) >> by) + 1
}

/// Buckets in a schema `by` steps coarser: neighbours that meet are added up.
pub struct Coarser<I: Iterator> {
    inner: Peekable<I>,
    by: u32,
}

impl<C: Cell, I: Iterator<Item = (i32, C)>> Coarser<I> {
    /// Coarser buckets of ascending ones.
    pub fn of(inner: I, by: u32) -> Self {
        Self { inner: inner.peekable(), by }
    }
}

impl<C: Cell, I: Iterator<Item = (i32, C)>> Iterator for Coarser<I> {
    type Item = (i32, C);

    #[inline]
    fn next(&mut self) -> Option<(i32, C)> {
        let (at, mut cell) = self.inner.next()?;
        if self.by == 0 {
            return Some((at, cell));
        }
        let at = coarser(at, self.by);
        while let Some((_, more)) = self.inner.next_if(|(i, _)| coarser(*i, self.by) == at) {
            cell.absorb(more, 1.0);
        }
        Some((at, cell))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(pairs: &[(i32, f64)]) -> Side<f64> {
        Side { at: pairs.iter().map(|p| p.0).collect(), cells: pairs.iter().map(|p| p.1).collect() }
    }

    #[test]
    fn inserts_what_is_missing_anywhere() {
        let mut a = side(&[(2, 1.0), (5, 1.0)]);
        a.add([(1, 10.0), (2, 20.0), (3, 30.0), (3, 1.0), (9, 40.0)].into_iter(), -1.0);
        assert_eq!(a, side(&[(1, -10.0), (2, -19.0), (3, -31.0), (5, 1.0), (9, -40.0)]));
    }

    #[test]
    fn coarser_buckets_add_up() {
        // Buckets −1 and 0 end at 2^-1/2 and 1, 1 and 2 at √2 and 2.
        let fine = [(-1, 1.0), (0, 2.0), (1, 4.0), (2, 8.0)];
        assert_eq!(Coarser::of(fine.into_iter(), 1).collect::<Vec<_>>(), [(0, 3.0), (1, 12.0)]);
        let mut own = side(&fine);
        own.remap(|at| coarser(at, 1));
        assert_eq!(own, side(&[(0, 3.0), (1, 12.0)]));
    }
}
