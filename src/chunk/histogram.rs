//! Native histograms, bit-packed: each sample as the difference to the one before.
//!
//! *Invariants:* all samples of a chunk share schema, zero threshold, custom bounds, gauge flag and coding; in a counter
//! chunk no count ever falls, and only the last sample may be a stale marker ([`HistogramEncoder::accepts`]). That is
//! what lets a reader give hints: the first sample of a counter chunk is `Unknown`, the others are `NotReset`.
//!
//! *Not here:* the header (`packed`), windows (`head`).
//!
//! Source of the hint rules: Prometheus `tsdb/chunkenc/histogram_meta.go`. Unlike there, new buckets do not rewrite the
//! chunk: a sample whose layout differs carries its own.

use std::sync::Arc;

use super::bits::{
    BitReader, Free, push_bits, push_dod, push_signed, push_varint, push_zigzag, read_dod, read_signed, take_varint,
    take_zigzag,
};
use super::packed::HEADER;
use super::{Chunk, ChunkKind, Error, StartRuns};
use crate::model::{Columns, Histogram, ResetHint, Span};

/// Flag of the payload: a gauge histogram.
const GAUGE: u8 = 1;
/// Flag of the payload: the sender's counts were integers.
const INTEGER: u8 = 2;
/// Most heap bytes the histograms of one chunk may decode to; encoders stay far below.
const DECODED_MAX: usize = 64 << 20;
/// Heap bytes of decoded histograms at which an encoder is full.
const FULL_DECODED: usize = 4 << 20;
/// Most samples per chunk.
const FULL_SAMPLES: usize = 128;

/// The histograms of an open chunk.
#[derive(Debug, Clone, Default)]
pub struct HistogramEncoder {
    buf: Vec<u8>,
    free: Free,
    count: u16,
    integer: bool,
    t: i64,
    delta: u32,
    decoded: usize,
    last: Option<Arc<Histogram>>,
}

impl HistogramEncoder {
    /// Number of samples.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the chunk so far.
    pub fn bytes(&self) -> usize {
        self.buf.len()
    }

    /// Heap bytes held (the newest histogram included).
    pub fn heap_bytes(&self) -> usize {
        self.buf.capacity() + self.last.as_ref().map_or(0, |h| h.heap_bytes() + 16)
    }

    /// Timestamp of the oldest sample, if any.
    pub fn first_t(&self) -> Option<i64> {
        self.buf.get(8..HEADER).and_then(|b| b.first_chunk::<8>()).map(|b| i64::from_le_bytes(*b))
    }

    /// The newest sample.
    pub fn last(&self) -> Option<&Arc<Histogram>> {
        self.last.as_ref()
    }

    /// Whether `h` may follow the newest sample in the same chunk.
    pub fn accepts(&self, h: &Histogram) -> bool {
        let Some(last) = &self.last else { return true };
        if self.len() >= FULL_SAMPLES || self.decoded >= FULL_DECODED || last.is_stale() {
            return false;
        }
        if h.is_stale() {
            return true;
        }
        let gauge = h.reset_hint == ResetHint::Gauge;
        h.integer == last.integer
            && counts_are_integers(h) == self.integer
            && gauge == (last.reset_hint == ResetHint::Gauge)
            && h.schema == last.schema
            && h.zero_threshold.to_bits() == last.zero_threshold.to_bits()
            && h.custom_values == last.custom_values
            && (gauge || (h.reset_hint != ResetHint::Reset && !falls(last, h)))
    }

    /// Appends a sample that [`HistogramEncoder::accepts`] allows; the caller keeps `t` ascending and the chunk within
    /// 2³² ms.
    pub fn push(&mut self, t: i64, h: Arc<Histogram>) {
        let none = Histogram::default();
        let stale = h.is_stale();
        self.decoded += weight(&h);
        if self.count == 0 {
            self.integer = counts_are_integers(&h);
            self.push_head(t, &h);
            self.push_counts(&none, &h, true);
        } else {
            let delta = (t - self.t) as u32;
            push_dod(&mut self.buf, &mut self.free, i64::from(delta) - i64::from(self.delta));
            self.delta = delta;
            let last = self.last.take().unwrap_or_default();
            if stale {
                // Only the marker counts; its buckets do not.
                self.push_counts(&last, &Histogram { sum: h.sum, ..none }, false);
            } else {
                self.push_counts(&last, &h, false);
            }
        }
        self.t = t;
        self.count += 1;
        self.last = Some(h);
    }

    fn push_head(&mut self, t: i64, h: &Histogram) {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        self.buf.clear();
        self.buf.extend_from_slice(&[0; 8]);
        self.buf.extend_from_slice(&t.to_le_bytes());
        self.buf.push(flag(h.reset_hint == ResetHint::Gauge, GAUGE) | flag(h.integer, INTEGER));
        push_zigzag(&mut self.buf, i64::from(h.schema));
        self.buf.extend_from_slice(&h.zero_threshold.to_bits().to_le_bytes());
        push_varint(&mut self.buf, h.custom_values.len() as u64);
        for bound in &h.custom_values {
            self.buf.extend_from_slice(&bound.to_bits().to_le_bytes());
        }
        self.free = Free::default();
    }

