//! The way of a query: parse, plan, read heads and blocks, evaluate; limits around it.
//!
//! *Invariants:* an answer is complete or an error. A query that began after an acknowledgement sees what it said.
//!
//! *Not here:* the language (`promql`), HTTP (`api`).

pub mod active;
pub mod blocks;
pub mod budget;
pub mod distribute;
pub mod evaluate;
pub mod frontend;
pub mod gather;
mod heads;
pub mod job;
pub mod leaf;
pub mod lookup;
pub mod merge;
pub mod metrics;
pub mod newest;
mod partitions;
mod pieces;
pub mod read;
pub mod remote;
pub mod results_cache;
pub mod search;
pub mod serve;
pub mod settled;
pub mod slow;
pub mod statistics;
#[cfg(test)]
mod tests;

pub use active::{Active, ActiveQueries, Job, QueryId, QueryKind};
pub use frontend::{Answered, Queries, QueryError, QueryOptions, QueryRequest};
pub use job::Done;
pub use leaf::Leaf;
pub use metrics::Metrics;
pub use newest::Newest;
pub use read::ReadQuery;
pub use remote::Remote;
pub use serve::HeadServer;
