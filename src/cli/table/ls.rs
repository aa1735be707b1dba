//! `metrolith table ls`: tables of a bucket, blocks of a table.
//!
//! *Invariants:* figures come from the catalog alone; no data file is opened.
//!
//! *Not here:* what is inside a block (`cli::table::inspect`).

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::units;
use super::{Format, LsArgs, Opened};
use crate::block::Kind;
use crate::cli::columns::aligned;
use crate::model::TenantId;
use crate::store::TableSnapshot;
use crate::store::catalog::Block;

/// Tables read at a time.
const TABLES_IN_FLIGHT: usize = 8;

/// A line about a table.
#[derive(Debug, Serialize)]
struct TableLine {
    tenant: String,
    version: Option<u64>,
    blocks: usize,
    files: usize,
    /// Series of every block together: one that lives for three blocks counts three times.
    block_series: u64,
    samples: u64,
    bytes: u64,
    first_ms: Option<i64>,
    last_ms: Option<i64>,
}

/// A line about a block.
#[derive(Debug, Serialize)]
struct BlockLine {
    block: String,
    resolution: String,
    window_start_ms: i64,
    shard: Option<u32>,
    epoch: Option<u64>,
    generation: u32,
    files: usize,
    series: u64,
    samples: u64,
    bytes: u64,
    first_ms: i64,
    last_ms: i64,
}

pub(super) async fn run(args: &LsArgs) -> anyhow::Result<String> {
    let opened = Opened::new(&args.place)?;
    match &args.tenant {
        None => tables(&opened, args.place.format).await,
        Some(name) => {
            let tenant = opened.tenant(name).await?;
            let snapshot = opened.tables.latest(&tenant).await?;
            let lines: Vec<BlockLine> = snapshot.blocks().iter().map(|block| BlockLine::of(block)).collect();
            show(args.place.format, &lines, BlockLine::HEADING, BlockLine::cells)
        }
    }
}

async fn tables(opened: &Opened, format: Format) -> anyhow::Result<String> {
    let read = |tenant: TenantId| async move { opened.tables.latest(&tenant).await };
    let tenants = opened.tenants().await?;
    let snapshots: Vec<_> = stream::iter(tenants).map(read).buffered(TABLES_IN_FLIGHT).try_collect().await?;
    let lines: Vec<TableLine> = snapshots.iter().map(|snapshot| TableLine::of(snapshot)).collect();
    show(format, &lines, TableLine::HEADING, TableLine::cells)
}

fn show<T: Serialize, const N: usize>(
    format: Format,
    lines: &[T],
    heading: [&str; N],
    cells: fn(&T) -> [String; N],
) -> anyhow::Result<String> {
    if format == Format::Json {
        return Ok(serde_json::to_string_pretty(lines)? + "\n");
    }
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(lines.iter().map(|line| cells(line).to_vec()));
    Ok(aligned(&rows))
}

/// Number of series of a block: rows of its series file.
fn series_of(block: &Block) -> u64 {
    block.file(Kind::Series.as_str()).map_or(0, |file| file.rows)
}

impl TableLine {
    const HEADING: [&str; 10] =
        ["TENANT", "VERSION", "BLOCKS", "FILES", "BLOCK SERIES", "SAMPLES", "SIZE", "BYTES/SAMPLE", "FROM", "TO"];

    fn of(snapshot: &TableSnapshot) -> Self {
        let blocks = snapshot.blocks();
        Self {
            tenant: snapshot.tenant().to_string(),
            version: snapshot.version(),
            blocks: blocks.len(),
            files: blocks.iter().map(|b| b.files.len()).sum(),
            block_series: blocks.iter().map(|b| series_of(b)).sum(),
            samples: blocks.iter().map(|b| b.tags.samples).sum(),
            bytes: blocks.iter().map(|b| b.bytes()).sum(),
            first_ms: blocks.iter().map(|b| b.tags.range.start).min(),
            last_ms: blocks.iter().map(|b| b.tags.range.end).max(),
        }
    }

    fn cells(&self) -> [String; 10] {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        [
            self.tenant.clone(),
            or_none(self.version.map(|v| v.to_string())),
            self.blocks.to_string(),
            self.files.to_string(),
            self.block_series.to_string(),
            self.samples.to_string(),
            units::bytes(self.bytes),
            units::per(self.bytes, self.samples),
            or_none(self.first_ms.map(units::time)),
            or_none(self.last_ms.map(units::time)),
        ]
    }
}

impl BlockLine {
    const HEADING: [&str; 10] =
        ["BLOCK", "WINDOW", "FROM", "TO", "SHARD", "GENERATION", "SERIES", "SAMPLES", "SIZE", "BYTES/SAMPLE"];

    fn of(block: &Block) -> Self {
        Self {
            block: block.name.to_string(),
            resolution: block.resolution.clone(),
            window_start_ms: block.tags.window_start,
            shard: block.tags.shard.map(|shard| shard.0),
            epoch: block.tags.epoch.map(|epoch| epoch.0),
            generation: block.tags.generation,
            files: block.files.len(),
            series: series_of(block),
            samples: block.tags.samples,
            bytes: block.bytes(),
            first_ms: block.tags.range.start,
            last_ms: block.tags.range.end,
        }
    }

    fn cells(&self) -> [String; 10] {
        [
            self.block.clone(),
            units::time(self.window_start_ms),
            units::time(self.first_ms),
            units::time(self.last_ms),
            self.shard.map_or_else(|| "–".to_owned(), |shard| shard.to_string()),
            self.generation.to_string(),
            self.series.to_string(),
            self.samples.to_string(),
            units::bytes(self.bytes),
            units::per(self.bytes, self.samples),
        ]
    }
}
