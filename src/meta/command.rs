//! What can be proposed to meta.
//!
//! ```text
//! entry    version (1) | kind | fields
//! kinds    1 init of the first release (only read), 2 register tenant, 3 commit, 4 copied, 5 init, 6 join,
//!          7 status of a node, 8 remove node, 9 place, 10 reshard, 11 emptied
//! ```
//!
//! *Invariants:* a command carries everything it depends on: time, ids and rendered log lines come from the proposer, so
//! that replicas of different releases decide the same bytes.
//!
//! *Not here:* what commands do (`state`), what meta answers (`answer`).

use bytes::Bytes;

use super::cluster::{DEFAULT_REPLICATION, Node, NodeStatus, Placement};
use super::codec::{Malformed, Reader, Writer};
use super::state::ClusterId;
use crate::model::{Epoch, NodeId, TenantId};
use crate::raft::{GroupId, ReplicaId};
use crate::store::catalog::actions::{self, AddFile, RemoveFile, TableSchema};

/// Version of entries and answers.
pub(super) const VERSION: u64 = 1;

/// A change of the replicated state.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Makes the cluster; repeating it is harmless.
    Init(Init),
    /// Notes that a tenant exists, before its first flush.
    RegisterTenant(TenantId),
    /// Decides the next version of one or more tables.
    Commit(Commit),
    /// The bucket has these tables up to these versions.
    Copied(Vec<(TenantId, u64)>),
    /// Makes a machine a node, or says where a node is now.
    Join(Join),
    /// Says whether a node takes new replicas.
    SetNodeStatus(NodeId, NodeStatus),
    /// Takes a node out of the cluster.
    RemoveNode {
        /// Which.
        node: NodeId,
        /// Even if it should still hold replicas.
        force: bool,
    },
    /// Changes where replicas should be.
    Place {
        /// What each of these groups should have.
        changes: Vec<(GroupId, Placement)>,
        /// [`applied`](super::State::applied) of the state it was decided on.
        based_on: u64,
    },
    /// Begins an epoch.
    Reshard {
        /// Its number, one above the newest.
        epoch: Epoch,
        /// Where each shard's replicas should be, in the order of the shards.
        shards: Vec<Placement>,
    },
    /// A shard of an ended epoch takes no samples anymore and holds none; with the last one its epoch is over.
    Emptied(GroupId),
}

/// The beginning of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Init {
    /// The cluster's name for itself.
    pub cluster: ClusterId,
    /// Its first node.
    pub node: Node,
    /// The bucket it uses, as a URL.
    pub bucket: String,
    /// Replicas wanted per shard.
    pub replication: u32,
    /// Number of shards.
    pub shards: u32,
    /// The replica of every shard, in their order, all on the first node. Empty in entries of the first release: that
    /// node places the replicas it has when it is started again.
    pub shard_replicas: Vec<ReplicaId>,
    /// First epoch; above every epoch the restored tables have seen.
    pub epoch: Epoch,
    /// Tables found in the bucket; see [`super::rebuild`].
    pub tables: Vec<RestoredTable>,
}

/// What a machine says that wants to be a node, or is one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Join {
    /// Its id; 0 if it has none yet.
    pub node: NodeId,
    /// The cluster it belongs to; `None` if it does not know one.
    pub cluster: Option<ClusterId>,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub zone: String,
    /// Where other nodes reach it, `host:port`.
    pub grpc: String,
    /// Where clients reach it, `host:port`.
    pub http: String,
    /// Version of its binary.
    pub version: String,
    /// The replica of meta it gets if it has none: fresh, chosen by the proposer.
    pub meta_replica: Option<ReplicaId>,
    /// The bucket it was told to use; empty if it was told none.
    pub bucket: String,
}

/// What the bucket says about a table that existed before the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredTable {
    /// Whose table.
    pub tenant: TenantId,
    /// Its Delta id.
    pub table_id: String,
    /// Its newest version.
    pub version: u64,
    /// Version of its columns.
    pub schema_version: u32,
    /// Last transaction per application.
    pub transactions: Vec<(String, u64)>,
}

