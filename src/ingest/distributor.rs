//! One request to all shards: splits a batch by series hash, appends in parallel where each shard is led, adds up what
//! became of it.
//!
//! *Invariants:* every row goes to exactly one shard, the one that owns its hash in the current epoch; a request is
//! acknowledged only when all its shards have. A shard's rows are sent again, whole, until one attempt is answered: only
//! that attempt is counted, and what an earlier one may have stored is stored once.
//!
//! *Not here:* decoding and limits (`ingest::decode`, `ingest::admit`), what a shard does (`ingest::ingester`), whom to ask
//! (`ingest::route`).

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;

use super::IngestError;
use super::answer::Answer;
use super::ingester::{Request, Shard};
use super::metrics::{Metrics, Setback};
use super::outcome::WriteOutcome;
use super::reply::read_append_reply;
use super::route::{Attempts, Hints, Known, Step};
use super::rows::{Packed, pack};
use super::shards::Shards;
use crate::env::{Clock, Rng};
use crate::meta::{ShardMap, Views, shard_group};
use crate::model::labels::series_hash;
use crate::model::{NodeId, ShardId};
use crate::peers::{PeerError, Peers, failed};
use crate::proto::v1::{AppendReply, AppendRequest};
use crate::raft::GroupId;

/// Part lists kept for reuse.
const SPARE: usize = 32;
/// Of the time a request has, the part that one node may take to answer.
const ANSWER_SHARE: u32 = 3;
/// How long rows wait for the shard map that their shards belong to.
const MAP_PAUSE: Duration = Duration::from_millis(20);

/// Sends rows to a node.
pub type SendRows =
    Arc<dyn Fn(NodeId, AppendRequest) -> BoxFuture<'static, Result<AppendReply, PeerError>> + Send + Sync>;

/// Sends rows over the connections to the other nodes.
pub fn over(peers: Peers) -> SendRows {
    Arc::new(move |node, request| {
        let client = peers.client(node);
        Box::pin(async move { Ok(client?.append(request).await.map_err(failed(node))?.into_inner()) })
    })
}

/// What the distributor knows and uses.
pub struct Ways {
    /// This node.
    pub me: NodeId,
    /// The shard map.
    pub views: Views,
    /// The replicas of this node.
    pub shards: Shards,
    /// To the other nodes.
    pub send: SendRows,
    /// How long a request's rows look for the leaders of their shards.
    pub timeout: Duration,
    /// For the timeout.
    pub clock: Arc<dyn Clock>,
    /// For the pauses.
    pub rng: Arc<dyn Rng>,
    /// Figures.
    pub metrics: Metrics,
}

/// Rows of one shard.
#[derive(Default)]
struct Part {
    rows: Vec<u32>,
    metadata: Vec<u32>,
}

impl Part {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.metadata.is_empty()
    }
}

/// A part on its way to a leader elsewhere.
#[derive(Default)]
struct Parcel {
    /// Whether the rows of known series were sent by their ids.
    tried_known: bool,
    /// What became of those, if the leader took them.
    stored: WriteOutcome,
    /// What is left then.
    rest: Option<Part>,
    /// That, with its labels.
    packed: Option<Packed>,
}

/// What became of a part.
enum Delivered {
    Stored(WriteOutcome),
    /// Its shard is not of the current epoch.
    Moved,
}

/// Sends rows to their shards.
pub struct Distributor {
    /// What it uses.
    pub ways: Ways,
    hints: Hints,
    /// Emptied part lists of finished requests, so that splitting does not allocate.
    spare: Mutex<Vec<Vec<Part>>>,
}

impl Distributor {
    /// A distributor that knows no leader elsewhere yet.
    pub fn new(ways: Ways) -> Self {
        Self { ways, hints: Hints::default(), spare: Mutex::new(Vec::new()) }
    }

