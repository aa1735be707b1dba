//! Bytes of log entries: little-endian fixed numbers, LEB128 varints, length-prefixed text.
//!
//! *Invariants:* a [`Reader`] never reads past its buffer and never allocates from a length it has not checked against
//! what is left.
//!
//! *Not here:* what the bytes mean (`ingest::entry`).

/// Appends a LEB128 varint.
pub fn put_varint(buf: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        buf.push(n as u8 | 0x80);
        n >>= 7;
    }
    buf.push(n as u8);
}

/// Appends a signed number as a zigzag varint.
pub fn put_zigzag(buf: &mut Vec<u8>, n: i64) {
    put_varint(buf, ((n << 1) ^ (n >> 63)) as u64);
}

/// Appends the bits of a float.
pub fn put_f64(buf: &mut Vec<u8>, v: f64) {
    buf.extend_from_slice(&v.to_bits().to_le_bytes());
}

/// Appends length and bytes of a text.
pub fn put_str(buf: &mut Vec<u8>, text: &str) {
    put_varint(buf, text.len() as u64);
    buf.extend_from_slice(text.as_bytes());
}

/// The bytes are not what a writer of this format produces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} at byte {at}")]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
    /// How many bytes were left to read.
    pub at: usize,
}

/// Reads from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The error of finding something else than `what` here.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.len - self.rest.len() }
    }

    /// One byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(self.malformed(what))?;
        self.rest = rest;
        Ok(*first)
    }

    /// A varint.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut n = 0u64;
        for (i, b) in self.rest.iter().take(10).enumerate() {
            n |= u64::from(b & 0x7f) << (7 * i);
            if b & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(n);
            }
        }
        Err(self.malformed(what))
    }

    /// A zigzag varint.
    pub fn zigzag(&mut self, what: &'static str) -> Result<i64, Malformed> {
        let n = self.varint(what)?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A number of things that each take at least one byte, so that it can be trusted for an allocation.
    pub fn count(&mut self, what: &'static str) -> Result<usize, Malformed> {
        let n = self.varint(what)?;
        if n > self.rest.len() as u64 {
            return Err(self.malformed(what));
        }
        Ok(n as usize)
    }

    /// `n` bytes.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(self.malformed(what))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Length and bytes, as a reader of their own.
    pub fn part(&mut self, what: &'static str) -> Result<Reader<'a>, Malformed> {
        let n = self.count(what)?;
        Ok(Reader::new(self.take(n, what)?))
    }

    /// A length-prefixed text.
    pub fn str(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let n = self.count(what)?;
        std::str::from_utf8(self.take(n, what)?).map_err(|_| self.malformed(what))
    }

    /// Eight little-endian bytes.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let bytes: [u8; 8] = self.take(8, what)?.try_into().map_err(|_| self.malformed(what))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A float by its bits.
    pub fn f64(&mut self, what: &'static str) -> Result<f64, Malformed> {
        Ok(f64::from_bits(self.u64(what)?))
    }
}
