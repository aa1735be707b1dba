//! Cuts parts out of this node's heads for other nodes.
//!
//! *Invariants:* a part holds everything acknowledged before it was asked for: the replica waits for a read index before
//! it is cut. Head, flush floor and table version are of one moment. The lock of a shard is held while its part is cut,
//! never while it is sent. What is cut counts for the node's queries until it is sent; an asker that goes away ends it.
//!
//! *Not here:* asking (`query::remote`), the connection (`api::grpc`).

use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

use super::budget::{NodeBudget, QueryBudget};
use super::lookup::giving_up;
use super::pieces::{Asked, pack};
use super::remote::AskNode;
use crate::error::{Error, HasKind, Kind};
use crate::head::HeadPart;
use crate::ingest::Shards;
use crate::ingest::ingester::Shard;
use crate::peers::{Peers, failed};
use crate::promql::exec::control::CancelToken;
use crate::proto::v1::failure::Kind as FailureKind;
use crate::proto::v1::{Failure, HeadFloors, HeadPiece, ReadHeadRequest};
use crate::raft::GroupId;

/// Gives other nodes parts of the heads of this one; clones share what they may take.
#[derive(Clone)]
pub struct HeadServer {
    shards: Shards,
    /// Bytes of all queries of the node.
    node: Arc<NodeBudget>,
    /// How many parts are cut at the same time.
    places: Arc<Semaphore>,
}

/// A part and what it counts for.
struct Served {
    part: HeadPart,
    floors: HeadFloors,
    budget: QueryBudget,
}

/// Stops the cutting when nobody waits for it any more.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl HeadServer {
    /// Serves the heads of `shards`, `concurrency` at a time.
    pub fn new(shards: Shards, node: Arc<NodeBudget>, concurrency: usize) -> Self {
        Self { shards, node, places: Arc::new(Semaphore::new(concurrency)) }
    }

    /// What all of them together may hold, and the node's queries with them.
    pub fn budget(&self) -> &Arc<NodeBudget> {
        &self.node
    }

    /// The pieces of what is asked for; the last one may be a failure.
    pub fn serve(&self, request: ReadHeadRequest) -> BoxStream<'static, HeadPiece> {
        let own = self.clone();
        let pieces = async move {
            match own.cut(request).await {
                Ok(served) => served.into_pieces().left_stream(),
                Err(e) => stream::iter([failure(&e)]).right_stream(),
            }
        };
        pieces.into_stream().flatten().boxed()
    }

    async fn cut(&self, request: ReadHeadRequest) -> Result<Served, Error> {
        let group = GroupId(request.group);
        let absent = || Error::new(Kind::NotFound, format!("no replica of group {group} is here"));
        let shard = self.shards.get(group).ok_or_else(absent)?;
        let max_bytes = request.max_bytes;
        let asked = Asked::of(request).map_err(|e| Error::new(Kind::Invalid, e))?;
        shard.group.read_index().await.map_err(|e| Error::new(e.kind(), e.to_string()))?;
        let stopping = |_| Error::new(Kind::Unavailable, "node is stopping");
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(stopping)?;
        let cancel = CancelToken::default();
        let budget = QueryBudget::new(Arc::clone(&self.node), max_bytes, cancel.clone());
        let _guard = CancelOnDrop(cancel);
        let cutting = tokio::task::spawn_blocking(move || {
            let _place = place;
            cut(&shard, &asked, budget)
        });
        cutting.await.map_err(|e| Error::new(Kind::Internal, format!("cut a part of a head: {e}")))?
    }
}

fn cut(shard: &Shard, asked: &Asked, budget: QueryBudget) -> Result<Served, Error> {
    let matchers = giving_up(&asked.matchers, &budget);
    let (part, floors) = {
        let state = shard.state.read();
        let admit = |bytes: usize| budget.charge(bytes as u64);
        let part = state.head.part(&asked.tenant, asked.want(), &matchers, asked.range, admit)?;
        let table_version = state.ledger.tables.get(asked.tenant.as_str()).copied();
        (part, HeadFloors { flushed: state.ledger.flushed, table_version })
    };
    // What patterns found is worth nothing once they gave up.
    budget.check()?;
    Ok(Served { part, floors, budget })
}

impl Served {
    fn into_pieces(self) -> impl futures::Stream<Item = HeadPiece> + Send {
        let Self { part, floors, budget } = self;
        let mut floors = Some(floors);
        stream::iter(part.into_pieces()).map(move |piece| {
            let _until_sent = &budget;
            match piece {
                Ok(data) => HeadPiece { floors: floors.take(), ..pack(data) },
                Err(e) => failure(&Error::new(Kind::Internal, format!("write a part of a head: {e}"))),
            }
        })
    }
}

fn failure(e: &Error) -> HeadPiece {
    HeadPiece { failure: Some(failure_of(e)), ..HeadPiece::default() }
}

/// An error as another node gets it.
pub(super) fn failure_of(e: &Error) -> Failure {
    let kind = match e.kind {
        Kind::Unavailable | Kind::Cancelled => FailureKind::Unavailable,
        Kind::NotFound => FailureKind::NotFound,
        Kind::Limited => FailureKind::Limited,
        Kind::Invalid => FailureKind::Invalid,
        Kind::Corrupt | Kind::Internal => FailureKind::Internal,
    };
    Failure { kind: kind.into(), message: e.message.clone(), ..Failure::default() }
}

/// Asks nodes through their connections, and this one without.
pub fn ask_through(peers: Peers, here: HeadServer) -> AskNode {
    Arc::new(move |node, request| {
        if peers.me().is_some_and(|me| me.node == node) {
            return here.serve(request).map(Ok).boxed();
        }
        let client = peers.client(node);
        let pieces = async move {
            let reply = client?.read_head(request).await.map_err(failed(node))?;
            Ok(reply.into_inner().map(move |piece| piece.map_err(failed(node))))
        };
        futures::TryStreamExt::try_flatten(pieces.into_stream()).boxed()
    })
}
