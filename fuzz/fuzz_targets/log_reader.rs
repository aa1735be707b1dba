#![no_main]
//! The log of a node, from arbitrary segments.

#[path = "../checks/log.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checks::log_reader(data);
});
