//! Metrolith: a clustered long-term store for Prometheus metrics.
//!
//! This file is the table of contents, in the order of dependencies: a module imports only from modules above its own
//! (`tests/layering.rs` checks it). `docs/architecture.md` walks one sample and one query through them.

// Words and the outside world.
pub mod error;

pub mod model;

pub mod config;

pub mod telemetry;

pub mod env;

// Wires and pure computation.
pub mod proto;

pub mod peers;

pub mod chunk;

pub mod promql;

// One node's state; these never see each other.
pub mod raft;

pub mod head;

pub mod block;

// What the cluster shares.
pub mod store;

pub mod meta;

// Roles.
pub mod ingest;

pub mod compact;

pub mod query;

// Edges.
pub mod api;

pub mod node;

pub mod cli;

pub mod testkit;
