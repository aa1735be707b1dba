//! What was used last stays: entries within a number of bytes.
//!
//! *Invariants:* entries take at most the capacity together, each with its key and its places in the maps.
//!
//! *Not here:* locking, what an entry is.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

/// What an entry takes besides key and value: places in two maps, half of them empty.
pub const ENTRY_BYTES: usize = 256;

/// Entries by key.
#[derive(Debug)]
pub struct Lru<K, V> {
    capacity: usize,
    bytes: usize,
    /// Grows with every use.
    clock: u64,
    entries: HashMap<Arc<K>, Slot<V>>,
    /// By their last use.
    used: BTreeMap<u64, Arc<K>>,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Hash + Eq, V: Clone> Lru<K, V> {
    /// An empty one for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, bytes: 0, clock: 0, entries: HashMap::new(), used: BTreeMap::new() }
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of all entries may not be more than this.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The entry of `key`, which was used just now.
    pub fn get(&mut self, key: &K) -> Option<V> {
        let (key, slot) = self.entries.get_key_value(key)?;
        let (key, last, value) = (Arc::clone(key), slot.used, slot.value.clone());
        self.used.remove(&last);
        self.touch(key);
        Some(value)
    }

    fn touch(&mut self, key: Arc<K>) {
        self.clock += 1;
        if let Some(slot) = self.entries.get_mut(&key) {
            slot.used = self.clock;
        }
        self.used.insert(self.clock, key);
    }

    /// Puts an entry of `bytes` in, in place of that of the same key. Answers what had to go: values to be dropped where
    /// nobody waits, the one in its place first, then those that were not used for longest; and how many of the latter.
    pub fn insert(&mut self, key: K, value: V, bytes: usize) -> (Vec<V>, u64) {
        let mut gone: Vec<V> = self.remove(&key).into_iter().collect();
        let bytes = bytes + ENTRY_BYTES;
        if bytes > self.capacity {
            return (gone, 0);
        }
        let mut evicted = 0;
        while self.bytes + bytes > self.capacity {
            let Some((_, oldest)) = self.used.first_key_value() else { break };
            let oldest = Arc::clone(oldest);
            gone.extend(self.remove(&oldest));
            evicted += 1;
        }
        let key = Arc::new(key);
        self.bytes += bytes;
        self.entries.insert(Arc::clone(&key), Slot { value, bytes, used: 0 });
        self.touch(key);
        (gone, evicted)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.entries.remove(key)?;
        self.used.remove(&slot.used);
        self.bytes -= slot.bytes;
        Some(slot.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut lru = Lru::new(3 * (ENTRY_BYTES + 10));
        for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
            assert_eq!(lru.insert(key, value, 10), (vec![], 0));
        }
        assert_eq!(lru.get(&"a"), Some(1));
        assert_eq!(lru.insert("d", 4, 10), (vec![2], 1));
        assert_eq!((lru.get(&"b"), lru.get(&"a"), lru.get(&"c")), (None, Some(1), Some(3)));
        assert_eq!(lru.insert("e", 5, 10 + 10 + ENTRY_BYTES), (vec![4, 1], 2));
        assert_eq!(lru.bytes(), lru.capacity());
    }

    #[test]
    fn an_entry_takes_the_place_of_its_predecessor() {
        let mut lru = Lru::new(1000);
        lru.insert("a", 1, 10);
        assert_eq!(lru.insert("a", 2, 20), (vec![1], 0));
        assert_eq!((lru.get(&"a"), lru.bytes()), (Some(2), ENTRY_BYTES + 20));
        assert_eq!(lru.insert("a", 3, 1001), (vec![2], 0), "the old one is no longer true");
        assert_eq!((lru.get(&"a"), lru.bytes(), lru.used.len()), (None, 0, 0));
    }
}
