//! Any life of a cluster ends well placed, and no step on the way loses a group.

use proptest::prelude::*;

use super::*;
use crate::meta::answer::Answer;
use crate::meta::command::{Command, Init, Join};
use crate::meta::state::ClusterId;

const SHARDS: u32 = 12;

struct World {
    state: State,
    dead: BTreeSet<NodeId>,
    replicas: u64,
}

impl World {
    fn new(replication: u32) -> Self {
        let init = Init {
            cluster: ClusterId(uuid::Uuid::from_u128(1)),
            node: Node { id: NodeId(1), name: "1".into(), meta_replica: Some(ReplicaId(1)), ..Node::default() },
            bucket: String::new(),
            replication,
            shards: SHARDS,
            shard_replicas: (0..SHARDS).map(|n| ReplicaId(u64::from(n))).collect(),
            epoch: Epoch(1),
            tables: Vec::new(),
        };
        let mut world = Self { state: State::default(), dead: BTreeSet::new(), replicas: 1000 };
        assert_eq!(world.apply(Command::Init(init)), Answer::Done);
        world
    }

    /// As many nodes, of zones in turn, at rest.
    fn of(nodes: usize, zones: usize) -> Self {
        let mut world = Self::new(3);
        // The first node has the zone "".
        for n in 1..nodes {
            world.join(n % zones);
        }
        world.rest();
        world
    }

    fn apply(&mut self, command: Command) -> Answer {
        self.state.applied += 1;
        let answer = self.state.apply(command);
        self.state.check_invariants();
        answer
    }

    fn join(&mut self, zone: usize) {
        self.replicas += 1;
        let name = (self.state.next_node).to_string();
        let zone = if zone == 0 { String::new() } else { zone.to_string() };
        let meta_replica = Some(ReplicaId(self.replicas));
        let join = Join { grpc: name.clone(), name, zone, meta_replica, ..Join::default() };
        assert!(matches!(self.apply(Command::Join(join)), Answer::Joined { .. }));
    }

    fn plan(&mut self) -> Vec<(GroupId, Placement)> {
        let Self { state, dead, replicas } = self;
        plan(state, &|node| !dead.contains(&node), &mut || {
            *replicas += 1;
            ReplicaId(*replicas)
        })
    }

    fn is_live(&self, node: NodeId) -> bool {
        !self.dead.contains(&node)
    }

    fn usable(&self) -> Vec<NodeId> {
        let usable = |node: &&Node| node.status == NodeStatus::Active && self.is_live(node.id);
        self.state.nodes.values().filter(usable).map(|node| node.id).collect()
    }

    fn lives(&self, placement: &Placement) -> bool {
        let live = placement.replicas.values().filter(|node| self.is_live(**node)).count();
        live * 2 > placement.replicas.len()
    }

    /// Plans once and does it; gives how many groups changed and how many replicas were made.
    fn step(&mut self) -> (usize, usize) {
        let (changes, mut made) = (self.plan(), 0);
        assert!(changes.len() <= MOVES);
        for (group, after) in &changes {
            let before = &self.state.groups[group];
            assert_ne!(before, after, "a change that changes nothing");
            assert!(self.lives(before), "changed a group that cannot change");
            assert_eq!(after.replicas.len() % 2, 1, "an even number of voters");
            for node in after.voting_nodes().difference(&before.voting_nodes()) {
                assert!(self.usable().contains(node), "a new replica on a node that takes none");
                made += 1;
            }
            let kept = before.replicas.iter().filter(|(_, node)| after.voting_nodes().contains(node));
            assert!(
                kept.into_iter().all(|(replica, _)| after.replicas.contains_key(replica)),
                "a replica was replaced in place"
            );
        }
        let (changed, based_on) = (changes.len(), self.state.applied);
        assert_eq!(self.apply(Command::Place { changes, based_on }), Answer::Done);
        (changed, made)
    }

    /// Plans until nothing changes; gives the replicas made.
    fn rest(&mut self) -> usize {
        let mut made = 0;
        for _ in 0..100 {
            match self.step() {
                (0, _) => return made,
                (_, more) => made += more,
            }
        }
        panic!("does not come to rest: {:?}", self.plan());
    }

    fn load(&self, node: NodeId) -> usize {
        let shards = self.state.groups.iter().filter(|(group, _)| **group != META);
        shards.filter(|(_, placement)| placement.voting_nodes().contains(&node)).count()
    }

