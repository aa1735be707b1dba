//! Rows that another node sends to a shard led here.
//!
//! *Invariants:* they go through the same gate as requests of clients, before they are unpacked. Nothing is sent on to a
//! third node: a shard that is not led here is refused, with whoever leads it. A row that is not the shard's is refused.
//!
//! *Not here:* the other side (`ingest::distributor`), bytes (`ingest::rows`).

use std::sync::Arc;

use super::answer::{failure, refusal, reply};
use super::codec::Malformed;
use super::entry::check_known;
use super::ingester::{Request, Shard};
use super::outcome::WriteOutcome;
use super::reply::append_reply;
use super::rows::{Rows, uncompressed_len, unpack};
use super::{Ingest, IngestError};
use crate::meta::{ShardMap, shard_of_group};
use crate::model::TenantId;
use crate::proto::v1::failure::Kind as Wire;
use crate::proto::v1::{AppendReply, AppendRequest, Failure};
use crate::raft::{GroupId, Peer, RaftError};

impl Ingest {
    /// Appends the rows of one shard that another node sends.
    pub async fn append_rows(&self, request: AppendRequest) -> AppendReply {
        let taken = match request.rows.is_empty() {
            true => self.take_section(&request).await,
            false => self.take_rows(request).await.map(|outcome| reply(&outcome)),
        };
        match taken {
            Ok(reply) => reply,
            Err(failure) => AppendReply { failure: Some(failure), ..AppendReply::default() },
        }
    }

    /// Appends rows of series that the sender's replica knows.
    async fn take_section(&self, request: &AppendRequest) -> Result<AppendReply, Failure> {
        let map = self.distributor.ways.views.current().shard_map;
        let shard = self.led_here(request, map)?;
        let _pass = self.gate.enter(request.section.len()).map_err(|e| failure(&e))?;
        // What cannot be read must not come into the log, where it would stop every replica.
        check_known(&request.section).map_err(malformed)?;
        let answered = shard.append_section(request.section.to_vec()).await.map_err(|e| failure(&e))?;
        Ok(AppendReply { section_reply: append_reply(&[answered]), ..AppendReply::default() })
    }

    async fn take_rows(&self, request: AppendRequest) -> Result<WriteOutcome, Failure> {
        let map = self.distributor.ways.views.current().shard_map;
        let shard = self.led_here(&request, map)?;
        if !request.section.is_empty() {
            return Err(refusal(Wire::Invalid, "rows and a section of rows in one request".into()));
        }
        let mut pass = self.gate.enter(request.rows.len()).map_err(|e| failure(&e))?;
        let uncompressed = uncompressed_len(request.uncompressed_bytes).map_err(malformed)?;
        pass.grow(uncompressed).map_err(|e| failure(&e))?;
        let bytes = unpack(request.rows, request.uncompressed_bytes).map_err(malformed)?;
        let rows = Rows::read(&bytes).map_err(malformed)?;
        pass.grow(rows.batch_bytes()).map_err(|e| failure(&e))?;
        let tenant = TenantId::new(rows.tenant()).map_err(|e| refusal(Wire::Invalid, e))?;
        let out_of_order_ms = rows.out_of_order_ms();
        let mut decoder = self.decoders.take();
        rows.decode(&mut decoder.batch).map_err(malformed)?;
        let batch = &decoder.batch;
        if batch.series.iter().any(|row| map.shard_of(row.hash) != shard.id) {
            return Err(refusal(Wire::Invalid, format!("a row is not of shard {}", shard.id)));
        }
        let series_limit = self.config.limits_of(&tenant).max_global_series_per_user;
        let budget = self.budgets.of(&tenant);
        let request = Request { tenant: &tenant, batch, out_of_order_ms, budget: &budget, series_limit };
        let all: Vec<u32> = (0..batch.series.len() as u32).collect();
        let metadata: Vec<u32> = (0..batch.metadata.len() as u32).collect();
        shard.append(request, &all, &metadata).await.map_err(|e| failure(&e))
    }

    /// The shard of a request, if it is one of now and led here.
    fn led_here(&self, request: &AppendRequest, map: ShardMap) -> Result<Arc<Shard>, Failure> {
        let group = GroupId(request.group);
        let no_replica = || refusal(Wire::NotFound, format!("no replica of group {group} here"));
        let (epoch, _) = shard_of_group(group).ok_or_else(no_replica)?;
        if epoch > map.epoch {
            return Err(refusal(Wire::Unavailable, format!("this node knows epoch {}, not {epoch} yet", map.epoch)));
        }
        if epoch < map.epoch || request.shards != map.shards {
            return Err(refusal(Wire::StaleEpoch, format!("epoch {epoch} has ended, now is {}", map.epoch)));
        }
        let shard = self.distributor.ways.shards.get(group).ok_or_else(no_replica)?;
        if shard.group.is_leader() {
            return Ok(shard);
        }
        let leader = shard.group.leader().map(|(replica, node)| (replica, Peer { node }));
        Err(failure(&IngestError::Raft(RaftError::NotLeader { group, leader })))
    }
}

fn malformed(e: Malformed) -> Failure {
    refusal(Wire::Invalid, format!("rows of another node: {e}"))
}

#[cfg(test)]
mod tests;
