//! Bytes of meta's log entries, answers and snapshots: variable-length integers and length-prefixed strings.
//!
//! *Invariants:* reading survives any bytes: lengths are checked against what is left before anything is allocated.
//!
//! *Not here:* what the fields mean (`command`, `state`).

use bytes::{Buf, Bytes};

use crate::model::TenantId;

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end too early.
    #[error("cut off")]
    CutOff,
    /// A number is longer than 64 bits.
    #[error("a number is too long")]
    Number,
    /// A string is not UTF-8 or not a name.
    #[error("a string is malformed")]
    Text,
    /// An unknown kind of entry or an unknown format version.
    #[error("unknown kind or version {0}")]
    Unknown(u64),
    /// Bytes are left over.
    #[error("bytes left over")]
    LeftOver,
    /// The checksum does not match.
    #[error("checksum does not match")]
    Checksum,
}

/// Writes fields one after another.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// An unsigned number, LEB128.
    pub fn number(&mut self, mut n: u64) -> &mut Self {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
        self
    }

    /// A signed number, zigzag.
    pub fn signed(&mut self, n: i64) -> &mut Self {
        self.number(((n << 1) ^ (n >> 63)) as u64)
    }

    /// A number that may be absent: 0, or the number plus one.
    pub fn optional(&mut self, n: Option<u64>) -> &mut Self {
        // Versions and sequences count from 0 by ones: u64::MAX is never reached.
        self.number(n.map_or(0, |n| n.saturating_add(1)))
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A string with its length.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }
}

/// Reads fields one after another.
pub struct Reader(pub Bytes);

impl Reader {
    /// See [`Writer::number`].
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.0.try_get_u8().map_err(|_| Malformed::CutOff)?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(Malformed::Number);
            }
            n |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Malformed::Number)
    }

    /// See [`Writer::signed`].
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        let n = self.number()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// See [`Writer::optional`].
    pub fn optional(&mut self) -> Result<Option<u64>, Malformed> {
        Ok(self.number()?.checked_sub(1))
    }

    /// A number of 32 bits.
    pub fn number32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed::Number)
    }

    /// The number of items that follow; each takes at least one byte, so no more can follow than bytes are left.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let n = self.number()?;
        if n > self.0.len() as u64 { Err(Malformed::CutOff) } else { Ok(n as usize) }
    }

    /// See [`Writer::bytes`]; shares the buffer.
    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let len = self.count()?;
        Ok(self.0.split_to(len))
    }

    /// See [`Writer::text`].
    pub fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| Malformed::Text)
    }

    /// A tenant's name.
    pub fn tenant(&mut self) -> Result<TenantId, Malformed> {
        TenantId::new(&self.text()?).map_err(|_| Malformed::Text)
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<uuid::Uuid, Malformed> {
        uuid::Uuid::from_slice(&self.bytes()?).map_err(|_| Malformed::Text)
    }

    /// Sixteen bytes or none, with their number.
    pub fn optional_uuid(&mut self) -> Result<Option<uuid::Uuid>, Malformed> {
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        uuid::Uuid::from_slice(&bytes).map(Some).map_err(|_| Malformed::Text)
    }

    /// Checks that nothing is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::LeftOver) }
    }
}
