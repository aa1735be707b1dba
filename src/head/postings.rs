//! The series that carry one label value.
//!
//! *Invariants:* ids are unique; small sets live inside the entry, larger ones in a bitmap.
//!
//! *Not here:* which label value it is (`index`).

use roaring::RoaringBitmap;

/// Ids held without heap.
const INLINE: usize = 3;

/// A set of series ids, ascending.
#[derive(Debug, Clone)]
pub(super) enum Postings {
    /// The first `len` of `ids`.
    Inline { len: u8, ids: [u32; INLINE] },
    /// More than that.
    Bitmap(Box<RoaringBitmap>),
}

impl Default for Postings {
    fn default() -> Self {
        Self::Inline { len: 0, ids: [0; INLINE] }
    }
}

impl Postings {
    /// Adds the highest id so far; heap bytes by which it grew (estimated).
    pub(super) fn push(&mut self, id: u32) -> usize {
        match self {
            Self::Inline { len, ids } if usize::from(*len) < INLINE => {
                ids[usize::from(*len)] = id;
                *len += 1;
                0
            }
            Self::Inline { ids, .. } => {
                let mut bitmap: RoaringBitmap = ids.iter().copied().collect();
                bitmap.insert(id);
                *self = Self::Bitmap(Box::new(bitmap));
                BITMAP_BYTES + 2 * (INLINE + 1)
            }
            Self::Bitmap(bitmap) => {
                bitmap.insert(id);
                2
            }
        }
    }

    /// Removes ids; heap bytes given back (estimated as in [`Postings::push`]).
    pub(super) fn remove_all(&mut self, gone: &RoaringBitmap) -> usize {
        match self {
            Self::Inline { len, ids } => {
                let mut kept = 0;
                for i in 0..usize::from(*len) {
                    if !gone.contains(ids[i]) {
                        ids[kept] = ids[i];
                        kept += 1;
                    }
                }
                *len = kept as u8;
                0
            }
            Self::Bitmap(bitmap) => {
                let before = bitmap.len() as usize;
                **bitmap -= gone;
                let after = bitmap.len() as usize;
                if after > INLINE {
                    return 2 * (before - after);
                }
                let mut ids = [0; INLINE];
                for (slot, id) in ids.iter_mut().zip(bitmap.iter()) {
                    *slot = id;
                }
                *self = Self::Inline { len: after as u8, ids };
                BITMAP_BYTES + 2 * before
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Inline { len, .. } => u64::from(*len),
            Self::Bitmap(bitmap) => bitmap.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn inline(&self) -> &[u32] {
        match self {
            Self::Inline { len, ids } => &ids[..usize::from(*len)],
            Self::Bitmap(_) => &[],
        }
    }

    /// A copy as a bitmap.
    pub(super) fn to_bitmap(&self) -> RoaringBitmap {
        match self {
            Self::Inline { .. } => self.inline().iter().copied().collect(),
            Self::Bitmap(bitmap) => (**bitmap).clone(),
        }
    }

    /// `set ∪= self`
    pub(super) fn add_to(&self, set: &mut RoaringBitmap) {
        match self {
            Self::Inline { .. } => set.extend(self.inline().iter().copied()),
            Self::Bitmap(bitmap) => *set |= &**bitmap,
        }
    }

    /// `set ∩= self`
    pub(super) fn keep_in(&self, set: &mut RoaringBitmap) {
        match self {
            Self::Inline { .. } => *set = self.inline().iter().copied().filter(|id| set.contains(*id)).collect(),
            Self::Bitmap(bitmap) => *set &= &**bitmap,
        }
    }

    /// `set −= self`
    pub(super) fn remove_from(&self, set: &mut RoaringBitmap) {
        match self {
            Self::Inline { .. } => self.inline().iter().for_each(|id| {
                set.remove(*id);
            }),
            Self::Bitmap(bitmap) => *set -= &**bitmap,
        }
    }

    /// How many ids are in `set`.
    pub(super) fn count_in(&self, set: &RoaringBitmap) -> u64 {
        match self {
            Self::Inline { .. } => self.inline().iter().filter(|id| set.contains(**id)).count() as u64,
            Self::Bitmap(bitmap) => bitmap.intersection_len(set),
        }
    }

    /// The lowest id that is in `set`.
    pub(super) fn first_in(&self, set: &RoaringBitmap) -> Option<u32> {
        match self {
            Self::Inline { .. } => self.inline().iter().copied().find(|id| set.contains(*id)),
            Self::Bitmap(bitmap) => bitmap.iter().find(|id| set.contains(*id)),
        }
    }

    /// Whether some id is in `set`.
    pub(super) fn meets(&self, set: &RoaringBitmap) -> bool {
        match self {
            Self::Inline { .. } => self.inline().iter().any(|id| set.contains(*id)),
            Self::Bitmap(bitmap) => !bitmap.is_disjoint(set),
        }
    }
}

/// Heap bytes of a bitmap around its ids: itself, one container, its allocations.
const BITMAP_BYTES: usize = 96;
