//! Rows of a page of lists: Parquet's repetition and definition levels, read as runs.
//!
//! *Invariants:* a row is a null list or a list of at least one element; nothing is allocated but a range for each run of
//! null elements, which takes bytes of the page.
//!
//! *Not here:* the values (`delta`, `pages`).
//!
//! Spec: parquet-format, Encodings.md, "Run Length Encoding / Bit-Packing Hybrid".

use std::ops::Range;

/// What definition levels mean. The level of an empty list, which is never written, is one less than that of the lowest
/// kind of element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bits of a level.
    width: usize,
    null_list: Option<u8>,
    null_element: Option<u8>,
    value: u8,
}

impl Shape {
    /// Optional lists of optional elements.
    pub(super) const OPTIONAL: Self = Self { width: 2, null_list: Some(0), null_element: Some(2), value: 3 };
    /// Required lists of required elements.
    pub(super) const REQUIRED: Self = Self { width: 1, null_list: None, null_element: None, value: 1 };
}

/// Levels that follow each other, in runs.
struct Runs<'a> {
    bytes: &'a [u8],
    width: usize,
    level: u8,
    /// How often `level` still comes.
    left: usize,
    /// Packed levels, of which this many are left.
    packed: &'a [u8],
    packed_at: usize,
    packed_left: usize,
}

impl<'a> Runs<'a> {
    fn new(bytes: &'a [u8], width: usize) -> Self {
        Self { bytes, width, level: 0, left: 0, packed: &[], packed_at: 0, packed_left: 0 }
    }

    /// The next level and how often it comes at least.
    fn peek(&mut self) -> Result<(u8, usize), String> {
        while self.left == 0 {
            if self.packed_left > 0 {
                let bit = self.packed_at * self.width;
                self.level = self.packed[bit / 8] >> (bit % 8) & ((1 << self.width) - 1);
                self.left = 1;
                self.packed_at += 1;
                self.packed_left -= 1;
            } else {
                self.begin_run()?;
            }
        }
        Ok((self.level, self.left))
    }

    fn begin_run(&mut self) -> Result<(), String> {
        let mut header = 0u64;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            if shift > 28 {
                return Err("a run of levels with too long a header".into());
            }
            header |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let count = (header >> 1) as usize;
        if header & 1 == 0 {
            (self.level, self.left) = (self.byte()?, count);
            return Ok(());
        }
        // Groups of eight levels; widths of 1 and 2 never straddle bytes.
        let packed = self.bytes.split_at_checked(count * self.width).ok_or("levels are cut")?;
        (self.packed, self.bytes) = packed;
        (self.packed_at, self.packed_left) = (0, 8 * count);
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, String> {
        let (byte, rest) = self.bytes.split_first().ok_or("levels are cut")?;
        self.bytes = rest;
        Ok(*byte)
    }
}

/// A row of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// No list.
    Null,
    /// A list.
    List {
        /// Its elements, null ones included.
        len: usize,
        /// Elements that are not null.
        values: usize,
    },
}

/// The rows of a page, one by one.
pub(super) struct ListRows<'a> {
    shape: Shape,
    rep: Runs<'a>,
    def: Runs<'a>,
    /// Levels that follow.
    left: usize,
    /// Which elements of the row read last are null; ascending.
    pub(super) nulls: Vec<Range<usize>>,
}

impl<'a> ListRows<'a> {
    /// The rows of a page with `levels` levels, which stand at the front of `page`; the rest are its values.
    pub(super) fn new(page: &'a [u8], levels: usize, shape: Shape) -> Result<(Self, &'a [u8]), String> {
        let (rep, page) = sized(page)?;
        let (def, values) = sized(page)?;
        let (rep, def) = (Runs::new(rep, 1), Runs::new(def, shape.width));
        Ok((Self { shape, rep, def, left: levels, nulls: Vec::new() }, values))
    }

