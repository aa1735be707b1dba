//! Compaction: the many small blocks of a finished day become few large ones.
//!
//! *Invariants:* a compaction is one commit that removes what it adds again, so a reader sees every sample once before,
//! meanwhile and after. Nothing is compacted that can still change by ordinary means, and a block that cannot be read is
//! left out and reported; the rest of its day proceeds.
//!
//! *Not here:* the catalog (`store`), what decides (`meta`), removal of the files left behind (`store::gc`).

pub mod compactor;
pub mod error;
pub mod merge;
pub mod metrics;
pub mod plan;
#[cfg(test)]
mod tests;

pub use compactor::{CompactOptions, Compacted, Compactor};
pub use error::CompactError;
pub use metrics::Metrics;
