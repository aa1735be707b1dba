//! Chunks as Prometheus stores and reads them, for clients of remote read: written here, never read.
//!
//! *Invariants:* a chunk holds at most [`SAMPLES`] samples of one kind. A reader takes every histogram of a chunk but the
//! first as "no reset since the one before", so a chunk ends where that is not known. All histograms are packed with float
//! counts, which hold what integer ones hold.
//!
//! *Not here:* our own packing (`float`, `histogram`), the messages around chunks (`query::read`).
//!
//! Source: Prometheus `tsdb/docs/format/chunks.md`.

use super::bits::{Free, push_bits};
use crate::model::{Histogram, ResetHint, Span};

/// Most samples of a chunk, as Prometheus cuts them.
pub const SAMPLES: u16 = 120;

/// Largest and smallest exponent of a zero threshold that fits into a byte (of a fraction in `[0.5, 1)`).
const THRESHOLD_EXPONENTS: std::ops::RangeInclusive<i32> = -242..=11;
/// Largest custom bound that is stored as thousandths.
const MOST_THOUSANDTHS: f64 = 33_554_430.0;

/// How a chunk is packed; the number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// Floats.
    Xor = 1,
    /// Histograms with float counts.
    FloatHistogram = 3,
}

/// A finished chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusChunk {
    /// First timestamp.
    pub min_t: i64,
    /// Last timestamp.
    pub max_t: i64,
    /// How it is packed.
    pub encoding: Encoding,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Packs the samples of one series, in order of time.
#[derive(Debug, Default)]
pub struct PrometheusChunks {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    out: Bits,
    samples: u16,
    min_t: i64,
    t: i64,
    delta: i64,
    kind: OpenKind,
}

#[derive(Debug)]
enum OpenKind {
    Floats(Xor),
    Histograms(Box<Layout>),
}

/// What all histograms of a chunk share, and their last values: count, zero count, sum, buckets.
#[derive(Debug)]
struct Layout {
    of: Histogram,
    values: Vec<Xor>,
}

impl PrometheusChunks {
    /// Adds a float; returns the chunk before it if that is finished.
    pub fn push_float(&mut self, t: i64, v: f64) -> Option<PrometheusChunk> {
        if let Some(open) = &mut self.open
            && open.samples < SAMPLES
            && let OpenKind::Floats(last) = &mut open.kind
        {
            let (delta, samples) = (t - open.t, open.samples);
            match samples {
                1 => open.out.uvarint(delta as u64),
                _ => open.out.dod(delta - open.delta),
            }
            last.push(&mut open.out, v);
            open.took(t, delta);
            return None;
        }
        let done = self.finish();
        let mut out = Bits::with_header(2);
        out.uvarint(((t << 1) ^ (t >> 63)) as u64);
        out.bits(v.to_bits(), 64);
        self.open = Some(Open::new(out, t, OpenKind::Floats(Xor::new(v))));
        done
    }

    /// Adds a histogram; returns the chunk before it if that is finished.
    pub fn push_histogram(&mut self, t: i64, h: &Histogram) -> Option<PrometheusChunk> {
        if let Some(open) = &mut self.open
            && open.samples < SAMPLES
            && let OpenKind::Histograms(layout) = &mut open.kind
            && layout.takes(h)
        {
            let delta = t - open.t;
            open.out.varbit(delta - open.delta);
            let values = [h.count, h.zero_count, h.sum];
            let values = values.iter().chain(&h.positive).chain(&h.negative);
            layout.values.iter_mut().zip(values).for_each(|(last, v)| last.push(&mut open.out, *v));
            open.took(t, delta);
            return None;
        }
        let done = self.finish();
        let stale = Histogram { sum: h.sum, ..Histogram::default() };
        self.open = Some(Open::with_histogram(t, if h.is_stale() { &stale } else { h }));
        done
    }

