//! Remote-write requests of both versions, written with the generated types: an encoder that is not the node's decoder.

use metrolith::proto::{prometheus as v1, write_v2 as v2};
use prost::Message;
use reqwest::RequestBuilder;

use super::{Reply, Served};

/// The `Content-Type` of 2.0.
pub(super) const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A series of 1.0 with floats.
pub(super) fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> v1::TimeSeries {
    let label = |(n, v): &(&str, &str)| v1::Label { name: (*n).into(), value: (*v).into() };
    v1::TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: samples.iter().map(|(t, v)| v1::Sample { timestamp: *t, value: *v }).collect(),
        ..v1::TimeSeries::default()
    }
}

/// A series of a metric without further labels.
pub(super) fn metric(name: &str, samples: &[(i64, f64)]) -> v1::TimeSeries {
    series(&[("__name__", name)], samples)
}

pub(super) fn body(timeseries: Vec<v1::TimeSeries>) -> Vec<u8> {
    compress(&v1::WriteRequest { timeseries, ..v1::WriteRequest::default() }.encode_to_vec())
}

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// Builds a request of 2.0: symbols are interned as they come.
pub(super) struct Request2 {
    request: v2::Request,
}

impl Request2 {
    pub(super) fn new() -> Self {
        Self { request: v2::Request { symbols: vec![String::new()], ..v2::Request::default() } }
    }

    pub(super) fn symbol(&mut self, text: &str) -> u32 {
        let symbols = &mut self.request.symbols;
        let at = symbols.iter().position(|s| s == text).unwrap_or_else(|| {
            symbols.push(text.to_owned());
            symbols.len() - 1
        });
        at as u32
    }

    pub(super) fn labels(&mut self, labels: &[(&str, &str)]) -> Vec<u32> {
        labels.iter().flat_map(|(n, v)| [self.symbol(n), self.symbol(v)]).collect()
    }

    pub(super) fn push(&mut self, labels: &[(&str, &str)], series: v2::TimeSeries) {
        let labels_refs = self.labels(labels);
        self.push_raw(v2::TimeSeries { labels_refs, ..series });
    }

    /// A series whose references stay as they are.
    pub(super) fn push_raw(&mut self, series: v2::TimeSeries) {
        self.request.timeseries.push(series);
    }

    pub(super) fn body(&self) -> Vec<u8> {
        compress(&self.request.encode_to_vec())
    }
}

impl Served {
    fn post_write(&self, content_type: &str, body: Vec<u8>) -> RequestBuilder {
        let post = self.client.post(format!("{}/api/v1/write", self.url)).body(body);
        post.header("Content-Type", content_type).header("Content-Encoding", "snappy")
    }

    /// Sends a body of either version.
    pub(super) async fn send(&self, content_type: &str, body: Vec<u8>) -> Reply {
        Reply::of(self.post_write(content_type, body).send().await.unwrap()).await
    }

    /// Sends series as 1.0.
    pub(super) async fn write(&self, timeseries: Vec<v1::TimeSeries>) -> Reply {
        self.send("application/x-protobuf", body(timeseries)).await
    }

    /// Sends series as 1.0 for a tenant.
    pub(super) async fn write_as(&self, tenant: &str, timeseries: Vec<v1::TimeSeries>) -> Reply {
        let post = self.post_write("application/x-protobuf", body(timeseries)).header("X-Scope-OrgID", tenant);
        Reply::of(post.send().await.unwrap()).await
    }
}

impl Reply {
    /// Status and the counts of what was stored: samples, histograms, exemplars.
    pub(super) fn written(&self) -> (u16, [&str; 3]) {
        let count = |what: &str| self.header(&format!("X-Prometheus-Remote-Write-{what}-Written"));
        (self.status, [count("Samples"), count("Histograms"), count("Exemplars")])
    }
}
