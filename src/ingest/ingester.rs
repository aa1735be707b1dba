//! One shard's front: resolves label sets against the head, proposes, reads the verdicts.
//!
//! *Invariants:* nothing is acknowledged before its entry is applied, and an entry is applied only after a majority has
//! synced it. A tenant's series limit is judged before the append and never exceeded: series are reserved first and
//! counted as held where they are applied.
//!
//! *Not here:* which rows belong to which shard (`ingest::distributor`), what `apply` decides (`ingest::shard`).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::IngestError;
use super::entry::{SectionBuilder, SeriesRef};
use super::outcome::{Reason, WriteOutcome};
use super::queue::AppendQueue;
use super::reply::{Refused, SectionReply};
use super::series_budget::{Reservation, SeriesBudget};
use super::shard::SharedShard;
use crate::meta::shard_of_group;
use crate::model::{Batch, Epoch, Labels, ShardId, TenantId};
use crate::raft::Group;

/// Times rows are proposed again because their series was retired between resolving and applying.
const ATTEMPTS: usize = 3;

/// A shard of this node.
pub struct Shard {
    /// Which one.
    pub id: ShardId,
    /// The version of the shard map it belongs to.
    pub epoch: Epoch,
    /// Its heads and ledger.
    pub state: SharedShard,
    /// Its Raft group.
    pub group: Group,
    queue: AppendQueue,
}

/// What all shards need of a request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Whose samples.
    pub tenant: &'a TenantId,
    /// The samples.
    pub batch: &'a Batch,
    /// How late they may be, milliseconds.
    pub out_of_order_ms: i64,
    /// How many series the tenant has.
    pub budget: &'a Arc<SeriesBudget>,
    /// How many it may have; 0 is no limit.
    pub series_limit: u64,
}

/// A row of a section: which series of the batch, and which of its samples.
struct Owner {
    series: u32,
    histogram: bool,
}

impl Shard {
    /// A shard whose group is running.
    pub fn new(id: ShardId, state: SharedShard, group: Group) -> Self {
        let queue = AppendQueue::start(group.clone());
        let epoch = shard_of_group(group.id()).map_or_else(Epoch::default, |(epoch, _)| epoch);
        Self { id, epoch, state, group, queue }
    }

    /// Appends the series `rows` of the request, and the metadata rows named, waiting until they are durable.
    pub async fn append(
        &self,
        request: Request<'_>,
        rows: &[u32],
        metadata: &[u32],
    ) -> Result<WriteOutcome, IngestError> {
        let mut outcome = WriteOutcome::default();
        let mut pending: Vec<u32> = rows.to_vec();
        let mut metadata = metadata;
        for attempt in 0..ATTEMPTS {
            pending = self.attempt(request, &pending, metadata, attempt > 0, &mut outcome).await?;
            metadata = &[];
            if pending.is_empty() {
                return Ok(outcome);
            }
        }
        Err(IngestError::Unsettled { shard: self.id, series: pending.len() })
    }

    /// The rows whose series this replica knows, as the leader's log will hold them; `None` if it knows none.
    pub fn known_rows(&self, request: Request<'_>, rows: &[u32]) -> Option<KnownRows> {
        let (kept, unknown) = self.resolve(request, rows, false);
        let mut section = SectionBuilder::for_floats(kept.len());
        put_rows(request, &kept, &mut section);
        if section.is_empty() {
            return None;
        }
        let section = section.finish(request.tenant.as_str(), request.out_of_order_ms).into();
        Some(KnownRows { section, kept, unknown })
    }

    /// Appends a section that another replica's node made of series it knows.
    pub async fn append_section(&self, section: Vec<u8>) -> Result<SectionReply, IngestError> {
        self.queue.append(section).await
    }

    /// Proposes once; answers the series that have to be proposed again, with their labels.
    async fn attempt(
        &self,
        request: Request<'_>,
        rows: &[u32],
        metadata: &[u32],
        by_labels: bool,
        outcome: &mut WriteOutcome,
    ) -> Result<Vec<u32>, IngestError> {
        let (mut kept, unknown) = self.resolve(request, rows, by_labels);
        let mut section = SectionBuilder::for_floats(kept.len());
        let reserved = (!unknown.is_empty()).then(|| name_new(request, &unknown, &mut section, &mut kept, outcome));
        put_rows(request, &kept, &mut section);
        metadata.iter().for_each(|m| section.metadata(&request.batch.metadata[*m as usize]));
        if section.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = section.finish(request.tenant.as_str(), request.out_of_order_ms);
        let reply = self.queue.append(bytes).await?;
        if let Some(reserved) = reserved {
            reserved.applied();
        }
        Ok(settle(request, &kept, &reply.refused, outcome))
    }

    /// Finds an id for each series the head knows; the others are answered apart.
    fn resolve(&self, request: Request<'_>, rows: &[u32], by_labels: bool) -> (Vec<(u32, SeriesRef)>, Vec<u32>) {
        let (mut kept, mut unknown) = (Vec::with_capacity(rows.len()), Vec::new());
        let state = self.state.read();
        let Some(tenant) = state.head.tenant(request.tenant).filter(|_| !by_labels) else {
            return (kept, rows.to_vec());
        };
        let keys = rows.iter().map(|index| {
            let row = &request.batch.series[*index as usize];
            (row.hash, request.batch.labels_of(row))
        });
        for (index, known) in rows.iter().zip(state.head.lookup_all(tenant, keys)) {
            match known {
                Some(id) => kept.push((*index, SeriesRef::Known(id.0))),
                None => unknown.push(*index),
            }
        }
        (kept, unknown)
    }
}

