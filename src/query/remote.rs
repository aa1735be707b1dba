//! Gets parts of heads from the nodes that have them.
//!
//! *Invariants:* a part is complete or there is none. What comes is charged to the query before it is unpacked, and given
//! back with the part. Whoever is asked is asked to stop (the stream is dropped) once the query is over. A node that does
//! not answer costs time, not the answer, as long as another one has a replica.
//!
//! *Not here:* cutting parts (`query::serve`), connections (`peers`), what parts are looked at for (`query::heads`).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::BoxStream;

use super::budget::QueryBudget;
use super::heads::Ask;
use super::pieces::{self, request_of};
use crate::error::{Error, HasKind, Kind};
use crate::head::{Head, PartReader};
use crate::meta::{self, Views};
use crate::model::NodeId;
use crate::peers::PeerError;
use crate::proto::v1::{HeadFloors, HeadPiece, ReadHeadRequest};
use crate::raft::GroupId;

/// Pauses between rounds in which all nodes with a replica are asked in turn: about five seconds.
const PAUSES_MS: [u64; 7] = [50, 100, 200, 400, 800, 1600, 1600];
/// How often a query that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Looks without a piece after which a node is given up for another one; and once all of them were asked in vain. (One
/// that is gone is noticed sooner: its connection is closed.)
pub(super) const PATIENCE: [u32; 2] = [20, 300];

/// Asks a node.
pub type AskNode =
    Arc<dyn Fn(NodeId, ReadHeadRequest) -> BoxStream<'static, Result<HeadPiece, PeerError>> + Send + Sync>;

/// The heads of other nodes.
#[derive(Clone)]
pub struct Remote {
    ask: AskNode,
    pauses_ms: &'static [u64],
}

/// A part of a shard's head.
pub(super) struct Part<'b> {
    pub(super) group: GroupId,
    pub(super) flushed: u64,
    pub(super) table_version: Option<u64>,
    pub(super) head: Head,
    _held: Held<'b>,
}

/// Bytes charged until this is dropped.
pub(super) struct Held<'b> {
    budget: &'b QueryBudget,
    bytes: u64,
}

impl<'b> Held<'b> {
    /// Nothing yet.
    pub(super) fn new(budget: &'b QueryBudget) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Gives some back.
    pub(super) fn release(&mut self, bytes: u64) {
        self.budget.release(bytes);
        self.bytes -= bytes;
    }

    /// Leaves what is charged to the query until it is over.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }

    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Error> {
        self.budget.charge(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// Why a node gave no part.
pub(super) enum Refused {
    /// Another one may.
    Elsewhere(Error),
    /// No other one would.
    Everywhere(Error),
}

impl Remote {
    /// Heads that `ask` asks for.
    pub fn new(ask: AskNode) -> Self {
        Self { ask, pauses_ms: &PAUSES_MS }
    }

    /// With other pauses between rounds, milliseconds.
    pub fn with_pauses(self, pauses_ms: &'static [u64]) -> Self {
        Self { pauses_ms, ..self }
    }

    /// Gets the parts of all `groups` at the same time, in their order.
    pub(super) async fn parts<'b>(
        &self,
        groups: Vec<GroupId>,
        ask: Ask<'_>,
        budget: &'b QueryBudget,
        meta: &Views,
    ) -> Result<Vec<Part<'b>>, Error> {
        try_join_all(groups.into_iter().map(|group| self.part(group, ask, budget, meta))).await
    }

    async fn part<'b>(
        &self,
        group: GroupId,
        ask: Ask<'_>,
        budget: &'b QueryBudget,
        meta: &Views,
    ) -> Result<Part<'b>, Error> {
        let mut last = None;
        for (round, pause) in self.pauses_ms.iter().copied().map(Some).chain([None]).enumerate() {
            // Who has a replica may have changed meanwhile.
            for node in nodes_of(&meta.current(), group, round > 0) {
                budget.check()?;
                match self.part_of((node, group), ask, budget, PATIENCE[round.min(1)]).await {
                    Ok(part) => return Ok(part),
                    Err(Refused::Everywhere(e)) => return Err(e),
                    Err(Refused::Elsewhere(e)) => {
                        tracing::debug!(%group, %node, error = %e, "no part of a head");
                        last = Some(e);
                    }
                }
            }
            let Some(pause) = pause else { break };
            sleep(Duration::from_millis(pause), budget).await?;
        }
        let why = last.map_or_else(|| "no node has a replica".to_owned(), |e| e.message);
        Err(Error::new(Kind::Unavailable, format!("read the head of shard group {group}: {why}")))
    }

