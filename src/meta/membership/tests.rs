//! Single steps, and that they end where they should from anywhere.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn replicas(ids: &[u64]) -> BTreeMap<ReplicaId, NodeId> {
    ids.iter().map(|id| (ReplicaId(*id), NodeId(*id))).collect()
}

fn set(ids: &[u64]) -> BTreeSet<ReplicaId> {
    ids.iter().map(|id| ReplicaId(*id)).collect()
}

fn members(voters: &[u64], learners: &[u64]) -> Members {
    Members { voters: replicas(voters), learners: replicas(learners), joint: false }
}

fn wanted(voters: &[u64], preferred: Option<u64>) -> Placement {
    Placement { replicas: replicas(voters), learners: BTreeMap::new(), preferred: preferred.map(ReplicaId) }
}

#[test]
fn adds_the_replacement_before_it_removes_anything() {
    let to = wanted(&[1, 2, 4], Some(1));
    let step = |members: &Members, close: &[u64]| next(members, &to, &set(close), ReplicaId(1));
    assert_eq!(step(&members(&[1, 2, 3], &[]), &[1, 2, 3]), Step::AddLearner(ReplicaId(4), NodeId(4)));
    assert_eq!(step(&members(&[1, 2, 3], &[4]), &[1, 2, 3]), Step::Nothing, "it is still behind");
    assert_eq!(step(&members(&[1, 2, 3], &[4]), &[2, 4]), Step::ChangeVoters(set(&[1, 2, 4])));
    assert_eq!(step(&members(&[1, 2, 4], &[3]), &[2, 4]), Step::RemoveLearners(set(&[3])));
    assert_eq!(step(&members(&[1, 2, 4], &[]), &[2, 4]), Step::Nothing);
}

#[test]
fn hands_over_to_the_preferred_one_once_it_follows() {
    let (present, to) = (members(&[1, 2, 3], &[]), wanted(&[1, 2, 3], Some(2)));
    assert_eq!(next(&present, &to, &set(&[1, 3]), ReplicaId(1)), Step::Nothing);
    assert_eq!(next(&present, &to, &set(&[2]), ReplicaId(1)), Step::TransferLeader(ReplicaId(2)));
    assert_eq!(next(&present, &to, &set(&[1]), ReplicaId(2)), Step::Nothing);
}

#[test]
fn a_leader_that_is_to_go_hands_over_first() {
    let (present, to) = (members(&[1, 2, 3], &[4]), wanted(&[2, 3, 4], Some(4)));
    assert_eq!(next(&present, &to, &set(&[2, 3, 4]), ReplicaId(1)), Step::TransferLeader(ReplicaId(2)));
    assert_eq!(next(&present, &to, &set(&[3, 4]), ReplicaId(2)), Step::ChangeVoters(set(&[2, 3, 4])));
    let alone = next(&members(&[1], &[4]), &wanted(&[4], Some(4)), &set(&[4]), ReplicaId(1));
    assert_eq!(alone, Step::ChangeVoters(set(&[4])), "nobody else votes yet");
}

#[test]
fn ends_a_joint_change_left_behind() {
    let mut present = members(&[1, 2, 3, 4], &[]);
    present.joint = true;
    let to = wanted(&[1, 2, 4], None);
    assert_eq!(next(&present, &to, &set(&[2, 3, 4]), ReplicaId(1)), Step::ChangeVoters(set(&[1, 2, 4])));
    assert_eq!(next(&present, &to, &set(&[2, 3]), ReplicaId(1)), Step::ChangeVoters(set(&[1, 2, 3])));
}

#[test]
fn never_wants_a_group_of_nobody() {
    assert_eq!(next(&members(&[1], &[]), &wanted(&[], None), &set(&[1]), ReplicaId(1)), Step::Nothing);
}

/// A group in a world of nine replicas.
struct Group {
    members: Members,
    close: BTreeSet<ReplicaId>,
    leader: ReplicaId,
}

