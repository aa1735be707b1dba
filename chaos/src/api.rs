//! What a node is asked over HTTP.
//!
//! *Invariants:* a write whose connection was never made is told apart from one whose end nobody knows.
//!
//! *Not here:* what the answers mean (`check`, `cluster`).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use prost::Message;
use serde_json::Value;

use crate::history::Shape;

/// Name of the metric that is written.
pub const METRIC: &str = "chaos_sample";

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// The body of a remote write of one step of a batch.
pub fn body(shape: &Shape, batch: usize, step: usize) -> Result<Vec<u8>> {
    let t = shape.time(step);
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let timeseries = (0..shape.series).map(|series| TimeSeries {
        labels: vec![
            label("__name__", METRIC.to_owned()),
            label("batch", batch.to_string()),
            label("series", series.to_string()),
        ],
        samples: vec![Sample { value: shape.value(batch, series, t), timestamp: t }],
    });
    let request = WriteRequest { timeseries: timeseries.collect() };
    Ok(snap::raw::Encoder::new().compress_vec(&request.encode_to_vec())?)
}

/// How a write ended.
#[derive(Debug)]
pub enum Written {
    /// 2xx.
    Acked,
    /// No connection was made: nothing was sent.
    Unsent,
    /// Nobody knows: no answer, or one that says "perhaps later".
    Unknown(String),
    /// The node says the samples are not acceptable.
    Refused(String),
}

/// Speaks HTTP to nodes.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
}

impl Api {
    /// With its own connections.
    pub fn new() -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(1)).build()?;
        Ok(Self { client })
    }

    /// Sends a body of samples.
    pub async fn write(&self, url: &str, body: Vec<u8>, patience: Duration) -> Written {
        let request = self
            .client
            .post(format!("{url}/api/v1/write"))
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .timeout(patience)
            .body(body);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(e) if e.is_connect() => return Written::Unsent,
            Err(e) => return Written::Unknown(chain(&e)),
        };
        let status = answer.status().as_u16();
        match status {
            200..=299 => Written::Acked,
            400..=499 if status != 429 => Written::Refused(format!("{status}: {}", text(answer).await)),
            _ => Written::Unknown(format!("{status}: {}", text(answer).await)),
        }
    }

    /// Asks for the samples of a batch in the steps `from` to `to`; the bytes of the answer.
    pub async fn read(
        &self,
        url: &str,
        shape: &Shape,
        read: (usize, usize, usize),
        patience: Duration,
    ) -> Result<Vec<u8>> {
        let (batch, from, to) = read;
        let t = shape.time(to);
        // A range leaves out its older end.
        let range = t - shape.time(from) + 1;
        let query = format!("{METRIC}{{batch=\"{batch}\"}}[{range}ms]");
        let time = format!("{}.{:03}", t / 1000, t % 1000);
        let path = format!("{url}/api/v1/query");
        let request = self.client.get(&path).query(&[("query", query.as_str()), ("time", &time)]).timeout(patience);
        let answer = request.send().await.map_err(|e| anyhow::anyhow!(chain(&e)))?;
        if answer.status() != 200 {
            bail!("{}: {}", answer.status().as_u16(), text(answer).await);
        }
        Ok(answer.bytes().await.map_err(|e| anyhow::anyhow!(chain(&e)))?.to_vec())
    }

    /// Whether a node takes requests.
    pub async fn ready(&self, url: &str) -> bool {
        let request = self.client.get(format!("{url}/-/ready")).timeout(Duration::from_secs(1));
        request.send().await.is_ok_and(|answer| answer.status() == 200)
    }

    /// What a node says of the cluster.
    pub async fn status(&self, url: &str) -> Result<Value> {
        let request = self.client.get(format!("{url}/api/v1/cluster")).timeout(Duration::from_secs(5));
        let answer = request.send().await.map_err(|e| anyhow::anyhow!(chain(&e)))?;
        let mut value: Value = serde_json::from_slice(&answer.bytes().await?).context("status of the cluster")?;
        Ok(value["data"].take())
    }

    /// What time a node has, Unix seconds.
    pub async fn time(&self, url: &str) -> Result<f64> {
        let request = self.client.get(format!("{url}/api/v1/query")).query(&[("query", "time()")]);
        let answer = request.timeout(Duration::from_secs(5)).send().await.map_err(|e| anyhow::anyhow!(chain(&e)))?;
        let value: Value = serde_json::from_slice(&answer.bytes().await?).context("time of a node")?;
        let text = value["data"]["result"][1].as_str().context("no time in the answer")?;
        Ok(text.parse()?)
    }

    /// Asks for something only operators ask for, below `/api/v1/admin`.
    pub async fn admin(&self, url: &str, path: &str, form: &[(&str, &str)], patience: Duration) -> Result<()> {
        let request = self.client.post(format!("{url}/api/v1/admin/{path}")).timeout(patience).form(form);
        let answer = request.send().await.map_err(|e| anyhow::anyhow!("{path}: {}", chain(&e)))?;
        if !answer.status().is_success() {
            bail!("{path}: {}: {}", answer.status().as_u16(), text(answer).await);
        }
        Ok(())
    }
}

async fn text(answer: reqwest::Response) -> String {
    let text = answer.text().await.unwrap_or_default();
    text.trim().chars().take(300).collect()
}

/// An error and all its causes; the first alone says too little.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}