    fn leads(&self, node: NodeId) -> usize {
        let led = self.state.groups.values().filter_map(|placement| placement.replicas.get(&placement.preferred?));
        led.filter(|on| **on == node).count()
    }

    fn zone(&self, node: NodeId) -> &str {
        &self.state.nodes[&node].zone
    }

    /// How many of `n` replicas each zone should have at best, in order of size.
    fn best_spread(&self, n: usize) -> Vec<usize> {
        let mut zones: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for node in self.usable() {
            zones.entry(self.zone(node)).or_default().1 += 1;
        }
        for _ in 0..n {
            let Some(zone) = zones.values_mut().filter(|(used, of)| used < of).min() else { break };
            zone.0 += 1;
        }
        let mut spread: Vec<usize> = zones.into_values().map(|(used, _)| used).filter(|n| *n > 0).collect();
        spread.sort_unstable();
        spread
    }

    fn spread(&self, placement: &Placement) -> Vec<usize> {
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for node in placement.replicas.values() {
            *zones.entry(self.zone(*node)).or_default() += 1;
        }
        let mut spread: Vec<usize> = zones.into_values().collect();
        spread.sort_unstable();
        spread
    }

    /// Panics if a group at rest is not as it should be.
    fn check_rest(&self, replication: usize) {
        let usable: BTreeSet<NodeId> = self.usable().into_iter().collect();
        if usable.is_empty() {
            return;
        }
        for (group, placement) in self.state.groups.iter().filter(|(_, placement)| self.lives(placement)) {
            let most = if *group == META { META_VOTERS } else { replication };
            let nodes = placement.voting_nodes();
            if nodes.is_subset(&usable) {
                assert!(nodes.len() >= odd(most.min(usable.len())), "group {group} could have more replicas");
                assert_eq!(self.spread(placement), self.best_spread(nodes.len()), "spread of group {group}: {nodes:?}");
            } else {
                assert!(usable.is_subset(&nodes), "group {group} could do without {nodes:?}");
            }
            assert!(nodes.len() <= most);
            let leader = placement.preferred.map(|replica| placement.replicas[&replica]);
            assert!(leader.is_some_and(|node| usable.contains(&node)), "group {group} prefers {leader:?}");
            let draining = |node: &&NodeId| self.state.nodes[node].status == NodeStatus::Draining;
            assert_eq!(nodes.iter().find(draining), None, "group {group} stays on a draining node");
        }
        let meta = &self.state.groups[&META];
        assert_eq!(meta.replicas.len() + meta.learners.len(), self.state.nodes.len(), "every node watches");
    }
}

#[test]
fn two_nodes_have_one_replica_each_and_three_have_three() {
    let mut world = World::of(2, 1);
    assert!(world.state.groups.values().all(|placement| placement.replicas.len() == 1));
    assert!(world.load(NodeId(1)).abs_diff(world.load(NodeId(2))) <= 2);
    world.join(0);
    world.rest();
    assert!(world.state.groups.values().all(|placement| placement.replicas.len() == 3));
    let leads: Vec<usize> = (1..=3).map(|node| world.leads(NodeId(node))).collect();
    assert!(leads.iter().max().unwrap() - leads.iter().min().unwrap() <= 1, "{leads:?}");
}

#[test]
fn a_node_that_is_not_there_keeps_its_replicas_until_another_can_take_them() {
    let mut world = World::of(3, 1);
    world.dead.insert(NodeId(3));
    world.rest();
    assert_eq!(world.load(NodeId(3)), 12);
    assert_eq!(world.leads(NodeId(3)), 0);
    world.join(0);
    world.rest();
    assert_eq!((world.load(NodeId(3)), world.load(NodeId(4))), (0, 12));
}

#[test]
fn a_group_without_a_majority_is_left_alone() {
    let mut world = World::of(3, 1);
    world.dead.extend([NodeId(2), NodeId(3)]);
    world.join(0);
    let before: Vec<_> = world.state.groups.iter().map(|(g, p)| (*g, p.replicas.clone())).collect();
    world.rest();
    assert_eq!(before, world.state.groups.iter().map(|(g, p)| (*g, p.replicas.clone())).collect::<Vec<_>>());
}

