//! What functions compute: kernels over slices and single values, without any notion of a query.
//!
//! *Invariants:* pure. Results over floats are those of Prometheus, operation for operation.
//!
//! *Not here:* names and types (`signature`), evaluation over series (`exec`).

pub mod histogram_extended;
pub mod histogram_range;
pub mod kahan;
pub mod label;
pub mod math;
pub mod over_time;
pub mod quantile;
pub mod rate;
pub mod regression;
pub mod time;
pub mod window;
