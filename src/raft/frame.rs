//! Frames: what the log's segments are made of. `format.md` draws them.
//!
//! *Invariants:* a frame verifies only in the segment it was written for (its CRC is seeded with the segment's number),
//! so bytes left over in a recycled file never come back to life. Frames are 8-byte aligned. Decoding never panics.
//!
//! *Not here:* what the payloads say (`codec`), which segment is written (`writer`).

use bytes::Bytes;

use super::codec::{self, Input, MAX_COUNTER, log_id};
use super::types::{Command, Entry, GroupId, LogId, Payload};

/// Bytes before a frame's payload.
pub(crate) const HEADER: usize = 56;

/// The most bytes an entry's payload may have.
pub(crate) const MAX_PAYLOAD: usize = 64 << 20;

/// Bytes at the front of a frame that its CRC does not cover: length and CRC.
const BEFORE_CRC: usize = 8;

/// This frame is the first of a group commit.
const FIRST_OF_BATCH: u8 = 1;
/// The log id of this frame is `None`.
const NO_LOG_ID: u8 = 2;
/// The vote is committed.
const VOTE_COMMITTED: u8 = 4;

/// What a frame records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Blank = 1,
    Normal = 2,
    Membership = 3,
    Vote = 4,
    TruncateAfter = 5,
    Purged = 6,
    Committed = 7,
    GroupCreated = 8,
    GroupDeleted = 9,
    Checkpoint = 10,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        use Kind::*;
        let all =
            [Blank, Normal, Membership, Vote, TruncateAfter, Purged, Committed, GroupCreated, GroupDeleted, Checkpoint];
        all.into_iter().find(|k| *k as u8 == byte)
    }
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    flags: u8,
    /// Which group commit wrote it; one more than the one before.
    pub(crate) batch: u64,
    pub(crate) group: GroupId,
    term: u64,
    node: u64,
    index: u64,
}

impl Head {
    pub(crate) fn new(kind: Kind, group: GroupId) -> Self {
        Self { kind, flags: 0, batch: 0, group, term: 0, node: 0, index: 0 }
    }

    pub(crate) fn with_log_id(mut self, id: Option<&LogId>) -> Self {
        match id {
            None => self.flags |= NO_LOG_ID,
            Some(id) => {
                let leader = id.committed_leader_id();
                (self.term, self.node, self.index) = (leader.term, leader.node_id, id.index());
            }
        }
        self
    }

    pub(crate) fn with_vote(mut self, term: u64, node: u64, committed: bool) -> Self {
        (self.term, self.node) = (term, node);
        self.flags |= if committed { VOTE_COMMITTED } else { 0 };
        self
    }

    pub(crate) fn with_replica(mut self, replica: u64) -> Self {
        self.node = replica;
        self
    }

    pub(crate) fn log_id(&self) -> Option<LogId> {
        (self.flags & NO_LOG_ID == 0).then(|| log_id(self.term, self.node, self.index))
    }

    pub(crate) fn vote(&self) -> (u64, u64, bool) {
        (self.term, self.node, self.flags & VOTE_COMMITTED != 0)
    }

    pub(crate) fn replica(&self) -> u64 {
        self.node
    }

    /// Whether its numbers are such as a log counts up to.
    pub(crate) fn is_possible(&self) -> bool {
        [self.batch, self.term, self.index].iter().all(|n| *n < MAX_COUNTER)
    }

    pub(crate) fn is_first_of_batch(&self) -> bool {
        self.flags & FIRST_OF_BATCH != 0
    }
}

/// Bytes a frame takes with `payload` bytes of payload.
pub(crate) fn size(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(8)
}

fn crc(segment: u64, covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial((segment ^ (segment >> 32)) as u32);
    hasher.update(&segment.to_le_bytes());
    hasher.update(covered);
    hasher.finalize()
}

/// Frames of one group commit on their way to segment `segment`.
pub(crate) struct BatchBuf {
    pub(crate) bytes: Vec<u8>,
    pub(crate) segment: u64,
    pub(crate) batch: u64,
}

