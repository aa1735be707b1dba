//! The way of a sample: decode, admit, distribute, log, apply, flush.
//!
//! *Invariants:* a request is acknowledged only when each of its samples is durable on a majority of its shard's replicas
//! or named as refused.
//!
//! *Not here:* consensus (`raft`), memory (`head`), files (`block`): they meet here and know nothing of each other.

pub mod admit;
pub mod answer;
pub mod codec;
pub mod decode;
pub mod distributor;
pub mod entry;
pub mod error;
pub mod exposition;
pub mod flush;
pub mod flush_block;
pub mod gate;
pub mod histogram_codec;
pub mod ingester;
pub mod metrics;
pub mod outcome;
pub mod pipeline;
pub mod queue;
pub mod receive;
pub mod reply;
pub mod route;
pub mod rows;
pub mod series_budget;
pub mod shard;
pub mod shards;

pub use error::IngestError;
pub use pipeline::Ingest;
pub use shards::Shards;
