//! Three replicas in one process.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

struct Cluster {
    disks: Vec<SimDisk>,
    router: Arc<Router>,
    nodes: BTreeMap<u64, (Host, Group, Journal)>,
}

impl Cluster {
    async fn start() -> Self {
        let disks = (0..4).map(SimDisk::new).collect();
        let mut this = Self { disks, router: Arc::default(), nodes: BTreeMap::new() };
        for node in 1..=3 {
            this.start_node(node).await;
        }
        this
    }

    async fn start_node(&mut self, node: u64) {
        let disk = Arc::new(self.disks[node as usize].clone());
        let rng = Arc::new(SeededRng::new(node));
        let host = Host::open_with_router(options(node), disk, clock(), rng, metrics(), self.router.clone());
        let host = host.await.unwrap();
        let members = (1..=3).map(|n| (ReplicaId(100 + n), Peer { node: NodeId(n) })).collect();
        let journal = Journal::default();
        let begin = Bootstrap::Members { replica: ReplicaId(100 + node), members };
        let group = host.start_group(G, Box::new(journal.clone()), begin).await.unwrap();
        self.nodes.insert(node, (host, group, journal));
    }

    async fn stop_node(&mut self, node: u64) {
        let (host, _, _) = self.nodes.remove(&node).unwrap();
        host.shutdown().await;
        self.disks[node as usize].crash();
    }

    /// Proposes until somebody leads and answers; an unknown outcome is tried again, which may repeat the entry.
    async fn propose(&self, entry: Bytes) -> u64 {
        for _ in 0..2000 {
            for (node, (_, group, _)) in &self.nodes {
                match tokio::time::timeout(Duration::from_secs(5), group.propose(entry.clone())).await {
                    Ok(Ok(_)) => return *node,
                    Ok(Err(RaftError::Fatal { reason })) => panic!("{reason}"),
                    _ => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody leads");
    }

    async fn leader(&self) -> u64 {
        self.propose(Bytes::from_static(b"who leads")).await
    }

    /// Waits until all replicas have applied the same entries, and returns them.
    async fn converged(&self) -> Vec<Bytes> {
        for _ in 0..2000 {
            let all: Vec<_> = self.nodes.values().map(|(_, _, journal)| journal.0.lock().clone()).collect();
            if all.windows(2).all(|w| w[0] == w[1]) {
                return all[0].iter().map(|(_, entry)| entry.clone()).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("replicas do not converge");
    }

    async fn stop(mut self) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop_node(node).await;
        }
    }
}

fn assert_has_all(entries: &[Bytes], want: impl Iterator<Item = usize>) {
    for n in want {
        assert!(entries.contains(&payload(n)), "entry {n} was acknowledged and is gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_acknowledged_entry_when_leaders_lose_power() {
    let mut cluster = Cluster::start().await;
    for round in 0..3 {
        for n in round * 20..round * 20 + 20 {
            cluster.propose(payload(n)).await;
        }
        let leader = cluster.leader().await;
        cluster.stop_node(leader).await;
        cluster.propose(payload(1000 + round)).await;
        cluster.start_node(leader).await;
    }
    cluster.propose(payload(2000)).await;
    let entries = cluster.converged().await;
    assert_has_all(&entries, (0..60).chain([1000, 1001, 1002, 2000]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_reads_nothing() {
    let cluster = Cluster::start().await;
    cluster.propose(payload(0)).await;
    let old = cluster.leader().await;
    for other in (1..=3).filter(|n| *n != old) {
        cluster.router.cut(ReplicaId(100 + old), ReplicaId(100 + other));
    }
    let (_, cut, _) = &cluster.nodes[&old];
    assert!(cut.read_index().await.is_err(), "a read needs a majority");
    let lost = tokio::time::timeout(Duration::from_secs(2), cut.propose(payload(1))).await;
    assert!(!matches!(lost, Ok(Ok(_))), "a write needs a majority");

    let others: Vec<_> = cluster.nodes.iter().filter(|(n, _)| **n != old).map(|(_, (_, group, _))| group).collect();
    'found: loop {
        for group in &others {
            if group.propose(payload(2)).await.is_ok() {
                assert!(group.read_index().await.is_ok());
                break 'found;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.router.heal();
    cluster.propose(payload(3)).await;
    assert_has_all(&cluster.converged().await, [0, 2, 3].into_iter());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let away = (1..=3).find(|n| *n != leader).unwrap();
    cluster.stop_node(away).await;
    for n in 0..100 {
        cluster.propose(payload(n)).await;
    }
    for (_, group, _) in cluster.nodes.values() {
        group.release_log().await.unwrap();
    }
    cluster.start_node(away).await;
    cluster.propose(payload(100)).await;
    let entries = cluster.converged().await;
    assert_has_all(&entries, 0..=100);
    let names = cluster.disks[away as usize].list(format!("/node{away}/snapshots").as_ref()).unwrap();
    assert_eq!(names.len(), 1, "{names:?}");

    cluster.stop_node(away).await;
    cluster.start_node(away).await;
    cluster.propose(payload(101)).await;
    assert_has_all(&cluster.converged().await, 0..=101);
    cluster.stop().await;
}
