//! Test scripts: text to commands.
//!
//! *Invariants:* the whole script is read before anything runs; an error names its line.
//!
//! *Not here:* values (`values`), running (`run`).
//!
//! The language is that of Prometheus' `promqltest`.

use regex::Regex;

use super::values::{Written, parse_starts, parse_values};
use crate::model::time::parse_duration_ms;
use crate::model::{Labels, StepGrid};
use crate::promql::parse_metric;

/// A command and the line it begins on, from 1.
#[derive(Debug, Clone)]
pub struct Command {
    /// Line.
    pub line: usize,
    /// What to do.
    pub kind: Kind,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Forget all series.
    Clear,
    /// Store series.
    Load(Load),
    /// Evaluate a query and compare.
    Eval(Box<Eval>),
}

/// Series to store.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Distance of samples, milliseconds.
    pub step: i64,
    /// Also store classic histograms as native ones with custom buckets.
    pub with_nhcb: bool,
    /// Series; a later one of the same labels replaces an earlier one.
    pub series: Vec<LoadSeries>,
}

/// A series to store.
#[derive(Debug, Clone)]
pub struct LoadSeries {
    /// Labels.
    pub labels: Labels,
    /// Samples by step.
    pub points: Vec<Option<Written>>,
    /// Start timestamps relative to samples, milliseconds; empty where none are written.
    pub starts: Vec<Option<i64>>,
}

/// What an annotation or error text must look like.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// Any text.
    Any,
    /// This text.
    Text(String),
    /// A text in which this is found.
    Regex(Regex),
}

impl Pattern {
    /// Whether a text is as expected.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => !text.contains('\n'),
            Self::Text(want) => want == text,
            Self::Regex(re) => re.is_match(text),
        }
    }
}

/// Expected annotations of one severity.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Each must be there, and no other.
    pub some: Vec<Pattern>,
    /// None may be there.
    pub none: bool,
    /// At least one must be there (`eval_warn`).
    pub any: bool,
}

/// A series of an expected result.
#[derive(Debug, Clone)]
pub struct ExpectedSeries {
    /// Labels.
    pub labels: Labels,
    /// Values by step.
    pub points: Vec<Option<Written>>,
}

/// When a query is evaluated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// Once, milliseconds.
    Instant(i64),
    /// On steps.
    Range(StepGrid),
}

/// A query and what is expected of it.
#[derive(Debug, Clone)]
pub struct Eval {
    /// When.
    pub when: When,
    /// The query.
    pub query: String,
    /// The order of series matters.
    pub ordered: bool,
    /// It must fail, with one of these texts.
    pub fail: Vec<Pattern>,
    /// Warnings.
    pub warn: Expected,
    /// Infos.
    pub info: Expected,
    /// Series.
    pub series: Vec<ExpectedSeries>,
    /// A number.
    pub scalar: Option<f64>,
    /// A string.
    pub string: Option<Vec<u8>>,
    /// The result is a range vector with these timestamps.
    pub matrix: Option<StepGrid>,
}

/// Reads a script.
pub fn parse_script(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> = text.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < lines.len() {
        let line = lines[at];
        let end = (at..lines.len()).find(|i| lines[*i].is_empty()).unwrap_or(lines.len());
        let word = line.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        let number = at + 1;
        let tag = |e: String| format!("line {number}: {e}");
        if word.is_empty() {
            at += 1;
        } else if word == "clear" {
            out.push(Command { line: number, kind: Kind::Clear });
            at += 1;
        } else if word.starts_with("load") {
            let load = parse_load(&lines[at..end]).map_err(tag)?;
            out.push(Command { line: number, kind: Kind::Load(load) });
            at = end;
        } else if word.starts_with("eval") {
            let (eval, used) = parse_eval(&lines[at..end]).map_err(tag)?;
            out.push(Command { line: number, kind: Kind::Eval(Box::new(eval)) });
            at += used;
        } else {
            return Err(tag(format!("invalid command {line:?}")));
        }
    }
    Ok(out)
}

fn parse_load(lines: &[&str]) -> Result<Load, String> {
    let mut words = lines[0].split_whitespace();
    let with_nhcb = match words.next() {
        Some(w) if w.eq_ignore_ascii_case("load") => false,
        Some(w) if w.eq_ignore_ascii_case("load_with_nhcb") => true,
        other => return Err(format!("invalid load command {other:?}")),
    };
    let mut load = Load { step: parse_duration_ms(words.next().unwrap_or(""))?, with_nhcb, series: Vec::new() };
    let mut starts: Option<(Labels, Vec<Option<i64>>)> = None;
    for line in &lines[1..] {
        let (labels, end) = metric(line)?;
        if let Some(items) = line[end..].strip_prefix("@st") {
            starts = Some((labels, parse_starts(items)?));
            continue;
        }
        let points = parse_values(&line[end..])?;
        let starts = match starts.take() {
            Some((of, starts)) if of == labels && starts.len() == points.len() => starts,
            Some(_) => return Err(format!("start timestamps do not fit the samples of {labels}")),
            None => Vec::new(),
        };
        load.series.retain(|s| s.labels != labels);
        load.series.push(LoadSeries { labels, points, starts });
    }
    Ok(load)
}

