//! Query results as JSON, written straight into a string.
//!
//! *Invariants:* bytes are those of Prometheus: timestamps in seconds with up to three decimals, values as strings in
//! Go's shortest form, histograms with their non-empty buckets in ascending order.
//!
//! *Not here:* the envelope (`api::http::reply`).

use std::fmt::Write;

use crate::model::buckets::buckets;
use crate::model::number::{format_f, format_json};
use crate::model::{Histogram, Labels};
use crate::promql::exec::column::Sample;
use crate::promql::exec::result::{InstantSample, QueryStats, QueryValue, RangeSeries};
use crate::query::Timings;

/// `{"resultType":…,"result":…}`, and `"stats":…` where they are given.
pub fn query_data(value: &QueryValue, stats: Option<(&Timings, &QueryStats)>) -> String {
    let mut out = String::new();
    match value {
        QueryValue::Scalar(t, v) => {
            out.push_str("{\"resultType\":\"scalar\",\"result\":[");
            push_time(&mut out, *t);
            // Scalars never use an exponent, unlike samples.
            let _ = write!(out, ",\"{}\"]", format_f(*v));
        }
        QueryValue::String(t, text) => {
            out.push_str("{\"resultType\":\"string\",\"result\":[");
            push_time(&mut out, *t);
            out.push(',');
            push_string(&mut out, &String::from_utf8_lossy(text));
            out.push(']');
        }
        QueryValue::Vector(samples) => {
            out.push_str("{\"resultType\":\"vector\",\"result\":");
            push_list(&mut out, samples, push_instant);
        }
        QueryValue::Matrix(series) => {
            out.push_str("{\"resultType\":\"matrix\",\"result\":");
            push_list(&mut out, series, push_series);
        }
    }
    if let Some((timings, stats)) = stats {
        push_stats(&mut out, timings, stats);
    }
    out.push('}');
    out
}

/// Times in seconds under Prometheus' names. Samples counted anew for each step (`totalQueryableSamples`) are not known
/// here, because a window reads each sample once.
fn push_stats(out: &mut String, timings: &Timings, stats: &QueryStats) {
    let seconds = |d: std::time::Duration| format_f(d.as_secs_f64());
    let eval = timings.prepare + timings.evaluate;
    let _ = write!(
        out,
        ",\"stats\":{{\"timings\":{{\"evalTotalTime\":{},\"resultSortTime\":0,\"queryPreparationTime\":{},\
         \"innerEvalTime\":{},\"execQueueTime\":{},\"execTotalTime\":{}}},\
         \"samples\":{{\"samplesRead\":{},\"peakSamples\":{}}}}}",
        seconds(eval),
        seconds(timings.prepare),
        seconds(timings.evaluate),
        seconds(timings.queue),
        seconds(timings.queue + eval),
        stats.samples_read,
        stats.peak_samples
    );
}

fn push_list<T>(out: &mut String, items: &[T], push: fn(&mut String, &T)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(']');
}

fn push_instant(out: &mut String, sample: &InstantSample) {
    out.push_str("{\"metric\":");
    push_labels(out, &sample.labels);
    match &sample.sample {
        Sample::Float(v) => {
            out.push_str(",\"value\":");
            push_float(out, &(sample.t, *v));
        }
        Sample::Histogram(h) => {
            out.push_str(",\"histogram\":");
            push_histogram_at(out, sample.t, h);
        }
    }
    out.push('}');
}

fn push_series(out: &mut String, series: &RangeSeries) {
    out.push_str("{\"metric\":");
    push_labels(out, &series.labels);
    if !series.floats.is_empty() {
        out.push_str(",\"values\":");
        push_list(out, &series.floats, push_float);
    }
    if !series.histograms.is_empty() {
        out.push_str(",\"histograms\":");
        push_list(out, &series.histograms, |out, (t, h)| push_histogram_at(out, *t, h));
    }
    out.push('}');
}

fn push_float(out: &mut String, (t, v): &(i64, f64)) {
    out.push('[');
    push_time(out, *t);
    out.push_str(",\"");
    out.push_str(&format_json(*v));
    out.push_str("\"]");
}

fn push_histogram_at(out: &mut String, t: i64, h: &Histogram) {
    out.push('[');
    push_time(out, t);
    let _ = write!(out, ",{{\"count\":\"{}\",\"sum\":\"{}\"", format_json(h.count), format_json(h.sum));
    let filled: Vec<_> = buckets(h).into_iter().filter(|b| b.count != 0.0).collect();
    if !filled.is_empty() {
        out.push_str(",\"buckets\":");
        push_list(out, &filled, |out, b| {
            let rule = match (b.lower_inclusive, b.upper_inclusive) {
                (false, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            let (lower, upper, count) = (format_json(b.lower), format_json(b.upper), format_json(b.count));
            let _ = write!(out, "[{rule},\"{lower}\",\"{upper}\",\"{count}\"]");
        });
    }
    out.push_str("}]");
}

/// Seconds with the fraction only where there is one.
fn push_time(out: &mut String, ms: i64) {
    let (seconds, fraction) = (ms / 1000, (ms % 1000).unsigned_abs());
    if ms < 0 && seconds == 0 {
        out.push('-');
    }
    let _ = write!(out, "{seconds}");
    if fraction != 0 {
        let digits = format!("{fraction:03}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

fn push_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_string(out, name);
        out.push(':');
        push_string(out, value);
    }
    out.push('}');
}

fn push_string(out: &mut String, text: &str) {
    let mut encoded = Vec::with_capacity(text.len() + 2);
    // Writing JSON to a Vec cannot fail, and what comes out is UTF-8.
    if serde_json::to_writer(&mut encoded, text).is_ok() {
        out.push_str(&String::from_utf8_lossy(&encoded));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_look_as_prometheus_writes_them() {
        let labels = Labels::from_pairs([("__name__", "up"), ("a", "<\"x\">")]);
        let value = QueryValue::Vector(vec![InstantSample { labels, t: 1_500, sample: Sample::Float(1e21) }]);
        assert_eq!(
            query_data(&value, None),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","a":"<\"x\">"},"value":[1.5,"1e+21"]}]}"#
        );
        assert_eq!(query_data(&QueryValue::Vector(vec![]), None), r#"{"resultType":"vector","result":[]}"#);
    }

    #[test]
    fn times_have_up_to_three_decimals() {
        let text = |ms| {
            let mut out = String::new();
            push_time(&mut out, ms);
            out
        };
        let want = [(0, "0"), (1, "0.001"), (-1, "-0.001"), (-1500, "-1.5"), (1_700_000_000_120, "1700000000.12")];
        for (ms, expected) in want {
            assert_eq!(text(ms), expected);
        }
    }

    #[test]
    fn scalars_are_plain_decimals() {
        assert_eq!(
            query_data(&QueryValue::Scalar(0, 1e21), None),
            r#"{"resultType":"scalar","result":[0,"1000000000000000000000"]}"#
        );
        assert_eq!(query_data(&QueryValue::Scalar(0, f64::NAN), None), r#"{"resultType":"scalar","result":[0,"NaN"]}"#);
    }
}