    /// The last chunk.
    pub fn finish(&mut self) -> Option<PrometheusChunk> {
        let mut open = self.open.take()?;
        open.out.buf[..2].copy_from_slice(&open.samples.to_be_bytes());
        let encoding = match open.kind {
            OpenKind::Floats(_) => Encoding::Xor,
            OpenKind::Histograms(_) => Encoding::FloatHistogram,
        };
        Some(PrometheusChunk { min_t: open.min_t, max_t: open.t, encoding, bytes: open.out.buf })
    }
}

impl Open {
    fn new(out: Bits, t: i64, kind: OpenKind) -> Self {
        Self { out, samples: 1, min_t: t, t, delta: 0, kind }
    }

    fn took(&mut self, t: i64, delta: i64) {
        (self.t, self.delta) = (t, delta);
        self.samples += 1;
    }

    fn with_histogram(t: i64, h: &Histogram) -> Self {
        let mut out = Bits::with_header(3);
        out.buf[2] = match h.reset_hint {
            ResetHint::Unknown => 0,
            ResetHint::NotReset => 0b0100_0000,
            ResetHint::Reset => 0b1000_0000,
            ResetHint::Gauge => 0b1100_0000,
        };
        out.zero_threshold(h.zero_threshold);
        out.varbit(i64::from(h.schema));
        out.spans(&h.positive_spans);
        out.spans(&h.negative_spans);
        if h.is_custom() {
            out.varbit_unsigned(h.custom_values.len() as u64);
            h.custom_values.iter().for_each(|bound| out.custom_bound(*bound));
        }
        out.varbit(t);
        let values = [h.count, h.zero_count, h.sum];
        let values: Vec<Xor> = values.iter().chain(&h.positive).chain(&h.negative).map(|v| Xor::new(*v)).collect();
        values.iter().for_each(|v| out.bits(v.bits, 64));
        Self::new(out, t, OpenKind::Histograms(Box::new(Layout { of: h.clone(), values })))
    }
}

impl Layout {
    /// Whether a histogram can follow in the same chunk.
    fn takes(&self, h: &Histogram) -> bool {
        let gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
        let same = |a: &[f64], b: &[f64]| a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()));
        !h.is_stale()
            && !self.of.is_stale()
            && gauge(h) == gauge(&self.of)
            && (gauge(h) || h.reset_hint == ResetHint::NotReset)
            && h.schema == self.of.schema
            && h.zero_threshold == self.of.zero_threshold
            && h.positive_spans == self.of.positive_spans
            && h.negative_spans == self.of.negative_spans
            && same(&h.custom_values, &self.of.custom_values)
    }
}

/// The last of a run of floats, of which each is stored as the bits that changed.
#[derive(Debug, Clone, Copy)]
struct Xor {
    bits: u64,
    /// Zeros on both sides of the window that is in use, where there is one.
    window: Option<(u32, u32)>,
}

impl Xor {
    fn new(v: f64) -> Self {
        Self { bits: v.to_bits(), window: None }
    }

    fn push(&mut self, out: &mut Bits, v: f64) {
        let changed = self.bits ^ v.to_bits();
        self.bits = v.to_bits();
        if changed == 0 {
            return out.bits(0, 1);
        }
        // Five bits hold the number of leading zeros.
        let (leading, trailing) = (changed.leading_zeros().min(31), changed.trailing_zeros());
        if let Some((l, t)) = self.window
            && leading >= l
            && trailing >= t
        {
            out.bits(0b10, 2);
            return out.bits(changed >> t, 64 - l - t);
        }
        self.window = Some((leading, trailing));
        let width = 64 - leading - trailing;
        out.bits(0b11, 2);
        out.bits(u64::from(leading), 5);
        // 64 does not fit and is written as 0, which does not occur.
        out.bits(u64::from(width % 64), 6);
        out.bits(changed >> trailing, width);
    }
}

/// Whether a signed number fits into `n` bits as Prometheus counts: the highest value is positive.
fn fits(v: i64, n: u32) -> bool {
    let half = 1i64 << (n - 1);
    (1 - half..=half).contains(&v)
}

