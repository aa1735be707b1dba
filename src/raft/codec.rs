//! Bytes of log ids, votes, memberships and checkpoints. `format.md` draws them.
//!
//! *Invariants:* decoding never panics and never allocates more than the input's size; every encoding begins with a
//! version. Nothing derived from openraft's own types is ever stored.
//!
//! *Not here:* frames and segments (`frame`, `segment`), the entries' meaning (state machines).

use std::collections::{BTreeMap, BTreeSet};

use super::types::{LeaderId, LogId, Membership, Peer, StoredMembership, Vote};
use crate::model::ids::NodeId;

/// Version of the membership and checkpoint encodings.
const VERSION: u8 = 1;

/// No index, term, segment or group commit is numbered this high: whatever says so is damage, and counting on from what
/// is read cannot overflow.
pub(crate) const MAX_COUNTER: u64 = 1 << 62;

/// What a group's checkpoint frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    pub(crate) replica: u64,
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
}

pub(crate) fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: node }, index)
}

/// Reads a buffer from its front; every getter is `None` when the buffer is too short.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl Input<'_> {
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*first))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    /// A number of items of at least `item` bytes each, refused when the rest cannot hold them.
    pub(crate) fn count(&mut self, item: usize) -> Option<usize> {
        let n = self.u32()? as usize;
        (n.checked_mul(item)? <= self.0.len()).then_some(n)
    }

    pub(crate) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    pub(crate) fn log_id(&mut self) -> Option<LogId> {
        Some(log_id(self.counter()?, self.u64()?, self.counter()?))
    }

    pub(crate) fn vote(&mut self) -> Option<Vote> {
        let leader_id = LeaderId { term: self.counter()?, node_id: self.u64()? };
        Some(Vote { leader_id, committed: self.u8()? == 1 })
    }

    /// A number that is counted up from.
    pub(crate) fn counter(&mut self) -> Option<u64> {
        self.u64().filter(|n| *n < MAX_COUNTER)
    }

    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Appends a vote.
pub(crate) fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    out.extend_from_slice(&vote.leader_id.node_id.to_le_bytes());
    out.push(u8::from(vote.committed));
}

/// Appends a log id that may be missing.
pub(crate) fn put_log_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        let leader = id.committed_leader_id();
        for n in [leader.term, leader.node_id, id.index()] {
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

/// Appends a membership.
pub(crate) fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    out.push(VERSION);
    let configs = membership.get_joint_config();
    out.extend_from_slice(&(configs.len() as u32).to_le_bytes());
    for config in configs {
        out.extend_from_slice(&(config.len() as u32).to_le_bytes());
        for replica in config {
            out.extend_from_slice(&replica.to_le_bytes());
        }
    }
    let peers: Vec<(&u64, &Peer)> = membership.nodes().collect();
    out.extend_from_slice(&(peers.len() as u32).to_le_bytes());
    for (replica, peer) in peers {
        out.extend_from_slice(&replica.to_le_bytes());
        out.extend_from_slice(&peer.node.0.to_le_bytes());
    }
}

/// Reads what [`put_membership`] wrote.
pub(crate) fn membership(input: &mut Input<'_>) -> Option<Membership> {
    if input.u8()? != VERSION {
        return None;
    }
    let mut configs = Vec::new();
    for _ in 0..input.count(4)? {
        let mut config = BTreeSet::new();
        for _ in 0..input.count(8)? {
            config.insert(input.u64()?);
        }
        configs.push(config);
    }
    let mut peers = BTreeMap::new();
    for _ in 0..input.count(16)? {
        peers.insert(input.u64()?, Peer { node: NodeId(input.u64()?) });
    }
    Membership::new(configs, peers).ok()
}

/// Appends the last log id and membership a snapshot covers.
pub(crate) fn put_snapshot_meta(out: &mut Vec<u8>, last: Option<&LogId>, membership: &StoredMembership) {
    put_log_id(out, last);
    put_log_id(out, membership.log_id().as_ref());
    put_membership(out, membership.membership());
}

/// Reads what [`put_snapshot_meta`] wrote.
pub(crate) fn snapshot_meta(bytes: &[u8]) -> Option<(Option<LogId>, StoredMembership)> {
    let mut input = Input(bytes);
    let last = input.option(Input::log_id)?;
    let at = input.option(Input::log_id)?;
    // The membership of a group that has none yet has no config, which `Membership::new` refuses.
    let members = if at.is_none() { Membership::default() } else { membership(&mut input)? };
    Some((last, StoredMembership::new(at, members)))
}

/// Appends a checkpoint.
pub(crate) fn put_checkpoint(out: &mut Vec<u8>, checkpoint: &Checkpoint) {
    out.push(VERSION);
    out.extend_from_slice(&checkpoint.replica.to_le_bytes());
    match &checkpoint.vote {
        None => out.push(0),
        Some(vote) => {
            out.push(1);
            put_vote(out, vote);
        }
    }
    put_log_id(out, checkpoint.purged.as_ref());
    put_log_id(out, checkpoint.committed.as_ref());
}

/// Reads what [`put_checkpoint`] wrote.
pub(crate) fn checkpoint(bytes: &[u8]) -> Option<Checkpoint> {
    let mut input = Input(bytes);
    if input.u8()? != VERSION {
        return None;
    }
    let replica = input.u64()?;
    let vote = input.option(Input::vote)?;
    let (purged, committed) = (input.option(Input::log_id)?, input.option(Input::log_id)?);
    input.end()?;
    Some(Checkpoint { replica, vote, purged, committed })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members() -> impl Strategy<Value = Membership> {
        let ids = prop::collection::btree_set(any::<u64>(), 1..6);
        prop::collection::vec(ids, 1..3).prop_map(|configs| {
            let all = configs.iter().flatten().map(|id| (*id, Peer { node: NodeId(id / 3) }));
            let peers: BTreeMap<u64, Peer> = all.collect();
            Membership::new(configs, peers).unwrap()
        })
    }

    fn id() -> impl Strategy<Value = Option<LogId>> {
        prop::option::of((0..MAX_COUNTER, any::<u64>(), 0..MAX_COUNTER).prop_map(|(t, n, i)| log_id(t, n, i)))
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(m in members(), last in id(), purged in id(), replica: u64, term in 0..MAX_COUNTER, committed: bool) {
            let mut out = Vec::new();
            let stored = StoredMembership::new(Some(log_id(1, 2, 3)), m);
            put_snapshot_meta(&mut out, last.as_ref(), &stored);
            prop_assert_eq!(snapshot_meta(&out), Some((last, stored)));

            let vote = Some(Vote { leader_id: LeaderId { term, node_id: replica }, committed });
            let check = Checkpoint { replica, vote, purged, committed: last };
            let mut out = Vec::new();
            put_checkpoint(&mut out, &check);
            prop_assert_eq!(checkpoint(&out), Some(check));
        }

        #[test]
        fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            snapshot_meta(&bytes);
            checkpoint(&bytes);
            membership(&mut Input(&bytes));
        }
    }
}
