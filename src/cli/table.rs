//! `metrolith table`: looks at the tables in a bucket, without a node.
//!
//! *Invariants:* nothing is written, not even the directory of a bucket that is not there. A node may be writing
//! meanwhile: what is shown is the newest version found when the command began.
//!
//! *Not here:* values of samples (`metrolith query`).

mod inspect;
mod ls;
mod units;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use prometheus_client::registry::Registry;

use crate::model::TenantId;
use crate::store::{self, Bucket, Tables};

const LS_EXAMPLES: &str = "\
Examples:
  metrolith table ls                                    the tables below ./data/bucket
  metrolith table ls --tenant anonymous                 the blocks of one of them
  metrolith table ls --bucket s3://metrics/prod --format json";

const INSPECT_EXAMPLES: &str = "\
Examples:
  metrolith table inspect 1-004-1780272000000-00000002
  metrolith table inspect --bucket s3://metrics/prod --tenant team-1 1-004-1780272000000-00000002

Names of blocks: metrolith table ls --tenant TENANT.";

/// What `table` was told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the tables of a bucket, or the blocks of one
    #[command(after_help = LS_EXAMPLES)]
    Ls(LsArgs),
    /// Show what a block is made of: files, columns, series
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
}

#[derive(Debug, clap::Args)]
struct LsArgs {
    #[command(flatten)]
    place: Place,
    /// List the blocks of this tenant's table
    #[arg(long)]
    tenant: Option<String>,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    #[command(flatten)]
    place: Place,
    /// Whose block it is [default: whoever has one of that name]
    #[arg(long)]
    tenant: Option<String>,
    /// Name of the block
    block: String,
}

/// Where to look and how to answer.
#[derive(Debug, clap::Args)]
struct Place {
    /// Bucket: file://DIR, s3://BUCKET/PREFIX, gs://… or az://…; credentials from the usual environment variables
    #[arg(long, value_name = "URL", default_value = "file://./data/bucket")]
    bucket: String,
    /// How to show the answer
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns, for people
    Table,
    /// All figures in plain units: bytes, milliseconds since 1970
    Json,
}

/// Looks and shows.
pub fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let text = runtime.block_on(async {
        match args.command {
            Command::Ls(args) => ls::run(&args).await,
            Command::Inspect(args) => inspect::run(&args).await,
        }
    })?;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read our output has seen enough (`| head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("writing the answer"),
    }
}

/// A bucket that exists.
struct Opened {
    bucket: Bucket,
    tables: Tables,
}

impl Opened {
    fn new(place: &Place) -> anyhow::Result<Self> {
        let url = &place.bucket;
        // Opening would make the directory: a node wants that, a reader has the wrong URL.
        if let Some(dir) = url.strip_prefix("file://") {
            let dir = percent_encoding::percent_decode_str(dir).decode_utf8().context("--bucket")?;
            if !dir.is_empty() && !Path::new(&*dir).is_dir() {
                bail!("no bucket at {url}: there is no such directory; say where it is with --bucket");
            }
        }
        let bucket = Bucket::open(url).context("--bucket")?;
        let tables = Tables::new(bucket.clone(), store::Metrics::register(&mut Registry::default()));
        Ok(Self { bucket, tables })
    }

    async fn tenants(&self) -> anyhow::Result<Vec<TenantId>> {
        let tenants = self.tables.tenants().await.with_context(|| format!("looking into {}", self.bucket.url()))?;
        if tenants.is_empty() {
            bail!("no tables in bucket {}: nothing was flushed yet, or it is another bucket", self.bucket.url());
        }
        Ok(tenants)
    }

    /// The tenant of that name if it has a table.
    async fn tenant(&self, name: &str) -> anyhow::Result<TenantId> {
        let known = self.tenants().await?;
        if let Some(tenant) = known.iter().find(|t| t.as_str() == name) {
            return Ok(tenant.clone());
        }
        let names: Vec<&str> = known.iter().map(TenantId::as_str).collect();
        bail!("no table of tenant {name:?} in bucket {}; there are {}", self.bucket.url(), nearest(name, &names, 10));
    }
}

/// At most `most` of `names`, the most similar first.
fn nearest(name: &str, names: &[&str], most: usize) -> String {
    let mut scored: Vec<(f64, &str)> =
        names.iter().map(|n| (strsim::normalized_damerau_levenshtein(name, n), *n)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let shown: Vec<&str> = scored.iter().take(most).map(|(_, n)| *n).collect();
    let rest = names.len() - shown.len();
    shown.join(", ") + &if rest > 0 { format!(" and {rest} more") } else { String::new() }
}

#[cfg(test)]
mod tests;
