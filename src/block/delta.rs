//! Integers of a page: Parquet's `DELTA_BINARY_PACKED`, decoded as they are asked for.
//!
//! *Invariants:* no byte outside of the given ones is read, whatever they claim; memory is that of one miniblock.
//!
//! *Not here:* writing (the `parquet` crate does), nulls and rows (`levels`).
//!
//! Spec: parquet-format, Encodings.md, "Delta Encoding". Read with the generic decoder, integers took three times as long.

/// Largest miniblock accepted; the `parquet` crate writes 64 values.
const MAX_MINIBLOCK: usize = 1024;

/// The values of a page that are not read yet.
pub(super) struct DeltaReader<'a> {
    bytes: &'a [u8],
    /// Values that follow, those decoded included.
    left: usize,
    miniblock: usize,
    miniblocks: usize,
    /// Bit widths of the miniblocks of this block that were not begun.
    widths: &'a [u8],
    min_delta: i64,
    last: i64,
    decoded: Vec<i64>,
    /// How many of `decoded` were handed out.
    at: usize,
}

impl<'a> DeltaReader<'a> {
    /// A reader at the front of `bytes`; the error says what is wrong.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let mut reader = Self {
            bytes,
            left: 0,
            miniblock: 0,
            miniblocks: 0,
            widths: &[],
            min_delta: 0,
            last: 0,
            decoded: Vec::new(),
            at: 0,
        };
        let block = reader.varint()?;
        let miniblocks = reader.varint()?;
        let left = reader.varint()?;
        let miniblock = block.checked_div(miniblocks).unwrap_or(0);
        if miniblock == 0 || miniblock % 8 != 0 || miniblock > MAX_MINIBLOCK as u64 || miniblock * miniblocks != block {
            return Err(format!("integers in blocks of {block} in {miniblocks}"));
        }
        reader.last = reader.zigzag()?;
        (reader.miniblock, reader.miniblocks) = (miniblock as usize, miniblocks as usize);
        reader.left = usize::try_from(left).map_err(|_| format!("{left} integers"))?;
        if left > 0 {
            // The first value stands in the header, alone.
            reader.decoded.reserve_exact(miniblock as usize);
            reader.decoded.push(reader.last);
        }
        Ok(reader)
    }

    /// Hands the next `n` values to `each`, some at a time.
    pub(super) fn take(&mut self, mut n: usize, mut each: impl FnMut(&[i64])) -> Result<(), String> {
        if n > self.left {
            return Err(format!("a list of {n} integers where {} are left", self.left));
        }
        self.left -= n;
        while n > 0 {
            if self.at == self.decoded.len() {
                self.decode(self.left + n)?;
            }
            let end = self.decoded.len().min(self.at + n);
            each(&self.decoded[self.at..end]);
            n -= end - self.at;
            self.at = end;
        }
        Ok(())
    }

    /// Passes over `n` values.
    pub(super) fn skip(&mut self, n: usize) -> Result<(), String> {
        self.take(n, |_| {})
    }

    /// Decodes the next miniblock; `left` values follow.
    fn decode(&mut self, left: usize) -> Result<(), String> {
        let width = match self.widths.split_first() {
            Some((width, rest)) => {
                self.widths = rest;
                *width
            }
            None => {
                self.min_delta = self.zigzag()?;
                let widths = self.bytes.split_at_checked(self.miniblocks).ok_or("a block of integers is cut")?;
                self.bytes = widths.1;
                let (first, rest) = widths.0.split_first().ok_or("a block of integers is cut")?;
                self.widths = rest;
                *first
            }
        };
        if width > 64 {
            return Err(format!("integers of {width} bits"));
        }
        let whole = self.miniblock / 8 * usize::from(width);
        let count = self.miniblock.min(left);
        // The last miniblock may end with its last value.
        let used = (count * usize::from(width)).div_ceil(8);
        if used > self.bytes.len() {
            return Err("a block of integers is cut".into());
        }
        let (packed, rest) = self.bytes.split_at(whole.min(self.bytes.len()));
        self.decoded.resize(count, 0);
        self.at = 0;
        unpack(packed, usize::from(width), &mut self.decoded);
        let (mut last, min) = (self.last, self.min_delta);
        for value in &mut self.decoded {
            last = last.wrapping_add(min).wrapping_add(*value);
            *value = last;
        }
        self.last = last;
        self.bytes = rest;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.bytes.split_first().ok_or("a block of integers is cut")?;
            self.bytes = rest;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err("an integer of more than ten bytes".into())
    }

    fn zigzag(&mut self) -> Result<i64, String> {
        let n = self.varint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }
}

