//! Meta: the small replicated state that says who and where, and which version of a table holds what.
//!
//! *Invariants:* no sample and no list of blocks lives here: of each table only its version, the last transaction per
//! application, and the commits on their way to the bucket. The data path reads a published view and never waits on meta.
//!
//! *Not here:* consensus (`raft`), the bucket (`store`).

pub mod client;
pub mod codec;
pub mod command;
pub mod copier;
pub mod machine;
pub mod metrics;
pub mod rebuild;
pub mod shard_map;
pub mod state;
pub mod sweep;

pub use client::Client;
pub use command::{Answer, Command, Commit, Committed, Init, Node, Refusal, RestoredTable, TableCommit};
pub use copier::Copier;
pub use machine::{Machine, Views};
pub use metrics::Metrics;
pub use shard_map::ShardMap;
pub use state::{ClusterId, State, Table};
