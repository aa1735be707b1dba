//! What became of rows that a shard was asked to take, here and between nodes.
//!
//! *Invariants:* an outcome is the same on both sides of the wire. What another node may take is told from what none will.
//!
//! *Not here:* whom to ask (`ingest::route`), asking (`ingest::distributor`), what is sent (`ingest::rows`).

use super::IngestError;
use super::codec::Malformed;
use super::metrics::Setback;
use super::outcome::{Reason, Rejections, WriteOutcome};
use crate::error::{HasKind, Kind};
use crate::model::{NodeId, ShardId};
use crate::peers::PeerError;
use crate::proto::v1::failure::Kind as Wire;
use crate::proto::v1::{AppendReply, Failure, Rejected};
use crate::raft::RaftError;

/// What a replica answered.
#[derive(Debug)]
pub enum Answer {
    /// All rows are durable or counted as refused.
    Stored(WriteOutcome),
    /// The rows belong to a shard map that is not the one of now.
    StaleEpoch,
    /// Not by this replica, or not now; what was stored is not stored twice when the rows are sent again.
    NotNow {
        /// Of which sort.
        setback: Setback,
        /// Who leads, if that was said.
        leader: Option<NodeId>,
        /// In words.
        why: String,
    },
    /// It would be refused again.
    Failed(IngestError),
}

impl Answer {
    /// Of the replica of this node.
    pub fn here(appended: Result<WriteOutcome, IngestError>) -> Self {
        let e = match appended {
            Ok(outcome) => return Self::Stored(outcome),
            Err(IngestError::Raft(e)) => e,
            Err(IngestError::Ended) => return Self::StaleEpoch,
            Err(e) => return Self::Failed(e),
        };
        let (setback, leader) = match &e {
            RaftError::NotLeader { leader, .. } => (Setback::NotLeader, leader.map(|(_, peer)| peer.node)),
            RaftError::Unavailable { .. } | RaftError::NoSuchGroup { .. } => (Setback::Unavailable, None),
            RaftError::Unknown { .. } => (Setback::Unknown, None),
            _ => return Self::Failed(e.into()),
        };
        Self::NotNow { setback, leader, why: e.to_string() }
    }

    /// Of a replica on `node`, or what kept it from answering.
    pub fn of(shard: ShardId, node: NodeId, replied: Result<AppendReply, PeerError>) -> Self {
        let not_now = |setback, leader, why| Self::NotNow { setback, leader, why };
        let reply = match replied {
            Ok(reply) => reply,
            Err(e) => return not_now(Setback::Unreachable, None, e.to_string()),
        };
        let Some(failure) = reply.failure else {
            return outcome_of(&reply).map_or_else(|e| Self::Failed(IngestError::Reply(e)), Self::Stored);
        };
        let why = failure.message;
        match Wire::try_from(failure.kind) {
            Ok(Wire::NotLeader) => {
                let leader = (failure.leader_node != 0).then_some(NodeId(failure.leader_node));
                not_now(Setback::NotLeader, leader, why)
            }
            Ok(Wire::StaleEpoch) => Self::StaleEpoch,
            Ok(Wire::Invalid) => Self::Failed(IngestError::Refused { shard, node, reason: why }),
            // Whoever leads is full: to come back at once would not make room.
            Ok(Wire::Limited) => Self::Failed(IngestError::Overloaded(format!("node {node}: {why}"))),
            Ok(Wire::Unknown) => not_now(Setback::Unknown, None, why),
            // A node that is broken gives its shards away.
            Ok(Wire::Unavailable | Wire::NotFound | Wire::Internal) | Err(_) => {
                not_now(Setback::Unavailable, None, why)
            }
        }
    }
}

/// An outcome as an answer between nodes.
pub fn reply(outcome: &WriteOutcome) -> AppendReply {
    let rejected =
        outcome.rejected.iter().map(|(reason, samples)| Rejected { reason: reason.as_str().into(), samples });
    let first = outcome.rejected.first();
    AppendReply {
        failure: None,
        samples: outcome.samples,
        histograms: outcome.histograms,
        exemplars: outcome.exemplars,
        rejected: rejected.collect(),
        example: first.map(|(_, example)| example.to_owned()).unwrap_or_default(),
        example_reason: first.map(|(reason, _)| reason.as_str().to_owned()).unwrap_or_default(),
        ..AppendReply::default()
    }
}

