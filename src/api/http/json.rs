//! Values of queries as JSON, written piece by piece.
//!
//! *Invariants:* bytes are those of Prometheus: timestamps in seconds with up to three decimals, values as strings in
//! Go's shortest form, histograms with their non-empty buckets in ascending order. A series that was written is dropped.
//!
//! *Not here:* the envelope (`api::http::reply`), figures (`api::http::stats`).

use std::io::Write;

use super::body::{List, PIECE_BYTES, Pieces};
use crate::model::buckets::buckets;
use crate::model::number::{format_f, format_json};
use crate::model::{Histogram, Labels};
use crate::promql::exec::column::Sample;
use crate::promql::exec::result::{InstantSample, QueryValue, RangeSeries};

/// `{"resultType":…,"result":…}`, and `"stats":…` where they are given.
pub struct QueryData {
    head: Option<&'static str>,
    result: Written,
    /// What follows the result.
    tail: String,
}

enum Written {
    Scalar(String),
    Vector(List<std::vec::IntoIter<InstantSample>>),
    Matrix(Matrix),
}

impl QueryData {
    /// A value, and figures as JSON.
    pub fn new(value: QueryValue, stats: Option<String>) -> Self {
        let (head, result) = match value {
            QueryValue::Scalar(t, v) => {
                // Scalars never use an exponent, unlike samples.
                ("scalar", Written::Scalar(at(t, |out| drop(write!(out, "\"{}\"", format_f(v))))))
            }
            QueryValue::String(t, text) => {
                ("string", Written::Scalar(at(t, |out| push_string(out, &String::from_utf8_lossy(&text)))))
            }
            QueryValue::Vector(samples) => ("vector", Written::Vector(List::new(samples.into_iter(), push_instant))),
            QueryValue::Matrix(series) => ("matrix", Written::Matrix(Matrix::new(series))),
        };
        let tail = stats.map_or_else(|| "}".to_owned(), |stats| format!(",\"stats\":{stats}}}"));
        Self { head: Some(head), result, tail }
    }
}

impl Pieces for QueryData {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(kind) = self.head.take() {
            let _ = write!(out, "{{\"resultType\":\"{kind}\",\"result\":");
        }
        let more = match &mut self.result {
            Written::Scalar(text) => text.fill(out),
            Written::Vector(list) => list.fill(out),
            Written::Matrix(matrix) => matrix.fill(out),
        };
        more || self.tail.fill(out)
    }
}

/// A list of series, cut between samples: one series may be larger than many others together.
struct Matrix {
    rest: std::vec::IntoIter<RangeSeries>,
    begun: bool,
    current: Option<Open>,
}

/// A series of which some samples are written.
struct Open {
    series: RangeSeries,
    floats: usize,
    histograms: usize,
}

impl Matrix {
    fn new(series: Vec<RangeSeries>) -> Self {
        Self { rest: series.into_iter(), begun: false, current: None }
    }
}

impl Pieces for Matrix {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        while out.len() < PIECE_BYTES {
            if let Some(open) = &mut self.current {
                if open.write(out) {
                    return true;
                }
                self.current = None;
                continue;
            }
            let Some(series) = self.rest.next() else {
                out.extend_from_slice(if self.begun { b"]" } else { b"[]" });
                return false;
            };
            out.extend_from_slice(if self.begun { b",{\"metric\":" } else { b"[{\"metric\":" });
            self.begun = true;
            push_labels(out, &series.labels);
            self.current = Some(Open { series, floats: 0, histograms: 0 });
        }
        true
    }
}

impl Open {
    /// Appends samples; `true` when the piece is full before the series is.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        let Self { series, floats, histograms } = self;
        write_samples(out, "values", &series.floats, floats, |out, (t, v)| push_float(out, *t, *v))
            || write_samples(out, "histograms", &series.histograms, histograms, |out, (t, h)| {
                push_histogram(out, *t, h)
            })
            || {
                out.push(b'}');
                false
            }
    }
}

