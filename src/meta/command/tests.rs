//! Bytes of commands and answers: there and back, pinned, damaged.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn tenant() -> impl Strategy<Value = TenantId> {
    "[a-z][a-z0-9-]{0,8}".prop_map(|name| TenantId::new(&name).unwrap())
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
    let init = (any::<u128>(), any::<u64>(), ".{0,9}", any::<u32>(), any::<u64>(), vec(restored, 0..4)).prop_map(
        |(cluster, id, name, shards, epoch, tables)| {
            let node = Node { id: NodeId(id), zone: name.to_uppercase(), name };
            Command::Init(Init {
                cluster: ClusterId(uuid::Uuid::from_u128(cluster)),
                node,
                shards,
                epoch: Epoch(epoch),
                tables,
            })
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
    ];
    let mut answers: Vec<Answer> = refusals.into_iter().map(Answer::Refused).collect();
    answers.push(Answer::Done);
    answers.push(Answer::Committed(Committed { versions: vec![(tenant, 300)], repeat: true }));
    for answer in answers {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
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
    let init = Init {
        cluster: ClusterId(uuid::Uuid::from_u128(0x0102)),
        node: Node { id: NodeId(1), name: "n".into(), zone: String::new() },
        shards: 12,
        epoch: Epoch(3),
        tables: vec![RestoredTable {
            tenant: tenant("t"),
            table_id: "id".into(),
            version: 5,
            schema_version: 2,
            transactions: vec![("a".into(), 9)],
        }],
    };
    let cases = [
        (Command::Init(init), "0101100000000000000000000000000000010201016e000c03010174026964050201016109".to_owned()),
        (Command::RegisterTenant(tenant("t")), "01020174".to_owned()),
        (Command::Commit(commit), "01030973686172642d312d37ac0280c0b884fa62010202".to_owned() + "7b7d010174037b7d0a"),
        (Command::Copied(vec![(tenant("t"), 128)]), "01040101748001".to_owned()),
    ];
    for (command, expected) in cases {
        let hex: String = command.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, expected, "{command:?}");
    }
}
