//! Publishing, snapshots, damaged snapshots.

use proptest::prelude::*;

use super::*;
use crate::meta::cluster::{META, Node, NodeStatus, Placement, shard_group};
use crate::meta::command::{Commit, Init, Join, RestoredTable};
use crate::meta::shard_map::ShardMap;
use crate::meta::state::{ClusterId, Decided, Table};
use crate::model::{Epoch, NodeId, ShardId, TenantId};
use crate::raft::ReplicaId;
use crate::store::catalog::TableSchema;

fn entries() -> Vec<Bytes> {
    let tenant = |name| TenantId::new(name).unwrap();
    let init = Init {
        cluster: ClusterId(uuid::Uuid::from_u128(7)),
        node: Node {
            id: NodeId(1),
            name: "one".into(),
            zone: "z".into(),
            meta_replica: Some(ReplicaId(7)),
            ..Node::default()
        },
        bucket: "memory://".into(),
        replication: 3,
        shards: 12,
        shard_replicas: (0..12).map(ReplicaId).collect(),
        epoch: Epoch(2),
        tables: vec![RestoredTable {
            tenant: tenant("old"),
            table_id: "id".into(),
            version: 3,
            schema_version: 1,
            transactions: vec![("shard-1-0".into(), 4)],
        }],
    };
    let mut commit = Commit::new("shard-2-1".into(), 1, 10, 9, TableSchema { version: 1, json: "{}".into() });
    commit.table(tenant("old"), &[], &[]).table(tenant("new"), &[], &[]);
    let commands = [
        Command::Init(init),
        Command::RegisterTenant(tenant("idle")),
        Command::Commit(commit),
        Command::Copied(vec![(tenant("old"), 4)]),
        Command::Join(Join {
            name: "two".into(),
            grpc: "two:1".into(),
            meta_replica: Some(ReplicaId(8)),
            ..Join::default()
        }),
        Command::SetNodeStatus(NodeId(2), NodeStatus::Draining),
        Command::Reshard { epoch: Epoch(3), shards: vec![Placement::single(ReplicaId(u64::MAX), NodeId(2))] },
    ];
    commands.iter().map(Command::encode).collect()
}

fn applied() -> (Machine, Views) {
    let (mut machine, views) = Machine::new();
    for (i, entry) in entries().iter().enumerate() {
        machine.apply(i as u64 + 1, entry);
    }
    (machine, views)
}

