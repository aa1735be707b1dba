//! Readers of the table from outside: Python with DuckDB and deltalake.

use std::path::PathBuf;
use std::process::Command;

use super::{missing, root};

/// A Python that has both, if there is one.
pub fn find() -> Option<PathBuf> {
    let fetched = root().join("target/tools/venv/bin/python");
    let found = [fetched, PathBuf::from("python3")].into_iter().find(|python| {
        let has = Command::new(python).args(["-c", "import duckdb, deltalake"]).output();
        has.is_ok_and(|out| out.status.success())
    });
    if found.is_none() {
        missing("Python with duckdb and deltalake");
    }
    found
}

/// Runs `tests/sql/<script>`; what it prints as JSON.
pub fn run(python: &PathBuf, script: &str, args: &[&str], env: &[(&str, &str)]) -> serde_json::Value {
    let mut command = Command::new(python);
    command.arg(root().join("tests/sql").join(script)).args(args).envs(env.iter().copied());
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script} {args:?} failed:\n{said}");
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{script} {args:?}: {e}\n{said}"))
}
