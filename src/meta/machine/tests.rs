//! Publishing, snapshots, damaged snapshots.

use proptest::prelude::*;

use super::*;
use crate::meta::command::{Commit, Init, RestoredTable};
use crate::model::TenantId;
use crate::store::catalog::TableSchema;

fn entries() -> Vec<Bytes> {
    let tenant = |name| TenantId::new(name).unwrap();
    let init = Init {
        cluster: ClusterId(uuid::Uuid::from_u128(7)),
        node: Node { id: NodeId(1), name: "one".into(), zone: "z".into() },
        shards: 12,
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
        assert_eq!(machine.apply(9, &entry), other.apply(9, &entry));
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
    assert_eq!(old.applied, 4);
    machine.apply(5, &Command::RegisterTenant(TenantId::new("later").unwrap()).encode());
    let new = views.applied(5).await.unwrap();
    assert_eq!((old.tables.len(), new.tables.len()), (3, 4));
    assert!(Arc::ptr_eq(&old.tables[&TenantId::new("old").unwrap()], &new.tables[&TenantId::new("old").unwrap()]));
    drop(machine);
    assert!(views.applied(6).await.is_none());
}

#[test]
fn an_unreadable_entry_is_refused_and_counted_as_applied() {
    let (mut machine, views) = applied();
    let answer = Answer::decode(&machine.apply(5, &Bytes::from_static(b"\x01\x63"))).unwrap();
    assert!(matches!(answer, Answer::Refused(Refusal::Invalid(_))));
    assert_eq!(views.current().applied, 5);
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

proptest! {
    #[test]
    fn snapshots_survive_any_bytes(mut body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"MTLM\x01".to_vec();
        bytes.append(&mut body);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let _ = Machine::new().0.restore(&mut &bytes[..]);
    }
}