fn snapshot(machine: &mut Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.snapshot().unwrap()(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_restored_machine_is_equal_and_goes_on_equally() {
    let (mut machine, views) = applied();
    let bytes = snapshot(&mut machine);
    let (mut other, other_views) = Machine::new();
    other.restore(&mut &bytes[..]).unwrap();
    assert_eq!(*other_views.current(), *views.current());
    assert_eq!(snapshot(&mut other), bytes);
    for entry in entries() {
        assert_eq!(machine.apply(19, &entry), other.apply(19, &entry));
    }
    assert_eq!(*other_views.current(), *views.current());
    views.current().check_invariants();
}

#[test]
fn a_snapshot_holds_the_moment_it_was_taken() {
    let (mut machine, _views) = applied();
    let expected = snapshot(&mut machine);
    let writer = machine.snapshot().unwrap();
    machine.apply(99, &Command::RegisterTenant(TenantId::new("later").unwrap()).encode());
    let mut bytes = Vec::new();
    writer(&mut bytes).unwrap();
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn views_see_every_apply_and_old_views_stay_as_they_were() {
    let (mut machine, mut views) = applied();
    let old = views.current();
    assert_eq!(old.applied, 7);
    machine.apply(8, &Command::RegisterTenant(TenantId::new("later").unwrap()).encode());
    let new = views.applied(8).await.unwrap();
    assert_eq!((old.tables.len(), new.tables.len()), (3, 4));
    assert!(Arc::ptr_eq(&old.tables[&TenantId::new("old").unwrap()], &new.tables[&TenantId::new("old").unwrap()]));
    drop(machine);
    assert!(views.applied(9).await.is_none());
}

#[test]
fn an_unreadable_entry_is_refused_and_counted_as_applied() {
    let (mut machine, views) = applied();
    let answer = Answer::decode(&machine.apply(8, &Bytes::from_static(b"\x01\x63"))).unwrap();
    assert!(matches!(answer, Answer::Refused(Refusal::Invalid(_))));
    assert_eq!(views.current().applied, 8);
}

#[test]
fn every_damaged_snapshot_is_refused() {
    let (mut machine, _views) = applied();
    let bytes = snapshot(&mut machine);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(machine.restore(&mut &damaged[..]).is_err(), "bit flipped at {at}");
        assert!(machine.restore(&mut &bytes[..at]).is_err(), "cut off at {at}");
    }
}

/// A snapshot of the first release: its bytes are read forever.
#[test]
fn reads_snapshots_of_the_first_release() {
    let (mut machine, views) = Machine::new();
    let bytes: Vec<u8> = (0..V1.len()).step_by(2).map(|at| u8::from_str_radix(&V1[at..at + 2], 16).unwrap()).collect();
    machine.restore(&mut &bytes[..]).unwrap();
    let map = ShardMap { epoch: Epoch(2), shards: 12 };
    let node = Node { id: NodeId(1), name: "one".into(), zone: "z".into(), ..Node::default() };
    let table = Table {
        id: "id".into(),
        version: Some(3),
        copied: Some(2),
        schema_version: 1,
        transactions: [("shard-1-0".into(), Decided { sequence: 4, version: 3 })].into(),
        pending: [Bytes::from_static(b"{}\n")].into(),
    };
    let expected = State {
        applied: 300,
        cluster: Some(ClusterId(uuid::Uuid::from_u128(7))),
        replication: 3,
        nodes: [(NodeId(1), node)].into(),
        next_node: 2,
        shard_map: map,
        epochs: vec![map],
        tables: [(TenantId::new("old").unwrap(), Arc::new(table))].into(),
        applications: [("shard-1-0".into(), 4)].into(),
        ..State::default()
    };
    assert_eq!(*views.current(), expected);
    views.current().check_invariants();
}

/// The node of a cluster of the first release says which replicas it has, and it is a cluster like any other.
#[test]
fn a_cluster_of_the_first_release_is_taken_over() {
    let (mut machine, views) = Machine::new();
    let bytes: Vec<u8> = (0..V1.len()).step_by(2).map(|at| u8::from_str_radix(&V1[at..at + 2], 16).unwrap()).collect();
    machine.restore(&mut &bytes[..]).unwrap();
    let mut apply = |command: Command| {
        let index = views.current().applied + 1;
        Answer::decode(&machine.apply(index, &command.encode())).unwrap()
    };
    let join = Join {
        node: NodeId(1),
        name: "one".into(),
        grpc: "one:1".into(),
        meta_replica: Some(ReplicaId(70)),
        bucket: "file:///b".into(),
        ..Join::default()
    };
    assert_eq!(apply(Command::Join(join)), Answer::Joined { node: NodeId(1), meta_replica: ReplicaId(70) });
    let mut changes = vec![(META, Placement::single(ReplicaId(70), NodeId(1)))];
    changes.extend((0..12).map(|shard| {
        (shard_group(Epoch(2), ShardId(shard)), Placement::single(ReplicaId(u64::from(shard)), NodeId(1)))
    }));
    assert_eq!(apply(Command::Place { changes, based_on: 301 }), Answer::Done);
    let state = views.current();
    assert_eq!((state.groups.len(), state.bucket.as_str()), (13, "file:///b"));
    state.check_invariants();
}

const V1: &str = "4d544c4d01ac0210000000000000000000000000000000070101036f6e65017a020c010973686172642d312d300401036f6c6402696404\
    0301010973686172642d312d30040301037b7d0acf9283a4";

proptest! {
    #[test]
    fn snapshots_survive_any_bytes(version in 1u8..4, mut body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"MTLM".to_vec();
        bytes.push(version);
        bytes.append(&mut body);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let _ = Machine::new().0.restore(&mut &bytes[..]);
    }
}
