//! What queries may hold: bytes of one query, and of all queries of the node.
//!
//! *Invariants:* bytes are charged when samples are taken from storage and given back when the query's source is dropped;
//! a charge that would exceed either bound fails and names the figures.
//!
//! *Not here:* columns made while evaluating (`promql::exec::control`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Kind};

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
    limit: u64,
}

impl QueryBudget {
    /// A budget of `limit` bytes within the node's.
    pub fn new(node: Arc<NodeBudget>, limit: u64) -> Self {
        Self { node, held: AtomicU64::new(0), limit }
    }

    /// Takes `bytes` until the query ends.
    pub fn charge(&self, bytes: u64) -> Result<(), Error> {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.node.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > self.limit {
            let limit = self.limit;
            return Err(Error::new(
                Kind::Limited,
                format!("query holds {held} bytes of samples, query.max_bytes is {limit}"),
            ));
        }
        if all > self.node.limit {
            let limit = self.node.limit;
            let what =
                format!("queries of this node hold {all} bytes, query.max_total_bytes is {limit}: try again later");
            return Err(Error::new(Kind::Limited, what));
        }
        Ok(())
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

    #[test]
    fn a_query_over_either_bound_fails_and_its_bytes_come_back() {
        let node = NodeBudget::new(100);
        let one = QueryBudget::new(Arc::clone(&node), 60);
        one.charge(60).unwrap();
        assert!(one.charge(1).unwrap_err().message.contains("query.max_bytes is 60"));
        let two = QueryBudget::new(Arc::clone(&node), 60);
        assert!(two.charge(50).unwrap_err().message.contains("query.max_total_bytes is 100"));
        drop((one, two));
        assert_eq!(node.held.load(Ordering::Relaxed), 0);
    }
}
