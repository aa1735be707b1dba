//! Samples in a real head and in real blocks, as a source of queries.
//!
//! *Invariants:* what is flushed goes the way of a flush: window closed, block written, read back from its Parquet files,
//! window dropped. Pieces are put together by the code that queries of a node use.
//!
//! *Not here:* the log, several shards, the catalog (`tests/e2e_node.rs`).

use std::collections::HashMap;
use std::sync::Arc;

use futures::executor::block_on;
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::memory_source::Point;
use super::script::Storage;
use crate::block::{BlockReader, FileRef, Kind};
use crate::error::{self, Error};
use crate::head::{Head, HeadOptions, Verdict};
use crate::ingest::flush_block;
use crate::ingest::shard::ClosedWindow;
use crate::model::labels::series_hash;
use crate::model::{BlockName, Epoch, Histogram, Labels, ShardId, TenantId, is_stale};
use crate::promql::source::{SelectRequest, SeriesSet, Source};
use crate::query::gather::Gathered;

const EPOCH: Epoch = Epoch(1);
const SHARD: ShardId = ShardId(0);

/// Where samples are when they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All in the head.
    Head,
    /// All in blocks.
    Blocks,
    /// The earlier half of each load in a block, the later one in the head.
    Both,
}

/// One sample of a load.
struct Row {
    labels: Labels,
    t: i64,
    start: i64,
    point: Point,
}

/// A head and blocks.
pub struct StoredSource {
    kept: Kept,
    tenant: TenantId,
    head: Head,
    blocks: Vec<(u64, BlockReader)>,
    /// The load that is not committed yet.
    rows: Vec<Row>,
    /// Series whose newest sample is a histogram.
    histograms: HashMap<Labels, bool>,
}

impl StoredSource {
    /// Nothing stored.
    pub fn new(kept: Kept) -> Self {
        Self {
            kept,
            tenant: TenantId::anonymous(),
            head: Head::new(HeadOptions::default(), 1),
            blocks: Vec::new(),
            rows: Vec::new(),
            histograms: HashMap::new(),
        }
    }

    fn put(&mut self, row: &Row) -> Result<(), String> {
        let Row { labels, t, start, point } = row;
        let canonical = labels.canonical();
        let id = self.head.get_or_create(&self.tenant, series_hash(self.tenant.as_str(), canonical), canonical);
        let verdict = match point {
            Point::Float(v) => self.head.append_float(id, *t, *v, *start, i64::MAX),
            Point::Histogram(h) => self.head.append_histogram(id, *t, Arc::clone(h), *start, i64::MAX),
        };
        match verdict {
            Verdict::Accepted | Verdict::Duplicate => Ok(()),
            refused => Err(format!("{labels} at {t}: {refused:?}")),
        }
    }

    /// Writes all windows to blocks and drops them from the head.
    fn flush(&mut self) -> Result<(), String> {
        for window in self.head.windows() {
            let start = window.start;
            let Some(generation) = self.head.close(start) else { continue };
            let snapshot = self.head.window_series(start, generation);
            let sequence = self.blocks.len() as u64 + 1;
            let name = BlockName::of_flush(EPOCH, SHARD, start, sequence);
            let closed = ClosedWindow { sequence, start, generation };
            let built = flush_block::build(snapshot, name, SHARD, EPOCH, closed, 0).map_err(|e| e.to_string())?;
            for block in built {
                let reader = block_on(open(block)).map_err(|e| e.to_string())?;
                self.blocks.push((sequence, reader));
            }
            self.head.mark_flushed(start, generation);
        }
        Ok(())
    }
}

/// Uploads a block and opens it.
async fn open(block: flush_block::Built) -> Result<BlockReader, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::new(error::Kind::Internal, e.to_string());
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut files = Vec::new();
    for (add, bytes) in block.files {
        let path = Path::from(add.file.relative());
        let kind = Kind::parse(&add.file.kind).ok_or_else(|| failed(&"unknown kind of file"))?;
        store.put(&path, bytes.into()).await.map_err(|e| failed(&e))?;
        files.push(FileRef { kind, path, size: add.size });
    }
    BlockReader::open(store, files).await.map_err(|e| failed(&e))
}

impl Storage for StoredSource {
    fn clear(&mut self) {
        *self = Self::new(self.kept);
    }

    fn append(&mut self, labels: &Labels, t: i64, start: i64, point: &Point) -> Result<(), String> {
        let mut point = point.clone();
        let follows_histogram = self.histograms.get(labels).copied().unwrap_or(false);
        match &point {
            // Stale markers of a histogram series are histograms.
            Point::Float(v) if is_stale(*v) && follows_histogram => {
                point = Point::Histogram(Arc::new(Histogram { sum: *v, ..Histogram::default() }));
            }
            Point::Float(_) => {}
            Point::Histogram(h) => h.validate().map_err(|e| format!("{labels}: {e}"))?,
        }
        self.histograms.insert(labels.clone(), matches!(point, Point::Histogram(_)));
        self.rows.push(Row { labels: labels.clone(), t, start, point });
        Ok(())
    }

    fn commit(&mut self) -> Result<(), String> {
        let rows = std::mem::take(&mut self.rows);
        let (first, last) = rows.iter().fold((i64::MAX, i64::MIN), |(a, b), row| (a.min(row.t), b.max(row.t)));
        let in_block = |row: &&Row| match self.kept {
            Kept::Head => false,
            Kept::Blocks => true,
            Kept::Both => row.t <= first + (last - first) / 2,
        };
        let (early, late): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(in_block);
        early.into_iter().try_for_each(|row| self.put(row))?;
        if self.kept != Kept::Head {
            self.flush()?;
        }
        late.into_iter().try_for_each(|row| self.put(row))
    }
}

impl Source for StoredSource {
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        Box::pin(async move {
            let mut gathered = Gathered::default();
            gathered.add_head(self.head.select(&self.tenant, &request.matchers, request.range));
            for (sequence, block) in &self.blocks {
                let found = block.select_packed(&request.matchers, request.range).await;
                let found = found.map_err(|e| Error::new(error::Kind::Internal, e.to_string()))?;
                gathered.add_block((EPOCH.0, *sequence), found);
            }
            Ok(SeriesSet { series: gathered.into_series(|_| 0), warnings: Vec::new() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_where_they_should_be() {
        let labels = Labels::from_pairs([("__name__", "a")]);
        for (kept, blocks, in_head) in [(Kept::Head, 0, 10), (Kept::Blocks, 1, 0), (Kept::Both, 1, 5)] {
            let mut stored = StoredSource::new(kept);
            for i in 0..10 {
                stored.append(&labels, i * 1000, 0, &Point::Float(i as f64)).unwrap();
            }
            stored.commit().unwrap();
            assert_eq!((stored.blocks.len(), stored.head.stats().samples), (blocks, in_head), "{kept:?}");
            stored.clear();
            assert_eq!((stored.blocks.len(), stored.head.stats().samples), (0, 0));
        }
    }
}
