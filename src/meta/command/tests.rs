//! Bytes of commands and answers: there and back, pinned, damaged.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::meta::answer::{Answer, Committed, Refusal};

fn tenant() -> impl Strategy<Value = TenantId> {
    "[a-z][a-z0-9-]{0,8}".prop_map(|name| TenantId::new(&name).unwrap())
}

fn replica() -> impl Strategy<Value = ReplicaId> {
    any::<u64>().prop_map(ReplicaId)
}

fn status() -> impl Strategy<Value = NodeStatus> {
    prop_oneof![Just(NodeStatus::Active), Just(NodeStatus::Draining)]
}

fn node() -> impl Strategy<Value = Node> {
    (any::<u64>(), ".{0,9}", "[a-z0-9:]{0,9}", status(), prop::option::of(replica())).prop_map(
        |(id, name, grpc, status, meta_replica)| {
            let (zone, http, version) = (name.to_uppercase(), format!("{grpc}/"), format!("{grpc}."));
            Node { id: NodeId(id), name, zone, grpc, http, status, version, meta_replica }
        },
    )
}

fn placement() -> impl Strategy<Value = Placement> {
    let replicas = || prop::collection::btree_map(replica(), any::<u64>().prop_map(NodeId), 0..4);
    (replicas(), replicas(), prop::option::of(replica())).prop_map(|(replicas, learners, preferred)| Placement {
        replicas,
        learners,
        preferred,
    })
}

fn join() -> impl Strategy<Value = Command> {
    (node(), prop::option::of(any::<u128>()), ".{0,9}").prop_map(|(node, cluster, bucket)| {
        let Node { id, name, zone, grpc, http, version, meta_replica, .. } = node;
        let cluster = cluster.map(|id| ClusterId(uuid::Uuid::from_u128(id)));
        Command::Join(Join { node: id, cluster, name, zone, grpc, http, version, meta_replica, bucket })
    })
}

fn command() -> impl Strategy<Value = Command> {
    let restored =
        (tenant(), "[a-f0-9-]{0,36}", any::<u64>(), any::<u32>(), vec(("[a-z0-9-]{1,12}", any::<u64>()), 0..4))
            .prop_map(|(tenant, table_id, version, schema_version, transactions)| RestoredTable {
                tenant,
                table_id,
                version,
                schema_version,
                transactions,
            });
    let init = (node(), ".{0,9}", any::<(u128, u32, u64)>(), vec(replica(), 0..4), vec(restored, 0..4)).prop_map(
        |(node, bucket, (cluster, shards, epoch), shard_replicas, tables)| {
            let (cluster, replication) = (ClusterId(uuid::Uuid::from_u128(cluster)), shards / 2);
            let epoch = Epoch(epoch);
            Command::Init(Init { cluster, node, bucket, replication, shards, shard_replicas, epoch, tables })
        },
    );
    let table =
        (tenant(), vec(any::<u8>(), 0..50)).prop_map(|(tenant, lines)| TableCommit { tenant, lines: lines.into() });
    let commit =
        ("[a-z0-9-]{1,12}", any::<u64>(), any::<i64>(), any::<i64>(), any::<u32>(), ".{0,20}", vec(table, 0..4))
            .prop_map(|(app, sequence, timestamp_ms, uploaded_ms, version, json, tables)| {
                Command::Commit(Commit {
                    app,
                    sequence,
                    timestamp_ms,
                    uploaded_ms,
                    schema: TableSchema { version, json: json.into() },
                    tables,
                })
            });
    prop_oneof![
        init,
        join(),
        (any::<u64>(), status()).prop_map(|(node, status)| Command::SetNodeStatus(NodeId(node), status)),
        any::<(u64, bool)>().prop_map(|(node, force)| Command::RemoveNode { node: NodeId(node), force }),
        (vec((any::<u64>().prop_map(GroupId), placement()), 0..4), any::<u64>())
            .prop_map(|(changes, based_on)| Command::Place { changes, based_on }),
        (any::<u64>().prop_map(Epoch), vec(placement(), 0..4))
            .prop_map(|(epoch, shards)| Command::Reshard { epoch, shards }),
        any::<u64>().prop_map(|group| Command::Emptied(GroupId(group))),
        tenant().prop_map(Command::RegisterTenant),
        commit,
        vec((tenant(), any::<u64>()), 0..5).prop_map(Command::Copied),
    ]
}

