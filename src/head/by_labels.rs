//! Which series has a label set: one table entry per series, found without touching the series.
//!
//! *Invariants:* every series has one entry, under its series hash. The fingerprint of a label set is a second hash,
//! under a seed that only this process knows: [`ByLabels::find`] takes a series for another one only where both hashes
//! meet, which is one chance in 2⁶⁴ for label sets made to have equal series hashes, and one in 2¹²⁸ otherwise. What
//! replicas must agree on does not rest on it: they compare labels ([`ByLabels::find_exact`]).
//!
//! *Not here:* the labels (`index`, `arena`).

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

#[derive(Debug)]
struct Entry {
    fingerprint: u64,
    id: u32,
    slot: u32,
}

/// Series by label set, of all tenants of a head.
#[derive(Debug)]
pub(super) struct ByLabels {
    table: HashTable<Entry>,
    seed: u64,
}

impl ByLabels {
    pub(super) fn new(seed: u64) -> Self {
        Self { table: HashTable::new(), seed }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// The second hash of a label set.
    #[inline]
    pub(super) fn fingerprint(&self, tenant: u32, canonical: &str) -> u64 {
        // Tenants are kept apart by the seed; the factor spreads their small numbers over all its bits.
        let seed = self.seed ^ u64::from(tenant).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        xxh3_64_with_seed(canonical.as_bytes(), seed)
    }

    /// Id of the series with this series hash and this fingerprint.
    #[inline]
    pub(super) fn find(&self, hash: u64, fingerprint: u64) -> Option<u32> {
        self.table.find(hash, |e| e.fingerprint == fingerprint).map(|e| e.id)
    }

    /// Id of the series under this hash whose slot `is_it`.
    pub(super) fn find_exact(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.table.find(hash, |e| is_it(e.slot)).map(|e| e.id)
    }

    /// Adds a series; `hash_of` a slot is its series hash.
    pub(super) fn insert(
        &mut self,
        (tenant, hash, canonical): (u32, u64, &str),
        (id, slot): (u32, u32),
        hash_of: impl Fn(u32) -> u64,
    ) {
        let fingerprint = self.fingerprint(tenant, canonical);
        self.table.insert_unique(hash, Entry { fingerprint, id, slot }, |e| hash_of(e.slot));
    }

    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        if let Ok(entry) = self.table.find_entry(hash, |e| e.id == id) {
            entry.remove();
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        // One control byte per slot, of which 7/8 are used.
        self.table.capacity() * 8 / 7 * (size_of::<Entry>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_with_equal_series_hashes_stay_apart() {
        let mut table = ByLabels::new(7);
        table.insert((0, 42, "a"), (1, 0), |_| 42);
        table.insert((0, 42, "b"), (2, 1), |_| 42);
        let find = |table: &ByLabels, labels| table.find(42, table.fingerprint(0, labels));
        assert_eq!(["a", "b", "c"].map(|l| find(&table, l)), [Some(1), Some(2), None]);
        assert_eq!(table.find(42, table.fingerprint(1, "a")), None, "another tenant");
        assert_eq!(table.find_exact(42, |slot| slot == 1), Some(2));
        table.remove(42, 1);
        assert_eq!(["a", "b"].map(|l| find(&table, l)), [None, Some(2)]);
    }
}
