//! What a run came to: events as they happen, a verdict, a page to read.
//!
//! *Invariants:* valid means that faults of every kind happened, a leader was hit, and no promise was broken. What shows
//! nothing is unknown, never valid.
//!
//! *Not here:* what promises there are (`check`).

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::faults::Done;
use crate::gaps;
use crate::load::Seen;
use crate::schedule::{Kind, Profile};

/// Writes events, one JSON object per line, and shows them.
pub struct Events {
    file: File,
}

impl Events {
    /// Into `events.jsonl` of a directory.
    pub fn new(dir: &Path) -> Result<Self> {
        Ok(Self { file: File::create(dir.join("events.jsonl"))? })
    }

    /// Notes that something happened.
    pub fn note(&mut self, ms: u64, event: &str, what: Value) -> Result<()> {
        writeln!(self.file, "{}", json!({"ms": ms, "event": event, "what": what}))?;
        let shown = what.as_str().map_or_else(|| what.to_string(), str::to_owned);
        println!("{:>8.1} s  {event}: {shown}", ms as f64 / 1000.0);
        Ok(())
    }
}

/// A fault and its time.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What was done.
    pub done: Done,
    /// Milliseconds since the beginning.
    pub begin: u64,
    /// When it was undone and every node was ready.
    pub end: u64,
}

/// Everything a verdict is made of.
pub struct Findings<'a> {
    /// What was to be done.
    pub profile: &'a Profile,
    /// What decides it.
    pub seed: u64,
    /// What was done, in order.
    pub faults: &'a [Fault],
    /// Kinds left out, and why.
    pub left_out: &'a [(Kind, &'static str)],
    /// What clients saw.
    pub seen: &'a Seen,
    /// Samples acknowledged, of unknown outcome, never sent off.
    pub samples: (usize, usize, usize),
    /// Begin and end of the time with faults, milliseconds.
    pub span: (u64, u64),
    /// Why it was not carried through, if it was not.
    pub trouble: Option<String>,
    /// Whether every node was read in full at the end.
    pub checked: bool,
}

/// The word of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Faults happened, promises were kept.
    Valid,
    /// A promise was broken.
    Invalid,
    /// The run shows nothing.
    Unknown,
}

/// The verdict, its reasons, and the bars that were missed.
pub fn verdict(found: &Findings<'_>) -> (Word, Vec<String>, Vec<String>) {
    let missed = missed(found);
    if found.seen.broken > 0 {
        return (Word::Invalid, found.seen.violations.clone(), missed);
    }
    let mut reasons: Vec<String> = found.trouble.iter().cloned().collect();
    for kind in &found.profile.kinds {
        let left_out = found.left_out.iter().any(|(left, _)| left == kind);
        let happened = |fault: &&Fault| fault.done.kind == *kind && fault.done.evidence.is_some();
        let reason = format!("no {} was seen to happen", kind.name());
        if !left_out && !found.faults.iter().any(|fault| happened(&fault)) && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    if !found.faults.iter().any(|fault| fault.done.led > 0) {
        reasons.push("no leader was hit".to_owned());
    }
    if found.samples.0 == 0 || found.seen.reads.is_empty() {
        reasons.push("nothing was acknowledged, or nothing was read".to_owned());
    }
    if !found.checked {
        reasons.push("the nodes were not read in full at the end".to_owned());
    }
    (if reasons.is_empty() { Word::Valid } else { Word::Unknown }, reasons, missed)
}

/// The time without an acknowledgement for each fault: from its beginning where a majority stayed, else from its end, to
/// the beginning of the next.
fn write_gaps(found: &Findings<'_>) -> Vec<(Kind, u64)> {
    let next = |at: usize| found.faults.get(at + 1).map_or(found.span.1, |next| next.begin);
    let gap = |(at, fault): (usize, &Fault)| {
        let from = if fault.done.kind.majority_stays() { fault.begin } else { fault.end };
        (fault.done.kind, gaps::longest(&found.seen.acks, from, next(at)))
    };
    found.faults.iter().enumerate().map(gap).collect()
}

fn missed(found: &Findings<'_>) -> Vec<String> {
    let mut missed = Vec::new();
    let bar = found.profile.gap_bar_ms;
    let mut all: Vec<u64> = write_gaps(found).iter().map(|(_, gap)| *gap).collect();
    let p99 = gaps::quantile(&mut all, 99);
    if bar > 0 && p99 > bar {
        missed.push(format!("writes were gone for {p99} ms after a fault (p99), {bar} are allowed"));
    }
    if found.profile.no_failed_query && found.seen.unanswered > 0 {
        missed.push(format!("{} queries failed, none may", found.seen.unanswered));
    }
    missed
}

/// Writes `verdict.json` and `report.txt`; the word, and whether all bars were met.
pub fn write(dir: &Path, found: &Findings<'_>) -> Result<(Word, bool)> {
    let (word, reasons, missed) = verdict(found);
    let gaps_of = write_gaps(found);
    let mut kinds: Vec<Kind> = gaps_of.iter().map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let (seen, span) = (found.seen, found.span);
    let by_kind: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            let mut of: Vec<u64> = gaps_of.iter().filter(|(k, _)| k == kind).map(|(_, gap)| *gap).collect();
            let (p50, p99) = (gaps::quantile(&mut of, 50), gaps::quantile(&mut of, 99));
            json!({"fault": kind.name(), "times": of.len(), "p50": p50, "p99": p99})
        })
        .collect();
    let verdict = json!({
        "verdict": format!("{word:?}").to_lowercase(),
        "profile": found.profile.name,
        "seed": found.seed,
        "reasons": reasons,
        "missed": missed,
        "broken_promises": seen.broken,
        "samples": {"acknowledged": found.samples.0, "unknown": found.samples.1, "refused_before_sending": found.samples.2},
        "writes": {"acknowledged": seen.acks.len(), "unknown": seen.unknown, "unsent": seen.unsent, "skipped": seen.skipped,
            "availability_per_cent": gaps::availability(&seen.acks, span.0, span.1),
            "longest_gap_ms": gaps::longest(&seen.acks, span.0, span.1)},
        "reads": {"answered": seen.reads.len(), "unanswered": seen.unanswered,
            "availability_per_cent": gaps::availability(&seen.reads, span.0, span.1),
            "longest_gap_ms": gaps::longest(&seen.reads, span.0, span.1)},
        "write_gaps_ms": by_kind,
        "left_out": found.left_out.iter().map(|(kind, why)| format!("{}: {why}", kind.name())).collect::<Vec<_>>(),
        "errors": seen.errors.iter().map(|(text, times, first)| json!({"text": text, "times": times, "first_ms": first})).collect::<Vec<_>>(),
    });
    std::fs::write(dir.join("verdict.json"), serde_json::to_string_pretty(&verdict)? + "\n")?;
    let text = page(&verdict);
    std::fs::write(dir.join("report.txt"), &text)?;
    println!("\n{text}");
    Ok((word, missed.is_empty()))
}

