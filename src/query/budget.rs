//! What queries may hold: bytes of one query, and of all queries of the node.
//!
//! *Invariants:* bytes are charged when they are taken from storage and given back when the query is over; those of columns
//! ([`Meter`]) as soon as a column is gone. A charge that would exceed either bound fails, names the figures and changes
//! nothing. A query that is to stop gets no more bytes.
//!
//! *Not here:* which columns there are (`promql::exec::control`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, HasKind, Kind};
use crate::model::Stopped;
use crate::promql::exec::control::{CancelToken, Meter};

/// Bytes of all queries of the node.
#[derive(Debug)]
pub struct NodeBudget {
    held: AtomicU64,
    limit: u64,
}

impl NodeBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { held: AtomicU64::new(0), limit })
    }
}

/// Bytes of one query.
#[derive(Debug)]
pub struct QueryBudget {
    node: Arc<NodeBudget>,
    held: AtomicU64,
    peak: AtomicU64,
    limit: u64,
    cancel: CancelToken,
}

impl QueryBudget {
    /// A budget of `limit` bytes within the node's, until `cancel` says stop.
    pub fn new(node: Arc<NodeBudget>, limit: u64, cancel: CancelToken) -> Self {
        Self { node, held: AtomicU64::new(0), peak: AtomicU64::new(0), limit, cancel }
    }

    /// Takes `bytes` until the query ends.
    pub fn charge(&self, bytes: u64) -> Result<(), Error> {
        self.check()?;
        self.add(bytes)
    }

    /// An error once the query is to stop.
    pub fn check(&self) -> Result<(), Error> {
        self.cancel.check().map_err(|e| Error::new(e.kind(), e.to_string()))
    }

    /// For patterns: whether the query is to stop.
    pub fn stopped(&self) -> Stopped {
        let cancel = self.cancel.clone();
        Arc::new(move || cancel.check().is_err())
    }

    /// Gives back some of what was charged.
    pub fn release(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.node.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) -> Result<(), Error> {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.node.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let what = if held > self.limit {
            format!("query holds {held} bytes, query.max_bytes is {}", self.limit)
        } else if all > self.node.limit {
            let limit = self.node.limit;
            format!("queries of this node hold {all} bytes, query.max_total_bytes is {limit}: try again later")
        } else {
            self.peak.fetch_max(held, Ordering::Relaxed);
            return Ok(());
        };
        self.release(bytes);
        Err(Error::new(Kind::Limited, what))
    }

    /// The query read what it had to: gives back everything but `bytes`, which its answer takes.
    pub fn settle(&self, bytes: u64) {
        let before = self.held.swap(bytes, Ordering::Relaxed);
        // Added first: the total may be too high for a moment, and never wraps.
        self.node.held.fetch_add(bytes, Ordering::Relaxed);
        self.node.held.fetch_sub(before, Ordering::Relaxed);
        self.peak.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that it may still take.
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.held())
    }

    /// Most bytes held so far.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// Bytes charged at a time for many small things.
const STEP_BYTES: u64 = 256 << 10;

/// Charges many small things to a budget without a shared counter for each; what was charged too much comes back at the
/// end.
#[derive(Debug)]
pub struct Steps<'a> {
    budget: &'a QueryBudget,
    /// Charged and not used.
    ahead: u64,
}

impl<'a> Steps<'a> {
    /// Nothing is charged yet.
    pub fn new(budget: &'a QueryBudget) -> Self {
        Self { budget, ahead: 0 }
    }

    /// As [`QueryBudget::charge`].
    pub fn charge(&mut self, bytes: u64) -> Result<(), Error> {
        self.budget.check()?;
        if bytes > self.ahead {
            let missing = bytes - self.ahead;
            let step = missing.next_multiple_of(STEP_BYTES);
            // Near the limit there may be room for what is needed, and none for a whole step.
            self.ahead += match self.budget.add(step) {
                Ok(()) => step,
                Err(_) => self.budget.add(missing).map(|()| missing)?,
            };
        }
        self.ahead -= bytes;
        Ok(())
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        self.budget.release(self.ahead);
    }
}

