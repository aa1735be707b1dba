//! Bits into a growable byte buffer and out of a slice, most significant first.
//!
//! *Invariants:* the unused low bits of the last byte are zero. Reading past the end yields zeros and is seen by
//! [`BitReader::overrun`], so that hot loops check once per sample instead of once per field.
//!
//! *Not here:* what the bits mean (`float`, `histogram`).

use super::Error;

/// The unused bits of the last byte of a buffer; the whole state of a bit writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Free(pub u8);

/// Appends the low `n` bits of `value` (the others must be zero), highest first; `n` is 1..=64.
#[inline]
pub fn push_bits(buf: &mut Vec<u8>, free: &mut Free, value: u64, n: u32) {
    debug_assert!((1..=64).contains(&n) && (n == 64 || value >> n == 0), "BUG: {n} bits cannot hold {value:#x}");
    let mut left = n;
    let room = u32::from(free.0);
    if room > 0 {
        let take = room.min(left);
        left -= take;
        if let Some(last) = buf.last_mut() {
            *last |= ((value >> left) << (room - take)) as u8;
        }
        free.0 = (room - take) as u8;
        if left == 0 {
            return;
        }
    }
    let bytes = left.div_ceil(8) as usize;
    if buf.capacity() - buf.len() < bytes {
        grow(buf, bytes);
    }
    let aligned = value << (64 - left);
    buf.extend_from_slice(&aligned.to_be_bytes()[..bytes]);
    free.0 = (bytes as u32 * 8 - left) as u8;
}

/// Makes room for `more` bytes at the next size class of the allocator: a quarter of slack at most, not a half.
#[cold]
fn grow(buf: &mut Vec<u8>, more: usize) {
    let want = buf.len() + more;
    let step = if want <= 128 { 16 } else { 1 << (usize::BITS - 3 - (want - 1).leading_zeros()) };
    let capacity = want.div_ceil(step) * step;
    buf.reserve_exact(capacity - buf.len());
}

/// Reads bits of a slice.
#[derive(Debug, Clone)]
pub struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// A reader at the first bit of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// The next bits, left-aligned; at least 57 of them are valid, those past the end are zero.
    #[inline]
    pub fn peek(&self) -> u64 {
        let byte = self.at >> 3;
        let word = match self.data.get(byte..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(eight) => u64::from_be_bytes(*eight),
            None => self.tail(byte),
        };
        word << (self.at & 7)
    }

    fn tail(&self, byte: usize) -> u64 {
        let rest = self.data.get(byte..).unwrap_or_default();
        let mut eight = [0u8; 8];
        eight[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(eight)
    }

    /// Goes on by `n` bits.
    #[inline]
    pub fn skip(&mut self, n: u32) {
        self.at += n as usize;
    }

    /// Reads `n` bits, 1..=64.
    #[inline]
    pub fn read(&mut self, n: u32) -> u64 {
        if n > 56 {
            let high = self.read(32);
            let low = self.read(n - 32);
            return (high << (n - 32)) | low;
        }
        let value = self.peek() >> (64 - n);
        self.skip(n);
        value
    }

    /// Reads one bit.
    #[inline]
    pub fn read_bit(&mut self) -> bool {
        self.read(1) == 1
    }

    /// Bits left; 0 once past the end.
    pub fn left(&self) -> usize {
        (self.data.len() * 8).saturating_sub(self.at)
    }

    /// Fails once more was read than there is.
    #[inline]
    pub fn overrun(&self, part: &'static str) -> Result<(), Error> {
        if self.at > self.data.len() * 8 {
            return Err(Error::Truncated { len: self.data.len(), part });
        }
        Ok(())
    }
}

/// Bits of a signed number in each class of [`push_signed`].
const CLASSES: [u32; 5] = [0, 6, 12, 24, 64];

/// Appends a signed number: a unary class (`0`, `10`, `110`, `1110`, `1111`), then 0, 6, 12, 24 or 64 bits.
pub fn push_signed(buf: &mut Vec<u8>, free: &mut Free, n: i64) {
    match CLASSES[..4].iter().position(|bits| fits(n, *bits)) {
        Some(0) => push_bits(buf, free, 0, 1),
        Some(class) => {
            let bits = CLASSES[class];
            push_bits(buf, free, (1 << (class + 1)) - 2, class as u32 + 1);
            push_bits(buf, free, n as u64 & ((1 << bits) - 1), bits);
        }
        None => {
            push_bits(buf, free, 0b1111, 4);
            push_bits(buf, free, n as u64, 64);
        }
    }
}

/// Reads what [`push_signed`] wrote.
pub fn read_signed(r: &mut BitReader<'_>) -> i64 {
    let class = r.peek().leading_ones().min(4);
    if class == 0 {
        r.skip(1);
        return 0;
    }
    r.skip((class + 1).min(4));
    let bits = CLASSES[class as usize];
    sign_extend(r.read(bits), bits)
}

