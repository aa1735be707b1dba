//! Rows that look for their leader among nodes that only pretend.

use std::collections::VecDeque;
use std::sync::Arc;

use super::*;
use crate::env::SeededRng;
use crate::env::clock::ManualClock;
use crate::error::{HasKind, Kind};
use crate::ingest::answer::{failure, refusal, reply};
use crate::ingest::exposition::push;
use crate::ingest::outcome::Reason;
use crate::ingest::series_budget::SeriesBudget;
use crate::meta::{ClusterId, Command, Init, Machine, Node, Placement};
use crate::model::{Batch, Epoch, Labels, SampleRow, TenantId};
use crate::proto::v1::failure::Kind as Wire;
use crate::raft::{Peer, RaftError, ReplicaId, StateMachine};

/// Who is asked, and what the node answers; each answer takes it 100 ms.
type Answers = Vec<(u64, Result<AppendReply, PeerError>)>;

/// A map of epoch 1, whose shards have their replicas on node 1, which has not started them.
fn meta(shards: u32) -> (Machine, Views) {
    let (mut machine, views) = Machine::new();
    let init = Init {
        cluster: ClusterId(uuid::Uuid::from_u128(1)),
        node: Node { id: NodeId(1), name: "one".into(), ..Node::default() },
        bucket: String::new(),
        replication: 1,
        shards,
        shard_replicas: (0..u64::from(shards)).map(|n| ReplicaId(n + 100)).collect(),
        epoch: Epoch(1),
        tables: Vec::new(),
    };
    machine.apply(1, &Command::Init(init).encode());
    (machine, views)
}

/// A distributor on node 1, which has no replica; whoever is asked must be the next in `answers`.
fn distributor(views: Views, answers: Answers) -> (Distributor, Arc<Mutex<VecDeque<AppendRequest>>>) {
    let (clock, asked) = (Arc::new(ManualClock::at(0)), Arc::new(Mutex::new(VecDeque::new())));
    let (answers, time, seen) = (Mutex::new(VecDeque::from(answers)), Arc::clone(&clock), Arc::clone(&asked));
    let send: SendRows = Arc::new(move |node, request| {
        let (expected, answer) = answers.lock().pop_front().expect("nobody else is asked");
        assert_eq!(node, NodeId(expected));
        seen.lock().push_back(request);
        time.set(time.now_ms() + 100);
        Box::pin(async move { answer })
    });
    let ways = Ways {
        me: NodeId(1),
        views,
        shards: Shards::default(),
        send,
        timeout: Duration::from_secs(1),
        clock,
        rng: Arc::new(SeededRng::new(1)),
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
    };
    (Distributor::new(ways), asked)
}

/// Series with a sample each.
fn batch(series: u32) -> Batch {
    let mut batch = Batch::default();
    for n in 0..series {
        let labels = Labels::from_pairs([("__name__", format!("m{n}"))]);
        push(&mut batch, &TenantId::anonymous(), &labels, SampleRow { t: 1, v: 1.0, start: 0 });
    }
    batch
}

async fn append(distributor: &Distributor, batch: &Batch) -> Result<WriteOutcome, IngestError> {
    let (tenant, budget) = (TenantId::anonymous(), Arc::new(SeriesBudget::default()));
    let request = Request { tenant: &tenant, batch, out_of_order_ms: 0, budget: &budget, series_limit: 0 };
    distributor.append(request).await
}

fn stored(samples: u64) -> Result<AppendReply, PeerError> {
    let mut outcome = WriteOutcome { samples, ..WriteOutcome::default() };
    outcome.rejected.add(Reason::SampleTooOld, 1, || "m0".into());
    Ok(reply(&outcome))
}

fn not_leader(leader: u64) -> Result<AppendReply, PeerError> {
    let leader = (leader > 0).then_some((ReplicaId(9), Peer { node: NodeId(leader) }));
    refused(&RaftError::NotLeader { group: GroupId(1 << 32 | 1), leader })
}

fn refused(e: &RaftError) -> Result<AppendReply, PeerError> {
    Ok(AppendReply { failure: Some(failure(&IngestError::Raft(e.clone()))), ..AppendReply::default() })
}

fn refused_as(kind: Wire) -> Result<AppendReply, PeerError> {
    Ok(AppendReply { failure: Some(refusal(kind, "so it is".into())), ..AppendReply::default() })
}

const GROUP: GroupId = GroupId(1 << 32 | 1);

#[tokio::test]
async fn an_answer_that_names_the_leader_is_followed_at_once_and_remembered() {
    let (_machine, views) = meta(1);
    let (distributor, asked) = distributor(views, vec![(2, not_leader(3)), (3, stored(2)), (3, stored(3))]);
    distributor.hints.set(GROUP, NodeId(2));
    let outcome = append(&distributor, &batch(3)).await.unwrap();
    assert_eq!((outcome.samples, outcome.rejected.count(Reason::SampleTooOld)), (2, 1), "of one attempt");
    append(&distributor, &batch(3)).await.unwrap();
    let asked = asked.lock();
    assert_eq!(asked[0].rows, asked[1].rows, "the same rows");
    assert_eq!((asked[0].group, asked[0].shards), (GROUP.0, 1));
    assert_eq!(distributor.ways.metrics.forwarded_rows.get(), 6);
}