    /// Stores a request's rows; comes back when they are durable, or with the first error of a shard.
    pub async fn append(&self, request: Request<'_>) -> Result<WriteOutcome, IngestError> {
        let deadline = self.ways.clock.monotonic() + self.ways.timeout;
        let mut outcome = WriteOutcome::default();
        let mut map = self.ways.views.current().shard_map;
        let mut parts = self.split(request, map)?;
        loop {
            let busy = parts.iter().enumerate().filter(|(_, part)| !part.is_empty());
            let deliver = |(n, part)| self.deliver(request, map, ShardId(n as u32), part, deadline);
            let delivered = join_all(busy.clone().map(deliver)).await;
            let (mut moved, mut failure) = (Part::default(), None);
            for ((_, part), delivered) in busy.zip(delivered) {
                match delivered {
                    Ok(Delivered::Stored(stored)) => outcome.merge(&stored),
                    Ok(Delivered::Moved) => {
                        moved.rows.extend_from_slice(&part.rows);
                        moved.metadata.extend_from_slice(&part.metadata);
                    }
                    Err(e) => failure = failure.or(Some(e)),
                }
            }
            self.put_back(parts);
            if let Some(e) = failure {
                return Err(e);
            }
            if moved.is_empty() {
                return Ok(outcome);
            }
            // Here or there the newer map is not known yet; the deadline ends this.
            tokio::time::sleep(MAP_PAUSE).await;
            map = self.ways.views.current().shard_map;
            parts = self.split_part(request, map, &moved);
        }
    }

    /// Has the leader of a shard store a part, whoever and wherever that is by now.
    async fn deliver(
        &self,
        request: Request<'_>,
        map: ShardMap,
        shard: ShardId,
        part: &Part,
        deadline: Duration,
    ) -> Result<Delivered, IngestError> {
        let group = shard_group(map.epoch, shard);
        let (mut attempts, mut parcel) = (Attempts::default(), Parcel::default());
        loop {
            let part = parcel.rest.as_ref().unwrap_or(part);
            let left = deadline.saturating_sub(self.ways.clock.monotonic());
            if left.is_zero() {
                return Err(self.not_taken(shard, attempts));
            }
            let local = self.ways.shards.get(group);
            let known = self.known(group, local.as_deref());
            let (node, answer) = match attempts.next(&known, &*self.ways.rng) {
                Step::Here => {
                    let Some(local) = local else { continue };
                    (known.me, append_here(&local, request, part, left).await)
                }
                Step::Send(node) => {
                    if !std::mem::replace(&mut parcel.tried_known, true)
                        && let Some(local) = &local
                        // Apart, as below, so that it does not make every append larger.
                        && let Some((taken, rest)) =
                            Box::pin(self.send_known(request, map, node, local, part, left)).await
                    {
                        (parcel.stored, parcel.rest) = (taken, Some(rest));
                        continue;
                    }
                    if part.is_empty() {
                        return Ok(Delivered::Stored(parcel.stored));
                    }
                    let packed = match &parcel.packed {
                        Some(packed) => packed,
                        None => parcel.packed.insert(pack(request, group, &part.rows, &part.metadata)?),
                    };
                    let answer = Box::pin(self.send(node, map, shard, packed, left)).await;
                    self.learn(group, node, &answer, part.rows.len());
                    (node, answer)
                }
                Step::Pause(pause) => {
                    tokio::time::sleep(pause.min(left)).await;
                    if self.ways.views.current().shard_map != map {
                        return Ok(Delivered::Moved);
                    }
                    continue;
                }
            };
            match answer {
                Answer::Stored(outcome) => {
                    parcel.stored.merge(&outcome);
                    return Ok(Delivered::Stored(parcel.stored));
                }
                // All of it is sent again: what was taken before is a repeat then, and counted once.
                Answer::StaleEpoch => {
                    self.ways.metrics.setback(Setback::StaleEpoch);
                    return Ok(Delivered::Moved);
                }
                Answer::Failed(e) => return Err(e),
                Answer::NotNow { setback, leader, why } => {
                    self.ways.metrics.setback(setback);
                    attempts.refused(node, leader, why);
                }
            }
        }
    }

    /// What this node knows of where a shard is led; nothing is looked up if that is here.
    fn known(&self, group: GroupId, local: Option<&Shard>) -> Known {
        let me = self.ways.me;
        if local.is_some_and(|shard| shard.group.is_leader()) {
            return Known { me, leads_here: true, ..Known::default() };
        }
        let followed = local.and_then(|shard| shard.group.leader()).map(|(_, node)| node);
        let state = self.ways.views.current();
        let placed = state.groups.get(&group).map(|placement| placement.replicas.values().copied().collect());
        Known { me, leads_here: false, followed, hint: self.hints.get(group), placed: placed.unwrap_or_default() }
    }

