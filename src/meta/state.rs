//! The replicated state and what commands do to it.
//!
//! *Invariants:* pure: equal commands in equal order give equal states and answers. A table's versions are decided one after
//! another without a gap, each once per (application, sequence); what is decided never changes. `copied ≤ version`, and
//! `pending` holds exactly the contents in between.
//!
//! *Not here:* bytes of commands (`command`) and snapshots (`snapshot`), copying (`copier`), machines and placements (the
//! submodule).

mod nodes;

pub use nodes::SHARDS_MAX;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_128;

use super::answer::{Answer, Committed, Refusal};
use super::cluster::{Node, Placement};
use super::command::{Command, Commit, Init, TableCommit};
use super::shard_map::ShardMap;
use crate::model::{NodeId, TenantId};
use crate::raft::{GroupId, ReplicaId};
use crate::store::catalog::actions::table_lines;

/// Longest time from the upload of a file to its commit, milliseconds; the orphan collector waits longer.
pub const UPLOAD_GRACE_MS: i64 = 12 * 3600 * 1000;
/// Most bytes of decided contents that may wait for the bucket. Flushes upload before they commit, so this fills only if
/// the bucket takes data files but no log entries.
pub const PENDING_MAX_BYTES: u64 = 64 << 20;

/// A cluster's name for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub uuid::Uuid);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything meta replicates; published as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Index of the last log entry applied.
    pub applied: u64,
    /// The cluster, once it is made.
    pub cluster: Option<ClusterId>,
    /// The bucket the cluster uses, as a URL; empty if nobody said.
    pub bucket: String,
    /// Replicas wanted per shard.
    pub replication: u32,
    /// The machines.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The id the next machine gets.
    pub next_node: u64,
    /// The shards of the newest epoch.
    pub shard_map: ShardMap,
    /// The epochs that live, newest last; older ones hold what is not in the bucket yet.
    pub epochs: Vec<ShardMap>,
    /// Where replicas should be: of meta and of every shard of every live epoch. A cluster of the first release has none
    /// until its node says what it has.
    pub groups: BTreeMap<GroupId, Placement>,
    /// The replicas each group began with: they make it, every other one is added by its leader.
    pub founders: BTreeMap<GroupId, BTreeMap<ReplicaId, NodeId>>,
    /// Shards of ended epochs that hold nothing anymore.
    pub emptied: BTreeSet<GroupId>,
    /// The entry that last changed each placement.
    pub changed_at: BTreeMap<GroupId, u64>,
    /// Every known tenant's table.
    pub tables: BTreeMap<TenantId, Arc<Table>>,
    /// Last sequence committed per application, over all tables.
    pub applications: BTreeMap<String, u64>,
}

/// A table as meta knows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// The Delta id; empty before the first version.
    pub id: String,
    /// The newest version decided.
    pub version: Option<u64>,
    /// The newest version known to be in the bucket.
    pub copied: Option<u64>,
    /// Version of its columns.
    pub schema_version: u32,
    /// Last commit per application.
    pub transactions: BTreeMap<String, Decided>,
    /// Contents of the versions after `copied`, in order.
    pub pending: VecDeque<Bytes>,
}

/// A commit's place in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Its number within the application.
    pub sequence: u64,
    /// The version that holds it.
    pub version: u64,
}

impl Table {
    /// The content of `version` if it may not be in the bucket yet.
    pub fn pending_at(&self, version: u64) -> Option<Bytes> {
        let first = self.copied.map_or(0, |v| v + 1);
        self.pending.get(usize::try_from(version.checked_sub(first)?).ok()?).cloned()
    }

    /// The versions that may not be in the bucket yet, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        (self.copied.map_or(0, |v| v + 1)..).zip(&self.pending)
    }
}

impl State {
    /// Versions and bytes that may not be in the bucket yet.
    pub fn backlog(&self) -> (u64, u64) {
        let contents = self.tables.values().flat_map(|table| &table.pending);
        contents.fold((0, 0), |(n, bytes), content| (n + 1, bytes + content.len() as u64))
    }

    /// Applies one command.
    pub fn apply(&mut self, command: Command) -> Answer {
        let answer = match command {
            Command::Init(init) => self.init(init),
            _ if self.cluster.is_none() => Err(Refusal::NotInitialised),
            Command::RegisterTenant(tenant) => {
                self.tables.entry(tenant).or_default();
                Ok(Answer::Done)
            }
            Command::Commit(commit) => self.commit(commit).map(Answer::Committed),
            Command::Copied(tables) => self.copied(&tables),
            Command::Join(join) => self.join(join),
            Command::SetNodeStatus(node, status) => self.set_status(node, status),
            Command::RemoveNode { node, force } => self.remove_node(node, force),
            Command::Place { changes, based_on } => self.place(changes, based_on),
            Command::Reshard { epoch, shards } => self.reshard(epoch, shards),
            Command::Emptied(group) => self.shard_emptied(group),
        };
        answer.unwrap_or_else(Answer::Refused)
    }

