//! Groups in which nothing happens fall silent: no ticks, no heartbeats; hundreds of idle groups cost next to nothing.
//!
//! *Invariants:* safety is Raft's alone: this only decides who keeps a clock. Followers fall silent first, and only while the
//! leader's node answers pings; a leader falls silent when nothing has happened for twice as long, so no follower that still
//! keeps a clock misses its heartbeats. Whatever happens to a group wakes its replicas, and so does the silence of the node
//! that leads it. Meta never falls silent.
//!
//! *Not here:* elections and leases (`raft`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::env::Clock;
use crate::meta::{META, Views};
use crate::model::NodeId;
use crate::peers::Peers;
use crate::proto::v1::PingRequest;
use crate::raft::{Activity, Group, GroupId, Host, Metrics};

/// How often nodes are asked and groups looked at.
const CHECK: Duration = Duration::from_millis(250);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(500);
/// A node that has not answered for so long is taken for dead.
const DEAD: Duration = Duration::from_secs(1);

/// Lets the groups of this node fall silent and wakes them.
pub struct Quiet {
    /// This node.
    pub me: NodeId,
    /// Its groups.
    pub host: Host,
    /// Which other nodes there are.
    pub views: Views,
    /// Ways to them.
    pub peers: Peers,
    /// For how long nothing has happened.
    pub clock: Arc<dyn Clock>,
    /// How long nothing must happen for a follower to fall silent.
    pub after: Duration,
    /// Figures.
    pub metrics: Metrics,
}

/// What was seen of a group.
struct Seen {
    activity: Activity,
    since: Duration,
    quiet: bool,
}

/// What becomes of a replica's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Stay,
    FallSilent,
    Wake,
}

/// What is known of a replica when its clock is decided on.
#[derive(Debug, Clone, Copy)]
struct Situation {
    quiet: bool,
    idle: Duration,
    leads: bool,
    /// Whether every member has everything; only a leader knows.
    even: bool,
    /// Whether there is a leader whose node answers.
    led: bool,
}

fn decide(now: Situation, after: Duration) -> Turn {
    let Situation { quiet, idle, leads, even, led } = now;
    match (quiet, leads) {
        (true, false) if !led => Turn::Wake,
        (true, true) if !even => Turn::Wake,
        (false, false) if led && idle >= after => Turn::FallSilent,
        (false, true) if even && idle >= after * 2 => Turn::FallSilent,
        _ => Turn::Stay,
    }
}

impl Quiet {
    /// Works until dropped; what is silent then stays so until something happens to it.
    pub async fn run(self) {
        let mut heard: HashMap<NodeId, Duration> = HashMap::new();
        let mut seen: HashMap<GroupId, Seen> = HashMap::new();
        loop {
            tokio::time::sleep(CHECK).await;
            self.ping(&mut heard).await;
            let groups: Vec<Group> = self.host.groups().into_iter().filter(|group| group.id() != META).collect();
            // Who is alone keeps no clock anyway.
            let groups: Vec<Group> = groups.into_iter().filter(|group| !group.is_alone()).collect();
            let now = self.clock.monotonic();
            let alive = |node: NodeId| heard.get(&node).is_some_and(|at| now.saturating_sub(*at) < DEAD);
            seen.retain(|id, _| self.host.group(*id).is_some());
            groups.iter().for_each(|group| self.look(group, now, &alive, &mut seen));
            self.metrics.quiet_groups.set(seen.values().filter(|seen| seen.quiet).count() as i64);
        }
    }

    /// Asks every other node for a sign of life.
    async fn ping(&self, heard: &mut HashMap<NodeId, Duration>) {
        let nodes: Vec<NodeId> = self.views.current().nodes.keys().copied().filter(|node| *node != self.me).collect();
        heard.retain(|node, _| nodes.contains(node));
        let pings = nodes.into_iter().map(|node| async move {
            let mut client = self.peers.client(node).ok()?;
            let answered = tokio::time::timeout(ANSWER, client.ping(PingRequest {})).await;
            matches!(answered, Ok(Ok(_))).then_some(node)
        });
        let answered = join_all(pings).await;
        let now = self.clock.monotonic();
        heard.extend(answered.into_iter().flatten().map(|node| (node, now)));
    }

    fn look(&self, group: &Group, now: Duration, alive: &dyn Fn(NodeId) -> bool, seen: &mut HashMap<GroupId, Seen>) {
        let activity = group.activity();
        let known =
            seen.entry(group.id()).or_insert_with(|| Seen { activity: activity.clone(), since: now, quiet: false });
        if known.activity != activity {
            let woken = std::mem::replace(known, Seen { activity, since: now, quiet: false }).quiet;
            if woken {
                group.keep_clock(true);
            }
            return;
        }
        let leads = group.is_leader();
        let situation = Situation {
            quiet: known.quiet,
            idle: now.saturating_sub(known.since),
            leads,
            even: leads && group.is_even(),
            led: group.leader().is_some_and(|(_, node)| alive(node)),
        };
        let turn = decide(situation, self.after);
        if turn != Turn::Stay {
            known.quiet = turn == Turn::FallSilent;
            known.since = now;
            group.keep_clock(!known.quiet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(10);

    fn follower(quiet: bool, idle: u64, led: bool) -> Turn {
        decide(Situation { quiet, idle: Duration::from_secs(idle), leads: false, even: false, led }, AFTER)
    }

    fn leader(quiet: bool, idle: u64, even: bool) -> Turn {
        decide(Situation { quiet, idle: Duration::from_secs(idle), leads: true, even, led: false }, AFTER)
    }

    #[test]
    fn a_follower_falls_silent_before_its_leader() {
        assert_eq!((follower(false, 9, true), leader(false, 9, true)), (Turn::Stay, Turn::Stay));
        assert_eq!((follower(false, 10, true), leader(false, 10, true)), (Turn::FallSilent, Turn::Stay));
        assert_eq!((follower(true, 20, true), leader(false, 20, true)), (Turn::Stay, Turn::FallSilent));
    }

    #[test]
    fn nobody_falls_silent_who_is_not_led_or_has_somebody_behind() {
        assert_eq!(follower(false, 99, false), Turn::Stay);
        assert_eq!(leader(false, 99, false), Turn::Stay);
    }

    #[test]
    fn a_silent_follower_wakes_when_its_leader_is_gone_and_a_leader_when_somebody_is_behind() {
        assert_eq!(follower(true, 99, false), Turn::Wake);
        assert_eq!(leader(true, 99, false), Turn::Wake);
    }
}
