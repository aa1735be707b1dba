//! Bytes that released nodes have written, kept as files: logs, snapshots and messages of theirs are read forever.
//!
//! *Invariants:* a file that exists is never changed by a test. A format that changes gets a new version and a new file
//! beside the old one.

use std::path::PathBuf;

/// The bytes kept as `name` in `tests/golden`. `now` are those that this code writes for the same thing: they must be equal.
/// `METROLITH_GOLDEN=write` keeps them if nothing is kept yet.
pub fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var("METROLITH_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(&path, now).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let kept =
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; METROLITH_GOLDEN=write makes it", path.display()));
    assert!(kept == now, "{name} is written differently now: nodes of the release before cannot read it");
    kept
}
