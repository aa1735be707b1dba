#![no_main]
//! Files of a block.

#[path = "../checks/block.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(
    init: {
        // libFuzzer's hook aborts at any panic; those of the `parquet` crate are caught by the reader and are no finding.
        // One that is not caught still ends the run.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map_or("", |l| l.file());
            if !["/parquet-", "/arrow-"].iter().any(|of| place.contains(of)) {
                eprintln!("{panic}");
            }
        }));
    },
    |data: &[u8]| {
    checks::block_reader(data);
}
);
