//! A read that begins after an acknowledgement sees what was acknowledged, on whatever replica.

use std::collections::BTreeSet;

use super::super::world::World;

pub(in super::super) fn check(world: &World, node: u64, client: u64, promised: &BTreeSet<i64>, read: &[(i64, f64)]) {
    let missing = promised.iter().filter(|t| read.binary_search_by_key(*t, |(t, _)| *t).is_err());
    let missing: Vec<i64> = missing.copied().collect();
    if let Some(first) = missing.first() {
        let (n, of) = (missing.len(), promised.len());
        world.violated("reads_see_acks", format!("node {node}, client {client}: {n} of {of} not seen, first {first}"));
    }
    if let Some(how) = world.history.lock().phantom(client, read) {
        world.violated("nothing_twice_or_unwritten", format!("node {node}: {how}"));
    }
}
