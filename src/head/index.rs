//! The labels of one tenant's series: interned (name, value) pairs, and which series carry each.
//!
//! *Invariants:* a pair exists as long as some series carries it; its id may be given again afterwards. Names stay.
//!
//! *Not here:* evaluating matchers (`select`), label lists of series (`arena`).

use hashbrown::HashTable;
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::postings::Postings;
use crate::model::labels::{LabelIter, push_canonical};

/// A label name and the pairs that have it.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) text: Box<str>,
    pub(super) pairs: Vec<u32>,
}

/// A label value under its name.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) value: Box<str>,
    pub(super) postings: Postings,
    pub(super) name: u32,
    /// Where it is in [`Name::pairs`].
    at: u32,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    names: Vec<Name>,
    by_name: HashTable<u32>,
    pairs: Vec<Pair>,
    free: Vec<u32>,
    by_pair: HashTable<u32>,
    /// All series of the tenant.
    pub(super) all: RoaringBitmap,
    /// Heap bytes of texts and postings (the latter estimated).
    bytes: usize,
}

fn pair_hash(name: u32, value: &str) -> u64 {
    xxh3_64_with_seed(value.as_bytes(), u64::from(name))
}

fn name_hash(name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), 0)
}

/// What the allocator takes for a short string.
fn text_bytes(len: usize) -> usize {
    len.next_multiple_of(if len <= 128 { 16 } else { 64 })
}

impl Index {
    pub(super) fn name(&self, name: &str) -> Option<&Name> {
        self.name_id(name).map(|id| &self.names[id as usize])
    }

    fn name_id(&self, name: &str) -> Option<u32> {
        self.by_name.find(name_hash(name), |id| *self.names[*id as usize].text == *name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().filter(|n| !n.pairs.is_empty())
    }

    pub(super) fn pair(&self, id: u32) -> &Pair {
        &self.pairs[id as usize]
    }

    /// The pair of a name and a value, if some series has it.
    pub(super) fn find(&self, name: &str, value: &str) -> Option<&Pair> {
        let name = self.name_id(name)?;
        self.find_id(name, value).map(|id| &self.pairs[id as usize])
    }

    fn find_id(&self, name: u32, value: &str) -> Option<u32> {
        let equal = |id: &u32| {
            let pair = &self.pairs[*id as usize];
            pair.name == name && *pair.value == *value
        };
        self.by_pair.find(pair_hash(name, value), equal).copied()
    }

    /// Whether a label list says the same as a canonical form.
    pub(super) fn is_same(&self, list: &[u32], canonical: &str) -> bool {
        let mut given = LabelIter::over(canonical);
        let same = list.iter().all(|id| {
            let pair = &self.pairs[*id as usize];
            given.next().is_some_and(|(n, v)| *pair.value == *v && *self.names[pair.name as usize].text == *n)
        });
        same && given.next().is_none()
    }

    /// Appends the canonical form of a label list.
    pub(super) fn write_canonical(&self, list: &[u32], out: &mut String) {
        for id in list {
            let pair = &self.pairs[*id as usize];
            push_canonical(out, &self.names[pair.name as usize].text, &pair.value);
        }
    }

    /// The value of a label in a label list, `""` when absent.
    pub(super) fn value_in(&self, list: &[u32], name: &str) -> &str {
        let pairs = list.iter().map(|id| &self.pairs[*id as usize]);
        pairs.into_iter().find(|p| *self.names[p.name as usize].text == *name).map_or("", |p| &p.value)
    }

    /// The text of a pair's name.
    pub(super) fn name_of(&self, pair: &Pair) -> &str {
        &self.names[pair.name as usize].text
    }

    /// Interns a label set for a new series, the highest id so far; fills `list`.
    pub(super) fn add_series(&mut self, id: u32, canonical: &str, list: &mut Vec<u32>) {
        list.clear();
        self.all.insert(id);
        self.bytes += 2;
        for (name, value) in LabelIter::over(canonical) {
            let pair = self.intern(name, value);
            self.bytes += self.pairs[pair as usize].postings.push(id);
            list.push(pair);
        }
    }

    fn intern(&mut self, name: &str, value: &str) -> u32 {
        let name = self.name_id(name).unwrap_or_else(|| self.add_name(name));
        if let Some(id) = self.find_id(name, value) {
            return id;
        }
        let at = self.names[name as usize].pairs.len() as u32;
        let pair = Pair { value: Box::from(value), postings: Postings::default(), name, at };
        self.bytes += text_bytes(value.len());
        let id = match self.free.pop() {
            Some(id) => {
                self.pairs[id as usize] = pair;
                id
            }
            None => {
                grow_by_an_eighth(&mut self.pairs);
                self.pairs.push(pair);
                self.pairs.len() as u32 - 1
            }
        };
        let list = &mut self.names[name as usize].pairs;
        grow_by_an_eighth(list);
        list.push(id);
        let pairs = &self.pairs;
        let hash_of = |id: &u32| pair_hash(pairs[*id as usize].name, &pairs[*id as usize].value);
        self.by_pair.insert_unique(pair_hash(name, value), id, hash_of);
        id
    }

    fn add_name(&mut self, name: &str) -> u32 {
        let id = self.names.len() as u32;
        self.names.push(Name { text: Box::from(name), pairs: Vec::new() });
        self.bytes += text_bytes(name.len());
        let names = &self.names;
        self.by_name.insert_unique(name_hash(name), id, |id| name_hash(&names[*id as usize].text));
        id
    }

    /// Takes series out of all postings; `pairs` are the ids of all pairs they carry.
    pub(super) fn remove_series(&mut self, gone: &RoaringBitmap, pairs: &RoaringBitmap) {
        self.bytes -= 2 * self.all.intersection_len(gone) as usize;
        self.all -= gone;
        for id in pairs {
            let pair = &mut self.pairs[id as usize];
            self.bytes -= pair.postings.remove_all(gone);
            if pair.postings.is_empty() {
                self.remove_pair(id);
            }
        }
    }

    fn remove_pair(&mut self, id: u32) {
        let pair = &mut self.pairs[id as usize];
        let (name, at, value) = (pair.name, pair.at, std::mem::take(&mut pair.value));
        if let Ok(entry) = self.by_pair.find_entry(pair_hash(name, &value), |other| *other == id) {
            entry.remove();
        }
        self.bytes -= text_bytes(value.len());
        let list = &mut self.names[name as usize].pairs;
        list.swap_remove(at as usize);
        if let Some(moved) = list.get(at as usize) {
            self.pairs[*moved as usize].at = at;
        }
        self.free.push(id);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        // A table of n ids takes 4 bytes each and one control byte, for 7/8 of its slots.
        let table = |t: &HashTable<u32>| t.capacity() * 8 / 7 * 5;
        self.bytes
            + self.pairs.capacity() * size_of::<Pair>()
            + self.free.capacity() * 4
            + self.names.iter().map(|n| size_of::<Name>() + n.pairs.capacity() * 4).sum::<usize>()
            + table(&self.by_name)
            + table(&self.by_pair)
    }
}

/// Large tables must not carry up to their own size in slack.
fn grow_by_an_eighth<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(4));
    }
}
