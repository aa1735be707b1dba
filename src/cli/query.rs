//! `metrolith query`: asks a node over the Prometheus API and shows the answer.
//!
//! *Invariants:* `--format json` and `csv` carry the values exactly as the server wrote them.
//!
//! *Not here:* evaluation; any Prometheus-compatible server answers as well.

mod answer;
mod grid;
mod plot;
mod when;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::env::{Clock, SystemClock};
use answer::Answer;

const EXAMPLES: &str = "\
Examples:
  metrolith query 'up'
  metrolith query --start -6h --step 5m --format csv 'sum by (job) (rate(http_requests_total[5m]))'
  metrolith query --start -1h --format plot 'process_resident_memory_bytes'
  metrolith query --url http://prometheus:9090 --time 2026-06-01T00:00:00Z 'count(up)'

Times: now, -1h (before now), 2026-06-01T12:00:00Z, or Unix seconds.";

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns
    Table,
    /// The server's `data`, indented
    Json,
    /// One line per sample, a column per label
    Csv,
    /// A drawing; asks for the last hour unless told otherwise
    Plot,
}

/// What `query` was told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// PromQL expression
    expr: String,
    /// Server to ask; may end in a path before /api/v1
    #[arg(long, env = "METROLITH_URL", default_value = "http://127.0.0.1:9009")]
    url: String,
    /// Tenant to ask as (header X-Scope-OrgID)
    #[arg(long, env = "METROLITH_TENANT")]
    tenant: Option<String>,
    /// Moment of an instant query [default: now]
    #[arg(long, allow_hyphen_values = true, conflicts_with_all = ["start", "end", "step"])]
    time: Option<String>,
    /// First moment of a range query [default: an hour before the end]
    #[arg(long, allow_hyphen_values = true)]
    start: Option<String>,
    /// Last moment of a range query [default: now]
    #[arg(long, allow_hyphen_values = true)]
    end: Option<String>,
    /// Distance between the steps of a range query, such as 30s [default: about 120 steps]
    #[arg(long)]
    step: Option<String>,
    /// How to show the answer
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Give up after this long
    #[arg(long, default_value = "2m")]
    timeout: String,
}

/// Asks and shows.
pub fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let timeout = when::duration_ms(&args.timeout).context("--timeout")?;
    let request = Request::new(&args, SystemClock::new().now_ms())?;
    let body = runtime.block_on(ask(&args, &request, Duration::from_millis(timeout.unsigned_abs())))?;
    let reply = answer::parse(&body)?;
    for (word, texts) in [("warning", &reply.warnings), ("info", &reply.infos)] {
        for text in texts {
            eprintln!("{word}: {text}");
        }
    }
    let stdout = std::io::stdout();
    let screen = Screen::of(&stdout);
    let text = match args.format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&reply.data)?),
        Format::Csv => grid::csv(&Answer::from_data(&reply.data)?),
        Format::Table => grid::table(&Answer::from_data(&reply.data)?, screen.width),
        Format::Plot => plot::draw(&Answer::from_data(&reply.data)?, screen)?,
    };
    match stdout.lock().write_all(text.as_bytes()) {
        // Whoever read our output has seen enough (`| head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("writing the answer"),
    }
}

/// Where the answer is shown.
#[derive(Debug, Clone, Copy)]
struct Screen {
    width: usize,
    colour: bool,
}

impl Screen {
    fn of(stdout: &std::io::Stdout) -> Self {
        let terminal = stdout.is_terminal();
        let width = terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0));
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { width: if terminal { width.max(40) } else { 100 }, colour }
    }
}

/// Path and form fields of the question.
#[derive(Debug, PartialEq)]
struct Request {
    path: &'static str,
    form: Vec<(&'static str, String)>,
}

impl Request {
    fn new(args: &Args, now_ms: i64) -> anyhow::Result<Self> {
        let at = |text: &Option<String>, flag: &str, otherwise: i64| match text {
            Some(text) => when::parse_ms(text, now_ms).with_context(|| format!("--{flag}")),
            None => Ok(otherwise),
        };
        let mut form = vec![("query", args.expr.clone()), ("timeout", args.timeout.clone())];
        let ranged = args.start.is_some() || args.end.is_some() || args.step.is_some();
        if !ranged && (args.format != Format::Plot || args.time.is_some()) {
            form.push(("time", when::seconds(at(&args.time, "time", now_ms)?)));
            return Ok(Self { path: "query", form });
        }
        let end = at(&args.end, "end", now_ms)?;
        let start = at(&args.start, "start", end - 3_600_000)?;
        if end < start {
            bail!("--end lies before --start");
        }
        let step = match &args.step {
            Some(text) => when::duration_ms(text).context("--step")?,
            None => when::nice_step_ms(end - start),
        };
        if step <= 0 {
            bail!("--step must be longer than zero");
        }
        form.push(("start", when::seconds(start)));
        form.push(("end", when::seconds(end)));
        form.push(("step", when::seconds(step)));
        Ok(Self { path: "query_range", form })
    }
}

async fn ask(args: &Args, request: &Request, timeout: Duration) -> anyhow::Result<Vec<u8>> {
    let url = format!("{}/api/v1/{}", args.url.trim_end_matches('/'), request.path);
    // The server has the same timeout and the better message: give it a moment to say so.
    let client = reqwest::Client::builder().timeout(timeout + Duration::from_secs(5)).build()?;
    let mut post = client.post(&url).form(&request.form);
    if let Some(tenant) = &args.tenant {
        post = post.header("X-Scope-OrgID", tenant);
    }
    let answer = post.send().await.with_context(|| format!("asking {url}"))?;
    let status = answer.status();
    let body = answer.bytes().await.with_context(|| format!("reading the answer of {url}"))?;
    if !status.is_success() && serde_json::from_slice::<serde_json::Value>(&body).is_err() {
        let text = String::from_utf8_lossy(&body);
        bail!("{url} answered {status}: {}", text.trim().chars().take(300).collect::<String>());
    }
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests;