    /// Appends layout and numbers as differences to `last`; after a change of layout buckets count from 0.
    fn push_counts(&mut self, last: &Histogram, h: &Histogram, first: bool) {
        let same = !first && h.positive_spans == last.positive_spans && h.negative_spans == last.negative_spans;
        push_bits(&mut self.buf, &mut self.free, u64::from(!same), 1);
        if !same {
            self.push_spans(&h.positive_spans);
            self.push_spans(&h.negative_spans);
        }
        self.push_number(last.count, h.count);
        self.push_number(last.zero_count, h.zero_count);
        push_xor(&mut self.buf, &mut self.free, last.sum, h.sum);
        for (before, now) in [(&last.positive, &h.positive), (&last.negative, &h.negative)] {
            for (i, n) in now.iter().enumerate() {
                let from = if same { before.get(i).copied().unwrap_or(0.0) } else { 0.0 };
                self.push_number(from, *n);
            }
        }
    }

    fn push_spans(&mut self, spans: &[Span]) {
        push_signed(&mut self.buf, &mut self.free, spans.len() as i64);
        for span in spans {
            push_signed(&mut self.buf, &mut self.free, i64::from(span.offset));
            push_signed(&mut self.buf, &mut self.free, i64::from(span.length));
        }
    }

    fn push_number(&mut self, last: f64, now: f64) {
        if self.integer {
            push_signed(&mut self.buf, &mut self.free, (now as i64).wrapping_sub(last as i64));
        } else {
            push_xor(&mut self.buf, &mut self.free, last, now);
        }
    }

    /// The samples so far as a finished chunk; `None` when there are none.
    pub fn snapshot(&self, starts: Option<&StartRuns>) -> Option<Chunk> {
        let kind = if self.integer { ChunkKind::IntegerHistogram } else { ChunkKind::FloatHistogram };
        (self.count > 0).then(|| Chunk::seal(kind, self.count, self.t, &self.buf, starts))
    }

    /// Finishes the chunk and begins anew.
    pub fn finish(&mut self, starts: Option<&StartRuns>) -> Option<Chunk> {
        let chunk = self.snapshot(starts);
        *self = Self::default();
        chunk
    }
}

/// Heap bytes of a decoded histogram; by lengths, since capacities differ from replica to replica and this decides cuts.
fn weight(h: &Histogram) -> usize {
    let spans = h.positive_spans.len() + h.negative_spans.len();
    size_of::<Histogram>() + 8 * (spans + h.positive.len() + h.negative.len() + h.custom_values.len())
}

/// Whether every count survives a trip through `i64`: the condition for the integer coding.
fn counts_are_integers(h: &Histogram) -> bool {
    let whole = |c: &f64| (*c as i64 as f64).to_bits() == c.to_bits();
    h.integer && whole(&h.count) && whole(&h.zero_count) && h.positive.iter().all(whole) && h.negative.iter().all(whole)
}

/// Whether some count of `now` is below that of `last`: a counter reset.
fn falls(last: &Histogram, now: &Histogram) -> bool {
    now.count < last.count
        || now.zero_count < last.zero_count
        || side_falls((&last.positive_spans, &last.positive), (&now.positive_spans, &now.positive))
        || side_falls((&last.negative_spans, &last.negative), (&now.negative_spans, &now.negative))
}

fn side_falls(last: (&[Span], &[f64]), now: (&[Span], &[f64])) -> bool {
    if last.0 == now.0 {
        return last.1.iter().zip(now.1).any(|(l, n)| n < l);
    }
    let mut after = buckets(now).peekable();
    buckets(last).filter(|(_, count)| *count > 0.0).any(|(index, count)| {
        while after.next_if(|(i, _)| *i < index).is_some() {}
        after.next_if(|(i, _)| *i == index).is_none_or(|(_, n)| n < count)
    })
}

/// Bucket indices with their counts.
fn buckets<'a>((spans, counts): (&'a [Span], &'a [f64])) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut next = 0i64;
    let indices = spans.iter().flat_map(move |span| {
        let from = next + i64::from(span.offset);
        next = from + i64::from(span.length);
        from..next
    });
    indices.zip(counts.iter().copied())
}

/// `0` for equal bits, else `1`, 6 bits of leading zeros, 6 bits of length − 1 and the middle.
fn push_xor(buf: &mut Vec<u8>, free: &mut Free, last: f64, now: f64) {
    let xor = last.to_bits() ^ now.to_bits();
    if xor == 0 {
        return push_bits(buf, free, 0, 1);
    }
    let (leading, trailing) = (xor.leading_zeros(), xor.trailing_zeros());
    let bits = 64 - leading - trailing;
    push_bits(buf, free, (1 << 12) | (u64::from(leading) << 6) | u64::from(bits - 1), 13);
    push_bits(buf, free, xor >> trailing, bits);
}

fn read_xor(r: &mut BitReader<'_>, last: f64) -> Result<f64, Error> {
    if !r.read_bit() {
        return Ok(last);
    }
    let (leading, bits) = (r.read(6) as u32, r.read(6) as u32 + 1);
    if leading + bits > 64 {
        return Err(Error::Malformed("an XOR has more than 64 bits"));
    }
    Ok(f64::from_bits(last.to_bits() ^ (r.read(bits) << (64 - leading - bits))))
}

