//! How two answers to one question compare.
//!
//! *Invariants:* what is not said to differ is equal: type of the result, series, times, values; of refusals status,
//! type and words. What is said to differ and does not is reported too.

use std::collections::BTreeMap;

use serde_json::Value;

use super::questions::{Mark, Ways};
use crate::support::http::Refusal;

/// What a server said.
pub type Answer = Result<Value, Refusal>;

/// A way of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// At an instant.
    Instant,
    /// Over a range.
    Range,
}

/// What 2.42 leaves out where it refuses a query over a range.
const NAMED: &str = "invalid parameter \"query\": ";

/// What is wrong with a pair of answers, if anything.
pub fn judge(mark: &Mark, way: Way, ours: &Answer, theirs: &Answer) -> Option<String> {
    let theirs = &match theirs {
        Err(refusal) if way == Way::Range && refusal.kind == "bad_data" => {
            Err(Refusal { text: format!("{NAMED}{}", refusal.text), ..refusal.clone() })
        }
        theirs => theirs.clone(),
    };
    match mark {
        Mark::Exact => difference(ours, theirs, 0.0),
        Mark::Near => difference(ours, theirs, 1e-9),
        Mark::Ordered => {
            difference(ours, theirs, 0.0).or_else(|| (way == Way::Instant).then(|| order(ours, theirs))?)
        }
        Mark::Error if theirs.is_ok() => Some("Prometheus answers it".to_owned()),
        Mark::Error => difference(ours, theirs, 0.0),
        Mark::OtherWords => other_words(ours, theirs),
        Mark::Differs(name, ways) => {
            let shows =
                matches!((ways, way), (Ways::Both, _) | (Ways::Instant, Way::Instant) | (Ways::Range, Way::Range));
            match (shows, difference(ours, theirs, 1e-9)) {
                (true, None) => Some(format!("the answers are equal: `{name}` does not show")),
                (true, Some(_)) => None,
                (false, found) => found.map(|found| format!("apart from `{name}`: {found}")),
            }
        }
    }
}

fn other_words(ours: &Answer, theirs: &Answer) -> Option<String> {
    let (Err(ours), Err(theirs)) = (ours, theirs) else {
        return Some(format!("one of both answers it: {} and {}", brief(ours), brief(theirs)));
    };
    if (ours.status, &ours.kind) != (theirs.status, &theirs.kind) {
        return Some(format!("Metrolith says {ours:?}, Prometheus {theirs:?}"));
    }
    (ours.text == theirs.text).then(|| format!("the words are the same by now: {}", ours.text))
}

/// The first difference, if there is one; numbers may differ by `tolerance`, relative.
fn difference(ours: &Answer, theirs: &Answer, tolerance: f64) -> Option<String> {
    let (ours, theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(ours), Err(theirs)) if ours == theirs => return None,
        _ => return Some(format!("Metrolith says {}, Prometheus {}", brief(ours), brief(theirs))),
    };
    if ours["resultType"] != theirs["resultType"] {
        return Some(format!("a {} where Prometheus has a {}", ours["resultType"], theirs["resultType"]));
    }
    let (ours, theirs) = (flat(&ours["result"]), flat(&theirs["result"]));
    for (key, expected) in &theirs {
        match ours.get(key) {
            None => return Some(format!("{key:?} is missing, Prometheus says {expected}")),
            Some(found) if !same(found, expected, tolerance) => {
                return Some(format!("{key:?} is {found}, Prometheus says {expected}"));
            }
            Some(_) => {}
        }
    }
    let (key, found) = ours.iter().find(|(key, _)| !theirs.contains_key(*key))?;
    Some(format!("{key:?} is {found}, Prometheus has none"))
}

fn order(ours: &Answer, theirs: &Answer) -> Option<String> {
    let rows = |answer: &Answer| -> Vec<Value> {
        let rows = answer.as_ref().map(|data| data["result"].as_array().cloned().unwrap_or_default());
        rows.unwrap_or_default().iter().map(|row| row["metric"].clone()).collect()
    };
    let (ours, theirs) = (rows(ours), rows(theirs));
    (ours != theirs).then(|| format!("the order is {ours:?}, Prometheus has {theirs:?}"))
}

fn same(a: &str, b: &str, tolerance: f64) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= tolerance * a.abs().max(b.abs());
    a == b || (tolerance > 0.0 && a.parse().ok().zip(b.parse().ok()).is_some_and(|(a, b)| near(a, b)))
}