proptest! {
    #[test]
    fn commands_come_back_and_damaged_ones_are_errors(command in command(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let bytes = command.encode();
        prop_assert_eq!(Command::decode(&bytes), Ok(command));
        let mut damaged = bytes.to_vec();
        let at = at.index(damaged.len());
        prop_assert!(Command::decode(&bytes.slice(..at)).is_err(), "cut off at {}", at);
        damaged[at] ^= flip;
        let _ = Command::decode(&damaged.into());
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = Command::decode(&bytes);
        let _ = Answer::decode(&bytes);
    }
}

#[test]
fn answers_come_back() {
    let tenant = TenantId::new("a").unwrap();
    let refusals = [
        Refusal::Invalid("why".into()),
        Refusal::NotInitialised,
        Refusal::OtherCluster("x".into()),
        Refusal::UploadTooOld(7),
        Refusal::NotARepeat("a".into()),
        Refusal::Backlog(9),
        Refusal::Stale(GroupId(1 << 32 | 3)),
        Refusal::Conflict("why".into()),
        Refusal::UnknownNode(NodeId(300)),
    ];
    let mut answers: Vec<Answer> = refusals.into_iter().map(Answer::Refused).collect();
    answers.push(Answer::Done);
    answers.push(Answer::Joined { node: NodeId(9), meta_replica: ReplicaId(u64::MAX) });
    answers.push(Answer::Committed(Committed { versions: vec![(tenant, 300)], repeat: true }));
    for answer in answers {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
}

fn hex(bytes: &Bytes) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn pinned_init() -> Init {
    Init {
        cluster: ClusterId(uuid::Uuid::from_u128(0x0102)),
        node: Node { id: NodeId(1), name: "n".into(), ..Node::default() },
        bucket: String::new(),
        replication: DEFAULT_REPLICATION,
        shards: 12,
        shard_replicas: Vec::new(),
        epoch: Epoch(3),
        tables: vec![RestoredTable {
            tenant: TenantId::new("t").unwrap(),
            table_id: "id".into(),
            version: 5,
            schema_version: 2,
            transactions: vec![("a".into(), 9)],
        }],
    }
}

/// Entries live in logs and snapshots of other releases: these bytes must be read forever.
#[test]
fn bytes_are_pinned() {
    let tenant = |name| TenantId::new(name).unwrap();
    let schema = TableSchema { version: 2, json: "{}".into() };
    let commit = Commit {
        app: "shard-1-7".into(),
        sequence: 300,
        timestamp_ms: 1_700_006_400_000,
        uploaded_ms: -1,
        schema,
        tables: vec![TableCommit { tenant: tenant("t"), lines: Bytes::from_static(b"{}\n") }],
    };
    let mut init = pinned_init();
    (init.node.grpc, init.node.http, init.node.version) = ("g".into(), "h".into(), "v".into());
    (init.node.meta_replica, init.bucket, init.shards) = (Some(ReplicaId(258)), "b".into(), 1);
    init.shard_replicas = vec![ReplicaId(u64::MAX)];
    let join = Join {
        node: NodeId(2),
        cluster: Some(init.cluster),
        name: "n".into(),
        zone: "z".into(),
        grpc: "g".into(),
        http: "h".into(),
        version: "v".into(),
        meta_replica: Some(ReplicaId(1)),
        bucket: "b".into(),
    };
    let mut placement = Placement::single(ReplicaId(1), NodeId(2));
    placement.learners.insert(ReplicaId(3), NodeId(4));
    let place = Command::Place { changes: vec![(GroupId(1 << 32 | 1), placement.clone())], based_on: 128 };
    let cases = [
        (Command::RegisterTenant(tenant("t")), "01020174"),
        (Command::Commit(commit), "01030973686172642d312d37ac0280c0b884fa620102027b7d010174037b7d0a"),
        (Command::Copied(vec![(tenant("t"), 128)]), "01040101748001"),
        (
            Command::Init(init),
            "01051000000000000000000000000000000102\
             01016e000167016800017608020100000000000001620301\
             08ffffffffffffffff0103010174026964050201016109",
        ),
        (
            Command::Join(join),
            "0106021000000000000000000000000000000102\
             016e017a0167016801760801000000000000000162",
        ),
        (Command::SetNodeStatus(NodeId(128), NodeStatus::Draining), "0107800101"),
        (Command::RemoveNode { node: NodeId(3), force: true }, "01080301"),
        (
            place,
            "010980010181808080100108010000000000000002\
             01080300000000000000040801000000\
             00000000",
        ),
        (
            Command::Reshard { epoch: Epoch(2), shards: vec![placement] },
            "010a0201010801000000000000000201080300000000000000040801\
             00000000000000",
        ),
        (Command::Emptied(GroupId(300)), "010bac02"),
    ];
    for (command, expected) in cases {
        assert_eq!(hex(&command.encode()), expected, "{command:?}");
    }
}

/// What only the first release wrote.
#[test]
fn reads_entries_of_the_first_release() {
    let init = "0101100000000000000000000000000000010201016e000c03010174026964050201016109";
    let bytes: Bytes =
        (0..init.len()).step_by(2).map(|at| u8::from_str_radix(&init[at..at + 2], 16).unwrap()).collect();
    assert_eq!(Command::decode(&bytes), Ok(Command::Init(pinned_init())));
}
