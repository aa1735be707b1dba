//! Upstream wire formats, generated from `proto/vendor`.
//!
//! *Invariants:* these types are for encoding (load generator, self-monitoring, remote read) and as the oracle of tests.
//!
//! *Not here:* decoding of write requests (`ingest::decode`, by hand: seven times faster than these types).

/// Remote write 1.0 and remote read.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod prometheus {
    include!(concat!(env!("OUT_DIR"), "/prometheus.rs"));
}

/// Remote write 2.0.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod write_v2 {
    include!(concat!(env!("OUT_DIR"), "/io.prometheus.write.v2.rs"));
}
