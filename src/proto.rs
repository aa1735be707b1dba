//! Wire formats: upstream's, generated from `proto/vendor` or by `prometheus-client`, which has them anyway, and our own.
//!
//! *Invariants:* upstream's types are for encoding (load generator, self-monitoring, remote read, federation) and as the oracle of tests.
//!
//! *Not here:* decoding of write requests (`ingest::decode`, by hand: seven times faster than these types).

/// The exposition format as messages.
pub use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as client;

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

/// What nodes of a cluster say to each other.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/metrolith.v1.rs"));
}
