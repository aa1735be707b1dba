//! What a shard answers to an entry: per section, series made and rows refused.
//!
//! *Invariants:* a section all of whose rows were stored answers two bytes, so the common answer costs nothing.
//! Rows are numbered as in the section: floats first, then histograms. A shard that is sealed answers no byte at all.
//!
//! *Not here:* the words a client reads (`ingest::outcome`).

use bytes::Bytes;

use super::codec::{Malformed, Reader, put_varint};

/// Why a row was not stored, as `apply` decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refused {
    /// The series has another value at this timestamp.
    Conflict = 1,
    /// Further behind the tenant's newest sample than its out-of-order limit.
    TooOld = 2,
    /// The id is not (or no longer) known: propose again with labels.
    UnknownSeries = 3,
}

impl Refused {
    fn from_u8(n: u8) -> Option<Self> {
        [Self::Conflict, Self::TooOld, Self::UnknownSeries].into_iter().find(|r| *r as u8 == n)
    }
}

/// The answer to one section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SectionReply {
    /// Series that were new to the shard.
    pub created: u64,
    /// Rows not stored, ascending.
    pub refused: Vec<(u32, Refused)>,
}

/// The answer to an append: one reply a section.
pub fn append_reply(sections: &[SectionReply]) -> Bytes {
    let mut out = Vec::with_capacity(2 * sections.len());
    for section in sections {
        put_varint(&mut out, section.created);
        put_varint(&mut out, section.refused.len() as u64);
        let mut last = 0;
        for (row, why) in &section.refused {
            put_varint(&mut out, u64::from(row - last));
            out.push(*why as u8);
            last = *row;
        }
    }
    out.into()
}

/// Reads the answer to an append of `sections` sections.
pub fn read_append_reply(bytes: &[u8], sections: usize) -> Result<Vec<SectionReply>, Malformed> {
    let mut r = Reader::new(bytes);
    (0..sections)
        .map(|_| {
            let created = r.varint("created series")?;
            let n = r.count("refused rows")?;
            let mut last = 0u64;
            let mut row = || {
                last += r.varint("row")?;
                let why = Refused::from_u8(r.byte("reason")?).ok_or(r.malformed("reason"))?;
                Ok((u32::try_from(last).map_err(|_| r.malformed("row"))?, why))
            };
            Ok(SectionReply { created, refused: (0..n).map(|_| row()).collect::<Result<_, _>>()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_round_trip_and_full_success_is_two_bytes_a_section() {
        let replies = [
            SectionReply::default(),
            SectionReply {
                created: 300,
                refused: vec![(0, Refused::Conflict), (7, Refused::TooOld), (900, Refused::UnknownSeries)],
            },
        ];
        let bytes = append_reply(&replies);
        assert_eq!(read_append_reply(&bytes, 2).unwrap(), replies);
        assert_eq!(append_reply(&replies[..1]).len(), 2);
        assert!(read_append_reply(&bytes, 3).is_err());
    }
}
