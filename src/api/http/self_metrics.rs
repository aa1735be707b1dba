//! The node's own metrics as JSON: messages `io.prometheus.client.MetricFamily` as protocol buffers are written in it.
//!
//! *Invariants:* 64-bit integers are texts; floats are numbers or `"NaN"`, `"Infinity"`, `"-Infinity"`; types are written
//! by their names. Fields that a metric does not have are left out.
//!
//! *Not here:* what is measured (each module's `Metrics`), the text form (`api::http::health`).
//!
//! Source: <https://protobuf.dev/programming-guides/json/>

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::App;
use super::params::Params;
use super::reply::{ApiError, success};
use crate::model::{MatchOp, Matcher};
use crate::proto::client::{Histogram, LabelPair, Metric, MetricFamily, MetricType, Summary};

/// `GET /api/v1/status/self_metrics`: of the metrics whose name matches `metric_name_pattern`, if there is one.
pub async fn self_metrics(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    const PATTERN: &str = "metric_name_pattern";
    let wanted = params.get(PATTERN).map(|pattern| Matcher::new("__name__", MatchOp::Regex, pattern));
    let wanted = wanted.transpose().map_err(|e| ApiError::parameter(PATTERN, e))?;
    app.ingest.observe();
    let families = app.telemetry.families().map_err(|e| ApiError::of(&e))?;
    let named = families.iter().filter(|f| wanted.as_ref().is_none_or(|m| m.matches(&f.name)));
    Ok(success(&named.map(family).collect::<Vec<_>>()))
}

fn family(family: &MetricFamily) -> Value {
    let kind = MetricType::try_from(family.r#type).unwrap_or(MetricType::Untyped);
    let mut out = json!({"name": family.name, "help": family.help, "type": kind.as_str_name()});
    out["metric"] = family.metric.iter().map(metric).collect();
    if !family.unit.is_empty() {
        out["unit"] = json!(family.unit);
    }
    out
}

fn metric(metric: &Metric) -> Value {
    let mut out = Map::new();
    if !metric.label.is_empty() {
        out.insert("label".into(), labels(&metric.label));
    }
    let single = |value: f64| json!({"value": double(value)});
    let values = [
        ("gauge", metric.gauge.as_ref().map(|v| single(v.value))),
        ("counter", metric.counter.as_ref().map(|v| single(v.value))),
        ("summary", metric.summary.as_ref().map(summary)),
        ("untyped", metric.untyped.as_ref().map(|v| single(v.value))),
        ("histogram", metric.histogram.as_ref().map(histogram)),
    ];
    out.extend(values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Value::Object(out)
}

fn labels(pairs: &[LabelPair]) -> Value {
    pairs.iter().map(|pair| json!({"name": pair.name, "value": pair.value})).collect()
}

fn summary(summary: &Summary) -> Value {
    let quantiles: Vec<_> =
        summary.quantile.iter().map(|q| json!({"quantile": double(q.quantile), "value": double(q.value)})).collect();
    json!({
        "sampleCount": summary.sample_count.to_string(),
        "sampleSum": double(summary.sample_sum),
        "quantile": quantiles,
    })
}

/// Classic buckets: no metric of ours has others.
fn histogram(histogram: &Histogram) -> Value {
    let buckets: Vec<_> = histogram
        .bucket
        .iter()
        .map(|b| json!({"cumulativeCount": b.cumulative_count.to_string(), "upperBound": double(b.upper_bound)}))
        .collect();
    json!({
        "sampleCount": histogram.sample_count.to_string(),
        "sampleSum": double(histogram.sample_sum),
        "bucket": buckets,
    })
}

fn double(value: f64) -> Value {
    match value {
        v if v.is_nan() => json!("NaN"),
        v if v.is_infinite() => json!(if v > 0.0 { "Infinity" } else { "-Infinity" }),
        // As Go writes it: no fraction where there is none.
        v if v.fract() == 0.0 && v.abs() < 1e15 => json!(v as i64),
        v => json!(v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::client::{Bucket, Counter, Gauge};

    #[test]
    fn families_are_written_as_protocol_buffers_write_json() {
        let label = vec![LabelPair { name: "a".into(), value: "b".into() }];
        let counted = Metric { counter: Some(Counter { value: 0.0, ..Counter::default() }), ..Metric::default() };
        let bucket = |upper_bound, cumulative_count| Bucket { upper_bound, cumulative_count, ..Bucket::default() };
        let histogram = Histogram {
            sample_count: u64::MAX,
            sample_sum: 0.5,
            bucket: vec![bucket(1.0, 2), bucket(f64::INFINITY, u64::MAX)],
            ..Histogram::default()
        };
        let of = |name: &str, kind: MetricType, metric| MetricFamily {
            name: name.into(),
            help: "Says.".into(),
            r#type: kind as i32,
            metric: vec![metric],
            unit: String::new(),
        };
        let gauge = |value| Metric { label: label.clone(), gauge: Some(Gauge { value }), ..Metric::default() };
        let written = |f: MetricFamily| family(&f).to_string();
        assert_eq!(
            written(of("c_total", MetricType::Counter, counted)),
            r#"{"name":"c_total","help":"Says.","type":"COUNTER","metric":[{"counter":{"value":0}}]}"#
        );
        assert_eq!(
            written(MetricFamily { unit: "s".into(), ..of("g", MetricType::Gauge, gauge(f64::NAN)) }),
            r#"{"name":"g","help":"Says.","type":"GAUGE","metric":[{"label":[{"name":"a","value":"b"}],"gauge":{"value":"NaN"}}],"unit":"s"}"#
        );
        let metric = Metric { histogram: Some(histogram), ..Metric::default() };
        assert_eq!(
            family(&of("h", MetricType::Histogram, metric))["metric"][0].to_string(),
            r#"{"histogram":{"sampleCount":"18446744073709551615","sampleSum":0.5,"bucket":[{"cumulativeCount":"2","upperBound":1},{"cumulativeCount":"18446744073709551615","upperBound":"Infinity"}]}}"#
        );
        assert_eq!(
            [f64::NEG_INFINITY, 1e300, -0.25].map(|v| double(v).to_string()),
            ["\"-Infinity\"", "1e+300", "-0.25"]
        );
    }
}
