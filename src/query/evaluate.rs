//! Evaluates aggregations for other nodes, with the series of shards that have a replica here.
//!
//! *Invariants:* it is the same engine over the same heads and blocks as for this node's own queries, and what it holds
//! counts for them. Everything acknowledged before it was asked is seen: replicas wait for a read index. It asks no other
//! node, so that no two nodes wait for each other. Whoever waits hears from it at least every [`SIGN_OF_LIFE`]; dropping
//! the stream ends the evaluation.
//!
//! *Not here:* asking (`query::distribute`), the connection (`api::grpc`).

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::runtime::Handle;

use super::active::{Active, Job, QueryKind};
use super::distribute::{AskEvaluate, shapes};
use super::frontend::{PLAN_BYTES, Queries, TREE_SHARE};
use super::job::Done;
use super::leaf::{InParts, Leaf};
use super::partitions::{Partitions, only_map};
use super::pieces::squeeze;
use super::serve::failure_of;
use crate::error::{Error, HasKind, Kind};
use crate::meta::ShardMap;
use crate::model::{Epoch, ShardId, StepGrid, TenantId};
use crate::peers::{Peers, failed};
use crate::promql::exec::control::Limits;
use crate::promql::exec::partial;
use crate::promql::exec::{Engine, EngineOptions, Times};
use crate::promql::plan::{Fragment, Plan};
use crate::promql::{ParseOptions, parse_within};
use crate::proto::v1::{EvaluatePiece, EvaluateRequest};

/// Longest silence while a part is evaluated.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// What goes over the wire, and what is held until it went.
type Answer = Done<Vec<Vec<u8>>>;

enum Serving {
    Working(BoxFuture<'static, Result<Answer, Error>>),
    Sending(std::vec::IntoIter<Vec<u8>>, Arc<Active>),
    Over,
}

impl Queries {
    /// What another node asks for; the last piece may be a failure.
    pub fn evaluate(self: &Arc<Self>, request: EvaluateRequest) -> BoxStream<'static, EvaluatePiece> {
        let own = Arc::clone(self);
        let work = async move { own.partials(request).await }.boxed();
        stream::unfold(Serving::Working(work), serve).boxed()
    }

    async fn partials(&self, request: EvaluateRequest) -> Result<Answer, Error> {
        let asked = Asked::of(request, self.options.limits)?;
        let engine = Engine::new(asked.options).with_helpers(Arc::clone(&self.helpers));
        let (tenant, text, times) = (asked.tenant.clone(), asked.text.clone(), Some(Times::Range(asked.grid)));
        let job = Job { tenant, kind: QueryKind::Fragment, text, times };
        let work = move |leaf: &Arc<Leaf>, active: &Arc<Active>, runtime: &Handle| {
            let before = active.budget.held();
            let pieces = asked.pieces(&engine, leaf, active, runtime)?;
            active.budget.settle(before + pieces.iter().map(|p| p.len() as u64).sum::<u64>());
            Ok(pieces)
        };
        self.job(job, None, work).await
    }
}

async fn serve(state: Serving) -> Option<(EvaluatePiece, Serving)> {
    let (mut pieces, active) = match state {
        Serving::Working(mut work) => match tokio::time::timeout(SIGN_OF_LIFE, &mut work).await {
            Err(_) => return Some((EvaluatePiece::default(), Serving::Working(work))),
            Ok(Ok(Done { value, active })) => (value.into_iter(), active),
            Ok(Err(e)) => {
                let failure = Some(failure_of(&e));
                return Some((EvaluatePiece { failure, ..EvaluatePiece::default() }, Serving::Over));
            }
        },
        Serving::Sending(pieces, active) => (pieces, active),
        Serving::Over => return None,
    };
    let (data, raw_bytes) = squeeze(pieces.next()?);
    Some((EvaluatePiece { data, raw_bytes, failure: None }, Serving::Sending(pieces, active)))
}

/// A request, looked at.
struct Asked {
    tenant: TenantId,
    text: String,
    grid: StepGrid,
    language: ParseOptions,
    options: EngineOptions,
    nodes: Vec<u32>,
    map: ShardMap,
    of: Vec<u32>,
}

