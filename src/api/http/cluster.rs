//! The cluster as this node sees it, and what operators change of it.
//!
//! *Invariants:* looking never waits on meta, and for a node that is silent not long; changing answers when meta has decided.
//! Leaders are told as far as a replica on this node knows them.
//!
//! *Not here:* what is allowed (`meta::state`), where replicas go (`meta::placement`).

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::App;
use super::params::Params;
use super::reply::{ApiError, ErrorType, no_data, success};
use crate::env::{Rng, SystemRng};
use crate::meta::state::SHARDS_MAX;
use crate::meta::{self, Answer, Command, NodeStatus, Placement, placement, shard_of_group};
use crate::model::{Epoch, NodeId};
use crate::raft::{Group, GroupId, ReplicaId};

/// `GET /api/v1/cluster`.
pub async fn status(State(app): State<App>) -> Response {
    let answering = app.cluster.answering().await;
    let state = app.cluster.views.current();
    let nodes: Vec<Value> =
        state.nodes.values().map(|node| describe_node(&state, node, answering.contains(&node.id))).collect();
    let group = |(id, placement): (&GroupId, &Placement)| describe_group(*id, placement, replica(&app, *id).as_ref());
    success(&json!({
        "cluster": state.cluster.map(|id| id.to_string()),
        "bucket": state.bucket,
        "applied": state.applied,
        "epoch": state.shard_map.epoch.0,
        "shards": state.shard_map.shards,
        "replication": state.replication,
        "epochs": state.epochs.iter().map(|map| json!({"epoch": map.epoch.0, "shards": map.shards})).collect::<Vec<_>>(),
        "nodes": nodes,
        "groups": state.groups.iter().map(group).collect::<Vec<_>>(),
    }))
}

/// This node's replica of a group.
fn replica(app: &App, group: GroupId) -> Option<Group> {
    match group {
        meta::META => Some(app.cluster.group.clone()),
        shard => Some(app.shards.get(shard)?.group.clone()),
    }
}

fn describe_node(state: &meta::State, node: &meta::Node, answers: bool) -> Value {
    let voters =
        || state.groups.iter().flat_map(|(group, placement)| placement.replicas.values().map(move |on| (group, on)));
    let preferred = state.groups.values().filter_map(|placement| placement.replicas.get(&placement.preferred?));
    json!({
        "id": node.id.0,
        "name": node.name,
        "zone": node.zone,
        "grpc": node.grpc,
        "http": node.http,
        "status": match node.status {
            NodeStatus::Active => "active",
            NodeStatus::Draining => "draining",
        },
        "answers": answers,
        "version": node.version,
        "votesInMeta": voters().any(|(group, on)| *group == meta::META && *on == node.id),
        "replicas": voters().filter(|(group, on)| **group != meta::META && **on == node.id).count(),
        "preferredIn": preferred.filter(|on| **on == node.id).count(),
    })
}

fn describe_group(group: GroupId, placement: &Placement, here: Option<&Group>) -> Value {
    let all = |replicas: &BTreeMap<ReplicaId, NodeId>| -> Vec<Value> {
        replicas.iter().map(|(replica, node)| json!({"replica": replica.to_string(), "node": node.0})).collect()
    };
    let shard = shard_of_group(group);
    json!({
        // A string: its bits are more than a number of JSON can be relied on to have.
        "group": group.to_string(),
        "epoch": shard.map(|(epoch, _)| epoch.0),
        "shard": shard.map(|(_, shard)| shard.0),
        "replicas": all(&placement.replicas),
        "learners": all(&placement.learners),
        "preferred": placement.preferred.and_then(|replica| placement.replicas.get(&replica)).map(|node| node.0),
        // What the group itself has, as far as this node has a replica of it.
        "members": here.map(|group| all(&group.members().voters)),
        "leader": here.and_then(|group| Some(group.leader()?.1.0)),
    })
}

/// `POST /api/v1/admin/cluster/drain`: the node takes no replicas any more and loses those it has.
pub async fn drain(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    let node = named(&app, &params).await?;
    propose(&app, Command::SetNodeStatus(node, NodeStatus::Draining)).await
}

/// `POST /api/v1/admin/cluster/activate`: the node takes replicas again.
pub async fn activate(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    let node = named(&app, &params).await?;
    propose(&app, Command::SetNodeStatus(node, NodeStatus::Active)).await
}

/// `POST /api/v1/admin/cluster/remove`: takes a node out that should hold nothing; with `force` one that is gone.
pub async fn remove(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    let force = match params.get("force") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(ApiError::parameter("force", format!("{other:?} is neither true nor false"))),
    };
    let node = named(&app, &params).await?;
    if !force {
        has_left(&app, node).await?;
    }
    propose(&app, Command::RemoveNode { node, force }).await
}

/// Whether no group has a replica on the node any more: a placement without it may not have been followed yet.
async fn has_left(app: &App, node: NodeId) -> Result<(), ApiError> {
    let state = app.cluster.views.current();
    let asked = state.groups.iter().map(|(group, placement)| app.cluster.members_of(*group, placement));
    let members = futures::future::join_all(asked).await;
    let unknown = members.iter().filter(|members| members.is_none()).count();
    // That it watches meta ends with its being removed.
    let held = members.iter().flatten().filter(|members| members.voters.values().any(|on| *on == node)).count();
    if held + unknown > 0 {
        let text = format!(
            "node {node} still has replicas of {held} groups, and {unknown} groups do not answer: \
             drain it first, or wait until they have moved"
        );
        return Err(ApiError::of(&meta::Refusal::Conflict(text)));
    }
    Ok(())
}

/// `POST /api/v1/admin/cluster/reshard`: begins an epoch of so many shards.
pub async fn reshard(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    let text = params.get("shards").ok_or_else(|| ApiError::parameter("shards", "is missing"))?;
    let wrong = || ApiError::parameter("shards", format!("{text:?} is not a number from 1 to {SHARDS_MAX}"));
    let shards = text.parse().ok().filter(|n| (1..=SHARDS_MAX).contains(n)).ok_or_else(wrong)?;
    current(&app).await?;
    let state = app.cluster.views.current();
    let epoch = Epoch(state.shard_map.epoch.0 + 1);
    // Who is not there now is replaced like in any group: the new ones begin with their majority.
    let mut fresh = || ReplicaId(SystemRng.next_u64());
    let shards = placement::place_epoch(&state, epoch, shards, &|_| true, &mut fresh);
    propose(&app, Command::Reshard { epoch, shards }).await
}

/// Waits for everything meta has decided: what is said about a node is about the one that has the name now.
async fn current(app: &App) -> Result<(), ApiError> {
    app.cluster.barrier().await.map(drop).map_err(|e| ApiError::of(&e))
}

async fn named(app: &App, params: &Params) -> Result<NodeId, ApiError> {
    let text = params.get("node").ok_or_else(|| ApiError::parameter("node", "is missing, give a name or an id"))?;
    current(app).await?;
    let state = app.cluster.views.current();
    let none = || ApiError::new(ErrorType::NotFound, format!("the cluster has no node {text:?}"));
    state.find_node(text).map(|node| node.id).ok_or_else(none)
}

async fn propose(app: &App, command: Command) -> Result<Response, ApiError> {
    match app.cluster.propose(command).await.map_err(|e| ApiError::of(&e))? {
        Answer::Done => Ok(no_data()),
        Answer::Refused(refusal) => Err(ApiError::of(&refusal)),
        Answer::Committed(_) | Answer::Joined { .. } => {
            Err(ApiError::new(ErrorType::Internal, "meta answered another question"))
        }
    }
}
