#![no_main]
//! Snapshots of a head.

#[path = "../checks/head.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checks::head_snapshot(data);
});
