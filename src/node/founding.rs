//! Nodes that are started with the same list of each other: the first one named makes the cluster, once.
//!
//! *Invariants:* a node makes a cluster in this way only after every other node of its list has asked to be let in, with the
//! same list and so of no cluster itself. A node that is of a cluster never asks: a first node that lost its disk hears
//! nobody, and joins like any other. Silence is waited for.
//!
//! *Not here:* asking (`node::joining`), one node that is told nothing of others (`node::membership`).

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::transport::server::TcpIncoming;

use super::joining::{self, Joined};
use super::membership::Door;
use crate::api::grpc::Waiting;
use crate::peers::Peers;
use crate::proto::v1::JoinRequest;

/// The nodes named by the setting `join`, as one of them sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contacts {
    /// All, in the order given.
    pub all: Vec<String>,
    /// Those that are not this node.
    pub others: Vec<String>,
}

impl Contacts {
    /// Reads the setting; `me` is where this node says it is.
    pub fn of(join: &str, me: &str) -> Self {
        let all: Vec<String> = join.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect();
        let others = all.iter().filter(|address| *address != me).cloned().collect();
        Self { all, others }
    }

    /// Whether nobody is named.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether this node is the first one named: then it is the one that makes the cluster, if there is none.
    pub fn is_first(&self) -> bool {
        self.all.first().is_some_and(|first| !self.others.contains(first))
    }
}

/// Who else waits for a cluster.
#[derive(Debug)]
struct Gathering {
    list: Vec<String>,
    missing: Mutex<BTreeSet<String>>,
    complete: Notify,
}

impl Gathering {
    fn new(contacts: &Contacts) -> Self {
        let missing = contacts.others.iter().cloned().collect();
        Self { list: contacts.all.clone(), missing: Mutex::new(missing), complete: Notify::new() }
    }

    /// A node asks to be let in: it is of no cluster. Why it must ask again.
    fn heard(&self, request: &JoinRequest) -> String {
        let (node, here) = (&request.grpc_address, self.list.join(","));
        if request.join != self.list {
            let there = request.join.join(",");
            let text = format!("this node waits to join {here} itself, {node} was told {there}: their lists differ");
            tracing::warn!(node, there, here, "a node waits with another list of nodes, no cluster is made with it");
            return text;
        }
        let mut missing = self.missing.lock();
        if missing.remove(node) {
            let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
            tracing::info!(node, ?missing, "a node waits for a cluster like this one");
        }
        if missing.is_empty() {
            self.complete.notify_one();
            return "the cluster is being made".to_owned();
        }
        let missing = missing.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        format!("no cluster yet: waiting for {missing} to start as well, or to say which cluster there is")
    }
}

/// Joins the cluster that the others are of; `None` once it is certain that they are of none.
pub async fn join_or_found(
    peers: &Peers,
    door: &Door,
    contacts: &Contacts,
    request: &JoinRequest,
) -> anyhow::Result<Option<Joined>> {
    if contacts.others.is_empty() {
        bail!("setting join names only this node: leave it out to make a cluster of one");
    }
    if request.bucket.is_empty() {
        bail!("setting bucket: the first node named by join says which bucket all of them use");
    }
    let gathering = Arc::new(Gathering::new(contacts));
    let hearing = Arc::clone(&gathering);
    let waiting = Waiting::new(move |request: &JoinRequest| hearing.heard(request));
    let listener = door.again().context("share the socket of gRPC")?;
    // A server that is told to stop, even if only by being dropped, closes its connections as well.
    let server = tonic::transport::Server::builder()
        .add_service(waiting.server())
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), std::future::pending::<()>());
    tracing::info!(others = ?contacts.others, "joining their cluster, or making one once all of them wait for it");
    tokio::select! {
        biased;
        joined = joining::join(peers, &contacts.others, request) => joined.map(Some),
        () = gathering.complete.notified() => Ok(None),
        ended = server => Err(anyhow!("the gRPC server ended while waiting for a cluster: {ended:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "n0:9095, n1:9095,n2:9095,";

    fn asks(from: &str, list: &str) -> JoinRequest {
        let join = Contacts::of(list, from).all;
        JoinRequest { grpc_address: from.to_owned(), join, ..JoinRequest::default() }
    }

    fn complete(gathering: &Gathering) -> bool {
        gathering.missing.lock().is_empty()
    }

    #[test]
    fn only_the_first_node_of_the_list_makes_a_cluster() {
        let first = Contacts::of(LIST, "n0:9095");
        assert!(first.is_first() && first.others == ["n1:9095", "n2:9095"]);
        assert!(!Contacts::of(LIST, "n1:9095").is_first());
        assert!(!Contacts::of(LIST, "n3:9095").is_first(), "a node that is not named only joins");
        assert!(Contacts::of(" ,", "n0:9095").is_empty() && !Contacts::of("", "n0:9095").is_first());
    }

    #[test]
    fn a_cluster_is_made_only_after_every_other_node_asked_with_the_same_list() {
        let gathering = Gathering::new(&Contacts::of(LIST, "n0:9095"));
        let said = gathering.heard(&asks("n1:9095", LIST));
        assert!(said.contains("n2:9095") && !said.contains("n1:9095"), "{said}");
        gathering.heard(&asks("n1:9095", LIST));
        gathering.heard(&asks("n9:9095", LIST));
        assert!(!complete(&gathering), "one that asks twice, or is not named, is nobody else");
        gathering.heard(&asks("n2:9095", LIST));
        assert!(complete(&gathering));
    }

    #[test]
    fn a_node_with_another_list_does_not_count() {
        let gathering = Gathering::new(&Contacts::of("n0:9095,n1:9095", "n0:9095"));
        for list in ["n1:9095,n0:9095", "n0:9095,n1:9095,n2:9095", ""] {
            let said = gathering.heard(&asks("n1:9095", list));
            assert!(said.contains("lists differ"), "{said}");
            assert!(!complete(&gathering), "{list}");
        }
        gathering.heard(&asks("n1:9095", "n0:9095,n1:9095"));
        assert!(complete(&gathering));
    }
}
