//! One leader per term and candidacy: openraft lets several stand in a term, but each candidacy is of one process, and a
//! process that starts again never goes on leading by it. Watched on the wire.

use std::collections::BTreeMap;

use super::super::world::World;
use crate::raft::{Candidacy, GroupId};

/// The process that leads by each candidacy: node and incarnation.
#[derive(Default)]
pub(in super::super) struct Leaders(BTreeMap<(u64, Candidacy), (u64, u64)>);

impl Leaders {
    /// A process speaks as the leader by this candidacy.
    pub(in super::super) fn leads(&mut self, world: &World, group: u64, candidacy: Candidacy, process: (u64, u64)) {
        let known = self.0.entry((group, candidacy)).or_insert_with(|| {
            let (term, (node, _)) = (candidacy.0, process);
            world.trace.event(|| format!("group {}: node {node} leads in term {term}", GroupId(group)));
            process
        });
        if *known != process {
            let how = format!("group {group}, {candidacy:?}: processes {known:?} and {process:?} both lead by it");
            *known = process;
            world.violated("leaders_are_elected", how);
        }
    }
}
