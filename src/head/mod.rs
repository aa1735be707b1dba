//! One shard's recent samples of all tenants, in memory.
//!
//! *Invariants:* the state and every verdict depend on the sequence of calls alone (no clock, no randomness), so that
//! replicas that apply the same log hold the same head. Series ids ascend and are never given twice. A chunk belongs to
//! one generation of one window and never spans windows. No open chunk belongs to a closed generation.
//!
//! *Not here:* the log and who calls in which order (`ingest::shard`), writing blocks (`block`, `ingest::flush`),
//! locking (the owner puts a `RwLock` around the head; what `select` hands out is read outside of it).
#![doc = ""]
#![doc = include_str!("format.md")]

mod append;
mod arena;
mod by_labels;
mod cardinality;
mod core;
mod exemplars;
mod flush;
mod index;
mod metadata;
mod ooo;
mod part;
mod postings;
mod restore;
mod select;
mod series;
mod snapshot;
mod window;

pub use append::Verdict;
pub use core::{Head, HeadOptions, Stats, TenantIdx, TenantStats};
pub use exemplars::SeriesExemplars;
pub use flush::{TenantWindow, WindowSeries, WindowSnapshot};
pub use part::{HeadPart, PartReader, Want};
pub use restore::RestoreError;
pub use select::HeadSeries;
pub use snapshot::HeadSnapshot;
pub use window::{WindowInfo, WindowState};

#[cfg(test)]
mod tests;