fn write_samples<T>(
    out: &mut Vec<u8>,
    key: &str,
    samples: &[T],
    next: &mut usize,
    write: impl Fn(&mut Vec<u8>, &T),
) -> bool {
    while let Some(sample) = samples.get(*next) {
        if out.len() >= PIECE_BYTES {
            return true;
        }
        if *next == 0 {
            let _ = write!(out, ",\"{key}\":[");
        } else {
            out.push(b',');
        }
        write(out, sample);
        *next += 1;
        if *next == samples.len() {
            out.push(b']');
        }
    }
    false
}

fn push_instant(out: &mut Vec<u8>, sample: InstantSample) {
    out.extend_from_slice(b"{\"metric\":");
    push_labels(out, &sample.labels);
    match &sample.sample {
        Sample::Float(v) => {
            out.extend_from_slice(b",\"value\":");
            push_float(out, sample.t, *v);
        }
        Sample::Histogram(h) => {
            out.extend_from_slice(b",\"histogram\":");
            push_histogram(out, sample.t, h);
        }
    }
    out.push(b'}');
}

fn push_float(out: &mut Vec<u8>, t: i64, v: f64) {
    out.push(b'[');
    push_time(out, t);
    out.extend_from_slice(b",\"");
    push_number(out, v);
    out.extend_from_slice(b"\"]");
}

fn push_histogram(out: &mut Vec<u8>, t: i64, h: &Histogram) {
    out.push(b'[');
    push_time(out, t);
    let _ = write!(out, ",{{\"count\":\"{}\",\"sum\":\"{}\"", format_json(h.count), format_json(h.sum));
    let mut separator = ",\"buckets\":[";
    for b in buckets(h).iter().filter(|b| b.count != 0.0) {
        let rule = match (b.lower_inclusive, b.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        };
        let (lower, upper, count) = (format_json(b.lower), format_json(b.upper), format_json(b.count));
        let _ = write!(out, "{separator}[{rule},\"{lower}\",\"{upper}\",\"{count}\"]");
        separator = ",";
    }
    out.extend_from_slice(if separator == "," { b"]}]" } else { b"}]" });
}

/// `[time,value]` as a text.
fn at(t: i64, value: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = vec![b'['];
    push_time(&mut out, t);
    out.push(b',');
    value(&mut out);
    out.push(b']');
    String::from_utf8_lossy(&out).into_owned()
}

/// A sample's value: most are whole, and need no search for the shortest digits.
pub fn push_number(out: &mut Vec<u8>, v: f64) {
    const EXACT: f64 = (1u64 << 53) as f64;
    let whole = v as i64;
    let _ = match whole as f64 == v && v.abs() < EXACT && (whole != 0 || v.is_sign_positive()) {
        true => write!(out, "{whole}"),
        false => out.write_all(format_json(v).as_bytes()),
    };
}

