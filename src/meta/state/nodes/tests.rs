//! Joining, leaving, placing, resharding: what is taken and what is refused.

use super::*;
use crate::meta::command::Command;
use crate::meta::state::ClusterId;
use crate::model::ShardId;
use crate::raft::ReplicaId;

const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(7));

struct World(State);

impl World {
    fn new() -> Self {
        let init = Init {
            cluster: CLUSTER,
            node: Node { id: NodeId(1), name: "one".into(), meta_replica: Some(ReplicaId(1)), ..Node::default() },
            bucket: "file:///b".into(),
            replication: 3,
            shards: 2,
            shard_replicas: vec![ReplicaId(10), ReplicaId(11)],
            epoch: Epoch(4),
            tables: Vec::new(),
        };
        let mut world = Self(State::default());
        assert_eq!(world.apply(Command::Init(init)), Answer::Done);
        world
    }

    fn apply(&mut self, command: Command) -> Answer {
        self.0.applied += 1;
        let answer = self.0.apply(command);
        self.0.check_invariants();
        answer
    }

    /// Applies a command that must be refused and change nothing.
    fn refused(&mut self, command: Command) -> Refusal {
        let before = self.0.clone();
        let Answer::Refused(refusal) = self.apply(command) else { panic!("taken") };
        self.0.applied = before.applied;
        assert_eq!(self.0, before);
        refusal
    }

    fn join(&mut self, name: &str, replica: u64) -> Answer {
        self.apply(Command::Join(join(name, replica)))
    }
}

fn join(name: &str, replica: u64) -> Join {
    let meta_replica = Some(ReplicaId(replica));
    Join { name: name.into(), grpc: format!("{name}:1"), meta_replica, ..Join::default() }
}

fn joined(node: u64, replica: u64) -> Answer {
    Answer::Joined { node: NodeId(node), meta_replica: ReplicaId(replica) }
}

fn shard(n: u32) -> GroupId {
    shard_group(Epoch(4), crate::model::ShardId(n))
}

fn on(replicas: &[(u64, u64)]) -> Placement {
    let replicas = replicas.iter().map(|(replica, node)| (ReplicaId(*replica), NodeId(*node))).collect();
    Placement { replicas, ..Placement::default() }
}

#[test]
fn the_first_node_has_one_replica_of_everything() {
    let world = World::new();
    let groups: Vec<_> = world.0.groups.iter().map(|(group, placement)| (*group, placement.clone())).collect();
    let single = |replica| Placement::single(ReplicaId(replica), NodeId(1));
    assert_eq!(groups, [(META, single(1)), (shard(0), single(10)), (shard(1), single(11))]);
    assert_eq!((world.0.replication, world.0.next_node), (3, 2));
    assert_eq!([META, shard(1)].map(shard_of_group), [None, Some((Epoch(4), crate::model::ShardId(1)))]);
}

#[test]
fn a_new_node_gets_an_id_and_watches_meta_at_once() {
    let mut world = World::new();
    assert_eq!(world.join("two", 2), joined(2, 2));
    assert_eq!(world.join("two", 2), joined(2, 2), "the answer was lost");
    assert_eq!(world.0.groups[&META].learners, [(ReplicaId(2), NodeId(2))].into());
    assert_eq!(world.join("three", 3), joined(3, 3));
    assert_eq!(world.0.find_node("three").map(|node| node.id), Some(NodeId(3)));
    assert_eq!(world.0.find_node("2").map(|node| node.name.as_str()), Some("two"));
    assert_eq!(world.0.find_node("four"), None);
}

#[test]
fn a_known_node_says_where_it_is_now_and_keeps_its_replica() {
    let mut world = World::new();
    world.join("two", 2);
    world.apply(Command::SetNodeStatus(NodeId(2), NodeStatus::Draining));
    let moved = Join {
        node: NodeId(2),
        cluster: Some(CLUSTER),
        name: "zwei".into(),
        grpc: "elsewhere:1".into(),
        http: "elsewhere:2".into(),
        zone: "z".into(),
        version: "0.2".into(),
        meta_replica: Some(ReplicaId(99)),
        bucket: "file:///b".into(),
    };
    assert_eq!(world.apply(Command::Join(moved)), joined(2, 2));
    let node = &world.0.nodes[&NodeId(2)];
    assert_eq!((node.name.as_str(), node.grpc.as_str(), node.zone.as_str()), ("zwei", "elsewhere:1", "z"));
    assert_eq!((node.status, node.version.as_str()), (NodeStatus::Draining, "0.2"));
}

#[test]
fn refuses_to_join_who_does_not_belong_here() {
    let mut world = World::new();
    world.join("two", 2);
    let refusal = world.refused(Command::Join(join("two", 3)));
    assert!(refusal.to_string().contains("named \"two\" already, node 2 at two:1"), "{refusal}");
    let taken = Join { node: NodeId(1), ..join("two", 3) };
    assert!(matches!(world.refused(Command::Join(taken)), Refusal::Conflict(_)));
    let other = Join { cluster: Some(ClusterId(uuid::Uuid::from_u128(8))), ..join("three", 3) };
    assert_eq!(world.refused(Command::Join(other)), Refusal::OtherCluster(CLUSTER.to_string()));
    let refusal = world.refused(Command::Join(Join { bucket: "s3://other".into(), ..join("three", 3) }));
    assert!(refusal.to_string().contains("told bucket s3://other, the cluster uses file:///b"), "{refusal}");
    let unknown = Join { node: NodeId(9), ..join("three", 3) };
    assert_eq!(world.refused(Command::Join(unknown)), Refusal::UnknownNode(NodeId(9)));
    for bad in [join("", 3), join("three", 2), Join { meta_replica: None, ..join("three", 3) }] {
        assert!(matches!(world.refused(Command::Join(bad)), Refusal::Invalid(_)));
    }
}

