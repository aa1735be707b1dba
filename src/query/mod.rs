//! The way of a query: parse, plan, read heads and blocks, evaluate; limits around it.
//!
//! *Invariants:* an answer is complete or an error. A query that began after an acknowledgement sees what it said.
//!
//! *Not here:* the language (`promql`), HTTP (`api`).

pub mod blocks;
pub mod budget;
pub mod frontend;
pub mod gather;
pub mod leaf;
pub mod merge;
pub mod metrics;

pub use frontend::{Answered, Queries, QueryError, QueryOptions, QueryRequest, Timings};
pub use leaf::Leaf;
pub use metrics::Metrics;