/// The verdict for people.
fn page(verdict: &Value) -> String {
    let mut out = String::new();
    let word = verdict["verdict"].as_str().unwrap_or_default().to_uppercase();
    let _ = writeln!(out, "{word}   profile {}, seed {}\n", verdict["profile"], verdict["seed"]);
    for name in ["reasons", "missed", "left_out"] {
        for text in verdict[name].as_array().into_iter().flatten() {
            let _ = writeln!(out, "{name}: {}", text.as_str().unwrap_or_default());
        }
    }
    for (name, of) in [("samples", &verdict["samples"]), ("writes", &verdict["writes"]), ("reads", &verdict["reads"])] {
        let _ = writeln!(out, "{name}:");
        for (key, value) in of.as_object().into_iter().flatten() {
            let _ = writeln!(out, "  {:<24} {value}", key.replace('_', " "));
        }
    }
    let _ = writeln!(
        out,
        "time without an acknowledgement, ms:\n  {:<18} {:>5} {:>7} {:>7}",
        "fault", "times", "p50", "p99"
    );
    for of in verdict["write_gaps_ms"].as_array().into_iter().flatten() {
        let fault = of["fault"].as_str().unwrap_or_default();
        let _ = writeln!(out, "  {fault:<18} {:>5} {:>7} {:>7}", of["times"], of["p50"], of["p99"]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: Kind, begin: u64, led: usize, evidence: Option<&str>) -> Fault {
        let done = Done { kind, whom: String::new(), led, evidence: evidence.map(str::to_owned) };
        Fault { done, begin, end: begin + 1_000 }
    }

    fn judge(faults: &[Fault], left_out: &[(Kind, &'static str)], seen: &Seen, checked: bool) -> (Word, Vec<String>) {
        let profile = Profile { kinds: vec![Kind::KillLeader, Kind::Cut], ..Profile::named("short").unwrap() };
        let found = Findings {
            profile: &profile,
            seed: 1,
            faults,
            left_out,
            seen,
            samples: (1, 0, 0),
            span: (0, 10_000),
            trouble: None,
            checked,
        };
        let (word, reasons, _) = verdict(&found);
        (word, reasons)
    }

    #[test]
    fn a_run_is_valid_only_with_evidence_of_every_fault_a_leader_hit_and_a_full_check() {
        let seen = Seen { reads: vec![1], acks: vec![1], ..Seen::default() };
        let all = [fault(Kind::KillLeader, 0, 2, Some("x")), fault(Kind::Cut, 2_000, 0, Some("y"))];
        assert_eq!(judge(&all, &[], &seen, true), (Word::Valid, vec![]));
        assert_eq!(judge(&all[..1], &[], &seen, true).0, Word::Unknown);
        assert_eq!(judge(&all[..1], &[(Kind::Cut, "needs root")], &seen, true).0, Word::Valid);
        assert_eq!(judge(&all[1..], &[(Kind::KillLeader, "")], &seen, true).1, ["no leader was hit"]);
        assert_eq!(judge(&all, &[], &seen, false).0, Word::Unknown);
        let without = [all[0].clone(), fault(Kind::Cut, 2_000, 0, None)];
        assert_eq!(judge(&without, &[], &seen, true).1, ["no cut was seen to happen"]);
    }

    #[test]
    fn a_broken_promise_makes_any_run_invalid() {
        let mut seen = Seen::default();
        seen.violation("lost".to_owned());
        assert_eq!(judge(&[], &[], &seen, false), (Word::Invalid, vec!["lost".to_owned()]));
    }
}
