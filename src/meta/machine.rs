//! Meta's state machine: applies entries, publishes the state, writes and reads snapshots.
//!
//! ```text
//! snapshot   "MTLM" | version (1) | applied | cluster? | nodes | shard map | applications | tables | crc32 (4, LE)
//! ```
//!
//! *Invariants:* what is published is immutable; readers hold it as long as they like and never block an apply. An entry
//! that cannot be read is refused by every replica alike, never skipped silently.
//!
//! *Not here:* what commands do (`state`), consensus (`raft`).

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::codec::{Malformed, Reader, Writer};
use super::command::{Answer, Command, Node, Refusal};
use super::shard_map::ShardMap;
use super::state::{ClusterId, Decided, State, Table};
use crate::model::{Epoch, NodeId, TenantId};
use crate::raft::{SnapshotWriter, StateMachine};

const MAGIC: &[u8; 4] = b"MTLM";
const VERSION: u64 = 1;
/// Largest snapshot that is read: 64 MiB of contents and a million tenants stay below.
const SNAPSHOT_MAX_BYTES: u64 = 1 << 30;

/// The replicated state behind [`StateMachine`].
pub struct Machine {
    state: Arc<State>,
    publish: watch::Sender<Arc<State>>,
}

/// A handle to the newest state this node has applied.
#[derive(Clone, Debug)]
pub struct Views(watch::Receiver<Arc<State>>);

impl Machine {
    /// An empty state and where it is published.
    pub fn new() -> (Self, Views) {
        let state = Arc::new(State::default());
        let (publish, views) = watch::channel(state.clone());
        (Self { state, publish }, Views(views))
    }
}

impl Views {
    /// The newest state.
    pub fn current(&self) -> Arc<State> {
        self.0.borrow().clone()
    }

    /// Waits for a state newer than the last one this handle waited for; `None` if the machine is gone.
    pub async fn changed(&mut self) -> Option<Arc<State>> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }

    /// Waits until the entry at `index` is applied here; `None` if the machine is gone.
    pub async fn applied(&mut self, index: u64) -> Option<Arc<State>> {
        self.0.wait_for(|state| state.applied >= index).await.ok().map(|state| state.clone())
    }

    /// Waits until this version of a tenant's table is known here; `None` if the machine is gone.
    pub async fn table_at(&mut self, tenant: &TenantId, version: u64) -> Option<Arc<State>> {
        let known = |state: &Arc<State>| state.tables.get(tenant).is_some_and(|table| table.version >= Some(version));
        self.0.wait_for(known).await.ok().map(|state| state.clone())
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, index: u64, entry: &Bytes) -> Bytes {
        // The published state shares this one, so this copies: a map of shared tables, by the minute, not per sample.
        let state = Arc::make_mut(&mut self.state);
        let answer = match Command::decode(entry) {
            Ok(command) => state.apply(command),
            Err(e) => Answer::Refused(Refusal::Invalid(e.to_string())),
        };
        state.applied = index;
        self.publish.send_replace(self.state.clone());
        answer.encode()
    }

    fn snapshot(&mut self) -> io::Result<SnapshotWriter> {
        let state = self.state.clone();
        Ok(Box::new(move |out| out.write_all(&encode(&state))))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.take(SNAPSHOT_MAX_BYTES).read_to_end(&mut bytes)?;
        let state = decode(bytes.into())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("restore meta from a snapshot: {e}")))?;
        self.state = Arc::new(state);
        self.publish.send_replace(self.state.clone());
        Ok(())
    }
}

fn encode(state: &State) -> Vec<u8> {
    let mut w = Writer(MAGIC.to_vec());
    w.number(VERSION).number(state.applied);
    w.bytes(state.cluster.as_ref().map_or(&[][..], |id| id.0.as_bytes()));
    w.number(state.nodes.len() as u64);
    for node in state.nodes.values() {
        w.number(node.id.0).text(&node.name).text(&node.zone);
    }
    w.number(state.shard_map.epoch.0).number(u64::from(state.shard_map.shards));
    w.number(state.applications.len() as u64);
    for (app, sequence) in &state.applications {
        w.text(app).number(*sequence);
    }
    w.number(state.tables.len() as u64);
    for (tenant, table) in &state.tables {
        w.text(tenant.as_str()).text(&table.id).optional(table.version).optional(table.copied);
        w.number(u64::from(table.schema_version)).number(table.transactions.len() as u64);
        for (app, decided) in &table.transactions {
            w.text(app).number(decided.sequence).number(decided.version);
        }
        w.number(table.pending.len() as u64);
        for content in &table.pending {
            w.bytes(content);
        }
    }
    let crc = crc32fast::hash(&w.0);
    w.0.extend_from_slice(&crc.to_le_bytes());
    w.0
}

fn decode(mut bytes: Bytes) -> Result<State, Malformed> {
    let body = bytes.len().checked_sub(4).ok_or(Malformed::CutOff)?;
    let crc = bytes.split_off(body);
    if crc32fast::hash(&bytes).to_le_bytes() != crc[..] {
        return Err(Malformed::Checksum);
    }
    if !bytes.starts_with(MAGIC) {
        return Err(Malformed::Unknown(0));
    }
    let mut r = Reader(bytes.slice(MAGIC.len()..));
    match r.number()? {
        VERSION => {}
        version => return Err(Malformed::Unknown(version)),
    }
    let mut state = State { applied: r.number()?, ..State::default() };
    let cluster = r.bytes()?;
    if !cluster.is_empty() {
        state.cluster = Some(ClusterId(uuid::Uuid::from_slice(&cluster).map_err(|_| Malformed::Text)?));
    }
    for _ in 0..r.count()? {
        let node = Node { id: NodeId(r.number()?), name: r.text()?, zone: r.text()? };
        state.nodes.insert(node.id, node);
    }
    state.shard_map = ShardMap { epoch: Epoch(r.number()?), shards: r.number32()? };
    for _ in 0..r.count()? {
        state.applications.insert(r.text()?, r.number()?);
    }
    for _ in 0..r.count()? {
        state.tables.insert(r.tenant()?, Arc::new(decode_table(&mut r)?));
    }
    r.end()?;
    Ok(state)
}

fn decode_table(r: &mut Reader) -> Result<Table, Malformed> {
    let mut table = Table {
        id: r.text()?,
        version: r.optional()?,
        copied: r.optional()?,
        schema_version: r.number32()?,
        ..Table::default()
    };
    for _ in 0..r.count()? {
        table.transactions.insert(r.text()?, Decided { sequence: r.number()?, version: r.number()? });
    }
    let mut pending = VecDeque::new();
    for _ in 0..r.count()? {
        pending.push_back(r.bytes()?);
    }
    table.pending = pending;
    Ok(table)
}

#[cfg(test)]
mod tests;