struct Decoder<'a> {
    r: BitReader<'a>,
    integer: bool,
    /// The sample before; at first what the chunk's head says.
    last: Histogram,
}

/// Appends the samples of a histogram payload to `out`.
pub(super) fn decode(
    kind: ChunkKind,
    mut payload: &[u8],
    first_t: i64,
    count: usize,
    out: &mut Columns,
) -> Result<(), Error> {
    let last = read_head(&mut payload)?;
    let counter = last.reset_hint != ResetHint::Gauge;
    let mut d = Decoder { r: BitReader::new(payload), integer: kind == ChunkKind::IntegerHistogram, last };
    let (mut t, mut delta, mut decoded) = (first_t, 0i64, 0usize);
    for i in 0..count {
        if i > 0 {
            let word = d.r.peek();
            delta += read_dod(&mut d.r, word);
            t = t.wrapping_add(delta);
            if delta <= 0 {
                return Err(Error::Malformed("timestamps do not ascend"));
            }
        }
        d.next()?;
        d.r.overrun("the histograms")?;
        let mut h = d.last.clone();
        if counter {
            h.reset_hint = if i == 0 { ResetHint::Unknown } else { ResetHint::NotReset };
        }
        decoded += weight(&h);
        if decoded > DECODED_MAX {
            return Err(Error::Malformed("its histograms take more memory than any encoder would write"));
        }
        out.push_histogram(t, Arc::new(h));
    }
    Ok(())
}

fn read_head(payload: &mut &[u8]) -> Result<Histogram, Error> {
    let len = payload.len();
    let truncated = || Error::Truncated { len, part: "the histogram head" };
    let (flags, rest) = payload.split_first().ok_or_else(truncated)?;
    *payload = rest;
    let schema = i32::try_from(take_zigzag(payload)?).map_err(|_| Error::Malformed("the schema is not 32 bits"))?;
    let next_f64 = |payload: &mut &[u8]| {
        let (bytes, rest) = payload.split_first_chunk::<8>().ok_or_else(truncated)?;
        *payload = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*bytes)))
    };
    let zero_threshold = next_f64(payload)?;
    let bounds = take_varint(payload)?;
    if bounds > (payload.len() / 8) as u64 {
        return Err(truncated());
    }
    let custom_values = (0..bounds).map(|_| next_f64(payload)).collect::<Result<Vec<f64>, Error>>()?;
    let reset_hint = if flags & GAUGE != 0 { ResetHint::Gauge } else { ResetHint::Unknown };
    Ok(Histogram {
        integer: flags & INTEGER != 0,
        schema,
        reset_hint,
        zero_threshold,
        custom_values,
        ..Histogram::default()
    })
}

impl Decoder<'_> {
    /// Turns `last` into the next sample.
    fn next(&mut self) -> Result<(), Error> {
        if self.r.read_bit() {
            (self.last.positive_spans, self.last.positive) = self.read_spans()?;
            (self.last.negative_spans, self.last.negative) = self.read_spans()?;
        }
        self.last.count = self.read_number(self.last.count)?;
        self.last.zero_count = self.read_number(self.last.zero_count)?;
        self.last.sum = read_xor(&mut self.r, self.last.sum)?;
        let buckets = self.last.positive.len() + self.last.negative.len();
        if buckets > self.r.left() {
            return Err(Error::Malformed("it has more buckets than bits"));
        }
        for i in 0..self.last.positive.len() {
            self.last.positive[i] = self.read_number(self.last.positive[i])?;
        }
        for i in 0..self.last.negative.len() {
            self.last.negative[i] = self.read_number(self.last.negative[i])?;
        }
        Ok(())
    }

    fn read_number(&mut self, last: f64) -> Result<f64, Error> {
        if self.integer {
            return Ok((last as i64).wrapping_add(read_signed(&mut self.r)) as f64);
        }
        read_xor(&mut self.r, last)
    }

    /// Reads the spans of one side, and as many zero counts as they have buckets.
    fn read_spans(&mut self) -> Result<(Vec<Span>, Vec<f64>), Error> {
        let too_many = Error::Malformed("it has more spans or buckets than bits");
        let spans = read_signed(&mut self.r);
        // A span takes two bits at least, a bucket one.
        if spans < 0 || spans as u64 > self.r.left() as u64 / 2 {
            return Err(too_many);
        }
        let (mut out, mut buckets) = (Vec::with_capacity(spans as usize), 0u64);
        for _ in 0..spans {
            let (offset, length) = (read_signed(&mut self.r), read_signed(&mut self.r));
            let (Ok(offset), Ok(length)) = (i32::try_from(offset), u32::try_from(length)) else {
                return Err(Error::Malformed("a span is out of range"));
            };
            buckets += u64::from(length);
            out.push(Span { offset, length });
        }
        if buckets > self.r.left() as u64 {
            return Err(too_many);
        }
        Ok((out, vec![0.0; buckets as usize]))
    }
}
