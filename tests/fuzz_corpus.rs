//! Every kept fuzz input passes the checks of its target, on stable and without a fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

#[path = "../fuzz/checks.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seen = 0;
    for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("list {}: {e}", dir.display())) {
        let path = entry.unwrap().path();
        // The name of the input stands above the panic, should there be one.
        println!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
        seen += 1;
    }
    assert!(seen > 0, "no inputs in {}", dir.display());
}

#[test]
fn remote_write_v1() {
    replay("remote_write_v1", checks::remote_write_v1);
}

#[test]
fn remote_write_v2() {
    replay("remote_write_v2", checks::remote_write_v2);
}
