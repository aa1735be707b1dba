//! Delta actions: the lines a table's log is made of.
//!
//! *Invariants:* equal values give equal bytes: fields in a fixed order, maps sorted. The lines of a commit do not name the
//! version they become, so they can be rendered before it is decided.
//!
//! *Not here:* the order of versions (`meta::state`), checkpoints (`checkpoint`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::block;
use crate::model::{BlockName, Epoch, ShardId, TimeRange};
use crate::store::layout::DataFile;

/// Columns the table is partitioned by, in the order of the directories.
pub const PARTITION_COLUMNS: [&str; 3] = ["resolution", "kind", "date"];
/// Key of the table's configuration that keeps [`TableSchema::version`].
pub const SCHEMA_VERSION_KEY: &str = "metrolith.schemaVersion";

/// The table's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// Grows with every change of the columns; a table takes a schema only if it is newer than its own, so that an older
    /// node cannot turn it back.
    pub version: u32,
    /// Delta's schema string: a JSON struct type that includes the partition columns.
    pub json: Arc<str>,
}

/// Figures of a data file for readers from outside, who skip files by them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FileStats {
    /// Number of rows.
    pub rows: u64,
    /// Lowest value per column, in the JSON form Delta gives the column's type.
    pub min: BTreeMap<String, Value>,
    /// Highest value per column.
    pub max: BTreeMap<String, Value>,
    /// Number of nulls per column.
    pub nulls: BTreeMap<String, u64>,
}

impl FileStats {
    /// What readers from outside may skip a block's file by.
    pub fn of(file: &block::BlockFile) -> Self {
        let mut stats = Self { rows: file.rows, ..Self::default() };
        if let Some((first, last)) = &file.stats.metric {
            stats.min.insert("metric".into(), first.as_str().into());
            stats.max.insert("metric".into(), last.as_str().into());
        }
        if let Some((lowest, highest)) = file.stats.series_hash {
            stats.min.insert("series_hash".into(), lowest.into());
            stats.max.insert("series_hash".into(), highest.into());
        }
        stats
    }
}

/// What we note about a file's block, for planning without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockTags {
    /// First and last timestamp of the block's samples, milliseconds.
    pub range: TimeRange,
    /// Shard that flushed it; `None` for blocks of several shards.
    pub shard: Option<ShardId>,
    /// Epoch of that shard.
    pub epoch: Option<Epoch>,
    /// Start of the window, milliseconds.
    pub window_start: i64,
    /// 0 for the first flush of a window, then 1 more for each late one.
    pub generation: u32,
    /// Number of the flush within its shard.
    pub sequence: u64,
    /// Samples in the block (floats and histograms).
    pub samples: u64,
}

/// A data file that becomes part of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct AddFile {
    /// Where it is.
    pub file: DataFile,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, milliseconds since the epoch.
    pub modified_ms: i64,
    /// Figures for readers from outside.
    pub stats: FileStats,
    /// Figures for us.
    pub tags: BlockTags,
}

/// A data file that stops being part of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveFile {
    /// Where it is.
    pub file: DataFile,
    /// Its size in bytes.
    pub size: u64,
    /// False if its content lives on in other files (compaction).
    pub data_change: bool,
}

/// One line of the log, as written and read.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit_info: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta_data: Option<MetaData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) add: Option<Add>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remove: Option<Remove>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub(crate) min_reader_version: i32,
    pub(crate) min_writer_version: i32,
}

impl Protocol {
    /// What we write: plain tables, readable by everyone.
    pub(crate) const OURS: Self = Self { min_reader_version: 1, min_writer_version: 2 };
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetaData {
    pub(crate) id: String,
    pub(crate) format: Format,
    pub(crate) schema_string: String,
    pub(crate) partition_columns: Vec<String>,
    #[serde(default)]
    pub(crate) configuration: BTreeMap<String, String>,
    pub(crate) created_time: Option<i64>,
}

impl MetaData {
    pub(crate) fn new(id: &str, schema: &TableSchema, created_ms: i64) -> Self {
        Self {
            id: id.to_owned(),
            format: Format { provider: "parquet".into(), options: BTreeMap::new() },
            schema_string: schema.json.to_string(),
            partition_columns: PARTITION_COLUMNS.map(str::to_owned).to_vec(),
            configuration: BTreeMap::from([(SCHEMA_VERSION_KEY.to_owned(), schema.version.to_string())]),
            created_time: Some(created_ms),
        }
    }

