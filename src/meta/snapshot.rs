//! Bytes of meta's snapshots.
//!
//! ```text
//! snapshot   "MTLM" | version (2) | applied | cluster? | what is where | applications | tables | crc32 (4, LE)
//! v2 where   bucket | replication | next node | nodes | epochs, newest last | placements, each with its last change
//! v1 where   nodes (id, name, zone) | shard map
//! ```
//!
//! *Invariants:* version 1 is read forever; damaged bytes are refused as a whole.
//!
//! *Not here:* when snapshots are taken (`raft`), what the fields mean (`state`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::cluster::DEFAULT_REPLICATION;
use super::codec::{Malformed, Reader, Writer};
use super::shard_map::ShardMap;
use super::state::{ClusterId, Decided, State, Table};
use crate::model::Epoch;
use crate::raft::GroupId;

const MAGIC: &[u8; 4] = b"MTLM";
const VERSION: u64 = 2;

/// A state as bytes.
pub(super) fn encode(state: &State) -> Vec<u8> {
    let mut w = Writer(MAGIC.to_vec());
    w.number(VERSION).number(state.applied);
    w.bytes(state.cluster.as_ref().map_or(&[][..], |id| id.0.as_bytes()));
    w.text(&state.bucket).number(u64::from(state.replication)).number(state.next_node);
    w.number(state.nodes.len() as u64);
    for node in state.nodes.values() {
        w.node(node);
    }
    w.number(state.epochs.len() as u64);
    for map in &state.epochs {
        w.number(map.epoch.0).number(u64::from(map.shards));
    }
    w.number(state.groups.len() as u64);
    for (group, placement) in &state.groups {
        w.number(group.0).placement(placement).number(state.changed_at.get(group).copied().unwrap_or_default());
        w.replicas(state.founders.get(group).unwrap_or(&BTreeMap::new()));
    }
    w.number(state.emptied.len() as u64);
    for group in &state.emptied {
        w.number(group.0);
    }
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

/// A state from its bytes.
pub(super) fn decode(mut bytes: Bytes) -> Result<State, Malformed> {
    let body = bytes.len().checked_sub(4).ok_or(Malformed::CutOff)?;
    let crc = bytes.split_off(body);
    if crc32fast::hash(&bytes).to_le_bytes() != crc[..] {
        return Err(Malformed::Checksum);
    }
    if !bytes.starts_with(MAGIC) {
        return Err(Malformed::Unknown(0));
    }
    let mut r = Reader(bytes.slice(MAGIC.len()..));
    let version = r.number()?;
    let mut state = State { applied: r.number()?, cluster: r.optional_uuid()?.map(ClusterId), ..State::default() };
    match version {
        1 => decode_cluster_v1(&mut r, &mut state)?,
        2 => decode_cluster(&mut r, &mut state)?,
        version => return Err(Malformed::Unknown(version)),
    }
    for _ in 0..r.count()? {
        state.applications.insert(r.text()?, r.number()?);
    }
    for _ in 0..r.count()? {
        state.tables.insert(r.tenant()?, Arc::new(decode_table(&mut r)?));
    }
    r.end()?;
    Ok(state)
}

fn decode_cluster(r: &mut Reader, state: &mut State) -> Result<(), Malformed> {
    (state.bucket, state.replication, state.next_node) = (r.text()?, r.number32()?, r.number()?);
    for _ in 0..r.count()? {
        let node = r.node()?;
        state.nodes.insert(node.id, node);
    }
    for _ in 0..r.count()? {
        state.epochs.push(ShardMap { epoch: Epoch(r.number()?), shards: r.number32()? });
    }
    state.shard_map = state.epochs.last().copied().unwrap_or_default();
    for _ in 0..r.count()? {
        let group = GroupId(r.number()?);
        state.groups.insert(group, r.placement()?);
        state.changed_at.insert(group, r.number()?);
        state.founders.insert(group, r.replicas()?);
    }
    for _ in 0..r.count()? {
        state.emptied.insert(GroupId(r.number()?));
    }
    Ok(())
}

/// What the first release knew: nodes without addresses, one epoch, no placements.
fn decode_cluster_v1(r: &mut Reader, state: &mut State) -> Result<(), Malformed> {
    for _ in 0..r.count()? {
        let node = r.node_v1()?;
        state.nodes.insert(node.id, node);
    }
    state.replication = DEFAULT_REPLICATION;
    state.next_node = state.nodes.last_key_value().map_or(0, |(node, _)| node.0.saturating_add(1));
    state.shard_map = ShardMap { epoch: Epoch(r.number()?), shards: r.number32()? };
    if state.cluster.is_some() {
        state.epochs.push(state.shard_map);
    }
    Ok(())
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
