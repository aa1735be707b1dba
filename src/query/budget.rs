//! What queries may hold: bytes of one query, and of all queries of the node.
//!
//! *Invariants:* bytes are charged when they are taken from storage and given back when the query is over; a charge that
//! would exceed either bound fails and names the figures. A query that is to stop gets no more bytes.
//!
//! *Not here:* columns made while evaluating (`promql::exec::control`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, HasKind, Kind};
use crate::promql::exec::control::CancelToken;

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
        self.cancel.check().map_err(|e| Error::new(e.kind(), e.to_string()))?;
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.node.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(held, Ordering::Relaxed);
        if held > self.limit {
            let limit = self.limit;
            return Err(Error::new(Kind::Limited, format!("query holds {held} bytes, query.max_bytes is {limit}")));
        }
        if all > self.node.limit {
            let limit = self.node.limit;
            let what =
                format!("queries of this node hold {all} bytes, query.max_total_bytes is {limit}: try again later");
            return Err(Error::new(Kind::Limited, what));
        }
        Ok(())
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

    /// Most bytes held so far.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
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
    fn a_cancelled_query_gets_no_more_bytes() {
        let cancel = CancelToken::default();
        let one = QueryBudget::new(NodeBudget::new(100), 100, cancel.clone());
        one.charge(1).unwrap();
        cancel.cancel();
        assert_eq!(one.charge(1).unwrap_err().kind, Kind::Cancelled);
        assert_eq!(one.held(), 1);
    }
}
