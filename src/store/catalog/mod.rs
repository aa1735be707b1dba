#![doc = include_str!("../format.md")]
//!
//! A tenant's table as a Delta Lake log in the bucket.
//!
//! *Invariants:* the bytes of a version never change once decided; writing them is a copy that may be repeated by anyone.
//! A [`TableSnapshot`] never changes: a newer version is a new snapshot.
//!
//! *Not here:* which version comes next (`meta::state`).

pub mod actions;
pub mod checkpoint;
pub mod log;
pub mod snapshot;
pub mod tables;

pub use actions::{AddFile, BlockTags, FileStats, RemoveFile, TableSchema};
pub use log::{Written, write_version};
pub use snapshot::{Block, BlockFile, TableSnapshot};
pub use tables::Tables;

#[cfg(test)]
mod tests;
