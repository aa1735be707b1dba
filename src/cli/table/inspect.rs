//! `metrolith table inspect`: what one block is made of.
//!
//! *Invariants:* of the data files only footers and the series file are fetched.
//!
//! *Not here:* adding up a footer (`block::sizes`), finding the bucket (`cli::table`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, bail};
use futures::future::try_join_all;
use serde::Serialize;

use super::{Format, InspectArgs, Opened, nearest, units};
use crate::block::{BlockReader, FileRef, FileSizes, Kind};
use crate::cli::columns::aligned;
use crate::model::{TenantId, TimeRange};
use crate::store::catalog::Block;

/// Metrics named in a table.
const METRICS_SHOWN: usize = 10;
/// Blocks named when one is not found.
const NAMES_SHOWN: usize = 3;

/// Everything said about a block.
#[derive(Debug, Serialize)]
struct Report {
    block: String,
    tenant: String,
    resolution: String,
    window_start_ms: i64,
    shard: Option<u32>,
    epoch: Option<u64>,
    generation: u32,
    sequence: u64,
    first_ms: i64,
    last_ms: i64,
    series: usize,
    samples: u64,
    bytes: u64,
    /// Series per metric, the largest first.
    metrics: Vec<Metric>,
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct Metric {
    name: String,
    series: u64,
}

#[derive(Debug, Serialize)]
struct File {
    kind: &'static str,
    key: String,
    bytes: u64,
    rows: u64,
    row_groups: usize,
    columns: Vec<Column>,
    footer_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Column {
    name: String,
    bytes: u64,
    encoded_bytes: u64,
}

pub(super) async fn run(args: &InspectArgs) -> anyhow::Result<String> {
    let opened = Opened::new(&args.place)?;
    let (tenant, block) = find(&opened, args).await?;
    let report = Report::of(&opened, &tenant, &block).await.with_context(|| format!("reading block {}", block.name))?;
    match args.place.format {
        Format::Json => Ok(serde_json::to_string_pretty(&report)? + "\n"),
        Format::Table => Ok(report.table()),
    }
}

/// The block of that name; several tenants may have one, as their series of a shard are flushed together.
async fn find(opened: &Opened, args: &InspectArgs) -> anyhow::Result<(TenantId, Arc<Block>)> {
    let tenants = match &args.tenant {
        Some(name) => vec![opened.tenant(name).await?],
        None => opened.tenants().await?,
    };
    let (mut found, mut names) = (Vec::new(), Vec::new());
    for tenant in tenants {
        for block in opened.tables.latest(&tenant).await?.blocks() {
            if *block.name.0 == *args.block {
                found.push((tenant.clone(), Arc::clone(block)));
            }
            names.push(block.name.to_string());
        }
    }
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 if names.is_empty() => bail!("no block {:?}: the table has none", args.block),
        0 => {
            names.sort();
            names.dedup();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            bail!("no block {:?}; near to it: {}", args.block, nearest(&args.block, &names, NAMES_SHOWN))
        }
        _ => {
            let tenants: Vec<&str> = found.iter().map(|(tenant, _)| tenant.as_str()).collect();
            bail!("block {:?} is there for tenants {}: say whose with --tenant", args.block, tenants.join(", "))
        }
    }
}

impl Report {
    async fn of(opened: &Opened, tenant: &TenantId, block: &Block) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for file in &block.files {
            let kind =
                Kind::parse(&file.kind).with_context(|| format!("{}: unknown kind {:?}", file.key, file.kind))?;
            files.push(FileRef { kind, path: file.key.clone(), size: file.size });
        }
        files.sort_by_key(|file| file.kind);
        let store = opened.bucket.store();
        let sizes = try_join_all(files.iter().map(|f| FileSizes::read(Arc::clone(store), f.clone()))).await?;
        let reader = BlockReader::open(Arc::clone(store), files.clone()).await?;
        let mut by_metric: BTreeMap<String, u64> = BTreeMap::new();
        for (labels, _) in reader.series(&[], TimeRange::all()) {
            *by_metric.entry(labels.metric().to_owned()).or_default() += 1;
        }
        let mut metrics: Vec<Metric> = by_metric.into_iter().map(|(name, series)| Metric { name, series }).collect();
        metrics.sort_by_key(|metric| std::cmp::Reverse(metric.series));
        Ok(Self {
            block: block.name.to_string(),
            tenant: tenant.to_string(),
            resolution: block.resolution.clone(),
            window_start_ms: block.tags.window_start,
            shard: block.tags.shard.map(|shard| shard.0),
            epoch: block.tags.epoch.map(|epoch| epoch.0),
            generation: block.tags.generation,
            sequence: block.tags.sequence,
            first_ms: block.tags.range.start,
            last_ms: block.tags.range.end,
            series: reader.series_count(),
            samples: block.tags.samples,
            bytes: block.bytes(),
            metrics,
            files: files.iter().zip(sizes).map(|(file, sizes)| File::of(file, sizes)).collect(),
        })
    }