    async fn part_of<'b>(
        &self,
        (node, group): (NodeId, GroupId),
        ask: Ask<'_>,
        budget: &'b QueryBudget,
        patience: u32,
    ) -> Result<Part<'b>, Refused> {
        let mut pieces = (self.ask)(node, request_of(group, ask, budget.left()));
        let mut held = Held::new(budget);
        let mut reader = PartReader::default();
        let mut floors: Option<HeadFloors> = None;
        let elsewhere = |why: &str| {
            let what = format!("node {node}: {why}");
            Refused::Elsewhere(Error::new(Kind::Unavailable, what))
        };
        while let Some(piece) = next(&mut pieces, budget, patience).await? {
            let piece = piece.map_err(|e| Refused::Elsewhere(Error::new(e.kind(), e.to_string())))?;
            if let Some(failure) = piece.failure {
                return Err(refused(node, group, &failure));
            }
            floors = floors.or(piece.floors);
            held.charge(pieces::len(&piece)).map_err(Refused::Everywhere)?;
            let taken = pieces::unpack(&piece).and_then(|data| reader.read(&data).map_err(pieces::Malformed::Part));
            taken.map_err(|e| {
                let what =
                    format!("node {node} sent a part of the head of shard group {group} that cannot be read: {e}");
                Refused::Everywhere(Error::new(Kind::Corrupt, what))
            })?;
            // A head takes more than its bytes on the wire; how much more is known only now.
            held.charge((reader.bytes() as u64).saturating_sub(held.bytes)).map_err(Refused::Everywhere)?;
        }
        let (head, floors) = reader.finish().zip(floors).ok_or_else(|| elsewhere("the part of a head ended early"))?;
        let HeadFloors { flushed, table_version } = floors;
        Ok(Part { group, flushed, table_version, head, _held: held })
    }
}

/// The next piece; waits for it as long as the query is to go on, within the node's time.
pub(super) async fn next<T>(
    pieces: &mut BoxStream<'static, Result<T, PeerError>>,
    budget: &QueryBudget,
    patience: u32,
) -> Result<Option<Result<T, PeerError>>, Refused> {
    for _ in 0..patience {
        budget.check().map_err(Refused::Everywhere)?;
        if let Ok(piece) = tokio::time::timeout(LOOK, pieces.next()).await {
            return Ok(piece);
        }
    }
    let silence = LOOK * patience;
    Err(Refused::Elsewhere(Error::new(Kind::Unavailable, format!("nothing came for {silence:?}"))))
}

/// The nodes that should have a replica, those first that not everybody asks first; then, if all are wanted, the others: a
/// replica that moves is still where it was.
pub(super) fn nodes_of(state: &meta::State, group: GroupId, all: bool) -> Vec<NodeId> {
    let placed = state.groups.get(&group);
    let mut nodes: Vec<NodeId> = placed.iter().flat_map(|placement| placement.replicas.values().copied()).collect();
    let first = group.0 as usize % nodes.len().max(1);
    nodes.rotate_left(first);
    if all || nodes.is_empty() {
        let others: Vec<NodeId> = state.nodes.keys().copied().filter(|node| !nodes.contains(node)).collect();
        nodes.extend(others);
    }
    nodes
}

async fn sleep(all: Duration, budget: &QueryBudget) -> Result<(), Error> {
    let mut left = all;
    while !left.is_zero() {
        budget.check()?;
        let step = left.min(LOOK);
        tokio::time::sleep(step).await;
        left -= step;
    }
    Ok(())
}

/// What a failure says about asking others.
fn refused(node: NodeId, group: GroupId, failure: &crate::proto::v1::Failure) -> Refused {
    use crate::proto::v1::failure::Kind as Wire;
    let error = |kind| Error::new(kind, format!("node {node}, shard group {group}: {}", failure.message));
    match failure.kind() {
        Wire::Unavailable | Wire::NotLeader | Wire::Unknown | Wire::NotFound => {
            Refused::Elsewhere(error(Kind::Unavailable))
        }
        // What it has to say about limits is about this query or that node, not about a replica.
        Wire::Limited => Refused::Everywhere(Error::new(Kind::Limited, failure.message.clone())),
        // What this node asks for is never wrong.
        Wire::Invalid | Wire::StaleEpoch | Wire::Internal => Refused::Everywhere(error(Kind::Internal)),
    }
}
