//! Threads that help queries of a node.
//!
//! *Invariants:* all queries together never have more helpers than the node allows. A query takes what is free when it
//! begins to read series, possibly none, and gives it back when they are read; it never waits for a helper.
//!
//! *Not here:* what helpers do (`exec::parallel`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// From which amount of work on helpers are asked for, and how it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Series the query's own thread computes before anything else; they show what the others will cost.
    pub first: usize,
    /// Fewest series left for which helpers are worth it.
    pub fewest: usize,
    /// Fewest samples and steps left, taken together, for which helpers are worth it: about half a millisecond of work.
    pub least_work: usize,
    /// Series of a run, at least, if their columns are not too large.
    pub shortest_run: usize,
    /// Series of a run, at most: as many as blocks decode at a time.
    pub longest_run: usize,
}

impl Default for Cut {
    fn default() -> Self {
        Self { first: 16, fewest: 48, least_work: 100_000, shortest_run: 16, longest_run: 64 }
    }
}

/// The helpers of a node.
#[derive(Debug, Default)]
pub struct Helpers {
    free: AtomicUsize,
    /// How work is cut.
    pub cut: Cut,
}

impl Helpers {
    /// `count` helpers for all queries together.
    pub fn new(count: usize) -> Arc<Self> {
        Self::with_cut(count, Cut::default())
    }

    /// Helpers that are asked for any amount of work: to test with little data.
    pub fn eager(count: usize) -> Arc<Self> {
        Self::with_cut(count, Cut { first: 0, fewest: 1, least_work: 0, shortest_run: 1, longest_run: 2 })
    }

    fn with_cut(count: usize, cut: Cut) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(count), cut })
    }

    /// Up to `wanted` helpers that are free now.
    pub fn borrow(&self, wanted: usize) -> Borrowed<'_> {
        let take = |free: usize| Some(free - free.min(wanted));
        let free = match self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(free) | Err(free) => free,
        };
        Borrowed { from: self, count: free.min(wanted) }
    }
}

/// Helpers of one query until it gives them back.
#[derive(Debug)]
pub struct Borrowed<'a> {
    from: &'a Helpers,
    /// How many.
    pub count: usize,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.from.free.fetch_add(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_lent_until_there_are_none_and_come_back() {
        let helpers = Helpers::new(3);
        let one = helpers.borrow(2);
        let two = helpers.borrow(2);
        assert_eq!((one.count, two.count, helpers.borrow(1).count), (2, 1, 0));
        drop(one);
        assert_eq!(helpers.borrow(9).count, 2);
        drop(two);
        assert_eq!(helpers.borrow(9).count, 3);
    }
}
