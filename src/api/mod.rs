//! The edges: HTTP; the one place that knows status codes.
//!
//! *Invariants:* nothing below this module names a status code or a header; nothing here decides about samples.
//!
//! *Not here:* evaluation (`query`), ingestion (`ingest`).

pub mod http;
