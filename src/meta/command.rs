//! What can be proposed to meta, and what it answers.
//!
//! ```text
//! entry    version (1) | kind | fields        kinds: 1 init, 2 register tenant, 3 commit, 4 copied
//! answer   version (1) | kind | fields        kinds: 1 done, 2 committed, 3 refused
//! ```
//!
//! *Invariants:* a command carries everything it depends on: time, ids and rendered log lines come from the proposer, so
//! that replicas of different releases decide the same bytes.
//!
//! *Not here:* what commands do (`state`).

use bytes::Bytes;

use super::codec::{Malformed, Reader, Writer};
use super::state::ClusterId;
use crate::error::{HasKind, Kind};
use crate::model::{Epoch, NodeId, TenantId};
use crate::store::catalog::actions::{self, AddFile, RemoveFile, TableSchema};

const VERSION: u64 = 1;

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
}

/// The beginning of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Init {
    /// The cluster's name for itself.
    pub cluster: ClusterId,
    /// Its first node.
    pub node: Node,
    /// Number of shards.
    pub shards: u32,
    /// First epoch; above every epoch the restored tables have seen.
    pub epoch: Epoch,
    /// Tables found in the bucket; see [`super::rebuild`].
    pub tables: Vec<RestoredTable>,
}

/// A machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Where it stands, for spreading replicas; may be empty.
    pub zone: String,
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
        }
        w.0.into()
    }

    /// Reads an entry's bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut r = open(bytes)?;
        let command = match r.number()? {
            1 => Self::Init(decode_init(&mut r)?),
            2 => Self::RegisterTenant(r.tenant()?),
            3 => Self::Commit(decode_commit(&mut r)?),
            4 => {
                let mut tables = Vec::new();
                for _ in 0..r.count()? {
                    tables.push((r.tenant()?, r.number()?));
                }
                Self::Copied(tables)
            }
            kind => return Err(Malformed::Unknown(kind)),
        };
        r.end()?;
        Ok(command)
    }
}

fn open(bytes: &Bytes) -> Result<Reader, Malformed> {
    let mut r = Reader(bytes.clone());
    match r.number()? {
        VERSION => Ok(r),
        version => Err(Malformed::Unknown(version)),
    }
}

fn encode_init(w: &mut Writer, init: &Init) {
    w.number(1).bytes(init.cluster.0.as_bytes());
    w.number(init.node.id.0).text(&init.node.name).text(&init.node.zone);
    w.number(u64::from(init.shards)).number(init.epoch.0).number(init.tables.len() as u64);
    for table in &init.tables {
        w.text(table.tenant.as_str()).text(&table.table_id).number(table.version);
        w.number(u64::from(table.schema_version)).number(table.transactions.len() as u64);
        for (app, sequence) in &table.transactions {
            w.text(app).number(*sequence);
        }
    }
}

fn decode_init(r: &mut Reader) -> Result<Init, Malformed> {
    let cluster = ClusterId(r.uuid()?);
    let node = Node { id: NodeId(r.number()?), name: r.text()?, zone: r.text()? };
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
    Ok(Init { cluster, node, shards, epoch, tables })
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

/// What meta answers to a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is so.
    Done,
    /// These versions hold the commit.
    Committed(Committed),
    /// Nothing was changed.
    Refused(Refusal),
}

/// Where a commit went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The version per tenant that holds it, in the order of the commit. For a repeat of an older number it is a version
    /// that holds it, not the first one that did.
    pub versions: Vec<(TenantId, u64)>,
    /// Whether it had been decided before.
    pub repeat: bool,
}

/// Why meta changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The entry cannot be read or contradicts itself.
    #[error("entry cannot be applied: {0}")]
    Invalid(String),
    /// There is no cluster yet.
    #[error("the cluster is not initialised")]
    NotInitialised,
    /// There is another cluster already.
    #[error("the cluster is initialised as {0}")]
    OtherCluster(String),
    /// The files may have been taken for orphans: upload them again.
    #[error("the upload began {0} ms before the commit, longer than files without an entry are safe")]
    UploadTooOld(u64),
    /// A repeat names a table that the first commit of this number did not have.
    #[error("commit was decided before without the table of tenant {0}")]
    NotARepeat(String),
    /// Too many commits wait for the bucket.
    #[error("{0} bytes of commits wait for the bucket")]
    Backlog(u64),
}

impl HasKind for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) | Self::NotARepeat(_) => Kind::Internal,
            Self::NotInitialised | Self::UploadTooOld(_) | Self::Backlog(_) => Kind::Unavailable,
            Self::OtherCluster(_) => Kind::Invalid,
        }
    }
}

impl Answer {
    /// The answer's bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.number(VERSION);
        match self {
            Self::Done => {
                w.number(1);
            }
            Self::Committed(committed) => {
                w.number(2).number(u64::from(committed.repeat)).number(committed.versions.len() as u64);
                for (tenant, version) in &committed.versions {
                    w.text(tenant.as_str()).number(*version);
                }
            }
            Self::Refused(refusal) => {
                w.number(3);
                match refusal {
                    Refusal::Invalid(why) => w.number(1).text(why),
                    Refusal::NotInitialised => w.number(2),
                    Refusal::OtherCluster(id) => w.number(3).text(id),
                    Refusal::UploadTooOld(ms) => w.number(4).number(*ms),
                    Refusal::NotARepeat(tenant) => w.number(5).text(tenant),
                    Refusal::Backlog(bytes) => w.number(6).number(*bytes),
                };
            }
        }
        w.0.into()
    }

    /// Reads an answer's bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut r = open(bytes)?;
        let answer = match r.number()? {
            1 => Self::Done,
            2 => {
                let repeat = r.number()? != 0;
                let mut versions = Vec::new();
                for _ in 0..r.count()? {
                    versions.push((r.tenant()?, r.number()?));
                }
                Self::Committed(Committed { versions, repeat })
            }
            3 => Self::Refused(match r.number()? {
                1 => Refusal::Invalid(r.text()?),
                2 => Refusal::NotInitialised,
                3 => Refusal::OtherCluster(r.text()?),
                4 => Refusal::UploadTooOld(r.number()?),
                5 => Refusal::NotARepeat(r.text()?),
                6 => Refusal::Backlog(r.number()?),
                code => return Err(Malformed::Unknown(code)),
            }),
            kind => return Err(Malformed::Unknown(kind)),
        };
        r.end()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;
