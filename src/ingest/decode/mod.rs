//! From the bytes of a write request to a [`Batch`](crate::model::Batch).
//!
//! *Invariants:* any bytes give a batch or an error, never a panic, and never more memory than the limits say. A batch
//! holds canonical label sets and valid histograms only; what was left out is counted in its `Rejections`.
//!
//! *Not here:* limits of tenants and time (`ingest::admit`), HTTP (`api`).

mod assembly;
mod decoder;
mod error;
mod histogram;
mod labels;
mod pool;
mod protocol;
mod snappy;
mod v1;
mod v2;
mod wire;

pub use decoder::{DecodeLimits, Decoder};
pub use error::DecodeError;
pub use pool::{DecoderPool, PooledDecoder};
pub use protocol::{Protocol, UnsupportedMedia};
pub use wire::{Fault, WireError};

#[cfg(test)]
mod tests;
