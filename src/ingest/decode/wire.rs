//! A bounds-checked reader of protobuf's wire format over one borrowed buffer.
//!
//! *Invariants:* `pos <= end <= data.len()`; every read either advances inside the bounds or fails with its offset. No
//! recursion: nesting is the caller's, and the schemas here are four deep.
//!
//! *Not here:* any schema (`v1`, `v2`, `histogram`).
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use std::fmt;

/// Wire type of varints.
pub(super) const VARINT: u32 = 0;
/// Wire type of eight little-endian bytes.
pub(super) const FIXED64: u32 = 1;
/// Wire type of length-delimited bytes.
pub(super) const LEN: u32 = 2;
const FIXED32: u32 = 5;

/// The tag of a field: its number and wire type as they stand on the wire.
pub(super) const fn tag(field: u32, wire_type: u32) -> u32 {
    (field << 3) | wire_type
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The buffer ends inside a value.
    Truncated,
    /// A varint longer than ten bytes or larger than 64 bits.
    Varint,
    /// A length that points past the end of the enclosing message.
    Length {
        /// What the bytes say.
        declared: u64,
        /// What the enclosing message still has.
        left: usize,
    },
    /// A field number of zero or a tag above 32 bits.
    Tag(u64),
    /// A wire type that the field does not have, or that does not exist.
    WireType(u32),
    /// More of something than one request may hold.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// Text that is not UTF-8.
    Utf8,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message ends inside a value"),
            Self::Varint => f.write_str("a varint does not fit 64 bits"),
            Self::Length { declared, left } => write!(f, "a length of {declared} exceeds the {left} bytes left"),
            Self::Tag(tag) => write!(f, "{tag} is not a field tag"),
            Self::WireType(w) => write!(f, "the field does not have wire type {w}"),
            Self::TooMany { what, limit } => write!(f, "more than {limit} {what} in one request"),
            Self::Utf8 => f.write_str("the text is not valid UTF-8"),
        }
    }
}

/// A fault and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireError {
    /// Message type it was found in, `""` while not known.
    pub message: &'static str,
    /// Number of the field last begun there, 0 when none was.
    pub field: u32,
    /// Byte offset in the decompressed request.
    pub offset: usize,
    /// What is wrong.
    pub fault: Fault,
}

impl WireError {
    /// Names the message type, unless an inner message was named already.
    #[cold]
    pub(super) fn inside(mut self, message: &'static str) -> Self {
        if self.message.is_empty() {
            self.message = message;
        }
        self
    }
}

pub(super) type Wire<T> = Result<T, WireError>;

/// A reader of one message inside the buffer `data`.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
    end: usize,
    field: u32,
}

