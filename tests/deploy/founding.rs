//! Real nodes that are all given one list, as the deployments give it: they become one cluster, and never a second one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::http::Api;
use support::program::Program;
use support::{free_port, until};

use super::*;

/// Debug builds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Nodes by number, with the same list and bucket.
struct Nodes {
    dir: tempfile::TempDir,
    ports: Vec<(u16, u16)>,
    running: Vec<Option<Program>>,
}

impl Nodes {
    fn new(n: usize) -> Self {
        let ports = (0..n).map(|_| (free_port(), free_port())).collect();
        Self { dir: tempfile::tempdir().unwrap(), ports, running: (0..n).map(|_| None).collect() }
    }

    fn start(&mut self, n: usize) {
        let (http, grpc) = self.ports[n];
        self.running[n] = Some(self.run(n, &self.home(n), http, grpc));
    }

    /// What node `n` would be in a directory of its own, listening elsewhere.
    fn twin(&self, n: usize) -> Program {
        self.run(n, &self.dir.path().join("twin"), free_port(), free_port())
    }

    fn run(&self, n: usize, dir: &Path, http: u16, grpc: u16) -> Program {
        let list: Vec<String> = self.ports.iter().map(|(_, grpc)| format!("127.0.0.1:{grpc}")).collect();
        let name = format!("n{n}");
        std::fs::create_dir_all(dir).unwrap();
        let bucket = format!("file://{}", self.dir.path().join("bucket").display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_metrolith"));
        command.arg("serve").arg("--data-dir").arg(dir.join("data")).args(["--join", &list.join(",")]);
        command.args(["--grpc", &format!("127.0.0.1:{grpc}"), "--grpc-advertise", &list[n]]);
        command.args(["--http", &format!("127.0.0.1:{http}"), "--node-name", &name]);
        command.args(["--bucket", &bucket, "--shards", "2", "--enable-admin-api", "true"]);
        // So that there is something written to count.
        command.args(["--self-monitoring-interval", "1s", "--replace-after", "5s"]);
        Program::start("metrolith", dir, command)
    }

    fn home(&self, n: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("n{n}"))
    }

    fn lose_disk(&mut self, n: usize) {
        std::fs::remove_dir_all(self.home(n).join("data")).unwrap();
    }

    fn kill(&mut self, n: usize) {
        self.running[n].take().unwrap().kill9();
    }

    fn api(&self, n: usize) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.ports[n].0))
    }

    async fn ready(&mut self, n: usize) {
        let url = format!("http://127.0.0.1:{}/-/ready", self.ports[n].0);
        self.running[n].as_mut().unwrap().ready(&url, PATIENCE).await;
    }

    /// Waits until the node's log says something.
    async fn says(&self, n: usize, what: &str) {
        let log = self.home(n).join("metrolith.log");
        until(what, PATIENCE, || async { read(&log).contains(what).then_some(()) }).await;
    }

    /// What a node knows of its cluster.
    async fn status(&self, n: usize) -> Value {
        let (status, text) = self.api(n).get("/api/v1/cluster").await.unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["data"].take()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn names(status: &Value) -> BTreeSet<String> {
    list(status, "/nodes").iter().map(|node| format!("{} {}", at(node, "/id"), string(node, "/name"))).collect()
}

/// Waits until node `n` knows every group to have a replica on these nodes and on no other, and a leader. What a leader alone
/// knows is lost with it.
async fn rests_on(nodes: &Nodes, n: usize, expected: [u64; 3]) {
    until("the groups to have their replicas", PATIENCE, || async {
        let status = nodes.status(n).await;
        let rests = |group: &Value| {
            let members = group["members"].as_array().into_iter().flatten();
            members.filter_map(|m| m["node"].as_u64()).collect::<BTreeSet<u64>>() == BTreeSet::from(expected)
        };
        list(&status, "/groups").iter().all(|group| rests(group) && group["leader"].is_u64()).then_some(())
    })
    .await;
}

/// Waits until a node knows these nodes.
async fn knows(nodes: &Nodes, n: usize, expected: &[&str]) -> Value {
    let expected: BTreeSet<String> = expected.iter().map(|e| (*e).to_owned()).collect();
    until("the node to know the others", PATIENCE, || async {
        let status = nodes.status(n).await;
        (names(&status) == expected).then_some(status)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_one_list_become_one_cluster_and_a_first_node_that_lost_its_disk_never_makes_another() {
    let mut nodes = Nodes::new(3);
    nodes.start(0);
    nodes.start(1);
    nodes.says(0, "a node waits for a cluster like this one").await;
    assert!(!nodes.home(0).join("data/raft").exists(), "one of the list has not spoken: there is no cluster yet");
    nodes.start(2);
    for n in 0..3 {
        nodes.ready(n).await;
    }
    let first = knows(&nodes, 0, &["1 n0", "2 n1", "3 n2"]).await;
    let first = string(&first, "/cluster").to_owned();
    for n in [1, 2] {
        assert_eq!(string(&nodes.status(n).await, "/cluster"), first);
    }
    for page in ["/-/healthy", "/-/ready"] {
        assert_eq!(nodes.api(0).get(page).await.unwrap().0, 200);
    }
    let page = until("a node that counts what it writes", PATIENCE, || async {
        let page = nodes.api(0).get("/metrics").await.unwrap().1;
        page.contains("metrolith_written_samples_total{").then_some(page)
    });
    monitoring::assert_has_metrics(&page.await);

    // A second node with the name and address of one that runs takes nothing from it.
    let twin = nodes.twin(1);
    let log = nodes.dir.path().join("twin/metrolith.log");
    until("the twin to be refused", PATIENCE, || async {
        read(&log).contains("two nodes were given one").then_some(())
    })
    .await;
    drop(twin);
    knows(&nodes, 0, &["1 n0", "2 n1", "3 n2"]).await;

    // Everything is away, and the first node comes back without its disk: it hears nobody and waits.
    for n in 0..3 {
        rests_on(&nodes, n, [1, 2, 3]).await;
    }
    for n in 0..3 {
        nodes.kill(n);
    }
    nodes.lose_disk(0);
    std::fs::remove_file(nodes.home(0).join("metrolith.log")).unwrap();
    nodes.start(0);
    nodes.says(0, "cannot join yet").await;
    assert!(!nodes.home(0).join("data/raft").exists(), "it has begun a cluster of its own");
    // The others are of a cluster and do not ask: they let it in, as another node in the place of the one it was.
    nodes.start(1);
    nodes.start(2);
    for n in 0..3 {
        nodes.ready(n).await;
    }
    let now = knows(&nodes, 0, &["1 n0-lost-1", "2 n1", "3 n2", "4 n0"]).await;
    assert_eq!(string(&now, "/cluster"), first, "the same cluster");
    rests_on(&nodes, 0, [2, 3, 4]).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let removed = || async {
        let answer =
            nodes.api(1).post("/api/v1/admin/cluster/remove", &form, b"node=n0-lost-1".to_vec()).await.unwrap();
        (answer.0 < 300).then_some(())
    };
    until("the old node to be removed", PATIENCE, removed).await;
    knows(&nodes, 0, &["2 n1", "3 n2", "4 n0"]).await;
}
