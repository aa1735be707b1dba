//! What can be wrong with the bytes of a chunk.
//!
//! *Invariants:* every variant means that the bytes are not what an encoder wrote.

use crate::error::{HasKind, Kind};

/// Why a chunk could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than the header, or than the header promises.
    #[error("read chunk: {len} bytes end inside {part}")]
    Truncated {
        /// Bytes there are.
        len: usize,
        /// What was being read.
        part: &'static str,
    },
    /// The kind byte is not one of this version.
    #[error("read chunk: unknown kind byte {0:#04x}")]
    UnknownKind(u8),
    /// Content that no encoder writes.
    #[error("read chunk: {0}")]
    Malformed(&'static str),
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}