    fn init(&mut self, init: Init) -> Result<Answer, Refusal> {
        match self.cluster {
            Some(id) if id == init.cluster => return Ok(Answer::Done),
            Some(id) => return Err(Refusal::OtherCluster(id.to_string())),
            None => {}
        }
        self.first_node(&init)?;
        self.cluster = Some(init.cluster);
        for restored in init.tables {
            for (app, sequence) in &restored.transactions {
                let last = self.applications.entry(app.clone()).or_default();
                *last = (*last).max(*sequence);
            }
            let version = restored.version;
            let decided = |(app, sequence)| (app, Decided { sequence, version });
            let table = Table {
                id: restored.table_id,
                version: Some(version),
                copied: Some(version),
                schema_version: restored.schema_version,
                transactions: restored.transactions.into_iter().map(decided).collect(),
                pending: VecDeque::new(),
            };
            self.tables.insert(restored.tenant, Arc::new(table));
        }
        Ok(Answer::Done)
    }

    fn commit(&mut self, commit: Commit) -> Result<Committed, Refusal> {
        if commit.tables.iter().map(|t| &t.tenant).collect::<BTreeSet<_>>().len() < commit.tables.len() {
            return Err(Refusal::Invalid(format!("commit {} of {} names a tenant twice", commit.sequence, commit.app)));
        }
        if let Some(&last) = self.applications.get(&commit.app)
            && commit.sequence <= last
        {
            return self.repeat(&commit, last);
        }
        let age = commit.timestamp_ms.saturating_sub(commit.uploaded_ms);
        if age > UPLOAD_GRACE_MS {
            return Err(Refusal::UploadTooOld(age as u64));
        }
        let waiting = self.backlog().1;
        if waiting > 0 && waiting + commit.tables.iter().map(|t| t.lines.len() as u64).sum::<u64>() > PENDING_MAX_BYTES
        {
            return Err(Refusal::Backlog(waiting));
        }
        let versions = commit.tables.iter().map(|t| (t.tenant.clone(), self.decide(&commit, t))).collect();
        self.applications.insert(commit.app, commit.sequence);
        Ok(Committed { versions, repeat: false })
    }

    /// Answers a commit whose number was decided before: with versions that hold it.
    fn repeat(&self, commit: &Commit, last: u64) -> Result<Committed, Refusal> {
        let version = |table: &TableCommit| {
            let decided = self.tables.get(&table.tenant).and_then(|t| t.transactions.get(&commit.app));
            let held = decided
                .filter(|d| d.sequence == commit.sequence || (d.sequence > commit.sequence && commit.sequence < last));
            match held {
                Some(decided) => Ok((table.tenant.clone(), decided.version)),
                None => Err(Refusal::NotARepeat(table.tenant.to_string())),
            }
        };
        Ok(Committed { versions: commit.tables.iter().map(version).collect::<Result<_, _>>()?, repeat: true })
    }

    /// Makes the next version of one table.
    fn decide(&mut self, commit: &Commit, change: &TableCommit) -> u64 {
        let cluster = self.cluster;
        let table = Arc::make_mut(self.tables.entry(change.tenant.clone()).or_default());
        let is_new = table.version.is_none();
        let mut content = BytesMut::new();
        if is_new {
            table.id = table_id(cluster, &change.tenant);
        }
        if is_new || commit.schema.version > table.schema_version {
            content.extend_from_slice(&table_lines(&table.id, &commit.schema, commit.timestamp_ms, is_new));
            table.schema_version = commit.schema.version;
        }
        content.extend_from_slice(&change.lines);
        let version = table.version.map_or(0, |v| v + 1);
        table.version = Some(version);
        table.transactions.insert(commit.app.clone(), Decided { sequence: commit.sequence, version });
        table.pending.push_back(content.freeze());
        version
    }

    fn copied(&mut self, copies: &[(TenantId, u64)]) -> Result<Answer, Refusal> {
        for (tenant, version) in copies {
            if self.tables.get(tenant).is_none_or(|table| table.version < Some(*version)) {
                return Err(Refusal::Invalid(format!("table of tenant {tenant} has no version {version}")));
            }
        }
        for (tenant, version) in copies {
            let Some(table) = self.tables.get_mut(tenant) else { continue };
            if table.copied >= Some(*version) {
                continue; // a repeat
            }
            let table = Arc::make_mut(table);
            while table.copied < Some(*version) {
                table.pending.pop_front();
                table.copied = Some(table.copied.map_or(0, |v| v + 1));
            }
        }
        Ok(Answer::Done)
    }

    /// Panics if the state contradicts itself; for tests and simulations.
    pub fn check_invariants(&self) {
        for (tenant, table) in &self.tables {
            let versions = table.version.map_or(0, |v| v + 1) - table.copied.map_or(0, |v| v + 1);
            assert_eq!(versions, table.pending.len() as u64, "BUG: pending contents of {tenant}");
            for (app, decided) in &table.transactions {
                assert!(Some(decided.version) <= table.version, "BUG: transaction of {app} after the table's version");
                assert!(Some(&decided.sequence) <= self.applications.get(app), "BUG: sequence of {app} not noted");
            }
        }
        self.check_cluster();
    }
}

/// A table's Delta id: a UUID that every replica derives alike.
fn table_id(cluster: Option<ClusterId>, tenant: &TenantId) -> String {
    let mut seed = cluster.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default();
    seed.extend_from_slice(tenant.as_str().as_bytes());
    uuid::Builder::from_random_bytes(xxh3_128(&seed).to_be_bytes()).into_uuid().to_string()
}

#[cfg(test)]
mod tests;