/// Seconds with the fraction only where there is one.
pub fn push_time(out: &mut Vec<u8>, ms: i64) {
    let (seconds, fraction) = (ms / 1000, (ms % 1000).unsigned_abs());
    if ms < 0 && seconds == 0 {
        out.push(b'-');
    }
    let _ = write!(out, "{seconds}");
    if fraction != 0 {
        let digits = format!("{fraction:03}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

/// A label set as an object; its texts are not escaped for HTML, unlike all others.
pub fn push_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(out, name);
        out.push(b':');
        push_string(out, value);
    }
    out.push(b'}');
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing a text to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;
    use std::sync::Arc;

    fn json(value: QueryValue) -> String {
        let (mut data, mut out, mut more) = (QueryData::new(value, None), Vec::new(), true);
        while more {
            let mut piece = Vec::new();
            more = data.fill(&mut piece);
            out.extend(piece);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn vectors_look_as_prometheus_writes_them() {
        let labels = Labels::from_pairs([("__name__", "up"), ("a", "<\"x\">")]);
        let value = QueryValue::Vector(vec![InstantSample { labels, t: 1_500, sample: Sample::Float(1e21) }]);
        assert_eq!(
            json(value),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","a":"<\"x\">"},"value":[1.5,"1e+21"]}]}"#
        );
        assert_eq!(json(QueryValue::Vector(vec![])), r#"{"resultType":"vector","result":[]}"#);
        assert_eq!(json(QueryValue::Matrix(vec![])), r#"{"resultType":"matrix","result":[]}"#);
    }

    #[test]
    fn a_series_with_floats_and_histograms_has_both() {
        let h = Histogram {
            count: 3.0,
            sum: 2.5,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive: vec![3.0, 0.0],
            ..Histogram::default()
        };
        let labels = Labels::from_pairs([("a", "1")]);
        let series =
            RangeSeries { labels, floats: vec![(0, 0.5), (1000, -0.0)], histograms: vec![(2000, Arc::new(h))] };
        assert_eq!(
            json(QueryValue::Matrix(vec![series, RangeSeries::default()])),
            r#"{"resultType":"matrix","result":[{"metric":{"a":"1"},"values":[[0,"0.5"],[1,"-0"]],"histograms":[[2,{"count":"3","sum":"2.5","buckets":[[0,"0.5","1","3"]]}]]},{"metric":{}}]}"#
        );
    }

    #[test]
    fn a_matrix_is_cut_between_samples_and_stays_whole() {
        let series = |name: &str, n: i64| RangeSeries {
            labels: Labels::from_pairs([("a", name)]),
            floats: (0..n).map(|i| (i * 1000, i as f64)).collect(),
            histograms: Vec::new(),
        };
        let value = QueryValue::Matrix(vec![series("x", 20_000), series("y", 1), series("z", 9_000)]);
        let mut data = QueryData::new(value.clone(), Some("{}".into()));
        let (mut out, mut pieces, mut more) = (Vec::new(), 0, true);
        while more {
            let mut piece = Vec::new();
            more = data.fill(&mut piece);
            assert!(piece.len() < PIECE_BYTES + 64);
            pieces += 1;
            out.extend(piece);
        }
        assert!(pieces > 5);
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let rows = read["result"].as_array().unwrap();
        let lengths: Vec<_> = rows.iter().map(|r| r["values"].as_array().unwrap().len()).collect();
        assert_eq!((lengths, rows[2]["values"][8_999][1].as_str()), (vec![20_000, 1, 9_000], Some("8999")));
        assert!(read["stats"].is_object());
    }

    #[test]
    fn times_have_up_to_three_decimals() {
        let text = |ms| {
            let mut out = Vec::new();
            push_time(&mut out, ms);
            String::from_utf8(out).unwrap()
        };
        let want = [(0, "0"), (1, "0.001"), (-1, "-0.001"), (-1500, "-1.5"), (1_700_000_000_120, "1700000000.12")];
        for (ms, expected) in want {
            assert_eq!(text(ms), expected);
        }
    }

    #[test]
    fn whole_numbers_are_written_as_the_others_are() {
        let all = [0.0, -0.0, 1.0, -17.0, 1e15, 9_007_199_254_740_991.0, 1e20, 1e21, 0.1, f64::NAN, f64::INFINITY];
        for v in all.into_iter().chain([9.3e18, -9.3e18, f64::NEG_INFINITY, 2.5e-7]) {
            let mut out = Vec::new();
            push_number(&mut out, v);
            assert_eq!(String::from_utf8(out).unwrap(), format_json(v));
        }
    }

    #[test]
    fn scalars_are_plain_decimals() {
        assert_eq!(
            json(QueryValue::Scalar(0, 1e21)),
            r#"{"resultType":"scalar","result":[0,"1000000000000000000000"]}"#
        );
        assert_eq!(json(QueryValue::Scalar(0, f64::NAN)), r#"{"resultType":"scalar","result":[0,"NaN"]}"#);
    }
}