/// Unpacks values of `width` bits, the lowest bits of a byte first.
fn unpack(packed: &[u8], width: usize, out: &mut [i64]) {
    // A width known to the compiler makes every shift of a group of eight a constant: twice as fast.
    macro_rules! widths {
        ($($w:literal)*) => {
            match width {
                0 => out.fill(0),
                $($w => unpack_narrow::<$w>(packed, out),)*
                _ => unpack_wide(packed, width, out),
            }
        };
    }
    widths!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
}

fn unpack_narrow<const W: usize>(packed: &[u8], out: &mut [i64]) {
    let mask = (1u64 << W) - 1;
    // Eight values take W bytes; the last one is read with up to seven bytes behind it.
    let groups = (out.len() / 8).min(packed.len().saturating_sub(8) / W);
    let (fast, rest) = out.split_at_mut(8 * groups);
    for (g, out) in fast.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let bytes = &packed[g * W..g * W + W + 8];
        for (k, value) in out.iter_mut().enumerate() {
            let word = bytes[k * W / 8..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            *value = (word >> (k * W % 8) & mask) as i64;
        }
    }
    unpack_wide(&packed[groups * W..], W, rest);
}

/// Any width up to 64, value by value.
fn unpack_wide(packed: &[u8], width: usize, out: &mut [i64]) {
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    for (i, value) in out.iter_mut().enumerate() {
        let bit = i * width;
        let rest = &packed[(bit / 8).min(packed.len())..];
        let mut word = [0; 16];
        let n = rest.len().min(9);
        word[..n].copy_from_slice(&rest[..n]);
        *value = ((u128::from_le_bytes(word) >> (bit % 8)) as u64 & mask) as i64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use parquet::basic::Encoding;
    use parquet::data_type::Int64Type;
    use parquet::file::properties::WriterProperties;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use proptest::prelude::*;

    use super::*;

    /// What the crate writes for a page of these values.
    fn encoded(values: &[i64]) -> Vec<u8> {
        let schema = Arc::new(parse_message_type("message m { required int64 v; }").unwrap());
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_encoding(Encoding::DELTA_BINARY_PACKED)
            .build();
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        let reader = SerializedFileReader::new(Bytes::from(file.into_inner().unwrap())).unwrap();
        let mut pages = reader.get_row_group(0).unwrap().get_column_page_reader(0).unwrap();
        pages.get_next_page().unwrap().unwrap().buffer().to_vec()
    }

    fn decoded(bytes: &[u8], pieces: &[usize]) -> Result<Vec<i64>, String> {
        let mut reader = DeltaReader::new(bytes)?;
        let mut out = Vec::new();
        for n in pieces {
            reader.take(*n, |values| out.extend_from_slice(values))?;
        }
        Ok(out)
    }

    #[test]
    fn skips_and_takes() {
        let values: Vec<i64> = (0..1000).map(|i| i * i).collect();
        let bytes = encoded(&values);
        let mut reader = DeltaReader::new(&bytes).unwrap();
        let mut out = Vec::new();
        reader.skip(70).unwrap();
        reader.take(200, |v| out.extend_from_slice(v)).unwrap();
        assert_eq!(out, values[70..270]);
        assert!(reader.skip(731).is_err(), "more than there are");
    }

    proptest! {
        #[test]
        fn reads_what_was_written(
            values in prop::collection::vec(prop_oneof![any::<i64>(), 0i64..100, -5_000_000i64..5_000_000], 1..400),
            split in 0usize..400,
        ) {
            let split = split.min(values.len());
            let found = decoded(&encoded(&values), &[split, values.len() - split]);
            prop_assert_eq!(found, Ok(values));
        }

        #[test]
        fn reads_every_width(width in 0u32..64, seed in any::<u64>(), n in 1usize..300) {
            let mut x = seed | 1;
            let values: Vec<i64> = (0..n).map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (x >> (63 - width)) as i64
            }).collect();
            prop_assert_eq!(decoded(&encoded(&values), &[n]), Ok(values));
        }

        #[test]
        fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), n in 0usize..5000) {
            let _ = decoded(&bytes, &[n, n]);
        }

        #[test]
        fn survives_cut_bytes(values in prop::collection::vec(any::<i32>(), 1..300), cut in 0usize..2000) {
            let values: Vec<i64> = values.into_iter().map(i64::from).collect();
            let mut bytes = encoded(&values);
            bytes.truncate(cut);
            if let Ok(found) = decoded(&bytes, &[values.len()]) {
                prop_assert_eq!(found, values);
            }
        }
    }
}
