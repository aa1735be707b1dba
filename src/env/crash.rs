//! Crash points: places where a test may stop the process as if the power had gone.
//!
//! *Invariants:* without `METROLITH_CRASH_AT` in the environment a point is one atomic load.
//!
//! *Not here:* crashes of the simulated disk (`env::disk`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// `name` or `name:n` (the n-th time the point is passed, from 1).
const VARIABLE: &str = "METROLITH_CRASH_AT";

struct Plan {
    name: String,
    left: AtomicU64,
}

/// Aborts the process if the environment asks for a crash here.
pub fn point(name: &str) {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let plan = PLAN.get_or_init(|| {
        let wish = std::env::var(VARIABLE).ok()?;
        let (name, n) = wish.split_once(':').unwrap_or((&wish, "1"));
        Some(Plan { name: name.to_owned(), left: AtomicU64::new(n.parse().unwrap_or(1)) })
    });
    if let Some(plan) = plan
        && plan.name == name
        && plan.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        eprintln!("crash point {name} reached, aborting as {VARIABLE} asks");
        std::process::abort();
    }
}
