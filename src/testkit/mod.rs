//! What tests share: builders, sources in memory and over a head and blocks, the PromQL script runner, the reference
//! evaluator, the simulator of a cluster.

pub mod golden;
pub mod memory_source;
pub mod reference;
pub mod script;
pub mod sim;
pub mod stored_source;

use std::path::PathBuf;

/// The directory of corpora and recorded data that are not part of the project: `METROLITH_SHARED`, by default
/// `../shared`. `None` (with one line of output) where there is none, so that a test that needs it passes; on CI
/// (`CI=true`) its absence is a failure.
pub fn shared() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("METROLITH_SHARED").unwrap_or_else(|| "../shared".into()));
    if dir.is_dir() {
        return Some(dir);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "shared test data is missing: {}", dir.display());
    println!("skipped: no shared test data at {} (set METROLITH_SHARED)", dir.display());
    None
}
