//! One request to all shards: splits a batch by series hash, appends in parallel, adds up what became of it.
//!
//! *Invariants:* every row goes to exactly one shard, the one that owns its hash in the current epoch; a request is
//! acknowledged only when all its shards have.
//!
//! *Not here:* decoding and limits (`ingest::decode`, `ingest::admit`), what a shard does (`ingest::ingester`).

use std::sync::Arc;

use futures::future::join_all;
use parking_lot::Mutex;

use super::IngestError;
use super::ingester::{Request, Shard};
use super::outcome::WriteOutcome;
use crate::meta::ShardMap;
use crate::model::labels::series_hash;

/// Rows of one shard.
#[derive(Default)]
struct Part {
    rows: Vec<u32>,
    metadata: Vec<u32>,
}

/// Sends rows to their shards.
pub struct Distributor {
    map: ShardMap,
    shards: Vec<Arc<Shard>>,
    /// Emptied part lists of finished requests, so that splitting does not allocate.
    spare: Mutex<Vec<Vec<Part>>>,
}

/// Part lists kept for reuse.
const SPARE: usize = 32;

impl Distributor {
    /// A distributor over all shards of `map`, in order of their ids.
    pub fn new(map: ShardMap, shards: Vec<Arc<Shard>>) -> Self {
        Self { map, shards, spare: Mutex::new(Vec::new()) }
    }

    /// All shards.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Stores a request's rows; comes back when they are durable, or with the first error of a shard.
    pub async fn append(&self, request: Request<'_>) -> Result<WriteOutcome, IngestError> {
        let parts = self.split(request);
        let appends = parts.iter().zip(&self.shards).filter_map(|(part, shard)| {
            let idle = part.rows.is_empty() && part.metadata.is_empty();
            (!idle).then(|| shard.append(request, &part.rows, &part.metadata))
        });
        let results = join_all(appends).await;
        self.put_back(parts);
        let mut outcome = WriteOutcome::default();
        for result in results {
            outcome.merge(&result?);
        }
        Ok(outcome)
    }

    fn split(&self, request: Request<'_>) -> Vec<Part> {
        let mut parts = self.spare.lock().pop().unwrap_or_default();
        parts.resize_with(self.shards.len(), Part::default);
        for (i, row) in request.batch.series.iter().enumerate() {
            parts[self.map.shard_of(row.hash).0 as usize].rows.push(i as u32);
        }
        for (i, row) in request.batch.metadata.iter().enumerate() {
            let shard = self.map.shard_of(series_hash(request.tenant.as_str(), &row.metric));
            parts[shard.0 as usize].metadata.push(i as u32);
        }
        parts
    }

    fn put_back(&self, mut parts: Vec<Part>) {
        parts.iter_mut().for_each(|part| {
            part.rows.clear();
            part.metadata.clear();
        });
        let mut spare = self.spare.lock();
        if spare.len() < SPARE {
            spare.push(parts);
        }
    }
}
