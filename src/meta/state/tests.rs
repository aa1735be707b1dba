//! What commands do: versions without gaps, repeats, refusals.

use proptest::prelude::*;

use super::*;
use crate::meta::command::RestoredTable;
use crate::model::{Epoch, NodeId};
use crate::raft::ReplicaId;
use crate::store::catalog::TableSchema;
use crate::store::catalog::actions::commit_lines;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn init() -> Command {
    Command::Init(Init {
        cluster: ClusterId(uuid::Uuid::from_u128(7)),
        node: Node {
            id: NodeId(1),
            name: "one".into(),
            zone: String::new(),
            meta_replica: Some(ReplicaId(7)),
            ..Node::default()
        },
        bucket: "memory://".into(),
        replication: 3,
        shards: 12,
        shard_replicas: (0..12).map(ReplicaId).collect(),
        epoch: Epoch(1),
        tables: Vec::new(),
    })
}

fn started() -> State {
    let mut state = State::default();
    assert_eq!(state.apply(init()), Answer::Done);
    state
}

fn commit(app: &str, sequence: u64, tenants: &[&str]) -> Commit {
    let mut commit =
        Commit::new(app.into(), sequence, 1_000_000, 999_000, TableSchema { version: 1, json: "{}".into() });
    for name in tenants {
        commit.table(tenant(name), &[], &[]);
    }
    commit
}

fn versions(answer: Answer) -> (Vec<u64>, bool) {
    match answer {
        Answer::Committed(c) => (c.versions.into_iter().map(|(_, version)| version).collect(), c.repeat),
        other => panic!("not committed: {other:?}"),
    }
}

#[test]
fn refuses_everything_before_there_is_a_cluster_and_a_second_one() {
    let mut state = State::default();
    let refused = Answer::Refused(Refusal::NotInitialised);
    assert_eq!(state.apply(Command::RegisterTenant(tenant("a"))), refused);
    assert_eq!(state.apply(Command::Commit(commit("s", 1, &["a"]))), refused);
    state = started();
    let before = state.clone();
    assert_eq!(state.apply(init()), Answer::Done, "a repeat");
    let Command::Init(mut other) = init() else { unreachable!() };
    other.cluster = ClusterId(uuid::Uuid::from_u128(8));
    assert!(matches!(state.apply(Command::Init(other)), Answer::Refused(Refusal::OtherCluster(_))));
    assert_eq!(state, before);
}

#[test]
fn decides_versions_of_all_tables_at_once_and_each_once() {
    let mut state = started();
    assert_eq!(versions(state.apply(Command::Commit(commit("s", 1, &["a", "b"])))), (vec![0, 0], false));
    assert_eq!(versions(state.apply(Command::Commit(commit("s", 2, &["a"])))), (vec![1], false));
    assert_eq!(versions(state.apply(Command::Commit(commit("t", 1, &["b", "a"])))), (vec![1, 2], false));
    let before = state.clone();
    assert_eq!(versions(state.apply(Command::Commit(commit("s", 2, &["a"])))), (vec![1], true));
    assert_eq!(versions(state.apply(Command::Commit(commit("t", 1, &["b", "a"])))), (vec![1, 2], true));
    assert_eq!(
        versions(state.apply(Command::Commit(commit("s", 1, &["a"])))),
        (vec![1], true),
        "a version that holds it"
    );
    assert_eq!(state, before, "repeats change nothing");
    state.check_invariants();
}

#[test]
fn refuses_a_repeat_that_was_never_decided() {
    let mut state = started();
    state.apply(Command::Commit(commit("s", 5, &["a"])));
    let lost = Answer::Refused(Refusal::NotARepeat("b".into()));
    assert_eq!(state.apply(Command::Commit(commit("s", 5, &["a", "b"]))), lost);
    assert_eq!(state.apply(Command::Commit(commit("s", 4, &["b"]))), lost);
    assert!(!state.tables.contains_key(&tenant("b")));
    assert!(matches!(state.apply(Command::Commit(commit("s", 6, &["a", "a"]))), Answer::Refused(Refusal::Invalid(_))));
}

#[test]
fn refuses_uploads_that_may_have_been_collected() {
    let mut state = started();
    let mut late = commit("s", 1, &["a"]);
    late.uploaded_ms = late.timestamp_ms - UPLOAD_GRACE_MS - 1;
    assert!(matches!(state.apply(Command::Commit(late.clone())), Answer::Refused(Refusal::UploadTooOld(_))));
    late.uploaded_ms += 1;
    assert_eq!(versions(state.apply(Command::Commit(late))), (vec![0], false));
}