    /// The next row.
    pub(super) fn next(&mut self) -> Result<Row, String> {
        self.nulls.clear();
        if self.left == 0 {
            return Err("a page has fewer rows than its index says".into());
        }
        if self.rep.peek()?.0 != 0 {
            return Err("a page begins within a row".into());
        }
        let mut run = 1;
        let (mut len, mut values) = (0, 0);
        if Some(self.def.peek()?.0) == self.shape.null_list {
            self.rep.left -= 1;
            self.def.left -= 1;
            self.left -= 1;
            return match self.left == 0 || self.rep.peek()?.0 == 0 {
                true => Ok(Row::Null),
                false => Err("a null list goes on".into()),
            };
        }
        loop {
            self.rep.left -= run;
            self.left -= run;
            while run > 0 {
                let (level, n) = self.def.peek()?;
                let n = n.min(run);
                if level == self.shape.value {
                    values += n;
                } else if Some(level) == self.shape.null_element {
                    self.push_nulls(len..len + n);
                } else {
                    return Err(format!("definition level {level} within a list"));
                }
                self.def.left -= n;
                len += n;
                run -= n;
            }
            // The last packed group may be padded.
            if self.left == 0 {
                break;
            }
            match self.rep.peek()? {
                (0, _) => break,
                (1, n) => run = n.min(self.left),
                (other, _) => return Err(format!("repetition level {other}")),
            }
        }
        Ok(Row::List { len, values })
    }

    fn push_nulls(&mut self, found: Range<usize>) {
        match self.nulls.last_mut() {
            Some(last) if last.end == found.start => last.end = found.end,
            _ => self.nulls.push(found),
        }
    }
}

/// What stands behind four bytes of length, and what follows.
fn sized(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let (len, rest) = bytes.split_first_chunk().ok_or("levels are cut")?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(|| "levels are cut".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(rep: &[u8], def: &[u8]) -> Vec<u8> {
        let sized = |b: &[u8]| [&(b.len() as u32).to_le_bytes()[..], b].concat();
        [sized(rep), sized(def), vec![7]].concat()
    }

    #[test]
    fn reads_lists_null_lists_and_null_elements() {
        // 0 1 1 | 0 | 0 1, as two packed groups; 3 2 3 | 0 | run of two 3.
        let rep = [0b11, 0b0010_0110];
        let def = [0b11, 0b0011_1011, 2 << 1, 3];
        // The packed group of definition levels is 3 2 3 0 and padding: cut to the levels there are.
        let bytes = page(&rep, &[0b11, 0b0011_1011, 0b1111, def[2], def[3]]);
        let (mut rows, values) = ListRows::new(&bytes, 6, Shape::OPTIONAL).unwrap();
        assert_eq!(rows.next(), Ok(Row::List { len: 3, values: 2 }));
        assert_eq!(rows.nulls, [1..2]);
        assert_eq!(rows.next(), Ok(Row::Null));
        assert_eq!(rows.next(), Ok(Row::List { len: 2, values: 2 }));
        assert!(rows.nulls.is_empty());
        assert!(rows.next().is_err());
        assert_eq!(values, [7]);
    }

    #[test]
    fn refuses_levels_that_cannot_be() {
        let first = |rep: &[u8], def: &[u8]| ListRows::new(&page(rep, def), 8, Shape::OPTIONAL).unwrap().0.next();
        assert!(first(&[16, 1], &[16, 3]).is_err(), "a page that begins within a row");
        assert!(first(&[2, 0, 14, 1], &[16, 1]).is_err(), "an empty list");
        assert!(first(&[2, 0, 14, 1], &[2, 0, 14, 3]).is_err(), "a null list that goes on");
        assert!(first(&[2, 0, 14, 1], &[2, 3]).is_err(), "too few levels");
        assert_eq!(first(&[2, 0, 14, 1], &[16, 3]), Ok(Row::List { len: 8, values: 8 }));
    }

    proptest! {
        #[test]
        fn survives_any_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            levels in 0usize..10_000,
            shape in prop::sample::select(vec![Shape::OPTIONAL, Shape::REQUIRED]),
        ) {
            if let Ok((mut rows, _)) = ListRows::new(&bytes, levels, shape) {
                while rows.next().is_ok() {}
            }
        }
    }
}
