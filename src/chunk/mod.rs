//! Samples of one series over a short span, packed: floats and native histograms, with optional start timestamps.
//!
//! *Invariants:* a chunk is one self-describing run of bytes (`format.md`); its timestamps ascend strictly; decoding any
//! bytes ends in samples or in [`Error`], with memory bounded by the length of the input.
//!
//! *Not here:* which chunk a sample belongs to, windows, duplicates (`head`); long-term storage (`block`).
#![doc = ""]
#![doc = include_str!("format.md")]

pub mod bits;
pub mod error;
pub mod float;
pub mod histogram;
pub mod iter;
pub mod packed;
pub mod prometheus;
pub mod starts;

pub use error::Error;
pub use float::FloatEncoder;
pub use histogram::HistogramEncoder;
pub use iter::{ChunkCursor, merge};
pub use packed::{Chunk, ChunkKind};
pub use starts::StartRuns;

#[cfg(test)]
mod tests;
