//! What the end-to-end tests share: real programs on free loopback ports, in directories of their own.
//!
//! *Invariants:* a program started here is ended here, by its own id, also when a test fails. A missing tool is a failure
//! with `CI=true`, and else one printed line and a test that passes.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code, of which each binary uses its own part"
)]

pub mod cluster;
pub mod http;
pub mod memory;
pub mod node;
pub mod program;
pub mod prometheus;
pub mod python;
pub mod s3;
pub mod writer;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metrolith::env::{Clock, SystemClock};

/// Root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program from `PATH`, or from `target/tools` where `scripts/tools.sh` puts it.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fetched = ["root/usr/bin", "venv/bin"].map(|dir| root().join("target/tools").join(dir));
    let found = std::env::split_paths(&path).chain(fetched).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        missing(name);
    }
    found
}

/// Says that a test cannot run without `name`; where it must, fails.
pub fn missing(name: &str) {
    let said = format!("{name} is missing: run scripts/tools.sh (make tools)");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{said}");
    println!("skipped, {said}");
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Wall time, milliseconds.
pub fn now_ms() -> i64 {
    SystemClock::new().now_ms()
}

/// Asks again and again until there is an answer; `what` is said when there is none within `patience`.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, patience: Duration, mut ask: impl FnMut() -> F) -> T {
    let clock = SystemClock::new();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(clock.monotonic() < patience, "waited {patience:?} for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
