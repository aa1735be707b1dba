//! Requests for parts of heads and the pieces that answer them, as messages.
//!
//! *Invariants:* what is unpacked is never larger than it says, and never larger than a message may be.
//!
//! *Not here:* the bytes of a part (`head`), asking (`query::remote`), answering (`query::serve`).

use std::borrow::Cow;

use bytes::Bytes;

use super::heads::Ask;
use crate::head::{RestoreError, Want};
use crate::model::{MatchOp, Matcher, TenantId, TimeRange};
use crate::peers::MESSAGE_BYTES;
use crate::proto::v1::label_matcher::Op;
use crate::proto::v1::read_head_request::Want as WantWire;
use crate::proto::v1::{HeadPiece, LabelMatcher, ReadHeadRequest};
use crate::raft::GroupId;

/// Compression of pieces: labels shrink to a tenth at this level already, at the speed of a network.
const LEVEL: i32 = 1;

/// Why a piece cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    /// It says that it is larger than a message may be.
    #[error("a piece of {0} bytes")]
    TooLarge(u32),
    /// It cannot be decompressed to what it says.
    #[error("decompress {0} bytes")]
    Compressed(u32, #[source] std::io::Error),
    /// It is shorter than it says.
    #[error("a piece of {0} bytes has {1}")]
    Length(u32, usize),
    /// Its bytes are no part.
    #[error("{0}")]
    Part(#[from] RestoreError),
}

/// A request of what is asked, by someone who can take `max_bytes`.
pub(super) fn request_of(group: GroupId, ask: Ask<'_>, max_bytes: u64) -> ReadHeadRequest {
    let (want, name) = match ask.want {
        Want::Samples => (WantWire::Samples, ""),
        Want::Labels => (WantWire::Labels, ""),
        Want::Names => (WantWire::Names, ""),
        Want::Values(name) => (WantWire::Values, name),
        Want::Exemplars => (WantWire::Exemplars, ""),
        Want::Counts => (WantWire::Counts, ""),
        Want::Metadata(Some(metric)) => (WantWire::MetadataOf, metric),
        Want::Metadata(None) => (WantWire::Metadata, ""),
        Want::Tenant => (WantWire::Tenant, ""),
    };
    ReadHeadRequest {
        group: group.0,
        tenant: ask.tenant.as_str().to_owned(),
        want: want.into(),
        name: name.to_owned(),
        matchers: ask.matchers.iter().map(matcher_to_wire).collect(),
        start: ask.range.start,
        end: ask.range.end,
        max_bytes,
    }
}

/// What a request asks of a head; an error says what is wrong with it.
pub(super) struct Asked {
    pub(super) tenant: TenantId,
    pub(super) matchers: Vec<Matcher>,
    pub(super) range: TimeRange,
    want: WantWire,
    name: String,
}

impl Asked {
    pub(super) fn of(request: ReadHeadRequest) -> Result<Self, String> {
        let want =
            WantWire::try_from(request.want).map_err(|_| format!("what is wanted, {}, is unknown", request.want))?;
        let matchers = request.matchers.iter().map(matcher_of).collect::<Result<_, _>>()?;
        // Not TimeRange::new: an empty range is one that nothing lies in.
        let range = TimeRange { start: request.start, end: request.end };
        Ok(Self { tenant: TenantId::new(&request.tenant)?, matchers, range, want, name: request.name })
    }

    pub(super) fn want(&self) -> Want<'_> {
        match self.want {
            WantWire::Samples => Want::Samples,
            WantWire::Labels => Want::Labels,
            WantWire::Names => Want::Names,
            WantWire::Values => Want::Values(&self.name),
            WantWire::Exemplars => Want::Exemplars,
            WantWire::Counts => Want::Counts,
            WantWire::MetadataOf => Want::Metadata(Some(&self.name)),
            WantWire::Metadata => Want::Metadata(None),
            WantWire::Tenant => Want::Tenant,
        }
    }
}

fn matcher_to_wire(m: &Matcher) -> LabelMatcher {
    let op = match m.op {
        MatchOp::Equal => Op::Equal,
        MatchOp::NotEqual => Op::NotEqual,
        MatchOp::Regex => Op::Regex,
        MatchOp::NotRegex => Op::NotRegex,
    };
    LabelMatcher { name: m.name.to_string(), op: op.into(), value: m.value.to_string() }
}

fn matcher_of(m: &LabelMatcher) -> Result<Matcher, String> {
    let op = match Op::try_from(m.op).map_err(|_| format!("comparison {} of a matcher is unknown", m.op))? {
        Op::Equal => MatchOp::Equal,
        Op::NotEqual => MatchOp::NotEqual,
        Op::Regex => MatchOp::Regex,
        Op::NotRegex => MatchOp::NotRegex,
    };
    Matcher::new(&m.name, op, &m.value)
}

/// A piece that holds `data`, compressed if that makes it shorter by an eighth.
pub(super) fn pack(data: Vec<u8>) -> HeadPiece {
    let (data, raw_bytes) = squeeze(data);
    HeadPiece { data, raw_bytes, ..HeadPiece::default() }
}

/// How many bytes a piece has, or will have once it is unpacked.
pub(super) fn len(piece: &HeadPiece) -> u64 {
    piece.data.len() as u64 + u64::from(piece.raw_bytes)
}

/// What [`pack`] packed.
pub(super) fn unpack(piece: &HeadPiece) -> Result<Cow<'_, [u8]>, Malformed> {
    unsqueeze(&piece.data, piece.raw_bytes)
}

/// Bytes, compressed if that makes them shorter by an eighth, and then how many they were.
pub(super) fn squeeze(data: Vec<u8>) -> (Bytes, u32) {
    // What the compressor does not take goes as it is.
    let packed = zstd::bulk::compress(&data, LEVEL).ok().filter(|packed| packed.len() < data.len() / 8 * 7);
    match (packed, u32::try_from(data.len())) {
        (Some(packed), Ok(raw_bytes)) => (packed.into(), raw_bytes),
        _ => (data.into(), 0),
    }
}

/// What [`squeeze`] squeezed.
pub(super) fn unsqueeze(data: &[u8], raw: u32) -> Result<Cow<'_, [u8]>, Malformed> {
    if raw == 0 {
        return Ok(Cow::Borrowed(data));
    }
    if raw as usize > MESSAGE_BYTES {
        return Err(Malformed::TooLarge(raw));
    }
    let data = zstd::bulk::decompress(data, raw as usize).map_err(|e| Malformed::Compressed(raw, e))?;
    if data.len() == raw as usize { Ok(Cow::Owned(data)) } else { Err(Malformed::Length(raw, data.len())) }
}