impl Asked {
    fn of(request: EvaluateRequest, own: Limits) -> Result<Self, Error> {
        let invalid = |what: String| Error::new(Kind::Invalid, what);
        if request.version != partial::VERSION {
            let what = format!("parts of queries are of version {} there, {} here", request.version, partial::VERSION);
            return Err(Error::new(Kind::Unavailable, what));
        }
        let tenant = TenantId::new(&request.tenant).map_err(invalid)?;
        let EvaluateRequest { start, end, step, .. } = request;
        if step < 1 || end < start || request.lookback < 0 {
            let what = format!("steps from {start} to {end} by {step}, lookback {}", request.lookback);
            return Err(invalid(what));
        }
        let language = ParseOptions {
            experimental_functions: request.experimental_functions,
            extended_range_selectors: request.extended_range_selectors,
            fill_modifiers: request.fill_modifiers,
        };
        let least = |asked: u64, own: usize| usize::try_from(asked).map_or(own, |asked| asked.min(own));
        let limits = Limits {
            max_samples: least(request.max_samples, own.max_samples),
            max_bytes: least(request.max_bytes, own.max_bytes),
        };
        let options = EngineOptions {
            lookback: request.lookback,
            limits,
            delayed_name_removal: request.delayed_name_removal,
            use_start_timestamps: request.use_start_timestamps,
            type_and_unit_labels: request.type_and_unit_labels,
            ..EngineOptions::default()
        };
        let (grid, text) = (StepGrid { start, end, step }, request.query);
        let map = ShardMap { epoch: Epoch(request.epoch), shards: request.shards };
        Ok(Self { tenant, text, grid, language, options, nodes: request.nodes, map, of: request.of })
    }

    /// The bytes of all that was asked for.
    fn pieces(
        &self,
        engine: &Engine,
        leaf: &Arc<Leaf>,
        active: &Arc<Active>,
        runtime: &Handle,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let failed = |e: crate::promql::exec::error::Error| Error::new(e.kind(), e.to_string());
        let (plan, fragments) = self.plan(engine, active)?;
        let source = leaf.source(active);
        let here = runtime.block_on(source.here());
        let only = Partitions::of(self.map, |shard| self.of.contains(&shard.0));
        let known = only_map(&leaf.meta.current()) == Some(self.map) && self.of.iter().all(|n| only.has(ShardId(*n)));
        let absent = || Error::new(Kind::Unavailable, "not all of the shards have a caught-up replica here");
        let here = here.restricted(only).filter(|_| known).ok_or_else(absent)?;
        let requests = fragments.iter().map(|f| &plan.requests[f.request]).collect();
        let source = InParts { source: &source, here, requests };
        let wanted = |request| fragments.iter().any(|f| f.request == request);
        let fetched = runtime.block_on(engine.fetch_some(&source, &plan, wanted, &active.cancel)).map_err(failed)?;
        let meter = Some(Arc::clone(&active.budget) as _);
        let partials = engine.partials(&plan, &fragments, fetched, &active.cancel, meter).map_err(failed)?;
        active.spend(|s| {
            s.series += partials.iter().map(|p| p.end.series_read).sum::<u64>();
            s.samples += partials.iter().map(|p| p.end.samples_read).sum::<u64>();
        });
        // They are there twice when they are written.
        let bytes =
            partials.iter().zip(shapes(&plan, &fragments)).flat_map(|(p, of)| p.rows.iter().map(move |r| r.bytes(of)));
        active.budget.charge(2 * bytes.sum::<usize>() as u64)?;
        partial::pieces(&partials).ok_or_else(|| Error::new(Kind::Internal, "an annotation does not merge"))
    }

    /// The plan, and the fragments that are wanted.
    fn plan(&self, engine: &Engine, active: &Active) -> Result<(Plan, Vec<Fragment>), Error> {
        let invalid = |e: &dyn std::fmt::Display| Error::new(Kind::Invalid, e.to_string());
        let most = self.options.limits.max_bytes / TREE_SHARE;
        let ast = parse_within(&self.text, self.language, most).map_err(|e| invalid(&e))?;
        active.budget.charge((ast.heap_bytes() + PLAN_BYTES * ast.nodes.len()) as u64)?;
        let plan = engine.plan(&ast, Times::Range(self.grid)).map_err(|e| invalid(&e))?;
        let all = plan.fragments();
        let find = |node: &u32| all.iter().find(|f| f.node.0 == *node).copied();
        let fragments: Option<Vec<Fragment>> = self.nodes.iter().map(find).collect();
        let other = || Error::new(Kind::Unavailable, "the query is planned in another way here");
        fragments.map(|fragments| (plan, fragments)).ok_or_else(other)
    }
}

/// Asks nodes through their connections.
pub fn evaluate_through(peers: Peers) -> AskEvaluate {
    Arc::new(move |node, request| {
        let client = peers.client(node);
        let pieces = async move {
            let reply = client?.evaluate(request).await.map_err(failed(node))?;
            Ok(reply.into_inner().map(move |piece| piece.map_err(failed(node))))
        };
        pieces.into_stream().try_flatten().boxed()
    })
}
