//! Counts and latencies of a load run, shared by its workers, and the report made of them.
//!
//! *Invariants:* a sample is counted once: acknowledged, rejected, or lost.
//!
//! *Not here:* when the report is shown (`load`).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

/// Latencies in buckets 1/32 of a power of two wide.
#[derive(Debug, Clone)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

const FINE: u32 = 5;

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; 64 << FINE], count: 0, max: 0 }
    }
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        let micros = (latency.as_micros() as u64).max(1);
        let power = micros.ilog2();
        let fine =
            (if power >= FINE { micros >> (power - FINE) } else { micros << (FINE - power) }) & ((1 << FINE) - 1);
        self.buckets[((power << FINE) as u64 + fine) as usize] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// The latency that this share of requests did not exceed, milliseconds (at most 3 % too high).
    fn quantile_ms(&self, q: f64) -> f64 {
        let rank = (self.count as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if *n > 0 && seen >= rank {
                let (power, fine) = ((i >> FINE) as i32, (i & ((1 << FINE) - 1)) as f64);
                let upper = f64::powi(2.0, power) * (1.0 + (fine + 1.0) / f64::from(1 << FINE));
                return upper.min(self.max as f64) / 1e3;
            }
        }
        0.0
    }
}

/// Counters of a run.
#[derive(Debug, Default)]
pub struct Stats {
    acked: AtomicU64,
    rejected: AtomicU64,
    lost: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
    bytes: AtomicU64,
    late: AtomicU64,
    latencies: Mutex<Latencies>,
    first_error: Mutex<Option<String>>,
}

impl Stats {
    /// A request of `samples` was acknowledged, `rejected` of them refused for good.
    pub fn acked(&self, samples: u64, rejected: u64, bytes: u64, latency: Duration) {
        self.acked.fetch_add(samples - rejected, Ordering::Relaxed);
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.latencies.lock().add(latency);
    }

    /// A request of `samples` was given up.
    pub fn lost(&self, samples: u64, why: &str) {
        self.lost.fetch_add(samples, Ordering::Relaxed);
        self.error(why);
    }

    /// A request failed and is sent again.
    pub fn retried(&self, why: &str) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        self.error(why);
    }

    /// A scrape began after the next one was due.
    pub fn late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    fn error(&self, why: &str) {
        self.first_error.lock().get_or_insert_with(|| why.to_owned());
    }

    /// Keeps the text of a refusal.
    pub fn note(&self, why: &str) {
        self.error(why);
    }

    /// One line for a terminal; `before` is what was acknowledged `since` ago.
    pub fn line(&self, series: u64, before: u64, since: Duration) -> (String, u64) {
        let acked = self.acked.load(Ordering::Relaxed);
        let rate = (acked - before) as f64 / since.as_secs_f64().max(1e-3);
        let p99 = self.latencies.lock().quantile_ms(0.99);
        let trouble = self.lost.load(Ordering::Relaxed) + self.rejected.load(Ordering::Relaxed);
        let retries = self.retries.load(Ordering::Relaxed);
        let line = format!(
            "{series} series · {acked} samples acked · {rate:.0}/s · p99 {p99:.1} ms · {retries} retries · {trouble} lost"
        );
        (line, acked)
    }

    /// What the run came to.
    pub fn report(&self, series: u64, elapsed: Duration) -> Report {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let latencies = self.latencies.lock();
        let seconds = elapsed.as_secs_f64();
        Report {
            series,
            seconds,
            samples_acked: load(&self.acked),
            samples_rejected: load(&self.rejected),
            samples_lost: load(&self.lost),
            samples_per_second: load(&self.acked) as f64 / seconds.max(1e-9),
            requests: load(&self.requests),
            retries: load(&self.retries),
            late_scrapes: load(&self.late),
            bytes_sent: load(&self.bytes),
            latency_ms: Quantiles {
                p50: latencies.quantile_ms(0.5),
                p90: latencies.quantile_ms(0.9),
                p99: latencies.quantile_ms(0.99),
                max: latencies.max as f64 / 1e3,
            },
            first_error: self.first_error.lock().clone(),
        }
    }
}

/// Latencies of acknowledged requests, retries included, milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Quantiles {
    /// Half of them.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Series written.
    pub series: u64,
    /// Length of the run.
    pub seconds: f64,
    /// Samples the server acknowledged.
    pub samples_acked: u64,
    /// Samples the server refused for good.
    pub samples_rejected: u64,
    /// Samples given up after retries.
    pub samples_lost: u64,
    /// Acknowledged samples per second.
    pub samples_per_second: f64,
    /// Requests acknowledged.
    pub requests: u64,
    /// Requests that had to be sent again.
    pub retries: u64,
    /// Scrapes that began after the next one was due: the load was more than what got through.
    pub late_scrapes: u64,
    /// Compressed bytes of acknowledged requests.
    pub bytes_sent: u64,
    /// How long requests took.
    pub latency_ms: Quantiles,
    /// Text of the first error, if there was any.
    pub first_error: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let q = &self.latency_ms;
        let per_sample = self.bytes_sent as f64 / self.samples_acked.max(1) as f64;
        writeln!(f, "series             {}", self.series)?;
        writeln!(f, "samples acked      {} in {:.1} s", self.samples_acked, self.seconds)?;
        writeln!(f, "rate               {:.0} samples/s", self.samples_per_second)?;
        writeln!(f, "samples rejected   {}", self.samples_rejected)?;
        writeln!(f, "samples lost       {}", self.samples_lost)?;
        writeln!(
            f,
            "requests           {} ({} retries, {} late scrapes)",
            self.requests, self.retries, self.late_scrapes
        )?;
        writeln!(
            f,
            "request latency    p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            q.p50, q.p90, q.p99, q.max
        )?;
        write!(f, "bytes sent         {} ({per_sample:.1} per sample)", self.bytes_sent)?;
        match &self.first_error {
            Some(error) => write!(f, "\nfirst error        {error}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close_from_microseconds_to_minutes() {
        let mut l = Latencies::default();
        for micros in [1u64, 5, 40, 1_000, 77_777, 90_000_000] {
            l = Latencies::default();
            (0..10).for_each(|_| l.add(Duration::from_micros(micros)));
            l.add(Duration::from_secs(1000));
            let got = l.quantile_ms(0.5) * 1e3;
            assert!(got >= micros as f64 * 0.999 && got <= micros as f64 * 1.04, "{micros}: {got}");
        }
        assert_eq!(l.quantile_ms(1.0), 1e6);
        assert_eq!(Latencies::default().quantile_ms(0.99), 0.0);
    }

    #[test]
    fn every_sample_is_counted_once() {
        let s = Stats::default();
        s.acked(10, 3, 100, Duration::from_millis(1));
        s.lost(5, "gone");
        s.lost(1, "later");
        let r = s.report(16, Duration::from_secs(2));
        assert_eq!((r.samples_acked, r.samples_rejected, r.samples_lost), (7, 3, 6));
        assert_eq!(r.first_error.as_deref(), Some("gone"));
    }
}