#[derive(Debug)]
struct Bits {
    buf: Vec<u8>,
    free: Free,
}

impl Bits {
    fn with_header(bytes: usize) -> Self {
        let mut buf = Vec::with_capacity(128);
        buf.resize(bytes, 0);
        Self { buf, free: Free(0) }
    }

    fn bits(&mut self, value: u64, n: u32) {
        push_bits(&mut self.buf, &mut self.free, value, n);
    }

    fn signed(&mut self, v: i64, n: u32) {
        self.bits(v as u64 & (u64::MAX >> (64 - n)), n);
    }

    fn uvarint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.bits(v & 0x7f | 0x80, 8);
            v >>= 7;
        }
        self.bits(v, 8);
    }

    /// Change of the distance of timestamps in a chunk of floats.
    fn dod(&mut self, v: i64) {
        if v == 0 {
            return self.bits(0, 1);
        }
        for (prefix, prefix_bits, n) in [(0b10, 2, 14), (0b110, 3, 17), (0b1110, 4, 20)] {
            if fits(v, n) {
                self.bits(prefix, prefix_bits);
                return self.signed(v, n);
            }
        }
        self.bits(0b1111, 4);
        self.bits(v as u64, 64);
    }

    /// A signed number of a histogram chunk.
    fn varbit(&mut self, v: i64) {
        match VARBIT.iter().position(|n| if *n == 0 { v == 0 } else { fits(v, *n) }) {
            Some(class) => self.class(class, v as u64),
            None => self.class(VARBIT.len(), v as u64),
        }
    }

    /// An unsigned number of a histogram chunk.
    fn varbit_unsigned(&mut self, v: u64) {
        let class = VARBIT.iter().position(|n| v.checked_shr(*n) == Some(0)).unwrap_or(VARBIT.len());
        self.class(class, v);
    }

    /// As many ones as the number of the class, a zero, and the bits of the value; the last class needs no zero.
    fn class(&mut self, class: usize, v: u64) {
        match VARBIT.get(class) {
            Some(0) => self.bits(0, 1),
            Some(n) => {
                self.bits((1 << (class + 1)) - 2, class as u32 + 1);
                self.bits(v & (u64::MAX >> (64 - n)), *n);
            }
            None => {
                self.bits(0xff, 8);
                self.bits(v, 64);
            }
        }
    }

    fn spans(&mut self, spans: &[Span]) {
        self.varbit_unsigned(spans.len() as u64);
        for span in spans {
            self.varbit_unsigned(u64::from(span.length));
            self.varbit(i64::from(span.offset));
        }
    }

    /// Powers of two, which nearly all thresholds are, take a byte.
    fn zero_threshold(&mut self, threshold: f64) {
        const FRACTION: u64 = (1 << 52) - 1;
        // The exponent over a fraction in [0.5, 1).
        let exponent = (threshold.to_bits() >> 52) as i32 - 1022;
        if threshold == 0.0 {
            self.bits(0, 8);
        } else if threshold.to_bits() & FRACTION == 0 && THRESHOLD_EXPONENTS.contains(&exponent) {
            self.bits((exponent + 243) as u64, 8);
        } else {
            self.bits(255, 8);
            self.bits(threshold.to_bits(), 64);
        }
    }

    /// Bounds that are whole thousandths are stored as such.
    fn custom_bound(&mut self, bound: f64) {
        let thousandths = (bound * 1000.0).round();
        if (0.0..=MOST_THOUSANDTHS).contains(&thousandths) && thousandths / 1000.0 == bound {
            return self.varbit_unsigned(thousandths as u64 + 1);
        }
        self.bits(0, 1);
        self.bits(bound.to_bits(), 64);
    }
}

/// Bits of a number in each class.
const VARBIT: [u32; 8] = [0, 3, 6, 9, 12, 18, 25, 56];

#[cfg(test)]
mod tests;
