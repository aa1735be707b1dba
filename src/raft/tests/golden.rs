//! A segment that a node of the release before wrote.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::raft::codec::{Checkpoint, put_checkpoint};
use crate::raft::frame::{BatchBuf, Head, Kind};
use crate::raft::log::{Log, Shared};
use crate::raft::segment::{SegmentHeader, Segments};
use crate::raft::types::{Command, Entry, LeaderId, LogId, Membership, Payload, Peer, Vote};
use crate::raft::writer::WriterOptions;
use crate::testkit::golden::golden;

const OPTIONS: WriterOptions = WriterOptions { segment_bytes: 4096, cache_bytes: 0, recycle: false };

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 6 }, index)
}

/// Entries 4 to 7 of the second group.
fn entries() -> Vec<Entry> {
    let members = Membership::new(
        vec![BTreeSet::from([6]), BTreeSet::from([6, 9])],
        BTreeMap::from([(6, Peer { node: NodeId(1) }), (9, Peer { node: NodeId(2) })]),
    );
    let payloads = [
        Payload::Blank,
        Payload::Normal(Command(Bytes::from_static(b"one"))),
        Payload::Membership(members.unwrap()),
        Payload::Normal(Command(Bytes::from_static(b"another one"))),
    ];
    payloads.into_iter().zip(4..).map(|(payload, index)| Entry { log_id: id(3, index), payload }).collect()
}

/// A segment with frames of every kind: a group that is gone, and one that begins with a checkpoint.
fn write(disk: &SimDisk) {
    let mut buf = BatchBuf { bytes: Vec::new(), segment: 1, batch: 12 };
    let (gone, group) = (GroupId(1), GroupId(5));
    let vote = Vote { leader_id: LeaderId { term: 2, node_id: 6 }, committed: true };
    let check = Checkpoint { replica: 6, vote: Some(vote), purged: Some(id(2, 3)), committed: Some(id(2, 3)) };
    buf.push(Head::new(Kind::Checkpoint, group), |out| put_checkpoint(out, &check));
    buf.push(Head::new(Kind::GroupCreated, gone).with_replica(8), |_| {});
    buf.push(Head::new(Kind::Vote, group).with_vote(3, 6, true), |_| {});
    let mut all = entries();
    let overwritten = Entry { log_id: id(2, 7), payload: Payload::Blank };
    let last = all.pop().unwrap();
    for entry in all.iter().chain([&overwritten]) {
        buf.push_entry(group, entry);
    }
    buf.push(Head::new(Kind::TruncateAfter, group).with_log_id(Some(&id(3, 6))), |_| {});
    buf.push_entry(group, &last);
    buf.push(Head::new(Kind::Purged, group).with_log_id(Some(&id(3, 4))), |_| {});
    buf.push(Head::new(Kind::Committed, group).with_log_id(Some(&id(3, 6))), |_| {});
    buf.push(Head::new(Kind::GroupDeleted, gone), |_| {});
    let segments = Segments::new(Arc::new(disk.clone()), PathBuf::from("/log"));
    let header = SegmentHeader { number: 1, previous_end: 48, previous_batch: 11 };
    segments.create(header, &buf.bytes, false).unwrap();
}

#[tokio::test]
async fn a_log_of_the_release_before_is_read() {
    let disk = SimDisk::new(1);
    write(&disk);
    let path = Segments::new(Arc::new(disk.clone()), PathBuf::from("/log")).path(1);
    let kept = golden("log_segment_1.bin", &disk.contents(&path).unwrap());
    disk.corrupt(&path, kept);
    let shared = Shared::new(clock(), metrics());
    let log = Log::open(Arc::new(disk.clone()), PathBuf::from("/log"), OPTIONS, shared).unwrap();
    assert!(log.group(GroupId(1)).is_none());
    let group = log.group(GroupId(5)).unwrap();
    assert_eq!(group.replica, 6);
    assert_eq!(log.read(&group, 0, u64::MAX, usize::MAX).unwrap(), entries()[1..]);
    let state = group.state.lock();
    assert_eq!((state.purged, state.committed), (Some(id(3, 4)), Some(id(3, 6))));
    assert_eq!(
        state.vote.map(|vote| (vote.leader_id.term, vote.leader_id.node_id, vote.committed)),
        Some((3, 6, true))
    );
}
