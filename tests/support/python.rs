//! Python programs: readers of the table with DuckDB and deltalake, clients of the API.

use std::path::PathBuf;
use std::process::Command;

use super::{missing, root};

/// A Python that reads tables, if there is one.
pub fn find() -> Option<PathBuf> {
    find_with("duckdb, deltalake")
}

/// A Python that has all of `modules`, if there is one.
pub fn find_with(modules: &str) -> Option<PathBuf> {
    let fetched = root().join("target/tools/venv/bin/python");
    let found = [fetched, PathBuf::from("python3")].into_iter().find(|python| {
        let has = Command::new(python).args(["-c", &format!("import {modules}")]).output();
        has.is_ok_and(|out| out.status.success())
    });
    if found.is_none() {
        missing(&format!("Python with {modules}"));
    }
    found
}

/// Runs `tests/<script>`; what it prints as JSON.
pub fn run(python: &PathBuf, script: &str, args: &[&str], env: &[(&str, &str)]) -> serde_json::Value {
    let mut command = Command::new(python);
    command.arg(root().join("tests").join(script)).args(args).envs(env.iter().copied());
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script} {args:?} failed:\n{said}");
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{script} {args:?}: {e}\n{said}"))
}
