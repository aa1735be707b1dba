#![no_main]
//! Queries as text: what is read is printed, and that reads as the same.

#[path = "../checks/promql.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::promql_parser(data));