/// Labels and time to value, whatever the type of the result.
fn flat(result: &Value) -> BTreeMap<(String, String), String> {
    let mut out = BTreeMap::new();
    let rows = match result {
        // A scalar or a string is one bare point.
        Value::Array(point) if point.first().is_some_and(Value::is_number) => {
            vec![serde_json::json!({"value": result})]
        }
        Value::Array(rows) => rows.clone(),
        other => vec![other.clone()],
    };
    for row in rows {
        let metric: BTreeMap<String, Value> = serde_json::from_value(row["metric"].clone()).unwrap_or_default();
        let labels = serde_json::to_string(&metric).unwrap();
        let values = row["values"].as_array().cloned().unwrap_or_else(|| vec![row["value"].clone()]);
        for point in values {
            let text = point[1].as_str().map_or_else(|| point.to_string(), str::to_owned);
            let before = out.insert((labels.clone(), point[0].to_string()), text);
            assert!(before.is_none(), "{labels} at {} is answered twice", point[0]);
        }
    }
    out
}

fn brief(answer: &Answer) -> String {
    match answer {
        Ok(data) => {
            let text = data.to_string();
            text.char_indices().nth(300).map_or(text.clone(), |(at, _)| format!("{}…", &text[..at]))
        }
        Err(refusal) => format!("{refusal:?}"),
    }
}

#[test]
fn the_comparison_notices_differences() {
    let row = |value: &str| serde_json::json!({"metric": {"a": value.len().to_string()}, "value": [1.5, value]});
    let vector = |rows: &[Value]| Ok(serde_json::json!({"resultType": "vector", "result": rows}));
    let scalar = |value: &str| Ok(serde_json::json!({"resultType": "scalar", "result": [1.5, value]}));
    let refused = |kind: &str, text: &str| {
        Err(Refusal {
            status: if kind == "execution" { 422 } else { 400 },
            kind: kind.to_owned(),
            text: text.to_owned(),
        })
    };
    let fine = |mark: Mark, ours: Answer, theirs: Answer| judge(&mark, Way::Instant, &ours, &theirs).is_none();
    let one = |value: &str| vector(&[row(value)]);
    assert!(fine(Mark::Exact, one("1"), one("1")) && !fine(Mark::Exact, one("1"), one("2")));
    assert!(fine(Mark::Near, one("NaN"), one("NaN")) && !fine(Mark::Near, one("NaN"), one("1")));
    assert!(!fine(Mark::Exact, one("0.30000000000000004"), one("0.3")));
    assert!(!fine(Mark::Near, one("0.31"), one("0.3")));
    assert!(!fine(Mark::Exact, vector(&[]), one("1")) && !fine(Mark::Exact, one("1"), vector(&[])));
    assert!(!fine(Mark::Exact, scalar("1"), one("1")) && !fine(Mark::Exact, scalar("1"), scalar("2")));
    let (a, b) = (vector(&[row("1"), row("22")]), vector(&[row("22"), row("1")]));
    assert!(fine(Mark::Exact, a.clone(), b.clone()) && !fine(Mark::Ordered, a, b));
    assert!(fine(Mark::Error, refused("bad_data", "x"), refused("bad_data", "x")));
    assert!(!fine(Mark::Error, refused("bad_data", "x"), refused("bad_data", "y")));
    assert!(!fine(Mark::Error, one("1"), one("1")), "an error is expected");
    assert!(fine(Mark::OtherWords, refused("bad_data", "x"), refused("bad_data", "y")));
    assert!(!fine(Mark::OtherWords, refused("bad_data", "x"), refused("bad_data", "x")));
    assert!(!fine(Mark::OtherWords, refused("bad_data", "x"), refused("execution", "y")));
    let over_range =
        |ours: &str| judge(&Mark::Error, Way::Range, &refused("bad_data", ours), &refused("bad_data", "x"));
    assert!(over_range("invalid parameter \"query\": x").is_none() && over_range("x").is_some());
    let differs = |ways| Mark::Differs("left-open".to_owned(), ways);
    assert!(fine(differs(Ways::Both), one("1"), one("2")) && !fine(differs(Ways::Both), one("1"), one("1")));
    assert!(fine(differs(Ways::Range), one("1"), one("1")) && !fine(differs(Ways::Range), one("1"), one("2")));
}
