//! The edges: HTTP for clients, gRPC for other nodes; the one place that knows status codes.
//!
//! *Invariants:* nothing below this module names a status code or a header; nothing here decides about samples.
//!
//! *Not here:* evaluation (`query`), ingestion (`ingest`).

pub mod grpc;
pub mod http;
