//! Sends the batches of a run: each worker its own series, in order of time, retrying until told to stop.
//!
//! *Invariants:* a worker sends the next batch only when the last one was acknowledged or given up, so a series' samples
//! arrive in order. An acknowledgement is in the ack log before the next request goes out.
//!
//! *Not here:* what is sent (`workload`, `encode`), counting (`stats`).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER};

use super::ack_log::{Ack, AckLog};
use super::encode::Encoder;
use super::stats::Stats;
use super::workload::Workload;
use crate::env::Clock;
use crate::ingest::decode::Protocol;

/// What all workers share.
pub struct Run {
    /// Where to.
    pub url: String,
    /// Value of `X-Scope-OrgID`.
    pub tenant: Option<String>,
    /// Version of remote write.
    pub protocol: Protocol,
    /// What is sent.
    pub workload: Workload,
    /// Number of series.
    pub series: u64,
    /// Series per request.
    pub batch: u64,
    /// Number of workers.
    pub workers: u64,
    /// Timestamp of the first scrape, milliseconds.
    pub start: i64,
    /// Distance of scrapes, milliseconds.
    pub interval: i64,
    /// Number of scrapes.
    pub scrapes: u64,
    /// Whether scrapes wait for their time.
    pub paced: bool,
    /// How long a request is tried again.
    pub retry_for: Duration,
    /// Connections.
    pub client: reqwest::Client,
    /// Counters.
    pub stats: Stats,
    /// The record of acknowledgements.
    pub acks: Option<Mutex<AckLog>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Set to end the run early.
    pub stop: AtomicBool,
}

/// What became of one attempt.
enum Attempt {
    /// Stored, but for this many samples.
    Acked(u64),
    /// Refused for good.
    Refused(String),
    /// Worth another attempt, after what the server asked for.
    Again(String, Option<Duration>),
}

impl Run {
    /// One worker: its share of the batches of every scrape.
    pub async fn work(self: Arc<Self>, worker: u64) -> anyhow::Result<()> {
        let mut encoder = Encoder::new(self.protocol, &self.workload);
        let batches = self.series.div_ceil(self.batch);
        // Spread over the interval, as scrapes of real targets are.
        let offset = if self.paced { self.interval * worker as i64 / self.workers as i64 } else { 0 };
        let began = self.clock.monotonic();
        for scrape in 0..self.scrapes {
            let passed = scrape as i64 * self.interval;
            if self.paced {
                self.wait(began, passed + offset).await;
            }
            for batch in (worker..batches).step_by(self.workers as usize) {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let range = batch * self.batch..self.series.min((batch + 1) * self.batch);
                let t = self.start + passed + offset;
                let body = encoder.encode(&self.workload, range.clone(), t).context("compressing a request")?;
                self.deliver(range, t, Bytes::from(body)).await?;
            }
        }
        Ok(())
    }

    /// Waits until `due` milliseconds after the worker began.
    async fn wait(&self, began: Duration, due: i64) {
        let passed = (self.clock.monotonic() - began).as_millis() as i64;
        if passed > due + self.interval {
            self.stats.late();
        }
        // In short pieces, so that the end of the run is noticed.
        let mut left = due - passed;
        while left > 0 && !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(left.min(200) as u64)).await;
            left = due - (self.clock.monotonic() - began).as_millis() as i64;
        }
    }

    /// Sends one request until it is acknowledged, refused or given up.
    async fn deliver(&self, series: Range<u64>, t: i64, body: Bytes) -> anyhow::Result<()> {
        let (began, samples, size) = (self.clock.monotonic(), series.end - series.start, body.len() as u64);
        let mut pause = Duration::from_millis(50);
        loop {
            let (why, asked) = match self.attempt(samples, body.clone()).await {
                Attempt::Acked(rejected) => {
                    self.stats.acked(samples, rejected, size, self.clock.monotonic() - began);
                    if let Some(acks) = self.acks.as_ref().filter(|_| rejected == 0) {
                        acks.lock().write(&Ack { series, t }).context("writing the ack log")?;
                    }
                    return Ok(());
                }
                Attempt::Refused(why) => {
                    self.stats.lost(samples, &why);
                    return Ok(());
                }
                Attempt::Again(why, asked) => (why, asked),
            };
            let over = self.clock.monotonic() - began > self.retry_for;
            if over || self.stop.load(Ordering::Relaxed) {
                self.stats.lost(samples, &why);
                return Ok(());
            }
            self.stats.retried(&why);
            tokio::time::sleep(asked.unwrap_or(pause).min(self.retry_for)).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn attempt(&self, samples: u64, body: Bytes) -> Attempt {
        let mut request = self
            .client
            .post(&self.url)
            .header(CONTENT_TYPE, self.protocol.content_type())
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Write-Version", self.protocol.version())
            .body(body);
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Attempt::Again(root_cause(&error), None),
        };
        let (status, written) = (response.status(), written_samples(response.headers()));
        if status.is_success() {
            return Attempt::Acked(samples - written.unwrap_or(samples).min(samples));
        }
        let asked =
            response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok().map(Duration::from_secs));
        let mut text = response.text().await.unwrap_or_default();
        text.truncate(text.floor_char_boundary(500));
        let why = format!("{status}: {}", text.trim());
        match (status, written) {
            (StatusCode::TOO_MANY_REQUESTS, _) => Attempt::Again(why, asked),
            (status, _) if status.is_server_error() => Attempt::Again(why, asked),
            // Part of it was stored, and the server says how much.
            (StatusCode::BAD_REQUEST, Some(written)) if written > 0 => {
                self.stats.note(&why);
                Attempt::Acked(samples - written.min(samples))
            }
            _ => Attempt::Refused(why),
        }
    }
}

fn written_samples(headers: &HeaderMap) -> Option<u64> {
    headers.get("X-Prometheus-Remote-Write-Samples-Written")?.to_str().ok()?.parse().ok()
}

/// The innermost cause: `connection refused` says more than "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("sending: {cause}")
}
