//! Many seeds of the simulated cluster, each in a process of its own.
//!
//! `METROLITH_SEED=K` runs one and prints its trace; `METROLITH_SEEDS=N` runs N, beginning with `METROLITH_FIRST_SEED`.
//! Without either a short run and the seeds kept in `chaos/seeds.txt`. `METROLITH_SIM_SECONDS` is how long faults go on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code, helpers included")]

use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use metrolith::testkit::sim::{Options, Outcome, Planted, run};

/// Seeds of a run that nobody asked more of.
const SEEDS: u64 = 100;
const SECONDS: u64 = 5;

/// What the standard library asks for the keys of its hash maps, answered in place of libc's: always the same. tokio takes
/// its own randomness from there (which of several waiting tasks is woken first), and can be given a seed only by a flag
/// for the compiler.
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the standard library asks through a C interface, a weak symbol meant to be replaced")]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if !buffer.is_null() && length > 0 {
        // SAFETY: the caller owns `length` bytes at `buffer`.
        unsafe { std::ptr::write_bytes(buffer, 0x5A, length) };
    }
    length as isize
}

fn number<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn seconds() -> u64 {
    number("METROLITH_SIM_SECONDS").unwrap_or(SECONDS)
}

fn simulate(options: Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let outcome = runtime.block_on(run(options));
    // What still waits would be dropped in an order of tokio's own; nothing looks any more.
    std::mem::forget(runtime);
    outcome
}

/// What one process says of its seed: the trace, then what was violated.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    seed: u64,
    trace: String,
    acked: u64,
    violations: Vec<String>,
}

/// Runs a seed in a process of its own.
fn elsewhere(seed: u64, seconds: u64, planted: &str) -> Verdict {
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_seed", "--nocapture"])
        .env("METROLITH_SEED", seed.to_string())
        .env("METROLITH_SIM_SECONDS", seconds.to_string())
        .env("METROLITH_SIM_PLANTED", planted)
        .env("METROLITH_SIM_QUIET", "1")
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let lines = |prefix: &str| text.lines().filter_map(|l| l.strip_prefix(prefix)).map(str::to_owned).collect();
    let (trace, acked): (Vec<String>, Vec<String>) = (lines("trace "), lines("acked "));
    let mut violations: Vec<String> = lines("violated ");
    if trace.is_empty() {
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        violations.push(format!("crashed: {}", said.lines().take(6).collect::<Vec<_>>().join(" | ")));
    }
    let acked = acked.concat().parse().unwrap_or(0);
    Verdict { seed, trace: trace.concat(), acked, violations }
}

/// Runs seeds on all processors, in order; their verdicts in that order.
fn all(seeds: &[u64], seconds: u64, planted: &str) -> Vec<Verdict> {
    let (next, verdicts) = (AtomicU64::new(0), parking_lot::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let verdict = elsewhere(*seed, seconds, planted);
                    verdicts.lock().push(verdict);
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner();
    verdicts.sort_by_key(|v| v.seed);
    verdicts
}

/// Seeds that failed once, with the seconds they ran.
fn kept() -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string("chaos/seeds.txt").unwrap();
    let lines = text.lines().map(|l| l.split('#').next().unwrap().trim()).filter(|l| !l.is_empty());
    lines.map(|l| l.split_once(' ').unwrap()).map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect()
}

/// One seed in this process; without `METROLITH_SEED` there is nothing to do.
#[test]
fn one_seed() {
    let Some(seed) = number("METROLITH_SEED") else { return };
    let planted = std::env::var("METROLITH_SIM_PLANTED").unwrap_or_default();
    let planted = Planted::ALL.iter().find(|(name, _)| *name == planted).map(|(_, planted)| *planted);
    let quiet = std::env::var_os("METROLITH_SIM_QUIET").is_some();
    let outcome = simulate(Options { seed, seconds: seconds(), planted, print: !quiet });
    println!("\ntrace {:016x}\nacked {}\nreads {}", outcome.trace, outcome.acked, outcome.reads);
    println!("faults {:?}", outcome.faults);
    outcome.violations.iter().for_each(|(invariant, how)| println!("violated {invariant}: {how}"));
    assert!(quiet || outcome.violations.is_empty());
}

#[test]
fn invariants_hold_for_every_seed() {
    if number::<u64>("METROLITH_SEED").is_some() {
        return;
    }
    let first: u64 = number("METROLITH_FIRST_SEED").unwrap_or(1);
    let seeds: Vec<u64> = (first..first + number("METROLITH_SEEDS").unwrap_or(SEEDS)).collect();
    let mut verdicts = all(&seeds, seconds(), "");
    for (seed, seconds) in kept() {
        verdicts.push(elsewhere(seed, seconds, ""));
    }
    let acked: u64 = verdicts.iter().map(|v| v.acked).sum();
    println!("{} seeds, {acked} samples acknowledged", verdicts.len());
    let failed: Vec<String> = verdicts
        .iter()
        .filter(|v| !v.violations.is_empty())
        .map(|v| format!("METROLITH_SEED={} {}", v.seed, v.violations.join("\n    ")))
        .collect();
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
    assert!(acked > 0, "nothing was written, so nothing was shown");
}

#[test]
fn a_seed_goes_the_same_way_every_time() {
    for seed in [3, 4] {
        let (once, again) = (elsewhere(seed, 5, ""), elsewhere(seed, 5, ""));
        assert_eq!(once, again);
        assert_ne!(once.trace, elsewhere(seed + 2, 5, "").trace);
    }
}

/// Seeds until a planted mistake is noticed by one of `invariants`.
fn noticed(planted: &str, invariants: &[&str]) {
    let seeds: Vec<u64> = (1..=40).collect();
    for some in seeds.chunks(4) {
        let verdicts = all(some, 10, planted);
        let said = verdicts.iter().flat_map(|v| &v.violations);
        if said.clone().any(|how| invariants.iter().any(|i| how.starts_with(i))) {
            return;
        }
    }
    panic!("{planted} goes unnoticed");
}

#[test]
fn an_answer_before_the_sync_is_noticed() {
    noticed("ack-before-sync", &["acked_samples_survive", "reads_see_acks"]);
}

#[test]
fn a_skipped_read_index_is_noticed() {
    noticed("skipped-read-index", &["reads_see_acks"]);
}

#[test]
fn a_vote_that_is_not_synced_is_noticed() {
    noticed("vote-not-synced", &["promises_are_kept", "leaders_are_elected"]);
}
