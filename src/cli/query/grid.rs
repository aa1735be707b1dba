//! Answers in columns: aligned for people, comma-separated for programs.
//!
//! *Invariants:* values appear as the server wrote them; a missing value is an empty cell in CSV and `–` in a table.

use std::collections::BTreeMap;

use super::answer::{Answer, Series};
use super::when;
use crate::cli::columns::aligned;

/// Aligned columns. An instant answer has a row per series and a column per label; a range answer a row per step and a
/// column per series, in as many blocks as the width asks for.
pub(super) fn table(answer: &Answer, width: usize) -> String {
    if answer.series.is_empty() {
        return "no series\n".to_owned();
    }
    if answer.ranged { ranged(answer, width) } else { instant(answer) }
}

fn instant(answer: &Answer) -> String {
    let names = answer.label_names();
    let mut rows = vec![
        names.iter().map(|n| if *n == "__name__" { "METRIC".to_owned() } else { (*n).to_owned() }).collect::<Vec<_>>(),
    ];
    rows[0].push("VALUE".to_owned());
    for series in &answer.series {
        let mut row: Vec<String> = names.iter().map(|name| label(series, name).to_owned()).collect();
        row.push(series.points.last().map_or(String::new(), |p| p.value.clone()));
        rows.push(row);
    }
    aligned(&rows)
}

fn ranged(answer: &Answer, width: usize) -> String {
    let mut out = String::new();
    for (at, series) in answer.series.iter().enumerate() {
        out.push_str(&format!("{:>4}  {}\n", format!("#{}", at + 1), series.name()));
    }
    // Milliseconds as key: seconds come as floats.
    let mut steps: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for (at, series) in answer.series.iter().enumerate() {
        for point in &series.points {
            let row = steps
                .entry((point.seconds * 1000.0).round() as i64)
                .or_insert_with(|| vec!["–"; answer.series.len()]);
            row[at] = &point.value;
        }
    }
    let widest = |at: usize| {
        let values = steps.values().map(|row| row[at].chars().count());
        values.max().unwrap_or(0).max(format!("#{}", at + 1).len()) + 2
    };
    let (mut from, time_width) = (0, 25);
    while from < answer.series.len() {
        let (mut to, mut used) = (from, time_width);
        while to < answer.series.len() && (to == from || used + widest(to) <= width) {
            used += widest(to);
            to += 1;
        }
        let mut rows = vec![vec!["TIME".to_owned()]];
        rows[0].extend((from..to).map(|at| format!("#{}", at + 1)));
        for (ms, values) in &steps {
            let mut row = vec![when::show(*ms as f64 / 1000.0)];
            row.extend(values[from..to].iter().map(|v| (*v).to_owned()));
            rows.push(row);
        }
        out.push('\n');
        out.push_str(&aligned(&rows));
        from = to;
    }
    out
}

/// `time,value,<labels…>`, a line per sample; times are Unix seconds.
pub(super) fn csv(answer: &Answer) -> String {
    let names = answer.label_names();
    let mut out = String::from("time,value");
    for name in &names {
        out.push(',');
        out.push_str(&field(name));
    }
    out.push('\n');
    for series in &answer.series {
        let labels: String = names.iter().map(|name| format!(",{}", field(label(series, name)))).collect();
        for point in &series.points {
            out.push_str(&format!("{},{}{labels}\n", point.seconds, field(&point.value)));
        }
    }
    out
}

fn label<'s>(series: &'s Series, name: &str) -> &'s str {
    series.labels.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
}

/// A CSV field after RFC 4180.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