#[tokio::test]
async fn rows_are_sent_again_whatever_became_of_them_until_one_attempt_is_answered() {
    let (_machine, views) = meta(1);
    let answers = vec![
        (2, refused(&RaftError::Unknown { group: GROUP })),
        (3, Err(PeerError::Unknown(NodeId(3)))),
        (3, not_leader(2)),
        (2, refused_as(Wire::Unavailable)),
        (2, stored(3)),
    ];
    let (distributor, asked) = distributor(views, answers);
    let asked_at = |n: usize| asked.lock().len() == n;
    // What is believed changes while nobody takes them, as hints of other requests do.
    distributor.hints.set(GROUP, NodeId(2));
    let hint = async {
        for (after, node) in [(1, 3), (2, 3), (4, 2)] {
            while !asked_at(after) {
                tokio::task::yield_now().await;
            }
            distributor.hints.set(GROUP, NodeId(node));
        }
    };
    let batch = batch(3);
    let (outcome, ()) = futures::join!(append(&distributor, &batch), hint);
    let outcome = outcome.unwrap();
    assert_eq!((outcome.samples, outcome.rejected.total()), (3, 1), "of the last attempt alone");
    assert!(asked_at(5));
}

#[tokio::test]
async fn rows_that_nobody_takes_in_time_are_refused_with_what_was_tried_last() {
    let (_machine, views) = meta(1);
    let answers = (0..10).map(|_| (2, refused_as(Wire::Unavailable))).collect();
    let (distributor, asked) = distributor(views, answers);
    let believe = async {
        loop {
            distributor.hints.set(GROUP, NodeId(2));
            tokio::task::yield_now().await;
        }
    };
    let batch = batch(1);
    let e = tokio::select! { outcome = append(&distributor, &batch) => outcome.unwrap_err(), () = believe => unreachable!() };
    assert_eq!((e.kind(), asked.lock().len()), (Kind::Unavailable, 10));
    let want = "append to shard 0: not taken within 1s, tried 10 times, last node 2: so it is";
    assert_eq!(e.to_string(), want);
}

#[tokio::test]
async fn what_would_be_refused_again_is_not_sent_again() {
    for (answer, kind) in [(refused_as(Wire::Limited), Kind::Unavailable), (refused_as(Wire::Invalid), Kind::Invalid)] {
        let (_machine, views) = meta(1);
        let (distributor, asked) = distributor(views, vec![(2, answer)]);
        distributor.hints.set(GROUP, NodeId(2));
        let e = append(&distributor, &batch(1)).await.unwrap_err();
        assert!(e.to_string().contains("node 2: so it is"), "{e}");
        assert_eq!((e.kind(), asked.lock().len()), (kind, 1));
    }
}

#[tokio::test]
async fn rows_of_an_epoch_that_ended_are_split_again() {
    let (mut machine, views) = meta(1);
    let answers = vec![(2, refused_as(Wire::StaleEpoch)), (3, stored(1)), (3, stored(2))];
    let (distributor, asked) = distributor(views, answers);
    distributor.hints.set(GROUP, NodeId(2));
    let batch = batch(8);
    let reshard = async {
        while asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let shards = (0..2).map(|n| Placement::single(ReplicaId(200 + n), NodeId(1))).collect();
        machine.apply(2, &Command::Reshard { epoch: Epoch(2), shards }.encode());
        (0..2).for_each(|n| distributor.hints.set(shard_group(Epoch(2), ShardId(n)), NodeId(3)));
    };
    let (outcome, ()) = futures::join!(append(&distributor, &batch), reshard);
    assert_eq!(outcome.unwrap().samples, 3);
    let asked = asked.lock();
    let groups: Vec<_> = asked.iter().map(|r| (r.group, r.shards)).collect();
    assert_eq!(groups, [(GROUP.0, 1), (2 << 32 | 1, 2), (2 << 32 | 2, 2)]);
    let rows = |n: usize| {
        let (mut batch, request) = (Batch::default(), &asked[n]);
        crate::ingest::rows::Rows::read(&request.rows).unwrap().decode(&mut batch).unwrap();
        batch.series.len()
    };
    assert_eq!((rows(0), rows(1) + rows(2)), (8, 8), "each row once");
}

#[tokio::test]
async fn without_a_shard_map_nothing_is_taken() {
    let (_machine, views) = Machine::new();
    let (distributor, _) = distributor(views, Vec::new());
    let e = append(&distributor, &batch(1)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
}
