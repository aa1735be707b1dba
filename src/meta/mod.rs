//! Meta: the small replicated state that says who and where, and which version of a table holds what.
//!
//! *Invariants:* no sample and no list of blocks lives here: of each table only its version, the last transaction per
//! application, and the commits on their way to the bucket. The data path reads a published view and never waits on meta.
//!
//! *Not here:* consensus (`raft`), the bucket (`store`).

pub mod answer;
pub mod client;
pub mod cluster;
pub mod codec;
pub mod command;
pub mod copier;
pub mod machine;
pub mod membership;
pub mod metrics;
pub mod placement;
pub mod rebuild;
pub mod shard_map;
mod snapshot;
pub mod state;
pub mod sweep;

pub use answer::{Answer, Committed, Refusal};
pub use client::Client;
pub use cluster::{META, Node, NodeStatus, Placement, shard_group, shard_of_group};
pub use command::{Command, Commit, Init, Join, RestoredTable, TableCommit};
pub use copier::Copier;
pub use machine::{Machine, Views};
pub use metrics::Metrics;
pub use shard_map::ShardMap;
pub use state::{ClusterId, State, Table};
