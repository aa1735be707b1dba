//! A node's log read without Raft: what it holds, each entry checked.
//!
//! *Invariants:* every byte of every entry was read and verified before a summary is returned. Like any opening of the
//! log this cuts a torn tail and begins a new segment.
//!
//! *Not here:* what entries mean (state machines).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::RaftError;
use super::index::GroupLog;
use super::log::{Log, Shared};
use super::metrics::Metrics;
use super::types::{GroupId, Payload, ReplicaId};
use super::writer::WriterOptions;
use crate::env::{Clock, Disk};

/// Bytes of entries read at once.
const READ_BYTES: usize = 1 << 20;

/// What a log holds of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    /// Which group.
    pub group: GroupId,
    /// This node's replica of it.
    pub replica: ReplicaId,
    /// Term voted in, replica voted for, whether that one is known to lead.
    pub vote: Option<(u64, u64, bool)>,
    /// Index of the last entry that was purged.
    pub purged: Option<u64>,
    /// Index of the last entry known to be committed.
    pub committed: Option<u64>,
    /// Index of the last entry.
    pub last: Option<u64>,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of the state machine's entries.
    pub bytes: u64,
}

/// Reads the log in `dir`, group by group in order of their ids.
pub fn read_log(
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
) -> Result<Vec<GroupSummary>, RaftError> {
    let options = WriterOptions { segment_bytes: 64 << 20, cache_bytes: 0, recycle: false };
    let log = Log::open(disk, dir.clone(), options, Shared::new(clock, metrics))?;
    let summaries = log.groups().iter().map(|group| summary(&log, group, &dir)).collect();
    log.close();
    summaries
}

fn summary(log: &Log, group: &GroupLog, dir: &Path) -> Result<GroupSummary, RaftError> {
    let (mut next, mut out) = {
        let state = group.state.lock();
        let out = GroupSummary {
            group: group.id,
            replica: ReplicaId(group.replica),
            vote: state.vote.map(|v| (v.leader_id.term, v.leader_id.node_id, v.committed)),
            purged: state.purged.map(|id| id.index()),
            committed: state.committed.map(|id| id.index()),
            last: state.last().map(|id| id.index()),
            entries: 0,
            bytes: 0,
        };
        (state.first, out)
    };
    loop {
        let what = || format!("read entry {next} of group {} in {}", group.id, dir.display());
        let entries = log.read(group, next, u64::MAX, READ_BYTES).map_err(RaftError::disk(what()))?;
        if entries.is_empty() {
            return Ok(out);
        }
        next += entries.len() as u64;
        out.entries += entries.len() as u64;
        let bytes = |payload: &Payload| if let Payload::Normal(command) = payload { command.0.len() } else { 0 };
        out.bytes += entries.iter().map(|e| bytes(&e.payload) as u64).sum::<u64>();
    }
}
