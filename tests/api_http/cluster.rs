//! The cluster as a node tells it, and what operators change.

use crate::{Reply, Served};

async fn post(node: &Served, action: &str, form: &[(&str, &str)]) -> Reply {
    node.post_form(&format!("admin/cluster/{action}"), form).await
}

async fn cluster(node: &Served) -> serde_json::Value {
    let reply = node.ask("cluster", &[]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str::<serde_json::Value>(&reply.body).unwrap()["data"].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_its_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start_with(dir.path(), &[("node_name", "first"), ("zone", "z")], &[]).await;
    let told = cluster(&node).await;
    assert_eq!((&told["shards"], &told["replication"]), (&3.into(), &3.into()));
    let first = &told["nodes"][0];
    assert_eq!((&first["id"], &first["name"], &first["zone"]), (&1.into(), &"first".into(), &"z".into()));
    assert_eq!((&first["status"], &first["votesInMeta"]), (&"active".into(), &true.into()));
    assert_eq!(first["answers"], true);
    let meta = &told["groups"][0];
    assert_eq!((&meta["group"], &meta["leader"], &meta["preferred"]), (&"0".into(), &1.into(), &1.into()));
    assert_eq!(meta["replicas"][0]["node"], 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_change_the_cluster_by_name_or_id() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start_with(dir.path(), &[("node_name", "first")], &[]).await;
    assert_eq!(post(&node, "drain", &[("node", "first")]).await.status, 204);
    assert_eq!(cluster(&node).await["nodes"][0]["status"], "draining");
    assert_eq!(post(&node, "activate", &[("node", "1")]).await.status, 204);
    assert_eq!(cluster(&node).await["nodes"][0]["status"], "active");
    for (action, form, status, words) in [
        ("drain", &[][..], 400, "give a name or an id"),
        ("drain", &[("node", "second")], 404, r#"the cluster has no node \"second\""#),
        ("remove", &[("node", "first")], 400, "drain it first"),
        ("remove", &[("node", "first"), ("force", "true")], 400, "the only replica of"),
        ("remove", &[("node", "first"), ("force", "1")], 400, "neither true nor false"),
        ("reshard", &[], 400, "is missing"),
        ("reshard", &[("shards", "0")], 400, "is not a number from 1 to 4096"),
    ] {
        let reply = post(&node, action, form).await;
        assert!(reply.status == status && reply.body.contains(words), "{action} {form:?}: {reply:?}");
    }
    let before = cluster(&node).await;
    assert_eq!(post(&node, "reshard", &[("shards", "2")]).await.status, 204);
    let after = cluster(&node).await;
    assert_eq!(after["epoch"], before["epoch"].as_u64().unwrap() + 1);
    assert_eq!((&after["shards"], after["epochs"].as_array().unwrap().len()), (&2.into(), 2));
    node.stop().await;
}
