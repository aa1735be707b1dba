//! One closed window as blocks: one per tenant, with the lines the catalog will carry.
//!
//! *Invariants:* equal windows give equal bytes, so a repeated upload overwrites files with themselves.
//!
//! *Not here:* uploading and committing (`ingest::flush`).

use std::collections::HashMap;

use bytes::Bytes;

use super::IngestError;
use super::shard::ClosedWindow;
use crate::block::{self, BlockFile, BlockWriter, SeriesInput, WriterOptions};
use crate::head::{TenantWindow, WindowSnapshot};
use crate::model::{BlockName, Columns, Epoch, Labels, ShardId, TenantId, TimeRange};
use crate::store::AddFile;
use crate::store::catalog::actions::{BlockTags, FileStats};
use crate::store::layout::DataFile;

/// Resolution of what is flushed: the samples as they came.
const RAW: &str = "raw";

/// A tenant's block, ready to be uploaded.
pub struct Built {
    /// Whose.
    pub tenant: TenantId,
    /// Catalog lines and contents.
    pub files: Vec<(AddFile, Bytes)>,
    /// Samples inside.
    pub samples: u64,
}

/// Writes the blocks of a window; CPU work, for a blocking thread.
pub fn build(
    snapshot: WindowSnapshot,
    name: BlockName,
    shard: ShardId,
    epoch: Epoch,
    window: ClosedWindow,
    modified_ms: i64,
) -> Result<Vec<Built>, IngestError> {
    let mut built = Vec::with_capacity(snapshot.tenants.len());
    for part in snapshot.tenants {
        let tenant = part.tenant.clone();
        let block = write(part, &name)?;
        if block.files.is_empty() {
            continue;
        }
        let tags = BlockTags {
            range: TimeRange::new(block.min_ts, block.max_ts),
            shard: Some(shard),
            epoch: Some(epoch),
            window_start: window.start,
            generation: window.generation,
            sequence: window.sequence,
            samples: block.samples,
        };
        let add = |file: BlockFile| {
            let add = AddFile {
                file: DataFile::new(RAW, file.kind.as_str(), window.start, name.clone()),
                size: file.bytes.len() as u64,
                modified_ms,
                stats: FileStats::of(&file),
                tags: tags.clone(),
            };
            (add, file.bytes)
        };
        let files = block.files.into_iter().map(add).collect();
        built.push(Built { tenant, files, samples: block.samples });
    }
    Ok(built)
}

fn write(part: TenantWindow, name: &BlockName) -> Result<block::Block, IngestError> {
    let mut exemplars: HashMap<Labels, Vec<crate::model::Exemplar>> =
        part.exemplars.into_iter().map(|e| (e.labels, e.exemplars)).collect();
    let mut series: Vec<_> = part.series.iter().map(|s| (block::order::Key::new(&s.labels), s)).collect();
    series.sort_by(|a, b| a.0.cmp(&b.0));
    let mut writer = BlockWriter::new(WriterOptions::flush(name.clone()).for_tenant(&part.tenant))?;
    let mut samples = Columns::default();
    for (_, one) in &series {
        one.decode(&mut samples)?;
        let exemplars = exemplars.remove(&one.labels).unwrap_or_default();
        writer.push(SeriesInput { labels: &one.labels, hash: one.hash, samples: &samples, exemplars: &exemplars })?;
    }
    Ok(writer.finish()?)
}