impl<'a> Reader<'a> {
    /// A reader of the whole buffer as one message.
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, pos: 0, end: data.len(), field: 0 }
    }

    /// The whole buffer, of which this message is a part.
    pub(super) fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The bytes of this message not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.data[self.pos..self.end]
    }

    /// Where the next byte is read.
    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    /// Where this message ends.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Continues at `pos`, which lies between the current place and the end.
    pub(super) fn seek(&mut self, pos: usize) {
        debug_assert!(self.pos <= pos && pos <= self.end);
        self.pos = pos.min(self.end);
    }

    /// An error at the current place.
    #[cold]
    pub(super) fn fail<T>(&self, fault: Fault) -> Wire<T> {
        Err(WireError { message: "", field: self.field, offset: self.pos, fault })
    }

    /// Whether everything was read.
    #[inline]
    pub(super) fn at_end(&self) -> bool {
        self.pos >= self.end
    }

    /// The next field's tag, or 0 at the end of the message.
    #[inline]
    pub(super) fn next_tag(&mut self) -> Wire<u32> {
        if self.at_end() {
            return Ok(0);
        }
        let at = self.pos;
        let raw = self.varint()?;
        if raw < 8 || raw > u64::from(u32::MAX) {
            self.pos = at;
            return self.fail(Fault::Tag(raw));
        }
        self.field = (raw >> 3) as u32;
        Ok(raw as u32)
    }

    /// A varint.
    #[inline]
    pub(super) fn varint(&mut self) -> Wire<u64> {
        match self.data[..self.end].get(self.pos) {
            Some(&byte) if byte < 0x80 => {
                self.pos += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Wire<u64> {
        let bytes = self.rest();
        let mut value = 0u64;
        for (i, &byte) in bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if i == 9 && byte > 1 {
                    return self.fail(Fault::Varint);
                }
                self.pos += i + 1;
                return Ok(value);
            }
        }
        self.fail(if bytes.len() < 10 { Fault::Truncated } else { Fault::Varint })
    }

    /// A zigzag-encoded varint.
    pub(super) fn zigzag(&mut self) -> Wire<i64> {
        let n = self.varint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A zigzag-encoded varint of a 32-bit field; higher bits are dropped, as every implementation does.
    pub(super) fn zigzag32(&mut self) -> Wire<i32> {
        let n = self.varint()? as u32;
        Ok((n >> 1) as i32 ^ -((n & 1) as i32))
    }

    /// A double.
    #[inline]
    pub(super) fn double(&mut self) -> Wire<f64> {
        match self.rest().first_chunk::<8>() {
            Some(bytes) => {
                self.pos += 8;
                Ok(f64::from_le_bytes(*bytes))
            }
            None => self.fail(Fault::Truncated),
        }
    }

    /// The bounds of a length-delimited field, which is stepped over.
    #[inline]
    pub(super) fn span(&mut self) -> Wire<(usize, usize)> {
        let len = self.varint()?;
        let left = self.end - self.pos;
        if len > left as u64 {
            return self.fail(Fault::Length { declared: len, left });
        }
        let from = self.pos;
        self.pos += len as usize;
        Ok((from, self.pos))
    }

    /// A length-delimited field as a message of its own.
    #[inline]
    pub(super) fn message(&mut self) -> Wire<Reader<'a>> {
        let (pos, end) = self.span()?;
        Ok(Reader { data: self.data, pos, end, field: 0 })
    }

    /// A length-delimited field as bytes.
    #[inline]
    pub(super) fn bytes(&mut self) -> Wire<&'a [u8]> {
        let (from, to) = self.span()?;
        Ok(&self.data[from..to])
    }

    /// A length-delimited field as text.
    pub(super) fn text(&mut self) -> Wire<&'a str> {
        let at = *self;
        std::str::from_utf8(self.bytes()?).or_else(|_| at.fail(Fault::Utf8))
    }

    /// Steps over a field of which only the tag was read. `known` are the field numbers of the schema: one of those with
    /// another wire type is an error, as the caller has handled the right one.
    pub(super) fn skip(&mut self, tag: u32, known: &[u32]) -> Wire<()> {
        let wire_type = tag & 7;
        if known.contains(&(tag >> 3)) {
            return self.fail(Fault::WireType(wire_type));
        }
        match wire_type {
            VARINT => self.varint().map(drop),
            LEN => self.span().map(drop),
            FIXED64 => self.advance(8),
            FIXED32 => self.advance(4),
            // Groups left protobuf in 2008; no sender of remote write has them.
            other => self.fail(Fault::WireType(other)),
        }
    }

    fn advance(&mut self, n: usize) -> Wire<()> {
        if self.end - self.pos < n {
            return self.fail(Fault::Truncated);
        }
        self.pos += n;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_varints_up_to_64_bits_and_no_further() {
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Reader::new(&max).varint(), Ok(u64::MAX));
        let mut over = max;
        over[9] = 2;
        assert_eq!(Reader::new(&over).varint().unwrap_err().fault, Fault::Varint);
        assert_eq!(Reader::new(&[0xff; 11]).varint().unwrap_err().fault, Fault::Varint);
        assert_eq!(Reader::new(&[0x80]).varint().unwrap_err().fault, Fault::Truncated);
    }

    #[test]
    fn lengths_never_leave_the_enclosing_message() {
        // A message of three bytes whose inner field claims five, in a buffer that has them.
        let data = [3, 0x0a, 5, b'x', b'y', b'z', b'w', b'v'];
        let mut inner = Reader::new(&data).message().unwrap();
        assert_eq!(inner.next_tag(), Ok(tag(1, LEN)));
        let error = inner.bytes().unwrap_err();
        assert_eq!((error.field, error.offset, error.fault), (1, 3, Fault::Length { declared: 5, left: 1 }));
    }

    #[test]
    fn refuses_groups_and_known_fields_of_another_type() {
        for (bytes, wire_type) in [(&[0x0b][..], 3), (&[0x0c], 4), (&[0x0f], 7), (&[0x08, 1], 0)] {
            let mut r = Reader::new(bytes);
            let tag = r.next_tag().unwrap();
            assert_eq!(r.skip(tag, &[1]).unwrap_err().fault, Fault::WireType(wire_type));
        }
        assert_eq!(Reader::new(&[0]).next_tag().unwrap_err().fault, Fault::Tag(0));
    }
}
