//! Whom to ask next to take a shard's rows, and when.
//!
//! *Invariants:* pure: decides from what is known now and what was refused before. Nobody is asked twice without a pause
//! in between, and after a pause everything is asked anew: rows that are stored twice count once.
//!
//! *Not here:* asking (`ingest::distributor`), the clock and the deadline (there too).

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::Rng;
use crate::meta::shard_of_group;
use crate::model::NodeId;
use crate::raft::GroupId;

/// First pause, and the longest: each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// What is known of where a shard is led.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// This node.
    pub me: NodeId,
    /// Whether the replica of this node believes it leads.
    pub leads_here: bool,
    /// Whom the replica of this node follows.
    pub followed: Option<NodeId>,
    /// Who led when this node last sent rows.
    pub hint: Option<NodeId>,
    /// Nodes that should have a replica.
    pub placed: Vec<NodeId>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Append to the replica of this node.
    Here,
    /// Send the rows to a node.
    Send(NodeId),
    /// Nobody is left to ask: wait, then see what is known.
    Pause(Duration),
}

/// The attempts for one shard and one request.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Asked since the last pause.
    asked: Vec<NodeId>,
    /// Who leads, by the last answer.
    told: Option<NodeId>,
    pauses: u32,
    /// How many refused.
    pub refusals: u32,
    /// Who refused last, and in which words.
    pub last: Option<(NodeId, String)>,
}

impl Attempts {
    /// The next step.
    pub fn next(&mut self, known: &Known, rng: &dyn Rng) -> Step {
        if known.leads_here && !self.asked.contains(&known.me) {
            return Step::Here;
        }
        let elsewhere =
            [self.told, known.followed, known.hint].into_iter().flatten().chain(known.placed.iter().copied());
        let free = |node: &NodeId| *node != known.me && !self.asked.contains(node);
        if let Some(node) = elsewhere.into_iter().find(free) {
            return Step::Send(node);
        }
        self.asked.clear();
        self.told = None;
        let (first, longest) = PAUSES;
        let pause = first.saturating_mul(1 << self.pauses.min(8)).min(longest);
        self.pauses += 1;
        // Between half of it and all, so that requests that failed together do not come back together.
        let jitter = rng.below(pause.as_micros() as u64 / 2 + 1);
        Step::Pause(pause - Duration::from_micros(jitter))
    }

    /// Notes that `node` did not take the rows, and whom it named as the leader.
    pub fn refused(&mut self, node: NodeId, leader: Option<NodeId>, why: String) {
        self.asked.push(node);
        self.told = leader.or(self.told);
        self.refusals += 1;
        self.last = Some((node, why));
    }
}

/// Who led shards without a leader here when they were last asked; of one epoch.
#[derive(Debug, Default)]
pub struct Hints(Mutex<HashMap<GroupId, NodeId>>);

impl Hints {
    /// Who led a shard's group.
    pub fn get(&self, group: GroupId) -> Option<NodeId> {
        self.0.lock().get(&group).copied()
    }

    /// Notes who leads.
    pub fn set(&self, group: GroupId, node: NodeId) {
        let mut hints = self.0.lock();
        if hints.insert(group, node).is_none() {
            let epoch = |group| shard_of_group(group).map(|(epoch, _)| epoch);
            hints.retain(|known, _| epoch(*known) == epoch(group));
        }
    }

    /// Forgets that `node` leads.
    pub fn forget(&self, group: GroupId, node: NodeId) {
        let mut hints = self.0.lock();
        if hints.get(&group) == Some(&node) {
            hints.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SeededRng;

    const ME: NodeId = NodeId(1);

    fn known(leads_here: bool, followed: u64, hint: u64, placed: &[u64]) -> Known {
        let node = |n: u64| (n > 0).then_some(NodeId(n));
        let placed = placed.iter().map(|n| NodeId(*n)).collect();
        Known { me: ME, leads_here, followed: node(followed), hint: node(hint), placed }
    }

    /// What is done when these nodes refused, each naming a leader (0: nobody).
    fn after(refused: &[(u64, u64)], known: &Known) -> Step {
        let mut attempts = Attempts::default();
        for (node, leader) in refused {
            attempts.refused(NodeId(*node), (*leader > 0).then_some(NodeId(*leader)), "no".into());
        }
        match attempts.next(known, &SeededRng::new(1)) {
            Step::Pause(_) => Step::Pause(Duration::ZERO),
            step => step,
        }
    }

    #[test]
    fn asks_whoever_most_likely_leads() {
        let (send, pause) = (|n| Step::Send(NodeId(n)), Step::Pause(Duration::ZERO));
        let none: &[(u64, u64)] = &[];
        let cases = [
            ("the leader is here", none, known(true, 1, 2, &[1, 2, 3]), Step::Here),
            ("the replica here knows it", none, known(false, 2, 3, &[1, 2, 3]), send(2)),
            ("no replica here", none, known(false, 0, 3, &[2, 3]), send(3)),
            ("nothing but the placement", none, known(false, 0, 0, &[1, 2, 3]), send(2)),
            ("nothing at all", none, known(false, 0, 0, &[]), pause),
            ("only here, and not leading", none, known(false, 1, 1, &[1]), pause),
            ("an answer knows better", &[(2, 4)], known(false, 2, 3, &[1, 2, 3]), send(4)),
            ("also than what is believed here", &[(1, 4)], known(true, 1, 3, &[1, 2, 3]), send(4)),
            ("the leader does not answer", &[(2, 0)], known(false, 2, 0, &[1, 2, 3]), send(3)),
            ("each names the other", &[(2, 3), (3, 2)], known(false, 2, 3, &[1, 2, 3]), pause),
            ("an answer names this node", &[(2, 1)], known(false, 2, 2, &[1, 2]), pause),
            ("an answer names this node rightly", &[(2, 1)], known(true, 2, 2, &[1, 2]), Step::Here),
            ("all refused", &[(1, 0), (2, 0), (3, 0)], known(true, 2, 3, &[1, 2, 3]), pause),
        ];
        for (what, refused, known, want) in cases {
            assert_eq!(after(refused, &known), want, "{what}");
        }
    }

    #[test]
    fn hints_are_of_one_epoch_and_forgotten_only_for_who_failed() {
        let (hints, old, new) = (Hints::default(), GroupId(1 << 32 | 1), GroupId(2 << 32 | 1));
        hints.set(old, NodeId(2));
        hints.forget(old, NodeId(3));
        assert_eq!(hints.get(old), Some(NodeId(2)));
        hints.set(new, NodeId(3));
        assert_eq!((hints.get(old), hints.get(new)), (None, Some(NodeId(3))));
        hints.forget(new, NodeId(3));
        assert_eq!(hints.get(new), None);
    }

    #[test]
    fn after_a_pause_everybody_is_asked_again_and_pauses_grow() {
        let (mut attempts, known, rng) = (Attempts::default(), known(false, 2, 0, &[1, 2]), SeededRng::new(7));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(attempts.next(&known, &rng), Step::Send(NodeId(2)));
            attempts.refused(NodeId(2), None, "away".into());
            let Step::Pause(pause) = attempts.next(&known, &rng) else { panic!("asked twice") };
            pauses.push(pause.as_micros() as u64);
        }
        for (pause, full) in pauses.iter().zip([20, 40, 80, 160, 250, 250, 250, 250].map(|ms| ms * 1000)) {
            assert!((full / 2..=full).contains(pause), "{pauses:?}");
        }
        assert_eq!((attempts.refusals, attempts.last), (8, Some((NodeId(2), "away".into()))));
    }
}
