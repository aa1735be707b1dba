//! What a replica promised with its vote never goes back, whatever happens to its node: watched on the wire, and in the log
//! of a node that starts again.

use std::collections::BTreeMap;

use super::super::world::World;
use crate::raft::{Candidacy, GroupId, ReplicaId};

/// The highest candidacy each replica has promised itself to.
#[derive(Default)]
pub(in super::super) struct Promises(BTreeMap<(u64, u64), Candidacy>);

impl Promises {
    /// A replica answered a candidate and told its promise.
    pub(in super::super) fn made(&mut self, world: &World, group: u64, replica: u64, promise: Candidacy) {
        let highest = self.0.entry((group, replica)).or_insert(promise);
        if promise < *highest {
            let how = format!("group {group}, replica {replica:x}: promised {highest:?}, then {promise:?}");
            world.violated("promises_are_kept", how);
        }
        *highest = promise.max(*highest);
    }

    /// A node starts again and its log says what a replica has promised.
    pub(in super::super) fn found(
        &self,
        world: &World,
        group: GroupId,
        replica: Option<ReplicaId>,
        vote: Option<Candidacy>,
    ) {
        let Some(replica) = replica else { return };
        if let Some(promised) = self.0.get(&(group.0, replica.0)).filter(|promised| vote.as_ref() < Some(promised)) {
            let how = format!("group {group}, replica {replica}: promised {promised:?}, its log says {vote:?}");
            world.violated("promises_are_kept", how);
        }
    }
}