    /// Sends the rows whose series the replica here knows, by their ids: the leader neither reads labels nor looks anything
    /// up. Answers what became of them and what has to be sent with labels; `None` if the leader did not take them.
    async fn send_known(
        &self,
        request: Request<'_>,
        map: ShardMap,
        node: NodeId,
        local: &Shard,
        part: &Part,
        left: Duration,
    ) -> Option<(WriteOutcome, Part)> {
        let known = local.known_rows(request, &part.rows)?;
        let append = AppendRequest {
            group: local.group.id().0,
            shards: map.shards,
            section: known.section.clone(),
            ..AppendRequest::default()
        };
        self.ways.metrics.forwarded_bytes.inc_by(append.section.len() as u64);
        let patience = left.min(self.ways.timeout / ANSWER_SHARE);
        let replied = tokio::time::timeout(patience, (self.ways.send)(node, append)).await.ok()?.ok()?;
        if replied.failure.is_some() {
            return None;
        }
        let reply = read_append_reply(&replied.section_reply, 1).ok()?.pop()?;
        let mut outcome = WriteOutcome::default();
        self.hints.set(local.group.id(), node);
        let rows = known.settle(request, &reply, &mut outcome);
        self.ways.metrics.forwarded_rows.inc_by((part.rows.len() - rows.len()) as u64);
        Some((outcome, Part { rows, metadata: part.metadata.clone() }))
    }

    async fn send(&self, node: NodeId, map: ShardMap, shard: ShardId, packed: &Packed, left: Duration) -> Answer {
        let request = AppendRequest {
            group: shard_group(map.epoch, shard).0,
            shards: map.shards,
            rows: packed.bytes.clone(),
            uncompressed_bytes: packed.uncompressed,
            ..AppendRequest::default()
        };
        self.ways.metrics.forwarded_bytes.inc_by(packed.bytes.len() as u64);
        let patience = left.min(self.ways.timeout / ANSWER_SHARE);
        match tokio::time::timeout(patience, (self.ways.send)(node, request)).await {
            Ok(replied) => Answer::of(shard, node, replied),
            Err(_) => no_answer(patience),
        }
    }

    /// Notes what an answer of another node says about who leads.
    fn learn(&self, group: GroupId, node: NodeId, answer: &Answer, rows: usize) {
        match answer {
            Answer::Stored(_) => {
                self.ways.metrics.forwarded_rows.inc_by(rows as u64);
                self.hints.set(group, node);
            }
            Answer::NotNow { leader: Some(leader), .. } => self.hints.set(group, *leader),
            Answer::NotNow { leader: None, .. } => self.hints.forget(group, node),
            Answer::StaleEpoch | Answer::Failed(_) => {}
        }
    }

    fn not_taken(&self, shard: ShardId, attempts: Attempts) -> IngestError {
        let last = attempts
            .last
            .map_or_else(|| "nobody is known to lead it".into(), |(node, why)| format!("node {node}: {why}"));
        IngestError::NotTaken { shard, waited: self.ways.timeout, attempts: attempts.refusals, last }
    }

    fn parts(&self, map: ShardMap) -> Vec<Part> {
        let mut parts = self.spare.lock().pop().unwrap_or_default();
        parts.resize_with(map.shards as usize, Part::default);
        parts
    }

    fn split(&self, request: Request<'_>, map: ShardMap) -> Result<Vec<Part>, IngestError> {
        if map.shards == 0 {
            return Err(IngestError::NoShards);
        }
        let mut parts = self.parts(map);
        for (i, row) in request.batch.series.iter().enumerate() {
            parts[map.shard_of(row.hash).0 as usize].rows.push(i as u32);
        }
        for (i, row) in request.batch.metadata.iter().enumerate() {
            let shard = map.shard_of(series_hash(request.tenant.as_str(), &row.metric));
            parts[shard.0 as usize].metadata.push(i as u32);
        }
        Ok(parts)
    }

    /// As [`Self::split`], for some of the rows.
    fn split_part(&self, request: Request<'_>, map: ShardMap, some: &Part) -> Vec<Part> {
        let mut parts = self.parts(map);
        for i in &some.rows {
            parts[map.shard_of(request.batch.series[*i as usize].hash).0 as usize].rows.push(*i);
        }
        for i in &some.metadata {
            let metric = &request.batch.metadata[*i as usize].metric;
            let shard = map.shard_of(series_hash(request.tenant.as_str(), metric));
            parts[shard.0 as usize].metadata.push(*i);
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

/// Has the replica of this node store a part, within the time that is left.
async fn append_here(local: &Shard, request: Request<'_>, part: &Part, left: Duration) -> Answer {
    let append = local.append(request, &part.rows, &part.metadata);
    tokio::time::timeout(left, append).await.map_or_else(|_| no_answer(left), Answer::here)
}

fn no_answer(after: Duration) -> Answer {
    Answer::NotNow { setback: Setback::NoAnswer, leader: None, why: format!("no answer within {after:?}") }
}

#[cfg(test)]
mod tests;
