//! `metrolith load`: a remote-write load generator.
//!
//! *Invariants:* the same `--seed` sends the same series and values. The exit code says whether every sample was
//! acknowledged.
//!
//! *Not here:* measuring the server's memory or CPU; any server of the remote-write protocol can be loaded.

pub mod ack_log;
mod encode;
mod sender;
mod slots;
mod stats;
pub mod workload;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;

use crate::env::{Clock, SystemClock};
use crate::ingest::decode::Protocol;
use crate::model::time::parse_duration_ms;
use ack_log::AckLog;
use sender::Run;
pub use stats::Report;
use stats::Stats;
use workload::Workload;

const EXAMPLES: &str = "\
Examples:
  metrolith load --series 10000 --duration 5m            like 20 nodes scraped each 15 s, for five minutes
  metrolith load --series 200000 --scrapes 20 --max-speed  as fast as the server takes it
  metrolith load --protocol 2 --tenant team-a --json

The exit code is 1 if any sample was not acknowledged.";

/// What `load` was told.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Server to load; without a path, /api/v1/write is asked
    #[arg(long, env = "METROLITH_URL", default_value = "http://127.0.0.1:9009")]
    pub url: String,
    /// Tenant to write as (header X-Scope-OrgID)
    #[arg(long, env = "METROLITH_TENANT")]
    pub tenant: Option<String>,
    /// Number of series
    #[arg(long, default_value_t = 10_000)]
    pub series: u64,
    /// Time between two samples of a series
    #[arg(long, default_value = "15s")]
    pub interval: String,
    /// How long to run, when not told a number of scrapes
    #[arg(long, default_value = "1m", conflicts_with = "scrapes")]
    pub duration: String,
    /// Number of samples of each series
    #[arg(long)]
    pub scrapes: Option<u64>,
    /// Send as fast as the server takes it; timestamps still lie --interval apart
    #[arg(long)]
    pub max_speed: bool,
    /// Timestamp of the first sample, Unix milliseconds [default: now; with --max-speed so that the last is now]
    #[arg(long)]
    pub start_time: Option<i64>,
    /// Version of remote write, 1 or 2
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub protocol: u8,
    /// Requests on the way at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub concurrency: u64,
    /// Series per request
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub batch: u64,
    /// Which series and values: the same number sends the same
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long a request is sent again before it counts as lost
    #[arg(long, default_value = "1m")]
    pub retry_for: String,
    /// Record every acknowledged request in this file
    #[arg(long, value_name = "FILE")]
    pub ack_log: Option<PathBuf>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs, shows progress and the report; an error if anything was lost.
pub fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let json = args.json;
    let report = runtime.block_on(drive(args))?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{report}")?;
    }
    let missing = report.samples_lost + report.samples_rejected;
    if missing > 0 {
        bail!("{missing} of {} samples were not stored", report.samples_acked + missing);
    }
    Ok(())
}

/// Runs to the end or to Ctrl-C and says what it came to.
pub async fn drive(args: Args) -> anyhow::Result<Report> {
    let clock = Arc::new(SystemClock::new());
    let run = Arc::new(prepare(&args, clock.clone())?);
    let began = clock.monotonic();
    let workers: Vec<_> = (0..run.workers).map(|w| tokio::spawn(Arc::clone(&run).work(w))).collect();
    let show = tokio::spawn(progress(Arc::clone(&run)));
    let stop = tokio::spawn({
        let run = Arc::clone(&run);
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                run.stop.store(true, Ordering::Relaxed);
            }
        }
    });
    let mut outcome = Ok(());
    for worker in workers {
        let result = worker.await.context("a worker ended abruptly").flatten();
        if result.is_err() {
            run.stop.store(true, Ordering::Relaxed);
            outcome = outcome.and(result);
        }
    }
    show.abort();
    stop.abort();
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    outcome?;
    Ok(run.stats.report(run.series, clock.monotonic() - began))
}

/// One line on a terminal, renewed twice a second.
async fn progress(run: Arc<Run>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let (mut before, mut at) = (0, run.clock.monotonic());
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = run.clock.monotonic();
        let (line, acked) = run.stats.line(run.series, before, now - at);
        (before, at) = (acked, now);
        eprint!("\r\x1b[K{line}");
    }
}

fn prepare(args: &Args, clock: Arc<SystemClock>) -> anyhow::Result<Run> {
    let positive = |flag: &str, text: &str| match parse_duration_ms(text) {
        Ok(ms) if ms > 0 => Ok(ms),
        Ok(_) => bail!("--{flag}: must be more than zero"),
        Err(error) => bail!("--{flag}: {error}"),
    };
    let interval = positive("interval", &args.interval)?;
    let scrapes = match args.scrapes {
        Some(n) => n,
        None => (positive("duration", &args.duration)? as u64).div_ceil(interval as u64),
    };
    if args.series == 0 || scrapes == 0 {
        bail!("nothing to send: {} series, {scrapes} scrapes", args.series);
    }
    let now = clock.now_ms();
    let span = interval.saturating_mul(scrapes as i64 - 1);
    let default_start = if args.max_speed { now.saturating_sub(span) } else { now };
    let acks = match &args.ack_log {
        Some(path) => Some(Mutex::new(AckLog::open(path, args.seed)?)),
        None => None,
    };
    let workers = args.concurrency.min(args.series.div_ceil(args.batch));
    Ok(Run {
        url: write_url(&args.url)?,
        tenant: args.tenant.clone(),
        protocol: if args.protocol == 2 { Protocol::V2 } else { Protocol::V1 },
        workload: Workload::new(args.seed),
        series: args.series,
        batch: args.batch,
        workers,
        start: args.start_time.unwrap_or(default_start),
        interval,
        scrapes,
        paced: !args.max_speed,
        retry_for: Duration::from_millis(positive("retry-for", &args.retry_for)? as u64),
        client: reqwest::Client::builder()
            .user_agent(concat!("metrolith-load/", env!("CARGO_PKG_VERSION")))
            .timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(workers as usize)
            .build()
            .context("making the HTTP client")?,
        stats: Stats::default(),
        acks,
        clock,
        stop: AtomicBool::new(false),
    })
}

/// Adds the usual path to a URL without one.
fn write_url(text: &str) -> anyhow::Result<String> {
    let mut url = url::Url::parse(text).with_context(|| format!("--url {text:?}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!("--url {text:?}: only http and https are spoken");
    }
    if url.path() == "/" {
        url.set_path("/api/v1/write");
    }
    Ok(url.into())
}

#[cfg(test)]
mod tests;
