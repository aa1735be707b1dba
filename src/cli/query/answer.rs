//! An answer of the Prometheus API as data.
//!
//! *Invariants:* values stay the text the server sent, so that nothing is lost in showing them.

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

/// The envelope of an answer that worked.
#[derive(Debug)]
pub(super) struct Reply {
    pub data: Value,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

/// One sample: seconds and the value as text (a histogram as `count=… sum=…`).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub seconds: f64,
    pub value: String,
}

/// One series of an answer; labels sorted, the metric's name first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub labels: Vec<(String, String)>,
    pub points: Vec<Point>,
}

/// What came back.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// One point each, or several if `ranged`.
    pub series: Vec<Series>,
    /// Whether it answers a range query.
    pub ranged: bool,
}

#[derive(Deserialize)]
struct Envelope {
    status: String,
    #[serde(default)]
    data: Value,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
}

/// Reads the envelope; an error of the server becomes ours, in its words.
pub(super) fn parse(body: &[u8]) -> anyhow::Result<Reply> {
    let envelope: Envelope =
        serde_json::from_slice(body).context("the server's answer is not of the Prometheus API")?;
    if envelope.status != "success" {
        bail!("the server refused ({}): {}", envelope.error_type, envelope.error);
    }
    Ok(Reply { data: envelope.data, warnings: envelope.warnings, infos: envelope.infos })
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    metric: serde_json::Map<String, Value>,
    value: Option<(f64, String)>,
    #[serde(default)]
    values: Vec<(f64, String)>,
    histogram: Option<(f64, Histogram)>,
    #[serde(default)]
    histograms: Vec<(f64, Histogram)>,
}

#[derive(Deserialize)]
struct Histogram {
    count: String,
    sum: String,
}

impl Answer {
    /// Reads the `data` of `query` or `query_range`.
    pub(super) fn from_data(data: &Value) -> anyhow::Result<Self> {
        let result = data.get("result").cloned().unwrap_or_default();
        match data.get("resultType").and_then(Value::as_str) {
            Some(kind @ ("vector" | "matrix")) => {
                let rows: Vec<Row> = serde_json::from_value(result).with_context(|| format!("reading the {kind}"))?;
                Ok(Self { series: rows.into_iter().map(Series::from_row).collect(), ranged: kind == "matrix" })
            }
            Some(kind @ ("scalar" | "string")) => {
                let (seconds, value) = serde_json::from_value(result).with_context(|| format!("reading the {kind}"))?;
                let points = vec![Point { seconds, value }];
                Ok(Self { series: vec![Series { labels: Vec::new(), points }], ranged: false })
            }
            other => bail!("the server answered with a result of the unknown type {other:?}"),
        }
    }

    /// Names of all labels, the metric's name first, the others sorted.
    pub(super) fn label_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.series.iter().flat_map(|s| s.labels.iter().map(|(name, _)| name.as_str())).collect();
        names.sort_unstable_by_key(|name| (*name != "__name__", *name));
        names.dedup();
        names
    }
}

impl Series {
    fn from_row(row: Row) -> Self {
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut labels: Vec<_> = row.metric.into_iter().map(|(name, value)| (name, text(value))).collect();
        labels.sort_by(|a, b| (a.0 != "__name__", &a.0).cmp(&(b.0 != "__name__", &b.0)));
        let floats = row.value.into_iter().chain(row.values);
        let histograms = row.histogram.into_iter().chain(row.histograms);
        let mut points: Vec<Point> = floats
            .map(|(seconds, value)| Point { seconds, value })
            .chain(histograms.map(|(seconds, h)| Point { seconds, value: format!("count={} sum={}", h.count, h.sum) }))
            .collect();
        points.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        Self { labels, points }
    }

    /// `name{a="b"}` as PromQL writes it.
    pub(super) fn name(&self) -> String {
        let quoted = |(name, value): &(String, String)| format!("{name}={value:?}");
        match self.labels.split_first() {
            Some(((first, metric), [])) if first == "__name__" => metric.clone(),
            Some(((first, metric), rest)) if first == "__name__" => {
                format!("{metric}{{{}}}", rest.iter().map(quoted).collect::<Vec<_>>().join(", "))
            }
            _ => format!("{{{}}}", self.labels.iter().map(quoted).collect::<Vec<_>>().join(", ")),
        }
    }
}
