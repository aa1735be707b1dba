//! Sorting of many series, with a way out.
//!
//! *Invariants:* stable. Between two looks at the cancellation there are at most [`RUN`] elements' worth of comparisons.
//!
//! *Not here:* the orders (`functions::label`, `functions::quantile`).

use std::cmp::Ordering;

use super::control::Budget;
use super::error::Error;

/// Elements sorted in one go.
const RUN: usize = 8192;

/// Sorts `items`; ends early when the query is to stop.
pub fn sorted<T>(
    mut items: Vec<T>,
    compare: impl Fn(&T, &T) -> Ordering,
    budget: &mut Budget,
) -> Result<Vec<T>, Error> {
    if items.len() <= RUN {
        items.sort_by(compare);
        return Ok(items);
    }
    // Two lists of places, and the items once more where they end up.
    budget.room(items.len() * (2 * size_of::<u32>() + size_of::<Option<T>>()))?;
    let by_place = |a: &u32, b: &u32| compare(&items[*a as usize], &items[*b as usize]);
    let mut places: Vec<u32> = (0..items.len() as u32).collect();
    for run in places.chunks_mut(RUN) {
        budget.check()?;
        run.sort_by(by_place);
    }
    let mut width = RUN;
    let mut merged = Vec::with_capacity(places.len());
    while width < places.len() {
        for pair in places.chunks(2 * width) {
            let (left, right) = pair.split_at(width.min(pair.len()));
            merge(left, right, by_place, &mut merged, budget)?;
        }
        std::mem::swap(&mut places, &mut merged);
        merged.clear();
        width *= 2;
    }
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    Ok(places.into_iter().filter_map(|place| items[place as usize].take()).collect())
}

/// Appends two sorted runs as one.
fn merge(
    mut left: &[u32],
    mut right: &[u32],
    compare: impl Fn(&u32, &u32) -> Ordering,
    out: &mut Vec<u32>,
    budget: &Budget,
) -> Result<(), Error> {
    while let ([a, after_a @ ..], [b, after_b @ ..]) = (left, right) {
        if out.len().is_multiple_of(RUN) {
            budget.check()?;
        }
        if compare(a, b).is_le() {
            out.push(*a);
            left = after_a;
        } else {
            out.push(*b);
            right = after_b;
        }
    }
    out.extend_from_slice(left);
    out.extend_from_slice(right);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::control::{CancelToken, Limits};
    use super::*;

    #[test]
    fn many_items_end_up_as_a_stable_sort_leaves_them() {
        let mut budget = Budget::new(Limits::default(), &CancelToken::default(), None);
        for n in [0u64, 1, RUN as u64, RUN as u64 + 1, 5 * RUN as u64 + 3] {
            let items: Vec<(u64, u64)> = (0..n).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54, i)).collect();
            let mut want = items.clone();
            want.sort_by_key(|i| i.0);
            assert_eq!(sorted(items, |a, b| a.0.cmp(&b.0), &mut budget).unwrap(), want);
        }
    }

    #[test]
    fn a_cancelled_sort_ends_soon() {
        let cancel = CancelToken::default();
        let mut budget = Budget::new(Limits::default(), &cancel, None);
        let (seen, limit) = (Cell::new(0), 20 * RUN);
        let compare = |a: &u32, b: &u32| {
            seen.set(seen.get() + 1);
            if seen.get() == limit {
                cancel.cancel();
            }
            b.cmp(a)
        };
        let items: Vec<u32> = (0..40 * RUN as u32).map(|i| i.wrapping_mul(0x9E37_79B9)).collect();
        assert!(matches!(sorted(items, compare, &mut budget), Err(Error::Cancelled)));
        assert!(seen.get() < limit + 20 * RUN, "{}", seen.get());
    }
}