impl BatchBuf {
    /// Appends a frame whose payload `write` produces; the offset and length it takes in the buffer.
    pub(crate) fn push(&mut self, mut head: Head, write: impl FnOnce(&mut Vec<u8>)) -> (usize, usize) {
        let at = self.bytes.len();
        if at == 0 {
            head.flags |= FIRST_OF_BATCH;
        }
        self.bytes.extend_from_slice(&[0; BEFORE_CRC]);
        self.bytes.extend_from_slice(&[head.kind as u8, head.flags, 0, 0, 0, 0, 0, 0]);
        for n in [self.batch, head.group.0, head.term, head.node, head.index] {
            self.bytes.extend_from_slice(&n.to_le_bytes());
        }
        write(&mut self.bytes);
        let payload = self.bytes.len() - at - HEADER;
        let sum = crc(self.segment, &self.bytes[at + BEFORE_CRC..]) ^ payload as u32;
        self.bytes[at..at + 4].copy_from_slice(&(payload as u32).to_le_bytes());
        self.bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
        self.bytes.resize(at + size(payload), 0);
        (at, HEADER + payload)
    }

    /// Appends an entry.
    pub(crate) fn push_entry(&mut self, group: GroupId, entry: &Entry) -> (usize, usize) {
        let head = |kind| Head::new(kind, group).with_log_id(Some(&entry.log_id));
        match &entry.payload {
            Payload::Blank => self.push(head(Kind::Blank), |_| {}),
            Payload::Normal(Command(bytes)) => self.push(head(Kind::Normal), |out| out.extend_from_slice(bytes)),
            Payload::Membership(m) => self.push(head(Kind::Membership), |out| codec::put_membership(out, m)),
        }
    }
}

/// An upper estimate of the bytes an entry's frame takes.
pub(crate) fn entry_size(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Blank => size(0),
        Payload::Normal(Command(bytes)) => size(bytes.len()),
        Payload::Membership(m) => size(64 + 40 * (m.nodes().count() + 1) * (m.get_joint_config().len() + 1)),
    }
}

/// A frame read from a segment.
pub(crate) struct Frame<'a> {
    pub(crate) head: Head,
    pub(crate) payload: &'a [u8],
    /// Where the next one begins, counted from this one.
    pub(crate) size: usize,
}

/// The group commit that the frame at the front of `bytes` would be of, were it unharmed: much cheaper than [`parse`].
pub(crate) fn claimed_batch(bytes: &[u8]) -> Option<u64> {
    let claim = bytes.get(10..24)?;
    Some(u64::from_le_bytes(*claim.last_chunk()?)).filter(|_| claim.starts_with(&[0; 6]))
}

/// The frame at the front of `bytes`, if one of segment `segment` is there unharmed.
pub(crate) fn parse(bytes: &[u8], segment: u64) -> Option<Frame<'_>> {
    let mut input = Input(bytes);
    let (payload, sum) = (input.u32()? as usize, input.u32()?);
    let kind = Kind::of(input.u8()?)?;
    let end = HEADER.checked_add(payload)?;
    if sum != crc(segment, bytes.get(BEFORE_CRC..end)?) ^ payload as u32 {
        return None;
    }
    let flags = input.u8()?;
    input.0 = input.0.get(6..)?;
    let (batch, group) = (input.u64()?, GroupId(input.u64()?));
    let (term, node, index) = (input.u64()?, input.u64()?, input.u64()?);
    let head = Head { kind, flags, batch, group, term, node, index };
    Some(Frame { head, payload: &bytes[HEADER..end], size: size(payload) })
}

impl Frame<'_> {
    /// The entry this frame holds; `None` if it holds none or an unreadable one.
    pub(crate) fn entry(&self, copy: impl FnOnce(&[u8]) -> Bytes) -> Option<Entry> {
        let payload = match self.head.kind {
            Kind::Blank => Payload::Blank,
            Kind::Normal => Payload::Normal(Command(copy(self.payload))),
            Kind::Membership => Payload::Membership(codec::membership(&mut Input(self.payload))?),
            _ => return None,
        };
        Some(Entry { log_id: self.head.log_id()?, payload })
    }
}