impl Meter for QueryBudget {
    fn take(&self, bytes: usize) -> Result<(), Error> {
        self.add(bytes as u64)
    }

    fn give_back(&self, bytes: usize) {
        self.release(bytes as u64);
    }
}

impl Drop for QueryBudget {
    fn drop(&mut self) {
        self.node.held.fetch_sub(*self.held.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::exec::control::{Budget, Limits};

    fn budget(node: &Arc<NodeBudget>, limit: u64) -> QueryBudget {
        QueryBudget::new(Arc::clone(node), limit, CancelToken::default())
    }

    #[test]
    fn a_query_over_either_bound_fails_and_its_bytes_come_back() {
        let node = NodeBudget::new(100);
        let one = budget(&node, 60);
        one.charge(60).unwrap();
        assert!(one.charge(1).unwrap_err().message.contains("query.max_bytes is 60"));
        let two = budget(&node, 60);
        assert!(two.charge(50).unwrap_err().message.contains("query.max_total_bytes is 100"));
        drop((one, two));
        assert_eq!(node.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_answer_holds_less_than_what_it_was_made_of() {
        let node = NodeBudget::new(100);
        let one = budget(&node, 60);
        one.charge(60).unwrap();
        one.settle(5);
        assert_eq!((one.held(), one.peak(), node.held.load(Ordering::Relaxed)), (5, 60, 5));
        budget(&node, 95).charge(95).unwrap();
        drop(one);
        assert_eq!(node.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn columns_and_what_was_fetched_are_bounded_together() {
        let node = NodeBudget::new(1 << 30);
        let one = Arc::new(budget(&node, 10 << 20));
        one.charge(6 << 20).unwrap();
        let limits = Limits { max_bytes: 10 << 20, ..Limits::default() };
        let mut columns = Budget::new(limits, &CancelToken::default(), Some(one.clone()));
        columns.hold(0, 3 << 20).unwrap();
        let refused = columns.hold(0, 2 << 20).unwrap_err();
        assert!(refused.to_string().contains("query.max_bytes is 10485760"), "{refused}");
        drop(columns);
        assert_eq!((one.held(), node.held.load(Ordering::Relaxed)), (6 << 20, 6 << 20));
        assert!(one.peak() >= 9 << 20);
    }

    #[test]
    fn columns_of_one_query_are_missing_for_another() {
        let node = NodeBudget::new(4 << 20);
        let [one, two] = [0; 2].map(|_| Arc::new(budget(&node, 3 << 20)));
        let columns = |of: &Arc<QueryBudget>| Budget::new(Limits::default(), &CancelToken::default(), Some(of.clone()));
        let (mut first, mut second) = (columns(&one), columns(&two));
        first.hold(0, 3 << 20).unwrap();
        let refused = second.hold(0, 2 << 20).unwrap_err();
        assert!(refused.to_string().ends_with("query.max_total_bytes is 4194304: try again later"), "{refused}");
        drop(first);
        second.hold(0, 0).unwrap();
    }

    #[test]
    fn small_things_are_charged_in_steps_and_to_the_byte_in_the_end() {
        let node = NodeBudget::new(1 << 30);
        let one = budget(&node, 1 << 20);
        let mut steps = Steps::new(&one);
        (0..100).for_each(|_| steps.charge(10_000).unwrap());
        assert!(one.held() >= 1_000_000);
        assert!(steps.charge(50_000).unwrap_err().message.contains("query.max_bytes"));
        drop(steps);
        assert_eq!(one.held(), 1_000_000);
    }

    #[test]
    fn a_cancelled_query_gets_no_more_bytes() {
        let cancel = CancelToken::default();
        let one = QueryBudget::new(NodeBudget::new(100), 100, cancel.clone());
        one.charge(1).unwrap();
        cancel.cancel();
        assert_eq!(one.charge(1).unwrap_err().kind, Kind::Cancelled);
        assert_eq!(one.held(), 1);
    }
}
