//! A table at one version: its files, by block and time.
//!
//! *Invariants:* immutable; built from an older snapshot and the lines of the next version. Every file of a block is in the
//! same snapshot, because they were added in one commit. Blocks are sorted by their first timestamp, then by name.
//!
//! *Not here:* fetching (`tables`), reading the files (`block`).

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::path::Path;

use super::actions::{Add, BlockTags, Line, MetaData, Protocol, Remove, rows_of};
use crate::block::{self, FileRef, Kind};
use crate::model::{BlockName, TenantId, TimeRange};
use crate::store::layout::{self, DataFile};

/// How long a removed file is remembered, so that whoever still reads an older version finds it, milliseconds.
pub const TOMBSTONE_MS: i64 = 48 * 3600 * 1000;

/// One Parquet file of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockFile {
    /// `series`, `timelines`, `samples`, `histograms` or `exemplars`.
    pub kind: String,
    /// Its key in the bucket.
    pub key: Path,
    /// Its size in bytes.
    pub size: u64,
    /// Number of rows.
    pub rows: u64,
}

/// A block as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its name.
    pub name: BlockName,
    /// `raw`, `5m` or `1h`.
    pub resolution: String,
    /// Time range, origin and size as the writer noted them.
    pub tags: BlockTags,
    /// Its files, by kind.
    pub files: Vec<BlockFile>,
}

impl Block {
    /// The file of `kind`, if the block has one.
    pub fn file(&self, kind: &str) -> Option<&BlockFile> {
        self.files.iter().find(|file| file.kind == kind)
    }

    /// Its files as its reader wants them.
    pub fn file_refs(&self) -> Result<Vec<FileRef>, block::Error> {
        let unknown = |file: &BlockFile| block::Error::Corrupt {
            path: file.key.to_string(),
            what: format!("unknown kind of file {:?}", file.kind),
        };
        let file_ref = |file: &BlockFile| {
            let kind = Kind::parse(&file.kind).ok_or_else(|| unknown(file))?;
            Ok(FileRef { kind, path: file.key.clone(), size: file.size })
        };
        self.files.iter().map(file_ref).collect()
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// A tenant's table at one version.
#[derive(Debug, Clone)]
pub struct TableSnapshot {
    tenant: TenantId,
    /// `None` before the table's first version.
    version: Option<u64>,
    history: Option<u64>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) meta_data: Option<MetaData>,
    /// By path relative to the table.
    pub(crate) files: BTreeMap<String, Arc<Add>>,
    /// By path relative to the table.
    pub(crate) removed: BTreeMap<String, Arc<Remove>>,
    pub(crate) txns: BTreeMap<String, u64>,
    blocks: Vec<Arc<Block>>,
}

impl TableSnapshot {
    /// The table before its first version.
    pub fn empty(tenant: &TenantId) -> Self {
        Self {
            tenant: tenant.clone(),
            version: None,
            history: None,
            protocol: None,
            meta_data: None,
            files: BTreeMap::new(),
            removed: BTreeMap::new(),
            txns: BTreeMap::new(),
            blocks: Vec::new(),
        }
    }

    /// Whose table it is.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The version, `None` before the first.
    pub fn version(&self) -> Option<u64> {
        self.version
    }

    /// The last version (or that of the checkpoint this was read from) in which samples came or went: flushes of shards
    /// only move what their heads showed before, and compactions what is in other blocks, so they do not count.
    pub fn history(&self) -> Option<u64> {
        self.history
    }

    /// All blocks, by first timestamp.
    pub fn blocks(&self) -> &[Arc<Block>] {
        &self.blocks
    }

    /// The blocks of `resolution` that may hold a sample in `range`.
    pub fn blocks_in<'a>(&'a self, resolution: &'a str, range: TimeRange) -> impl Iterator<Item = &'a Arc<Block>> {
        let begun = self.blocks.partition_point(|block| block.tags.range.start <= range.end);
        self.blocks[..begun].iter().filter(move |b| b.resolution == resolution && b.tags.range.overlaps(&range))
    }

    /// The table's Delta id; empty before the first version.
    pub fn table_id(&self) -> &str {
        self.meta_data.as_ref().map_or("", |m| &m.id)
    }

    /// Version of the columns the table was last given.
    pub fn schema_version(&self) -> u32 {
        self.meta_data.as_ref().map_or(0, MetaData::schema_version)
    }

    /// Last transaction per application: how far each shard has flushed.
    pub fn transactions(&self) -> &BTreeMap<String, u64> {
        &self.txns
    }