    fn table(&self) -> String {
        let mut rows = vec![vec!["BLOCK".to_owned(), self.block.clone()]];
        let mut say = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        let number = |n: Option<u64>| n.map_or_else(|| "several".to_owned(), |n| n.to_string());
        say("tenant", self.tenant.clone());
        say("window", format!("{}, generation {}", units::time(self.window_start_ms), self.generation));
        say("shard", format!("{} of epoch {}", number(self.shard.map(u64::from)), number(self.epoch)));
        say("times", format!("{} to {}", units::time(self.first_ms), units::time(self.last_ms)));
        say("series", format!("{} of {} metrics", self.series, self.metrics.len()));
        say("samples", self.samples.to_string());
        say("size", format!("{}, {} bytes/sample", units::bytes(self.bytes), units::per(self.bytes, self.samples)));
        // Figures in one column of texts: kept to the left.
        let mut out = String::new();
        for row in &rows {
            let _ = writeln!(out, "{:<8} {}", row[0], row[1]);
        }
        out.push('\n');
        out.push_str(&aligned(&self.file_rows()));
        out.push('\n');
        out.push_str(&aligned(&self.metric_rows()));
        if self.metrics.len() > METRICS_SHOWN {
            let _ = writeln!(out, "… and {} more", self.metrics.len() - METRICS_SHOWN);
        }
        out
    }

    /// A row per file, below it a row per column, the largest first.
    fn file_rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![["FILE", "ROWS", "GROUPS", "SIZE", "OF BLOCK", "BYTES/SAMPLE"].map(str::to_owned).to_vec()];
        for file in &self.files {
            let figures =
                |bytes| [units::bytes(bytes), units::share(bytes, self.bytes), units::per(bytes, self.samples)];
            let mut row = vec![file.kind.to_owned(), file.rows.to_string(), file.row_groups.to_string()];
            row.extend(figures(file.bytes));
            rows.push(row);
            let mut parts: Vec<(&str, u64)> = file.columns.iter().map(|c| (c.name.as_str(), c.bytes)).collect();
            parts.push(("(footer and page index)", file.footer_bytes));
            parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
            for (name, bytes) in parts.into_iter().filter(|(_, bytes)| *bytes > 0) {
                let mut row = vec![format!("  {name}"), "–".to_owned(), "–".to_owned()];
                row.extend(figures(bytes));
                rows.push(row);
            }
        }
        rows
    }

    fn metric_rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![vec!["METRIC".to_owned(), "SERIES".to_owned()]];
        let shown = self.metrics.iter().take(METRICS_SHOWN);
        rows.extend(shown.map(|metric| vec![metric.name.clone(), metric.series.to_string()]));
        rows
    }
}

impl File {
    fn of(file: &FileRef, sizes: FileSizes) -> Self {
        let footer_bytes = sizes.footer_bytes();
        let column =
            |c: crate::block::ColumnSize| Column { name: c.name, bytes: c.bytes, encoded_bytes: c.encoded_bytes };
        Self {
            kind: file.kind.as_str(),
            key: file.path.to_string(),
            bytes: sizes.bytes,
            rows: sizes.rows,
            row_groups: sizes.row_groups,
            columns: sizes.columns.into_iter().map(column).collect(),
            footer_bytes,
        }
    }
}