    /// The schema's version, 0 if the table was made by someone else.
    pub(crate) fn schema_version(&self) -> u32 {
        self.configuration.get(SCHEMA_VERSION_KEY).and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub(crate) app_id: String,
    pub(crate) version: i64,
    pub(crate) last_updated: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) partition_values: BTreeMap<String, Option<String>>,
    pub(crate) size: i64,
    pub(crate) modification_time: i64,
    pub(crate) data_change: bool,
    pub(crate) stats: Option<String>,
    pub(crate) tags: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub(crate) path: String,
    pub(crate) deletion_timestamp: Option<i64>,
    pub(crate) data_change: bool,
    pub(crate) extended_file_metadata: Option<bool>,
    pub(crate) partition_values: Option<BTreeMap<String, Option<String>>>,
    pub(crate) size: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatsJson {
    num_records: u64,
    #[serde(default)]
    min_values: BTreeMap<String, Value>,
    #[serde(default)]
    max_values: BTreeMap<String, Value>,
    #[serde(default)]
    null_count: BTreeMap<String, Value>,
}

/// Number of rows a file's statistics give; `None` if they do not.
pub(crate) fn rows_of(stats: &str) -> Option<u64> {
    serde_json::from_str::<StatsJson>(stats).ok().map(|s| s.num_records)
}

fn partition_values(file: &DataFile) -> BTreeMap<String, Option<String>> {
    let values = [&file.resolution, &file.kind, &file.date];
    PARTITION_COLUMNS.iter().zip(values).map(|(column, value)| (column.to_string(), Some(value.clone()))).collect()
}

impl AddFile {
    fn action(&self, data_change: bool) -> Add {
        let stats = StatsJson {
            num_records: self.stats.rows,
            min_values: self.stats.min.clone(),
            max_values: self.stats.max.clone(),
            null_count: self.stats.nulls.iter().map(|(column, n)| (column.clone(), Value::from(*n))).collect(),
        };
        Add {
            path: self.file.relative(),
            partition_values: partition_values(&self.file),
            size: self.size as i64,
            modification_time: self.modified_ms,
            data_change,
            stats: serde_json::to_string(&stats).ok(),
            tags: Some(self.tags.to_map(&self.file.block)),
        }
    }
}

impl RemoveFile {
    fn action(&self, timestamp_ms: i64) -> Remove {
        Remove {
            path: self.file.relative(),
            deletion_timestamp: Some(timestamp_ms),
            data_change: self.data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(partition_values(&self.file)),
            size: Some(self.size as i64),
        }
    }
}

impl BlockTags {
    fn to_map(&self, block: &BlockName) -> BTreeMap<String, Option<String>> {
        let mut map = BTreeMap::from([
            ("block", block.to_string()),
            ("minTs", self.range.start.to_string()),
            ("maxTs", self.range.end.to_string()),
            ("windowStart", self.window_start.to_string()),
            ("generation", self.generation.to_string()),
            ("sequence", self.sequence.to_string()),
            ("samples", self.samples.to_string()),
        ]);
        map.extend(self.shard.map(|shard| ("shard", shard.to_string())));
        map.extend(self.epoch.map(|epoch| ("epoch", epoch.to_string())));
        map.into_iter().map(|(name, value)| (format!("metrolith.{name}"), Some(value))).collect()
    }

    /// Reads the tags of an `add`; `None` if they are not ours.
    pub(crate) fn from_map(map: &BTreeMap<String, Option<String>>) -> Option<Self> {
        let text = |name: &str| map.get(&format!("metrolith.{name}"))?.as_deref();
        let number = |name: &str| text(name)?.parse::<i64>().ok();
        Some(Self {
            range: TimeRange::new(number("minTs")?, number("maxTs")?),
            shard: text("shard").and_then(|n| n.parse().ok()).map(ShardId),
            epoch: text("epoch").and_then(|n| n.parse().ok()).map(Epoch),
            window_start: number("windowStart")?,
            generation: text("generation")?.parse().ok()?,
            sequence: text("sequence")?.parse().ok()?,
            samples: text("samples")?.parse().ok()?,
        })
    }
}

fn push(out: &mut BytesMut, line: &Line) {
    // Plain data with string keys: serde_json has nothing to refuse here.
    match serde_json::to_writer(out.writer(), line) {
        Ok(()) => out.put_u8(b'\n'),
        Err(e) => unreachable!("BUG: a log line cannot be rendered: {e}"),
    }
}

/// The lines that make or change a table: protocol (only when it is made) and columns.
pub fn table_lines(table_id: &str, schema: &TableSchema, created_ms: i64, is_new: bool) -> Bytes {
    let mut out = BytesMut::new();
    if is_new {
        push(&mut out, &Line { protocol: Some(Protocol::OURS), ..Line::default() });
    }
    let meta_data = Some(MetaData::new(table_id, schema, created_ms));
    push(&mut out, &Line { meta_data, ..Line::default() });
    out.freeze()
}

/// The lines of one commit: transaction id, files added and removed.
pub fn commit_lines(app: &str, sequence: u64, timestamp_ms: i64, adds: &[AddFile], removes: &[RemoveFile]) -> Bytes {
    let mut out = BytesMut::new();
    let info = serde_json::json!({
        "timestamp": timestamp_ms,
        "operation": if removes.is_empty() { "WRITE" } else { "OPTIMIZE" },
        "operationParameters": { "appId": app, "sequence": sequence.to_string() },
        "engineInfo": concat!("metrolith/", env!("CARGO_PKG_VERSION")),
    });
    push(&mut out, &Line { commit_info: Some(info), ..Line::default() });
    let txn = Txn { app_id: app.to_owned(), version: sequence as i64, last_updated: Some(timestamp_ms) };
    push(&mut out, &Line { txn: Some(txn), ..Line::default() });
    for file in removes {
        push(&mut out, &Line { remove: Some(file.action(timestamp_ms)), ..Line::default() });
    }
    // A compaction adds what it removes: to who follows the table nothing has changed.
    let data_change = removes.is_empty() || removes.iter().any(|file| file.data_change);
    for file in adds {
        push(&mut out, &Line { add: Some(file.action(data_change)), ..Line::default() });
    }
    out.freeze()
}

/// Reads a version's lines.
pub(crate) fn parse_lines(bytes: &[u8]) -> Result<Vec<Line>, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(n, line)| serde_json::from_str(line).map_err(|e| format!("line {}: {e}", n + 1))).collect()
}
