#![no_main]
//! Entries of a shard.

#[path = "../checks/entry.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checks::shard_entry(data);
});