/// Rows of known series, on their way to the replica that leads.
pub struct KnownRows {
    /// As the log will hold them.
    pub section: Bytes,
    kept: Vec<(u32, SeriesRef)>,
    unknown: Vec<u32>,
}

impl KnownRows {
    /// Counts what the leader answered; answers the rows that have to be sent with their labels.
    pub fn settle(self, request: Request<'_>, reply: &SectionReply, outcome: &mut WriteOutcome) -> Vec<u32> {
        let mut rest = settle(request, &self.kept, &reply.refused, outcome);
        rest.extend(self.unknown);
        rest
    }
}

/// Adds what the rows hold: floats in their order, then histograms and exemplars.
fn put_rows(request: Request<'_>, kept: &[(u32, SeriesRef)], section: &mut SectionBuilder) {
    for (row, series) in kept {
        let row = &request.batch.series[*row as usize];
        request.batch.samples_of(row).iter().for_each(|s| section.float(*series, s));
    }
    for (index, series) in kept {
        let row = &request.batch.series[*index as usize];
        request.batch.histograms_of(row).iter().for_each(|h| section.histogram(*series, h));
        request.batch.exemplars_of(row).iter().for_each(|e| section.exemplar(*series, e));
    }
}

/// Takes room for the series that are new and names them by their labels; those over the limit are refused.
fn name_new(
    request: Request<'_>,
    unknown: &[u32],
    section: &mut SectionBuilder,
    kept: &mut Vec<(u32, SeriesRef)>,
    outcome: &mut WriteOutcome,
) -> Reservation {
    let labels = |index: u32| request.batch.labels_of(&request.batch.series[index as usize]);
    let mut named: HashMap<&str, Option<SeriesRef>> = HashMap::with_capacity(unknown.len());
    let mut room = request.budget.reserve(request.series_limit);
    for index in unknown {
        let row = &request.batch.series[*index as usize];
        let place = named.entry(labels(*index)).or_insert_with(|| {
            let granted = room.take(row.hash);
            granted.then(|| section.new_series(row.hash, labels(*index)))
        });
        match place {
            Some(series) => kept.push((*index, *series)),
            None => {
                let samples = (row.samples.len() + row.histograms.len()) as u64;
                outcome.rejected.add(Reason::MaxSeriesPerUser, samples.max(1), || {
                    format!("{} would exceed the limit of {} series", show(labels(*index)), request.series_limit)
                });
            }
        }
    }
    room.done()
}

/// Counts what was stored and what was refused; answers the series to be proposed again.
fn settle(
    request: Request<'_>,
    kept: &[(u32, SeriesRef)],
    refused: &[(u32, Refused)],
    outcome: &mut WriteOutcome,
) -> Vec<u32> {
    let again = settle_rows(request, kept, refused, outcome);
    let stored = kept.iter().filter(|(series, _)| again.binary_search(series).is_err());
    outcome.exemplars += stored.map(|(s, _)| request.batch.series[*s as usize].exemplars.len() as u64).sum::<u64>();
    again
}

/// As [`settle`], without the exemplars.
fn settle_rows(
    request: Request<'_>,
    kept: &[(u32, SeriesRef)],
    refused: &[(u32, Refused)],
    outcome: &mut WriteOutcome,
) -> Vec<u32> {
    let batch = request.batch;
    let count = |of: fn(&crate::model::SeriesRow) -> usize| -> u64 {
        kept.iter().map(|(i, _)| of(&batch.series[*i as usize]) as u64).sum()
    };
    outcome.samples += count(|r| r.samples.len());
    outcome.histograms += count(|r| r.histograms.len());
    if refused.is_empty() {
        return Vec::new();
    }
    let owners = owners(batch, kept);
    let mut again = Vec::new();
    for (row, why) in refused {
        let Some(owner) = owners.get(*row as usize) else { continue };
        let stored = if owner.histogram { &mut outcome.histograms } else { &mut outcome.samples };
        *stored -= 1;
        let reason = match why {
            Refused::UnknownSeries => {
                again.push(owner.series);
                continue;
            }
            Refused::Conflict => Reason::NewValueForTimestamp,
            Refused::TooOld => Reason::SampleTooOld,
        };
        outcome.rejected.add(reason, 1, || {
            let labels = show(batch.labels_of(&batch.series[owner.series as usize]));
            match why {
                Refused::Conflict => format!("another value is stored for this timestamp of {labels}"),
                _ => format!("older than the out-of-order window of {} ms: {labels}", request.out_of_order_ms),
            }
        });
    }
    again.sort_unstable();
    again.dedup();
    again
}

/// Rows in the order of the section: all floats, then all histograms.
fn owners(batch: &Batch, kept: &[(u32, SeriesRef)]) -> Vec<Owner> {
    let of = |histogram: bool| {
        kept.iter().flat_map(move |(series, _)| {
            let row = &batch.series[*series as usize];
            let n = if histogram { row.histograms.len() } else { row.samples.len() };
            (0..n).map(move |_| Owner { series: *series, histogram })
        })
    };
    of(false).chain(of(true)).collect()
}

fn show(canonical: &str) -> String {
    Labels::from_canonical(canonical).map_or_else(|| "a malformed label set".into(), |l| l.to_string())
}