#[test]
fn a_node_goes_when_it_holds_nothing_and_its_id_never_comes_back() {
    let mut world = World::new();
    world.join("two", 2);
    let based_on = world.0.applied;
    let changes = vec![(shard(0), on(&[(10, 1), (12, 2)]))];
    assert_eq!(world.apply(Command::Place { changes, based_on }), Answer::Done);
    let remove = |node, force| Command::RemoveNode { node: NodeId(node), force };
    let refusal = world.refused(remove(2, false));
    assert!(refusal.to_string().contains("holds replicas of 1 groups: drain it first"), "{refusal}");
    let refusal = world.refused(remove(1, true));
    assert!(refusal.to_string().contains("the only replica of 2 groups"), "{refusal}");
    assert_eq!(world.refused(remove(3, true)), Refusal::UnknownNode(NodeId(3)));
    assert_eq!(world.apply(remove(2, true)), Answer::Done);
    assert_eq!(world.apply(remove(2, true)), Answer::Done, "a repeat");
    assert_eq!(world.0.groups[&shard(0)], on(&[(10, 1)]));
    assert!(world.0.groups[&META].learners.is_empty());
    assert_eq!(world.join("two", 3), joined(3, 3));
    assert_eq!(world.refused(Command::SetNodeStatus(NodeId(2), NodeStatus::Active)), Refusal::UnknownNode(NodeId(2)));
}

#[test]
fn a_placement_decided_on_an_older_state_changes_nothing() {
    let mut world = World::new();
    world.join("two", 2);
    let based_on = world.0.applied;
    let place = |group, replica| Command::Place { changes: vec![(group, on(&[(replica, 2)]))], based_on };
    assert_eq!(world.apply(place(shard(0), 12)), Answer::Done);
    assert_eq!(world.refused(place(shard(0), 13)), Refusal::Stale(shard(0)));
    assert_eq!(world.apply(place(shard(1), 14)), Answer::Done, "another group did not change");
    let both = vec![(shard(1), on(&[(15, 1)])), (shard(0), on(&[(16, 1)]))];
    let based_on = world.0.applied - 1;
    assert_eq!(world.refused(Command::Place { changes: both, based_on }), Refusal::Stale(shard(1)));
    let unknown = vec![(shard(2), on(&[(15, 1)]))];
    assert_eq!(world.refused(Command::Place { changes: unknown, based_on: 99 }), Refusal::Stale(shard(2)));
}

#[test]
fn refuses_placements_that_contradict_themselves() {
    let mut world = World::new();
    world.join("two", 2);
    let learner = Placement { learners: [(ReplicaId(12), NodeId(2))].into(), ..on(&[(10, 1)]) };
    let preferred = Placement { preferred: Some(ReplicaId(12)), ..on(&[(10, 1)]) };
    for (group, placement, why) in [
        (shard(0), on(&[]), "has no replica"),
        (shard(0), on(&[(10, 1), (12, 1)]), "two replicas on one node"),
        (shard(0), learner, "has learners"),
        (shard(0), preferred, "prefers a replica"),
        (shard(0), on(&[(10, 1), (12, 9)]), "node 9 is not part"),
        (META, on(&[(1, 1), (12, 2)]), "which was given another one"),
    ] {
        let changes = vec![(shard(1), on(&[(20, 2)])), (group, placement)];
        let refusal = world.refused(Command::Place { changes, based_on: 99 });
        assert!(refusal.to_string().contains(why), "{refusal}");
    }
}

#[test]
fn a_new_epoch_takes_over_and_the_old_one_stays_until_it_is_retired() {
    let mut world = World::new();
    let reshard =
        |epoch, n| Command::Reshard { epoch: Epoch(epoch), shards: (0..n).map(|n| on(&[(30 + n, 1)])).collect() };
    assert!(matches!(world.refused(reshard(6, 3)), Refusal::Conflict(_)));
    assert!(matches!(world.refused(reshard(5, 0)), Refusal::Invalid(_)));
    assert_eq!(world.apply(reshard(5, 3)), Answer::Done);
    assert!(matches!(world.refused(reshard(5, 3)), Refusal::Conflict(_)), "another one was faster");
    let epochs: Vec<_> = world.0.epochs.iter().map(|map| (map.epoch.0, map.shards)).collect();
    assert_eq!((epochs, world.0.shard_map.shards), (vec![(4, 2), (5, 3)], 3));
    assert_eq!(world.0.groups.len(), 6);
    let emptied = |epoch, shard| Command::Emptied(shard_group(Epoch(epoch), ShardId(shard)));
    assert!(matches!(world.refused(emptied(5, 0)), Refusal::Conflict(_)));
    let shards = world.0.epochs[0].shards;
    for shard in 0..shards {
        assert_eq!(world.0.epochs.len(), 2, "shards of the old epoch are left");
        assert_eq!(world.apply(emptied(4, shard)), Answer::Done);
    }
    assert_eq!(world.apply(emptied(4, 0)), Answer::Done, "a repeat");
    assert_eq!((world.0.groups.len(), world.0.has_group(shard(0))), (4, false));
}
