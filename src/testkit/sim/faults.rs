//! What goes wrong, drawn from the seed.
//!
//! *Invariants:* everything that is broken is mended again: by itself, or when all faults end.
//!
//! *Not here:* what a crash does (`node`, `env::disk::sim`), how messages fare (`network`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::network::{CALM, Weather};
use super::world::{DISK_US, NODES, World, groups};
use crate::env::Rng;
use crate::raft::GroupId;

/// Breaks things for `time`.
pub(super) async fn run(world: &Arc<World>, time: Duration) {
    let end = Instant::now() + time;
    let pause = Duration::from_millis([300, 1500, 4000][world.rng.below(3) as usize]);
    while Instant::now() < end {
        tokio::time::sleep(world.draw(pause).min(end - Instant::now())).await;
        one(world);
        world.heads.lock().observe(world);
    }
}

fn node(world: &World) -> u64 {
    1 + world.rng.below(NODES)
}

fn group(world: &World) -> GroupId {
    groups().nth(world.rng.below(groups().count() as u64) as usize).unwrap_or(GroupId(0))
}

fn one(world: &Arc<World>) {
    let down = world.draw(Duration::from_millis([50, 1000, 6000][world.rng.below(3) as usize]));
    let fault = world.rng.below(16);
    match fault {
        0 | 1 => crash(world, node(world), true, down, "power lost"),
        2 => crash(world, node(world), false, down, "process killed"),
        3 | 4 => {
            let leader = world.leader(group(world)).map(|(id, _)| id);
            leader.into_iter().for_each(|id| crash(world, id, true, down, "leader lost power"));
        }
        5 if world.rng.below(3) > 0 => mend(world),
        5 => (1..=NODES).for_each(|id| crash(world, id, true, world.draw(down), "all lost power")),
        6 => {
            let id = node(world);
            world.count("power about to go");
            world.nodes[&id].disk.crash_at(1 + world.rng.below(20));
        }
        7 => partition(world),
        8..=10 => mend(world),
        11 => weather(world),
        12 => {
            let slow = [DISK_US, 5_000, 60_000, 400_000][world.rng.below(4) as usize];
            world.count("disk slowed");
            world.nodes[&node(world)].slowness_us.store(slow, Ordering::Relaxed);
        }
        13 => {
            let skew = world.rng.below(7_200_000) as i64 - 3_600_000;
            world.count("clock jumped");
            world.nodes[&node(world)].clock.skew(skew);
        }
        14 => snapshot(world),
        _ => transfer(world),
    }
}

fn crash(world: &Arc<World>, node: u64, power: bool, down: Duration, why: &'static str) {
    if world.running(node).is_some() {
        world.count(why);
        world.crash(node, power, down, why);
    }
}

/// A moment that is worth a crash has come on a node; `weight` says how rare such moments are.
pub(super) fn aimed(world: &Arc<World>, node: u64, weight: u64, why: &'static str) {
    if !world.is_calm() && world.rng.below(1000) < weight * world.aim {
        let down = world.draw(Duration::from_millis(500));
        crash(world, node, true, down, why);
    }
}

fn partition(world: &World) {
    let side = world.rng.below(1 << NODES);
    let on = |node: u64| side >> (node - 1) & 1 == 1;
    let one_way = world.rng.below(2) == 0;
    let all = (1..=NODES).flat_map(|a| (1..=NODES).map(move |b| (a, b)));
    let between = all.filter(|(a, b)| if one_way { on(*a) && !on(*b) } else { on(*a) != on(*b) });
    world.network.cut(between);
    world.count(if one_way { "cut one way" } else { "cut" });
    world.trace.event(|| format!("cut {side:05b}{}", if one_way { ", one way" } else { "" }));
}

fn mend(world: &World) {
    world.trace.event(|| "the network is whole".into());
    world.network.heal();
    world.weather(CALM);
}

fn weather(world: &World) {
    let lost = [0, 10, 100, 300][world.rng.below(4) as usize];
    let most = [1_000, 20_000, 300_000][world.rng.below(3) as usize];
    world.count("bad weather");
    world.trace.event(|| format!("of a thousand messages {lost} are lost, delays up to {most} us"));
    world.weather(Weather { lost, delay_us: (100, most) });
}

/// A replica writes a snapshot and forgets its log.
fn snapshot(world: &Arc<World>) {
    if let Some((shard, _)) = world.shard(node(world), group(world)) {
        world.count("snapshot");
        // It fails with its node.
        tokio::spawn(async move { drop(shard.group.snapshot_now().await) });
    }
}

fn transfer(world: &Arc<World>) {
    let Some((_, leader)) = world.leader(group(world)) else { return };
    let voters: Vec<_> = leader.group.members().voters.into_keys().collect();
    if let Some(to) = voters.get(world.rng.below(voters.len() as u64) as usize).copied() {
        world.count("leader transferred");
        // Whether it does shows in who leads.
        tokio::spawn(async move { drop(leader.group.transfer_leader(to).await) });
    }
}