/// One flush (or compaction) of any number of tenants, decided as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// Who commits: `shard-<epoch>-<n>`, see [`crate::store::layout::app_of`].
    pub app: String,
    /// Number of this commit within `app`. An application commits in the order of its numbers, leaving out at will;
    /// a number that is not above the last one is a repeat.
    pub sequence: u64,
    /// The proposer's clock, milliseconds.
    pub timestamp_ms: i64,
    /// When the upload of the oldest file began, by the same clock.
    pub uploaded_ms: i64,
    /// The columns the files were written with.
    pub schema: TableSchema,
    /// One per tenant, each tenant once.
    pub tables: Vec<TableCommit>,
}

/// What a commit does to one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableCommit {
    /// Whose table.
    pub tenant: TenantId,
    /// The rendered lines of the log, see [`actions::commit_lines`].
    pub lines: Bytes,
}

impl Commit {
    /// A commit without tables yet.
    pub fn new(app: String, sequence: u64, timestamp_ms: i64, uploaded_ms: i64, schema: TableSchema) -> Self {
        Self { app, sequence, timestamp_ms, uploaded_ms, schema, tables: Vec::new() }
    }

    /// Adds what happens to one tenant's table.
    pub fn table(&mut self, tenant: TenantId, adds: &[AddFile], removes: &[RemoveFile]) -> &mut Self {
        let lines = actions::commit_lines(&self.app, self.sequence, self.timestamp_ms, adds, removes);
        self.tables.push(TableCommit { tenant, lines });
        self
    }
}

impl Command {
    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.number(VERSION);
        match self {
            Self::Init(init) => encode_init(&mut w, init),
            Self::RegisterTenant(tenant) => {
                w.number(2).text(tenant.as_str());
            }
            Self::Commit(commit) => encode_commit(&mut w, commit),
            Self::Copied(tables) => {
                w.number(4).number(tables.len() as u64);
                for (tenant, version) in tables {
                    w.text(tenant.as_str()).number(*version);
                }
            }
            Self::Join(join) => encode_join(&mut w, join),
            Self::SetNodeStatus(node, status) => {
                w.number(7).number(node.0).status(*status);
            }
            Self::RemoveNode { node, force } => {
                w.number(8).number(node.0).number(u64::from(*force));
            }
            Self::Place { changes, based_on } => {
                w.number(9).number(*based_on).number(changes.len() as u64);
                for (group, placement) in changes {
                    w.number(group.0).placement(placement);
                }
            }
            Self::Reshard { epoch, shards } => {
                w.number(10).number(epoch.0).number(shards.len() as u64);
                for placement in shards {
                    w.placement(placement);
                }
            }
            Self::Emptied(group) => {
                w.number(11).number(group.0);
            }
        }
        w.0.into()
    }

    /// Reads an entry's bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut r = open(bytes)?;
        let command = match r.number()? {
            1 => Self::Init(decode_init(&mut r, true)?),
            2 => Self::RegisterTenant(r.tenant()?),
            3 => Self::Commit(decode_commit(&mut r)?),
            4 => {
                let mut tables = Vec::new();
                for _ in 0..r.count()? {
                    tables.push((r.tenant()?, r.number()?));
                }
                Self::Copied(tables)
            }
            5 => Self::Init(decode_init(&mut r, false)?),
            6 => Self::Join(decode_join(&mut r)?),
            7 => Self::SetNodeStatus(NodeId(r.number()?), r.status()?),
            8 => Self::RemoveNode { node: NodeId(r.number()?), force: r.number()? != 0 },
            9 => {
                let based_on = r.number()?;
                let change = |r: &mut Reader| Ok((GroupId(r.number()?), r.placement()?));
                Self::Place { changes: (0..r.count()?).map(|_| change(&mut r)).collect::<Result<_, _>>()?, based_on }
            }
            10 => {
                let epoch = Epoch(r.number()?);
                Self::Reshard { epoch, shards: (0..r.count()?).map(|_| r.placement()).collect::<Result<_, _>>()? }
            }
            11 => Self::Emptied(GroupId(r.number()?)),
            kind => return Err(Malformed::Unknown(kind)),
        };
        r.end()?;
        Ok(command)
    }
}