#[test]
fn draining_empties_a_node_a_few_groups_at_a_time() {
    let mut world = World::of(4, 1);
    let held = world.load(NodeId(2));
    world.apply(Command::SetNodeStatus(NodeId(2), NodeStatus::Draining));
    world.step();
    assert!(world.load(NodeId(2)) >= held - MOVES);
    world.rest();
    assert_eq!((world.load(NodeId(2)), world.leads(NodeId(2))), (0, 0));
    assert_eq!(world.apply(Command::RemoveNode { node: NodeId(2), force: false }), Answer::Done);
    assert_eq!(world.rest(), 0);
}

#[test]
fn one_more_node_moves_no_more_than_its_share() {
    for nodes in 3..9 {
        let mut world = World::of(nodes, 1);
        let replicas = 3 * SHARDS as usize;
        let share = replicas.div_ceil(nodes + 1) + 1;
        let above: usize = world.usable().into_iter().map(|node| world.load(node).saturating_sub(share)).sum();
        world.join(0);
        let voters = usize::from(nodes == 4) * 2; // of meta
        assert_eq!(world.rest(), above + voters, "{nodes} nodes");
        assert!(above <= replicas.div_ceil(nodes + 1));
    }
}

#[test]
fn a_new_epoch_is_spread_like_the_old_one() {
    let mut world = World::of(6, 3);
    let live = |_: NodeId| true;
    let mut replica = 1 << 40;
    let shards = place_epoch(&world.state, Epoch(2), 24, &live, &mut || {
        replica += 1;
        ReplicaId(replica)
    });
    assert_eq!(shards.len(), 24);
    assert_eq!(world.apply(Command::Reshard { epoch: Epoch(2), shards }), Answer::Done);
    world.check_rest(3);
    for node in world.usable() {
        assert!((14..=22).contains(&world.load(node)), "node {node} holds {}", world.load(node));
    }
    world.rest();
    for shard in (0..12).map(ShardId) {
        assert_eq!(world.apply(Command::Emptied(shard_group(Epoch(1), shard))), Answer::Done);
    }
    assert_eq!(world.state.epochs.len(), 1);
    world.rest();
    world.check_rest(3);
}

#[derive(Debug, Clone)]
enum Event {
    Join(usize),
    Drain(usize),
    Activate(usize),
    Die(usize),
    Return(usize),
    Remove(usize, bool),
    Plan(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0usize..4).prop_map(Event::Join),
        1 => (0usize..9).prop_map(Event::Drain),
        1 => (0usize..9).prop_map(Event::Activate),
        1 => (0usize..9).prop_map(Event::Die),
        1 => (0usize..9).prop_map(Event::Return),
        1 => (0usize..9, any::<bool>()).prop_map(|(node, force)| Event::Remove(node, force)),
        3 => (1usize..9).prop_map(Event::Plan),
    ]
}

impl World {
    fn meet(&mut self, event: Event) {
        let pick = |nth: usize| *self.state.nodes.keys().nth(nth % self.state.nodes.len()).unwrap();
        match event {
            Event::Join(zone) if self.state.nodes.len() < 9 => self.join(zone),
            Event::Join(_) => {}
            Event::Drain(nth) => {
                let command = Command::SetNodeStatus(pick(nth), NodeStatus::Draining);
                assert_eq!(self.apply(command), Answer::Done);
            }
            Event::Activate(nth) => {
                let command = Command::SetNodeStatus(pick(nth), NodeStatus::Active);
                assert_eq!(self.apply(command), Answer::Done);
            }
            Event::Die(nth) => {
                self.dead.insert(pick(nth));
            }
            Event::Return(nth) => {
                let node = pick(nth);
                self.dead.remove(&node);
            }
            Event::Remove(nth, force) => {
                let node = pick(nth);
                self.apply(Command::RemoveNode { node, force });
            }
            Event::Plan(times) => (0..times).for_each(|_| {
                self.step();
            }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn any_life_comes_to_rest_well_placed(replication in 1u32..6, events in prop::collection::vec(event(), 1..30)) {
        let mut world = World::new(replication);
        for event in events {
            world.meet(event);
        }
        world.rest();
        world.check_rest(replication as usize);
        // Everything comes back: then nothing holds a group.
        world.dead.clear();
        world.rest();
        world.check_rest(replication as usize);
        let usable = world.usable();
        let zones: BTreeSet<&str> = usable.iter().map(|node| world.zone(*node)).collect();
        if zones.len() == 1 {
            let replicas: usize = usable.iter().map(|node| world.load(*node)).sum();
            let share = replicas.div_ceil(usable.len()) + 1;
            prop_assert!(usable.iter().all(|node| world.load(*node) <= share));
        }
    }
}
