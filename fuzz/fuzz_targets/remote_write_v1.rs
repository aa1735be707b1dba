#![no_main]
//! Remote write 1.0, against the generated types as an oracle.

#[path = "../checks/remote_write.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::remote_write_v1(data));
