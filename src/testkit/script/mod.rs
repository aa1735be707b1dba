//! Test scripts of PromQL (`.test` files of Prometheus' `promqltest`): reading, running, comparing.
//!
//! *Invariants:* an eval passes or fails on its own; a script that cannot be read fails as a whole.
//!
//! *Not here:* the scripts (shared test data), which of them have to pass (`tests/promql_conformance.rs`).

pub mod compare;
pub mod nhcb;
pub mod parse;
pub mod run;
pub mod values;

pub use run::{Outcome, Storage, options, run_script, run_script_on, run_script_with};