/// Reads the version.
pub(super) fn open(bytes: &Bytes) -> Result<Reader, Malformed> {
    let mut r = Reader(bytes.clone());
    match r.number()? {
        VERSION => Ok(r),
        version => Err(Malformed::Unknown(version)),
    }
}

fn encode_init(w: &mut Writer, init: &Init) {
    w.number(5).bytes(init.cluster.0.as_bytes()).node(&init.node).text(&init.bucket);
    w.number(u64::from(init.replication)).number(init.shard_replicas.len() as u64);
    for replica in &init.shard_replicas {
        w.replica(Some(*replica));
    }
    w.number(u64::from(init.shards)).number(init.epoch.0).number(init.tables.len() as u64);
    for table in &init.tables {
        w.text(table.tenant.as_str()).text(&table.table_id).number(table.version);
        w.number(u64::from(table.schema_version)).number(table.transactions.len() as u64);
        for (app, sequence) in &table.transactions {
            w.text(app).number(*sequence);
        }
    }
}

fn decode_init(r: &mut Reader, first_release: bool) -> Result<Init, Malformed> {
    let cluster = ClusterId(r.uuid()?);
    let node = if first_release { r.node_v1()? } else { r.node()? };
    let (bucket, replication, shard_replicas) = if first_release {
        (String::new(), DEFAULT_REPLICATION, Vec::new())
    } else {
        (r.text()?, r.number32()?, (0..r.count()?).map(|_| r.replica()).collect::<Result<_, _>>()?)
    };
    let (shards, epoch) = (r.number32()?, Epoch(r.number()?));
    let mut tables = Vec::new();
    for _ in 0..r.count()? {
        let (tenant, table_id, version, schema_version) = (r.tenant()?, r.text()?, r.number()?, r.number32()?);
        let mut transactions = Vec::new();
        for _ in 0..r.count()? {
            transactions.push((r.text()?, r.number()?));
        }
        tables.push(RestoredTable { tenant, table_id, version, schema_version, transactions });
    }
    Ok(Init { cluster, node, bucket, replication, shards, shard_replicas, epoch, tables })
}

fn encode_join(w: &mut Writer, join: &Join) {
    w.number(6).number(join.node.0).bytes(join.cluster.as_ref().map_or(&[][..], |id| id.0.as_bytes()));
    w.text(&join.name).text(&join.zone).text(&join.grpc).text(&join.http).text(&join.version);
    w.replica(join.meta_replica).text(&join.bucket);
}

fn decode_join(r: &mut Reader) -> Result<Join, Malformed> {
    Ok(Join {
        node: NodeId(r.number()?),
        cluster: r.optional_uuid()?.map(ClusterId),
        name: r.text()?,
        zone: r.text()?,
        grpc: r.text()?,
        http: r.text()?,
        version: r.text()?,
        meta_replica: r.optional_replica()?,
        bucket: r.text()?,
    })
}

fn encode_commit(w: &mut Writer, commit: &Commit) {
    w.number(3).text(&commit.app).number(commit.sequence).signed(commit.timestamp_ms).signed(commit.uploaded_ms);
    w.number(u64::from(commit.schema.version)).text(&commit.schema.json).number(commit.tables.len() as u64);
    for table in &commit.tables {
        w.text(table.tenant.as_str()).bytes(&table.lines);
    }
}

fn decode_commit(r: &mut Reader) -> Result<Commit, Malformed> {
    let (app, sequence, timestamp_ms, uploaded_ms) = (r.text()?, r.number()?, r.signed()?, r.signed()?);
    let schema = TableSchema { version: r.number32()?, json: r.text()?.into() };
    let mut tables = Vec::new();
    for _ in 0..r.count()? {
        tables.push(TableCommit { tenant: r.tenant()?, lines: r.bytes()? });
    }
    Ok(Commit { app, sequence, timestamp_ms, uploaded_ms, schema, tables })
}

#[cfg(test)]
mod tests;