impl Group {
    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Nothing => {
                // Time passes: whoever lags and is in the group catches up, one at a time.
                let all = self.members.voters.keys().chain(self.members.learners.keys());
                let behind = all.copied().find(|replica| !self.close.contains(replica));
                self.close.extend(behind);
            }
            Step::AddLearner(replica, node) => {
                prop_assert!(!self.members.voters.contains_key(&replica));
                self.members.learners.insert(replica, node);
            }
            Step::ChangeVoters(voters) => {
                prop_assert!(voters.is_subset(&self.close), "a voter that has not caught up");
                let all: BTreeMap<_, _> =
                    self.members.voters.iter().chain(&self.members.learners).map(|(r, n)| (*r, *n)).collect();
                prop_assert!(voters.iter().all(|r| all.contains_key(r)), "a voter that is not in the group");
                let learners = std::mem::take(&mut self.members.learners);
                let learners = learners.into_iter().filter(|(r, _)| !voters.contains(r)).collect();
                let voters: BTreeMap<_, _> = voters.into_iter().map(|r| (r, all[&r])).collect();
                self.members = Members { voters, learners, joint: false };
                if !self.members.voters.contains_key(&self.leader) {
                    self.leader = *self.members.voters.keys().find(|r| self.close.contains(r)).unwrap();
                }
            }
            Step::RemoveLearners(learners) => {
                prop_assert!(!learners.is_empty());
                for replica in learners {
                    prop_assert!(self.members.learners.remove(&replica).is_some());
                }
            }
            Step::TransferLeader(replica) => {
                prop_assert!(self.members.voters.contains_key(&replica) && self.close.contains(&replica));
                self.leader = replica;
            }
        }
        Ok(())
    }
}

fn some(least: usize) -> impl Strategy<Value = Vec<u64>> {
    prop::sample::subsequence((1..=9).collect::<Vec<u64>>(), least..=5)
}

proptest! {
    #[test]
    fn steps_end_in_the_wanted_membership_from_anywhere(
        sides in (some(1), some(1)),
        learners in some(0),
        to in (some(1), some(0)),
        prefer in prop::option::of(any::<prop::sample::Index>()),
        joint: bool,
        order in Just((1..=9).collect::<Vec<u64>>()).prop_shuffle(),
    ) {
        let (old, new) = if joint { sides } else { (sides.0.clone(), sides.0) };
        let voters: BTreeSet<u64> = old.iter().chain(&new).copied().collect();
        // Who follows the leader: as few as keep a majority of both sides.
        let mut close = BTreeSet::new();
        for side in [&old, &new] {
            let of_side = |close: &BTreeSet<ReplicaId>| side.iter().filter(|r| close.contains(&ReplicaId(**r))).count();
            for replica in order.iter().filter(|r| side.contains(r)) {
                if of_side(&close) * 2 <= side.len() {
                    close.insert(ReplicaId(*replica));
                }
            }
        }
        let leader = *close.iter().find(|r| voters.contains(&r.0)).unwrap();
        let learners: Vec<u64> = learners.into_iter().filter(|r| !voters.contains(r)).collect();
        let mut members = members(&voters.into_iter().collect::<Vec<_>>(), &learners);
        members.joint = joint;
        let mut group = Group { members, close, leader };
        let mut placement = wanted(&to.0, prefer.map(|index| *index.get(&to.0)));
        let watching: Vec<u64> = to.1.into_iter().filter(|r| !to.0.contains(r)).collect();
        placement.learners = replicas(&watching);
        let (mut steps, mut idle) = (0, 0);
        while idle < 10 {
            let step = next(&group.members, &placement, &group.close, group.leader);
            idle = if step == Step::Nothing { idle + 1 } else { 0 };
            group.take(step)?;
            let close = group.members.voters.keys().filter(|r| group.close.contains(r)).count();
            prop_assert!(joint || close * 2 > group.members.voters.len(), "lost its majority");
            steps += 1;
            prop_assert!(steps < 100, "does not end");
        }
        prop_assert_eq!(&group.members.voters, &placement.replicas);
        prop_assert_eq!(&group.members.learners, &placement.learners);
        prop_assert!(!group.members.joint);
        if let Some(preferred) = placement.preferred {
            prop_assert_eq!(group.leader, preferred);
        }
    }
}
