//! Blocks: the Parquet files of one flush, written and read.
//!
//! *Invariants:* equal input gives equal bytes; what was pushed comes back bit for bit; bytes that no writer made give
//! [`Error::Corrupt`], never a panic. The layout is in [`format`](mod@format).
//!
//! *Not here:* names and paths of files, the catalog, caching, retries (`store`); merging blocks (`compact`).

pub mod decimal;
pub mod order;
pub mod schema;

mod claims;
mod delta;
mod directory;
mod encoding;
mod error;
mod fetch;
mod histograms;
mod index;
mod levels;
mod packed;
mod pages;
mod reader;
mod samples;
mod select;
mod series;
mod sizes;
mod slices;
mod thrift;
mod timelines;
mod writer;

#[cfg(test)]
mod tests;

#[doc = include_str!("format.md")]
pub mod format {}

pub use error::{Error, Result};
pub use packed::PackedSeries;
pub use reader::{BlockReader, BlockSeries, FileRef};
pub use schema::Kind;
pub use sizes::{ColumnSize, FileSizes};
pub use writer::{Block, BlockFile, BlockWriter, FileStats, SeriesInput, WriterOptions};