    /// When the newest file of a block was written, milliseconds; `None` for a block of another version.
    pub fn written_ms(&self, block: &Block) -> Option<i64> {
        let add = |file: &BlockFile| self.files.get(&layout::relative_to_table(&self.tenant, &file.key)?);
        block.files.iter().filter_map(|file| Some(add(file)?.modification_time)).max()
    }

    /// Whether a file (given relative to the table) is part of this version.
    pub fn has_file(&self, relative: &str) -> bool {
        self.files.contains_key(relative)
    }

    /// When a file (given relative to the table) was removed, milliseconds; `None` if it was not, or long ago.
    pub fn removed_at(&self, relative: &str) -> Option<i64> {
        self.removed.get(relative).and_then(|remove| remove.deletion_timestamp)
    }

    /// The snapshot after `lines` made `version`.
    pub(crate) fn apply(&mut self, version: u64, lines: Vec<Line>) -> Result<(), String> {
        let next = self.version.map_or(0, |v| v + 1);
        if version != next {
            return Err(format!("version {version} cannot follow, expected {next}"));
        }
        if !is_flush(&lines) {
            self.history = Some(version);
        }
        let mut latest = i64::MIN;
        for line in lines {
            latest = latest.max(line.remove.as_ref().and_then(|r| r.deletion_timestamp).unwrap_or(i64::MIN));
            latest = latest.max(line.txn.as_ref().and_then(|t| t.last_updated).unwrap_or(i64::MIN));
            self.apply_line(line)?;
        }
        if self.protocol.is_none() || self.meta_data.is_none() {
            return Err("the first version lacks protocol or metaData".into());
        }
        self.removed.retain(|_, r| r.deletion_timestamp.unwrap_or(i64::MAX) > latest.saturating_sub(TOMBSTONE_MS));
        self.version = Some(version);
        Ok(())
    }

    pub(crate) fn apply_line(&mut self, line: Line) -> Result<(), String> {
        if let Some(protocol) = line.protocol {
            if protocol.min_reader_version > Protocol::OURS.min_reader_version {
                return Err(format!("needs Delta reader version {}", protocol.min_reader_version));
            }
            self.protocol = Some(protocol);
        }
        if let Some(meta_data) = line.meta_data {
            self.meta_data = Some(meta_data);
        }
        if let Some(txn) = line.txn {
            let version =
                u64::try_from(txn.version).map_err(|_| format!("transaction of {} is negative", txn.app_id))?;
            self.txns.insert(txn.app_id, version);
        }
        if let Some(remove) = line.remove {
            self.files.remove(&remove.path);
            self.removed.insert(remove.path.clone(), Arc::new(remove));
        }
        if let Some(add) = line.add {
            self.removed.remove(&add.path);
            self.files.insert(add.path.clone(), Arc::new(add));
        }
        Ok(())
    }

    pub(crate) fn set_version(&mut self, version: u64) {
        (self.version, self.history) = (Some(version), Some(version));
    }

    /// Groups the files into blocks; to be called once after the last change.
    pub(crate) fn index(&mut self) {
        let mut blocks: BTreeMap<(String, BlockName), Block> = BTreeMap::new();
        for add in self.files.values() {
            // A file that is not named and tagged as ours was added by someone else; we leave it alone.
            let Some((file, tags)) = DataFile::parse(&add.path).zip(add.tags.as_ref().and_then(BlockTags::from_map))
            else {
                continue;
            };
            let part = BlockFile {
                key: layout::table_file(&self.tenant, &add.path),
                size: add.size.max(0) as u64,
                rows: add.stats.as_deref().and_then(rows_of).unwrap_or(0),
                kind: file.kind,
            };
            let block = blocks.entry((file.resolution.clone(), file.block.clone())).or_insert_with(|| Block {
                name: file.block,
                resolution: file.resolution,
                tags,
                files: Vec::new(),
            });
            block.files.push(part);
        }
        self.blocks = blocks.into_values().map(Arc::new).collect();
        self.blocks.sort_by_key(|block| block.tags.range.start);
    }
}

/// Whether a version takes no sample away and adds only those that shards flushed in it; what it says changes no data
/// (a compaction) does neither.
fn is_flush(lines: &[Line]) -> bool {
    let flushed = |add: &Add| {
        let origin = add.tags.as_ref().and_then(BlockTags::from_map).and_then(|tags| tags.epoch.zip(tags.shard));
        let app = origin.map(|(epoch, shard)| layout::app_of(epoch, shard));
        lines.iter().filter_map(|line| line.txn.as_ref()).any(|txn| Some(&txn.app_id) == app.as_ref())
    };
    lines.iter().all(|line| {
        line.remove.as_ref().is_none_or(|remove| !remove.data_change)
            && line.add.as_ref().is_none_or(|add| !add.data_change || flushed(add))
    })
}
