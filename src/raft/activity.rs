//! Whether anything happens in a group, and whether its replica keeps a clock.
//!
//! *Invariants:* two equal activities mean that nothing was proposed, applied, voted or changed in between, here.
//!
//! *Not here:* when a group may fall silent (`node::quiet`).

use openraft::async_runtime::WatchReceiver;

use super::group::Group;
use super::types::{LogId, Vote};

/// How far a replica is; compared, never looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    vote: Vote,
    leader: Option<u64>,
    last: Option<LogId>,
    applied: Option<LogId>,
    members: Option<LogId>,
}

impl Group {
    /// How far this replica is.
    pub fn activity(&self) -> Activity {
        let (vote, leader, members) = {
            let server = self.inner.raft.server_metrics();
            let server = server.borrow_watched();
            (server.vote, server.current_leader, *server.membership_config.log_id())
        };
        let data = self.inner.raft.data_metrics();
        let data = data.borrow_watched();
        Activity { vote, leader, last: data.last_log, applied: data.last_applied, members }
    }

    /// Whether every member has everything that this leader has; `false` if it does not lead.
    pub fn is_even(&self) -> bool {
        let data = self.inner.raft.data_metrics();
        let data = data.borrow_watched();
        let Some(replication) = &data.replication else { return false };
        data.last_applied == data.last_log && replication.values().all(|reached| *reached == data.last_log)
    }

    /// Whether this replica is all there is of its group.
    pub fn is_alone(&self) -> bool {
        let server = self.inner.raft.server_metrics();
        let server = server.borrow_watched();
        server.membership_config.nodes().count() <= 1
    }

    /// Whether this replica sends heartbeats while it leads, and misses them while it follows.
    pub fn keep_clock(&self, on: bool) {
        self.inner.raft.runtime_config().tick(on);
    }
}