/// Appends the change of the distance of timestamps, within 33 bits: `0`, `10` + 5, `110` + 9, `1110` + 16, `1111` + 33.
#[inline]
pub fn push_dod(buf: &mut Vec<u8>, free: &mut Free, dod: i64) {
    let (prefix, prefix_len, bits) = match dod {
        0 => return push_bits(buf, free, 0, 1),
        -16..=15 => (0b10, 2, 5),
        -256..=255 => (0b110, 3, 9),
        -32768..=32767 => (0b1110, 4, 16),
        _ => (0b1111, 4, 33),
    };
    let low = dod as u64 & ((1 << bits) - 1);
    push_bits(buf, free, (prefix << bits) | low, prefix_len + bits);
}

/// Reads what [`push_dod`] wrote; `word` is what the reader peeks at.
#[inline]
pub fn read_dod(r: &mut BitReader<'_>, word: u64) -> i64 {
    let (prefix, bits) = match word.leading_ones() {
        0 => {
            r.skip(1);
            return 0;
        }
        1 => (2, 5),
        2 => (3, 9),
        3 => (4, 16),
        _ => (4, 33),
    };
    r.skip(prefix + bits);
    sign_extend(word << prefix >> (64 - bits), bits)
}

/// Whether `n` fits `bits` bits of two's complement; only 0 fits none.
#[inline]
pub fn fits(n: i64, bits: u32) -> bool {
    if bits == 0 { n == 0 } else { sign_extend(n as u64, bits) == n }
}

/// The signed number in the low `bits` (1..=64) of `raw`.
#[inline]
pub fn sign_extend(raw: u64, bits: u32) -> i64 {
    ((raw << (64 - bits)) as i64) >> (64 - bits)
}

/// Appends an unsigned LEB128 number.
pub fn push_varint(buf: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        buf.push(n as u8 | 0x80);
        n >>= 7;
    }
    buf.push(n as u8);
}

/// Appends a signed number, zigzag.
pub fn push_zigzag(buf: &mut Vec<u8>, n: i64) {
    push_varint(buf, ((n << 1) ^ (n >> 63)) as u64);
}

/// Splits an unsigned LEB128 number off.
pub fn take_varint(data: &mut &[u8]) -> Result<u64, Error> {
    let mut n = 0u64;
    for shift in (0..70).step_by(7) {
        let Some((byte, rest)) = data.split_first() else {
            return Err(Error::Truncated { len: 0, part: "a varint" });
        };
        *data = rest;
        if shift == 63 && *byte > 1 {
            break;
        }
        n |= u64::from(*byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(n);
        }
    }
    Err(Error::Malformed("a varint has more than 64 bits"))
}

/// Splits a zigzag number off.
pub fn take_zigzag(data: &mut &[u8]) -> Result<i64, Error> {
    let n = take_varint(data)?;
    Ok((n >> 1) as i64 ^ -((n & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_come_back_as_written(fields in prop::collection::vec((any::<u64>(), 1u32..=64), 0..60)) {
            let (mut buf, mut free) = (Vec::new(), Free::default());
            let masked = |v: u64, n: u32| v & (u64::MAX >> (64 - n));
            for (v, n) in &fields {
                push_bits(&mut buf, &mut free, masked(*v, *n), *n);
            }
            let mut r = BitReader::new(&buf);
            for (v, n) in &fields {
                prop_assert_eq!(r.read(*n), masked(*v, *n));
            }
            prop_assert!(r.overrun("test").is_ok() && r.left() < 8);
            r.skip(8);
            prop_assert!(r.overrun("test").is_err());
        }

        #[test]
        fn signed_numbers_and_varints_come_back(numbers in prop::collection::vec((any::<i64>(), 0u32..64), 0..60)) {
            let (mut buf, mut free, mut bytes) = (Vec::new(), Free::default(), Vec::new());
            let numbers: Vec<i64> = numbers.into_iter().map(|(n, shift)| n >> shift).collect();
            for n in &numbers {
                push_signed(&mut buf, &mut free, *n);
                push_zigzag(&mut bytes, *n);
            }
            let (mut r, mut rest) = (BitReader::new(&buf), &bytes[..]);
            for n in &numbers {
                prop_assert_eq!(read_signed(&mut r), *n);
                prop_assert_eq!(take_zigzag(&mut rest), Ok(*n));
            }
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn refuses_endless_varints() {
        assert!(take_varint(&mut &[0x80u8; 20][..]).is_err());
        assert!(take_varint(&mut &[0x80u8; 3][..]).is_err());
    }

    #[test]
    fn buffers_grow_by_a_quarter_at_most() {
        let (mut buf, mut free) = (Vec::new(), Free::default());
        for _ in 0..2000 {
            push_bits(&mut buf, &mut free, 0xff, 8);
            assert!(buf.capacity() <= (buf.len() + 15).max(buf.len() * 5 / 4 + 1), "{} {}", buf.capacity(), buf.len());
        }
    }
}
