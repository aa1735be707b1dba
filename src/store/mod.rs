//! What the cluster shares: the bucket, its keys, the tables' catalogs, a cache of ranges, and the removal of orphans.
//!
//! *Invariants:* the bucket alone is enough to rebuild every table; `format.md` (in [`catalog`]'s documentation) says how.
//! Which version of a table holds what is decided by meta's Raft; this module only writes and reads what was decided.
//!
//! *Not here:* who decides (`meta`), what is inside a data file (`block`).

pub mod bucket;
pub mod cache;
pub mod catalog;
pub mod counted;
pub mod error;
#[cfg(test)]
pub mod faulty;
pub mod gc;
pub mod layout;
pub mod metrics;

pub use bucket::{Bucket, ConditionalPut};
pub use cache::{CacheConfig, CachedStore};
pub use catalog::{AddFile, RemoveFile, TableSnapshot, Tables};
pub use counted::FetchStats;
pub use error::Error;
pub use metrics::Metrics;
