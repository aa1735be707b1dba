//! Sizes in Thrift's compact encoding, looked at before the `parquet` crate believes them.
//!
//! *Invariants:* what passed [`check`] or [`check_footer`] claims no list and no text longer than the bytes it is in, and
//! nests no deeper than [`MAX_DEPTH`]. Nothing is allocated here.
//!
//! *Not here:* what the fields mean, except those of a page's header.
//!
//! The crate allocates what the list of an offset index and the statistics of a page header claim to hold, before it has
//! seen them: a few forged bytes ask for many GiB, and a failed allocation ends the process.

/// Deepest nesting of structs and lists.
const MAX_DEPTH: u32 = 16;

/// Most schema elements that have children: the crate builds the tree by recursion.
const MAX_GROUPS: usize = 64;

/// Field types, which are the types of list elements too.
mod kind {
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const BYTE: u8 = 3;
    pub(super) const I16: u8 = 4;
    pub(super) const I32: u8 = 5;
    pub(super) const I64: u8 = 6;
    pub(super) const DOUBLE: u8 = 7;
    pub(super) const BINARY: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const STRUCT: u8 = 12;
}

/// What a page's header says of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PageHeader {
    /// Its own length.
    pub(crate) len: usize,
    /// Bytes of the page, uncompressed.
    pub(crate) uncompressed: u64,
    /// Bytes of the page in the file.
    pub(crate) compressed: u64,
    /// Values in it, nulls included.
    pub(crate) values: u64,
    /// A dictionary, whose values are not those of rows.
    pub(crate) is_dictionary: bool,
    /// A data page of version 1: how its values, its definition and its repetition levels are encoded.
    pub(crate) encodings: Option<[u64; 3]>,
}

impl PageHeader {
    /// The header at the front of `bytes`; `None` if there is none that can be.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut out = Self::default();
        let mut negative = false;
        let mut walk = Walk {
            rest: bytes,
            integer: |parent, field, n: i64| {
                let size = u64::try_from(n);
                negative |= size.is_err() && matches!((parent, field), (0, 2 | 3) | (5 | 7 | 8, 1));
                let size = size.unwrap_or(0);
                match (parent, field) {
                    (0, 2) => out.uncompressed = size,
                    (0, 3) => out.compressed = size,
                    (5 | 8, 1) => out.values = size,
                    (5, 2..=4) => out.encodings.get_or_insert_default()[field as usize - 2] = size,
                    (7, 1) => (out.values, out.is_dictionary) = (size, true),
                    _ => {}
                }
            },
        };
        walk.fields(0, MAX_DEPTH)?;
        out.len = bytes.len() - walk.rest.len();
        (!negative).then_some(out)
    }
}

/// Whether a struct is at the front of `bytes` whose sizes can be true.
pub(crate) fn check(bytes: &[u8]) -> bool {
    Walk { rest: bytes, integer: |_, _, _| {} }.fields(0, MAX_DEPTH).is_some()
}

/// Whether a file's metadata is at the front of `bytes`, with sizes that can be true and a schema that is not too deep.
pub(crate) fn check_footer(bytes: &[u8]) -> bool {
    let mut groups = 0;
    let integer = |parent, field, _| groups += usize::from((parent, field) == (2, 5));
    Walk { rest: bytes, integer }.fields(0, MAX_DEPTH).is_some() && groups <= MAX_GROUPS
}

/// A way through a struct; `integer` is told field by field: of which field of the outermost struct it is part (0: of the
/// struct itself; in a list, of any of its elements), its own number, its value.
struct Walk<'a, F> {
    rest: &'a [u8],
    integer: F,
}

impl<F: FnMut(i16, i16, i64)> Walk<'_, F> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let n = self.varint()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    fn skip(&mut self, len: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(len).ok()?..)?;
        Some(())
    }

    /// The fields of a struct; `parent` is the number of the field it stands in, 0 for the outermost.
    fn fields(&mut self, parent: i16, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let mut field = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            field = match head >> 4 {
                0 => i16::try_from(self.zigzag()?).ok()?,
                delta => field.checked_add(i16::from(delta))?,
            };
            self.value(parent, field, head & 15, depth)?;
        }
    }

    fn value(&mut self, parent: i16, field: i16, kind: u8, depth: u32) -> Option<()> {
        match kind {
            kind::TRUE | kind::FALSE => {}
            kind::BYTE => self.skip(1)?,
            kind::I16 | kind::I32 | kind::I64 => {
                let n = self.zigzag()?;
                (self.integer)(parent, field, n);
            }
            kind::DOUBLE => self.skip(8)?,
            kind::BINARY => {
                let len = self.varint()?;
                self.skip(len)?;
            }
            // Below the second level nobody asks.
            kind::LIST => self.list(if parent == 0 { field } else { i16::MIN }, depth)?,
            kind::STRUCT => self.fields(if parent == 0 { field } else { i16::MIN }, depth)?,
            // Sets and maps, which Parquet has none of.
            _ => return None,
        }
        Some(())
    }

    fn list(&mut self, of: i16, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let head = self.byte()?;
        let len = match head >> 4 {
            15 => self.varint()?,
            len => u64::from(len),
        };
        // Every element takes a byte at least.
        if len > self.rest.len() as u64 {
            return None;
        }
        for _ in 0..len {
            match head & 15 {
                kind::TRUE | kind::FALSE => self.skip(1)?,
                kind::STRUCT => self.fields(of, depth)?,
                kind => self.value(i16::MIN, 0, kind, depth)?,
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A data page of 5 values, 10 bytes that were 20.
    const DATA_PAGE: [u8; 16] = [0x15, 0, 0x15, 40, 0x15, 20, 0x2c, 0x15, 10, 0x15, 0, 0x15, 6, 0x15, 6, 0];

    #[test]
    fn reads_the_sizes_of_a_page() {
        let mut bytes = DATA_PAGE.to_vec();
        bytes.extend([0, 9, 9]);
        let header = PageHeader { len: 17, uncompressed: 20, compressed: 10, values: 5, ..PageHeader::default() };
        let header = PageHeader { encodings: Some([0, 3, 3]), ..header };
        assert_eq!(PageHeader::parse(&bytes), Some(header));
        bytes[3] = 41;
        assert_eq!(PageHeader::parse(&bytes), None, "a negative size");
    }

    #[test]
    fn refuses_lists_and_texts_longer_than_the_bytes_there_are() {
        assert!(check(&[0x19, 0x2c, 0, 0, 0]));
        assert!(!check(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0]), "2^31 structs");
        assert!(check(&[0x18, 2, b'a', b'b', 0]));
        assert!(!check(&[0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, b'a', b'b', 0]), "2^40 bytes");
        assert!(!check(&[0x1c; 100]), "too deep");
        assert!(!check(&[0x19, 0x19].repeat(50)), "too deep");
        assert!(!check(&[]));
    }

    #[test]
    fn refuses_a_schema_whose_tree_is_deep() {
        // Field 2: a list of structs, each with one child (field 5).
        let schema = |groups: u8| [&[0x29, 0xfc, groups][..], &[0x55, 2, 0].repeat(groups.into()), &[0]].concat();
        assert!(check_footer(&schema(60)));
        assert!(!check_footer(&schema(65)));
    }

    proptest! {
        #[test]
        fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            check(&bytes);
            if let Some(header) = PageHeader::parse(&bytes) {
                prop_assert!(header.len <= bytes.len());
            }
        }
    }
}