fn outcome_of(reply: &AppendReply) -> Result<WriteOutcome, Malformed> {
    let reason = |name: &str| Reason::named(name).ok_or(Malformed { what: "reason of a rejection", at: 0 });
    let mut rejected = Rejections::default();
    if !reply.rejected.is_empty() {
        // Counts nothing, so that it is the first example whatever the order of the counts.
        rejected.add(reason(&reply.example_reason)?, 0, || reply.example.clone());
    }
    for counted in &reply.rejected {
        rejected.add(reason(&counted.reason)?, counted.samples, String::new);
    }
    let (samples, histograms, exemplars) = (reply.samples, reply.histograms, reply.exemplars);
    Ok(WriteOutcome { samples, histograms, exemplars, rejected })
}

/// Why rows were not taken, as an answer between nodes.
pub fn failure(e: &IngestError) -> Failure {
    let kind = match e {
        IngestError::Raft(e) => return Failure::from(e),
        IngestError::Overloaded(_) => Wire::Limited,
        IngestError::Ended => Wire::StaleEpoch,
        e => match e.kind() {
            Kind::Invalid => Wire::Invalid,
            Kind::Limited => Wire::Limited,
            Kind::Unavailable => Wire::Unavailable,
            _ => Wire::Internal,
        },
    };
    refusal(kind, e.to_string())
}

/// A failure without a leader.
pub fn refusal(kind: Wire, message: String) -> Failure {
    Failure { kind: kind.into(), message, leader_replica: 0, leader_node: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{GroupId, Peer, ReplicaId};

    #[test]
    fn an_outcome_is_the_same_on_the_other_side() {
        let mut outcome = WriteOutcome { samples: 5, histograms: 4, exemplars: 3, ..WriteOutcome::default() };
        let there = |outcome: &WriteOutcome| match Answer::of(ShardId(0), NodeId(2), Ok(reply(outcome))) {
            Answer::Stored(outcome) => outcome,
            other => panic!("{other:?}"),
        };
        assert_eq!(there(&outcome), outcome);
        outcome.rejected.add(Reason::SampleTooOld, 2, || "up at 3".into());
        outcome.rejected.add(Reason::NewValueForTimestamp, 1, String::new);
        assert_eq!(there(&outcome), outcome);
        let unheard = AppendReply { rejected: vec![Rejected { reason: "x".into(), samples: 1 }], ..reply(&outcome) };
        assert!(matches!(Answer::of(ShardId(0), NodeId(2), Ok(unheard)), Answer::Failed(_)), "nothing goes uncounted");
    }

    #[test]
    fn a_refusal_means_the_same_here_and_there() {
        let group = GroupId(1);
        let leader = Some((ReplicaId(9), Peer { node: NodeId(3) }));
        let refusals = [
            (IngestError::Raft(RaftError::NotLeader { group, leader }), Ok((Setback::NotLeader, Some(NodeId(3))))),
            (IngestError::Raft(RaftError::NotLeader { group, leader: None }), Ok((Setback::NotLeader, None))),
            (IngestError::Raft(RaftError::Unknown { group }), Ok((Setback::Unknown, None))),
            (
                IngestError::Raft(RaftError::Unavailable { group, reason: "disk".into() }),
                Ok((Setback::Unavailable, None)),
            ),
            (IngestError::Raft(RaftError::TooLarge { group, bytes: 2, limit: 1 }), Err(Kind::Invalid)),
            (IngestError::Overloaded("full".into()), Err(Kind::Unavailable)),
        ];
        let judged = |answer| match answer {
            Answer::NotNow { setback, leader, .. } => Ok((setback, leader)),
            Answer::Failed(e) => Err(e.kind()),
            other => panic!("{other:?}"),
        };
        for (e, want) in refusals {
            let reply = AppendReply { failure: Some(failure(&e)), ..AppendReply::default() };
            assert_eq!(judged(Answer::of(ShardId(0), NodeId(2), Ok(reply))), want, "{e} there");
            assert_eq!(judged(Answer::here(Err(e.clone()))), want, "{e} here");
        }
    }
}