/// The metric in front of a line's values. `{{` begins a histogram, which a metric parser would take for a label list.
fn metric(line: &str) -> Result<(Labels, usize), String> {
    let blank = |at: &usize| line[..*at].ends_with(char::is_whitespace);
    let end = line.match_indices("{{").map(|(at, _)| at).find(blank).unwrap_or(line.len());
    parse_metric(&line[..end]).map_err(|e| e.to_string())
}

fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|e| e.to_string())
}

fn parse_eval(lines: &[&str]) -> Result<(Eval, usize), String> {
    let instant = regex(r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$")?;
    let range = regex(r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$")?;
    let (suffix, when, query) = if let Some(c) = instant.captures(lines[0]) {
        let at = c.get(2).map_or(Ok(0), |m| parse_duration_ms(m.as_str()))?;
        (c.get(1).map(|m| m.as_str().to_owned()), When::Instant(at), c[3].to_owned())
    } else if let Some(c) = range.captures(lines[0]) {
        let grid = StepGrid {
            start: parse_duration_ms(&c[2])?,
            end: parse_duration_ms(&c[3])?,
            step: parse_duration_ms(&c[4])?,
        };
        (c.get(1).map(|m| m.as_str().to_owned()), When::Range(grid), c[5].to_owned())
    } else {
        return Err(format!("invalid eval command {:?}", lines[0]));
    };
    let mut eval = Eval {
        when,
        query,
        ordered: suffix.as_deref() == Some("ordered"),
        fail: Vec::new(),
        warn: Expected { any: suffix.as_deref() == Some("warn"), ..Expected::default() },
        info: Expected { any: suffix.as_deref() == Some("info"), ..Expected::default() },
        series: Vec::new(),
        scalar: None,
        string: None,
        matrix: None,
    };
    let fails = suffix.as_deref() == Some("fail");
    if fails {
        eval.fail.push(Pattern::Any);
    }
    for (i, line) in lines.iter().enumerate().skip(1) {
        if parse_expectation(line, &mut eval, fails)? {
            return Ok((eval, i + 1));
        }
    }
    Ok((eval, lines.len()))
}

/// Reads one line of an eval's body; `true` when it ends the block.
fn parse_expectation(line: &str, eval: &mut Eval, fails: bool) -> Result<bool, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if fails && words[0] == "expected_fail_message" {
        eval.fail = vec![Pattern::Text(line["expected_fail_message".len()..].trim().to_owned())];
        return Ok(true);
    }
    if fails && words[0] == "expected_fail_regexp" {
        eval.fail = vec![Pattern::Regex(regex(line["expected_fail_regexp".len()..].trim())?)];
        return Ok(true);
    }
    if let ["expect", "range", "vector", "from", from, "to", to, "step", step] = words[..] {
        let (start, end) = (parse_duration_ms(from)?, parse_duration_ms(to)?);
        eval.matrix = Some(StepGrid { start, end, step: parse_duration_ms(step)? });
        return Ok(false);
    }
    if words[0] == "expect" && words.get(1) == Some(&"string") {
        eval.string = Some(unquote(line["expect string".len()..].trim())?);
        return Ok(false);
    }
    if words[0] == "expect" {
        parse_expect(line["expect".len()..].trim(), eval)?;
        return Ok(false);
    }
    if let Some(number) = bare_number(line) {
        eval.scalar = Some(number);
        return Ok(true);
    }
    let (labels, end) = metric(line)?;
    let points = parse_values(&line[end..])?;
    eval.series.retain(|s| s.labels != labels);
    eval.series.push(ExpectedSeries { labels, points });
    Ok(false)
}

fn parse_expect(text: &str, eval: &mut Eval) -> Result<(), String> {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let pattern = match rest.trim().split_once(':') {
        None if rest.trim().is_empty() => Pattern::Any,
        Some(("msg", text)) => Pattern::Text(text.trim().to_owned()),
        Some(("regex", text)) => Pattern::Regex(regex(text.trim())?),
        _ => return Err(format!("invalid expectation {text:?}")),
    };
    match kind {
        "ordered" => eval.ordered = true,
        "fail" => eval.fail.push(pattern),
        "warn" => eval.warn.some.push(pattern),
        "no_warn" => eval.warn.none = true,
        "info" => eval.info.some.push(pattern),
        "no_info" => eval.info.none = true,
        _ => return Err(format!("invalid expectation {text:?}")),
    }
    Ok(())
}

fn bare_number(line: &str) -> Option<f64> {
    let plain = line.trim_start_matches(['+', '-']);
    let number = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || plain.eq_ignore_ascii_case("nan")
        || plain.eq_ignore_ascii_case("inf");
    if let Some(hex) = plain.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(|v| v as f64);
    }
    number.then(|| line.parse().ok()).flatten()
}

/// The text of a Go string literal.
fn unquote(text: &str) -> Result<Vec<u8>, String> {
    use crate::promql::ast::Expr;
    // A string literal is a query of its own.
    let ast = crate::promql::parse(text, crate::promql::ParseOptions::all()).map_err(|e| e.to_string())?;
    match ast.expr(ast.root) {
        Expr::String(bytes) => Ok(bytes.to_vec()),
        _ => Err(format!("not a string: {text}")),
    }
}
