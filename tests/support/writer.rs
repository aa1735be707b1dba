//! A remote-write client that remembers what was acknowledged.
//!
//! *Invariants:* a sample's value follows from its series and timestamp, so that a sample that is read back proves itself.

use std::collections::BTreeMap;

use metrolith::proto::prometheus::{Label, Sample, TimeSeries, WriteRequest};
use prost::Message;
use serde_json::Value;

use super::http::Api;

/// One sample of a known series.
pub type Point = (i64, f64);

/// A series to send: labels, sorted, and samples.
pub type Row<'a> = (Vec<(&'a str, String)>, Vec<Point>);

/// Encodes series as a remote write 1.0 body.
pub fn encode(series: &[Row<'_>]) -> Vec<u8> {
    let timeseries = series
        .iter()
        .map(|(labels, points)| TimeSeries {
            labels: labels.iter().map(|(n, v)| Label { name: (*n).to_owned(), value: v.clone() }).collect(),
            samples: points.iter().map(|(t, v)| Sample { timestamp: *t, value: *v }).collect(),
            ..TimeSeries::default()
        })
        .collect();
    let request = WriteRequest { timeseries, ..WriteRequest::default() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
}

/// Sends an encoded body; status and answer.
pub async fn send(api: &Api, body: Vec<u8>) -> Result<(u16, String), String> {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    api.post("/api/v1/write", &headers, body).await
}

/// The value of `series` at `t`: a whole number that no other pair is likely to have.
pub fn value_of(series: usize, t: i64) -> f64 {
    let mixed = (t as u64 ^ ((series as u64) << 44)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 20) as f64
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx: must be there.
    Acknowledged,
    /// Nobody knows: may be there.
    Unknown,
}

/// What was sent to `metric`, by series and timestamp.
#[derive(Default)]
pub struct Ledger {
    sent: BTreeMap<(usize, i64), Outcome>,
}

impl Ledger {
    /// Sends one sample for each series of `series` at `t` and remembers how that ended. `false` if the server is gone.
    pub async fn write(&mut self, api: &Api, metric: &str, series: std::ops::Range<usize>, t: i64) -> bool {
        let rows: Vec<_> = series
            .clone()
            .map(|s| {
                let labels = vec![("__name__", metric.to_owned()), ("series", s.to_string())];
                (labels, vec![(t, value_of(s, t))])
            })
            .collect();
        let answer = send(api, encode(&rows)).await;
        let outcome = match &answer {
            Ok((200..=299, _)) => Outcome::Acknowledged,
            Ok((status, text)) if *status < 500 && *status != 429 => panic!("refused: {status}: {text}"),
            _ => Outcome::Unknown,
        };
        self.sent.extend(series.map(|s| ((s, t), outcome)));
        answer.is_ok()
    }

    /// Adds what another writer sent.
    pub fn merge(&mut self, other: Self) {
        self.sent.extend(other.sent);
    }

    /// Number of acknowledged samples.
    pub fn acknowledged(&self) -> usize {
        self.sent.values().filter(|o| **o == Outcome::Acknowledged).count()
    }

    /// Compares with what a server holds between `from` and `to`, which enclose all timestamps.
    pub async fn check(&self, api: &Api, metric: &str, from: i64, to: i64) -> Result<(), String> {
        let range = (to - from + 1).max(1);
        self.compare(&api.instant(&format!("{metric}[{range}ms]"), to).await?)
    }

    /// Remembers how the sample of `series` at `t` ended.
    pub fn note(&mut self, series: usize, t: i64, outcome: Outcome) {
        self.sent.insert((series, t), outcome);
    }

    /// Compares with a matrix that holds everything: every acknowledged sample, none that was never sent, none with a
    /// wrong value, none twice.
    pub fn compare(&self, found: &Value) -> Result<(), String> {
        let mut seen = BTreeMap::new();
        for row in found.as_array().ok_or("no matrix")? {
            let series: usize =
                row["metric"]["series"].as_str().and_then(|s| s.parse().ok()).ok_or("no series label")?;
            let mut last = i64::MIN;
            for point in row["values"].as_array().ok_or("no values")? {
                let (t, value) = read(point).ok_or_else(|| format!("not a sample: {point}"))?;
                if t <= last {
                    return Err(format!("series {series} has {t} after {last}: twice or out of order"));
                }
                last = t;
                if value != value_of(series, t) {
                    return Err(format!("series {series} at {t} is {value}, was sent as {}", value_of(series, t)));
                }
                if seen.insert((series, t), value).is_some() {
                    return Err(format!("series {series} was answered twice"));
                }
            }
        }
        let lost: Vec<_> =
            self.sent.iter().filter(|(key, o)| **o == Outcome::Acknowledged && !seen.contains_key(key)).collect();
        if let Some((first, _)) = lost.first() {
            return Err(format!("{} acknowledged samples are lost, the first {first:?}", lost.len()));
        }
        match seen.keys().find(|key| !self.sent.contains_key(key)) {
            Some(phantom) => Err(format!("{phantom:?} was never sent")),
            None => Ok(()),
        }
    }
}

fn read(point: &Value) -> Option<Point> {
    let t = (point[0].as_f64()? * 1000.0).round() as i64;
    Some((t, point[1].as_str()?.parse().ok()?))
}