#[test]
fn refuses_commits_above_the_backlog_limit_until_copies_are_noted() {
    let mut state = started();
    let mut big = commit("s", 1, &["a"]);
    big.tables[0].lines = vec![b'\n'; PENDING_MAX_BYTES as usize].into();
    assert_eq!(versions(state.apply(Command::Commit(big))), (vec![0], false), "one is always taken");
    assert!(matches!(state.apply(Command::Commit(commit("s", 2, &["b"]))), Answer::Refused(Refusal::Backlog(_))));
    assert_eq!(versions(state.apply(Command::Commit(commit("s", 1, &["a"])))), (vec![0], true));
    assert_eq!(state.apply(Command::Copied(vec![(tenant("a"), 0)])), Answer::Done);
    assert_eq!(versions(state.apply(Command::Commit(commit("s", 2, &["b"])))), (vec![0], false));
}

#[test]
fn the_first_version_makes_the_table_and_only_newer_columns_change_it() {
    let mut state = started();
    let lines = |state: &State, version| {
        String::from_utf8(state.tables[&tenant("a")].pending_at(version).unwrap().to_vec()).unwrap()
    };
    for (n, schema) in [1, 1, 3, 2].into_iter().enumerate() {
        let mut commit = commit("s", n as u64 + 1, &["a"]);
        commit.schema.version = schema;
        state.apply(Command::Commit(commit));
    }
    let texts: Vec<_> = (0..4).map(|version| lines(&state, version)).collect();
    assert_eq!(texts.iter().map(|t| t.contains("protocol")).collect::<Vec<_>>(), [true, false, false, false]);
    assert_eq!(texts.iter().map(|t| t.contains("metaData")).collect::<Vec<_>>(), [true, false, true, false]);
    assert!(texts[2].contains(&state.tables[&tenant("a")].id) && texts[0].contains(&state.tables[&tenant("a")].id));
    assert!(texts[1].ends_with(std::str::from_utf8(&commit_lines("s", 2, 1_000_000, &[], &[])).unwrap()));
}

#[test]
fn restored_tables_go_on_where_they_stood() {
    let mut state = State::default();
    let Command::Init(mut init) = init() else { unreachable!() };
    init.tables.push(RestoredTable {
        tenant: tenant("a"),
        table_id: "old".into(),
        version: 41,
        schema_version: 1,
        transactions: vec![("shard-1-0".into(), 9)],
    });
    init.epoch = Epoch(2);
    state.apply(Command::Init(init));
    state.check_invariants();
    assert_eq!(versions(state.apply(Command::Commit(commit("shard-1-0", 9, &["a"])))), (vec![41], true));
    assert_eq!(versions(state.apply(Command::Commit(commit("shard-2-0", 1, &["a"])))), (vec![42], false));
    assert_eq!(state.tables[&tenant("a")].pending().map(|(v, _)| v).collect::<Vec<_>>(), [42]);
    assert!(!String::from_utf8_lossy(&state.tables[&tenant("a")].pending[0]).contains("metaData"));
}

proptest! {
    /// Any order of commits, repeats and copies: each (table, sequence) has one version and versions have no gaps.
    #[test]
    fn no_order_of_commands_doubles_or_loses_a_commit(
        steps in prop::collection::vec((0usize..3, 0u64..6, prop::bool::ANY, 0usize..3), 1..60),
    ) {
        let (mut state, mut contents) = (started(), BTreeMap::new());
        let names = ["a", "b", "c"];
        for (app, sequence, copy, table) in steps {
            if copy {
                if let Some(version) = state.tables.get(&tenant(names[table])).and_then(|t| t.version) {
                    state.apply(Command::Copied(vec![(tenant(names[table]), version - sequence.min(version))]));
                }
            } else {
                let answer = state.apply(Command::Commit(commit(names[app], sequence + 1, &names[..=table])));
                if let Answer::Committed(Committed { versions, repeat: false }) = answer {
                    for (tenant, version) in versions {
                        prop_assert_eq!(contents.insert((tenant, version), (app, sequence)), None);
                    }
                }
            }
            state.check_invariants();
        }
        for (tenant, table) in &state.tables {
            let held: Vec<_> = contents.keys().filter(|(t, _)| t == tenant).map(|(_, v)| *v).collect();
            prop_assert_eq!(held, (0..table.version.map_or(0, |v| v + 1)).collect::<Vec<_>>());
        }
    }
}
