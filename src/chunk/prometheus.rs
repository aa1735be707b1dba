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
mod tests {
    use super::*;
    use crate::chunk::bits::BitReader;

    fn chunk_of(samples: &[(i64, f64)]) -> Vec<u8> {
        let mut chunks = PrometheusChunks::default();
        assert!(samples.iter().all(|(t, v)| chunks.push_float(*t, *v).is_none()));
        chunks.finish().unwrap().bytes
    }

    /// Reads as the specification says, written apart from the encoder.
    struct Reader<'a>(BitReader<'a>);

    impl Reader<'_> {
        fn uvarint(&mut self) -> u64 {
            let (mut v, mut shift) = (0u64, 0);
            loop {
                let byte = self.0.read(8);
                v |= (byte & 0x7f) << shift;
                if byte < 0x80 {
                    return v;
                }
                shift += 7;
            }
        }

        /// A signed number whose width is told by the ones before it.
        fn signed(&mut self, widths: &[u32]) -> i64 {
            let (bits, width) = self.prefixed(widths);
            if width < 64 && width > 0 && bits > 1 << (width - 1) { bits as i64 - (1i64 << width) } else { bits as i64 }
        }

        fn prefixed(&mut self, widths: &[u32]) -> (u64, u32) {
            let ones = (1..widths.len()).take_while(|_| self.0.read_bit()).count();
            let width = widths[ones];
            (if width == 0 { 0 } else { self.0.read(width) }, width)
        }

        fn varbit(&mut self) -> i64 {
            self.signed(&[0, 3, 6, 9, 12, 18, 25, 56, 64])
        }

        fn varbit_unsigned(&mut self) -> u64 {
            self.prefixed(&[0, 3, 6, 9, 12, 18, 25, 56, 64]).0
        }

        fn xor(&mut self, before: u64, window: &mut (u32, u32)) -> u64 {
            if !self.0.read_bit() {
                return before;
            }
            if self.0.read_bit() {
                let (leading, width) = (self.0.read(5) as u32, self.0.read(6) as u32);
                *window = (leading, if width == 0 { 64 } else { width });
            }
            before ^ self.0.read(window.1) << (64 - window.0 - window.1)
        }
    }

    fn read_xor(bytes: &[u8]) -> Vec<(i64, u64)> {
        let total = u16::from_be_bytes([bytes[0], bytes[1]]);
        let mut r = Reader(BitReader::new(&bytes[2..]));
        let z = r.uvarint();
        let (mut out, mut delta, mut window) = (Vec::new(), 0i64, (0, 0));
        out.push(((z >> 1) as i64 ^ -((z & 1) as i64), r.0.read(64)));
        for n in 1..total {
            match n {
                1 => delta = r.uvarint() as i64,
                _ => delta += r.signed(&[0, 14, 17, 20, 64]),
            }
            let (t, v) = out[out.len() - 1];
            out.push((t + delta, r.xor(v, &mut window)));
        }
        assert!(r.0.overrun("xor").is_ok());
        out
    }

    fn read_histograms(bytes: &[u8]) -> Vec<(i64, Histogram)> {
        let total = u16::from_be_bytes([bytes[0], bytes[1]]);
        let mut r = Reader(BitReader::new(&bytes[3..]));
        let zero_threshold = match r.0.read(8) {
            0 => 0.0,
            255 => f64::from_bits(r.0.read(64)),
            exponent => 0.5 * 2f64.powi(exponent as i32 - 243),
        };
        let schema = r.varbit() as i32;
        let spans = |r: &mut Reader<'_>| -> Vec<Span> {
            let n = r.varbit_unsigned();
            (0..n).map(|_| Span { length: r.varbit_unsigned() as u32, offset: r.varbit() as i32 }).collect()
        };
        let (positive_spans, negative_spans) = (spans(&mut r), spans(&mut r));
        let bounds = if schema == -53 { r.varbit_unsigned() } else { 0 };
        let custom_values = (0..bounds)
            .map(|_| match r.varbit_unsigned() {
                0 => f64::from_bits(r.0.read(64)),
                n => (n - 1) as f64 / 1000.0,
            })
            .collect();
        let layout =
            Histogram { zero_threshold, schema, positive_spans, negative_spans, custom_values, ..Histogram::default() };
        let count = |spans: &[Span]| spans.iter().map(|s| s.length as usize).sum::<usize>();
        let (positive, negative) = (count(&layout.positive_spans), count(&layout.negative_spans));
        let mut t = r.varbit();
        let (mut delta, mut windows) = (0, vec![(0, 0); 3 + positive + negative]);
        let mut values: Vec<u64> = windows.iter().map(|_| r.0.read(64)).collect();
        let mut out = Vec::new();
        for n in 0..total {
            if n > 0 {
                delta += r.varbit();
                t += delta;
                values.iter_mut().zip(&mut windows).for_each(|(v, window)| *v = r.xor(*v, window));
            }
            let v: Vec<f64> = values.iter().map(|v| f64::from_bits(*v)).collect();
            let (count, zero_count, sum) = (v[0], v[1], v[2]);
            let (positive, negative) = v[3..].split_at(positive);
            let (positive, negative) = (positive.to_vec(), negative.to_vec());
            out.push((t, Histogram { count, zero_count, sum, positive, negative, ..layout.clone() }));
        }
        assert!(r.0.overrun("histogram").is_ok());
        out
    }

    #[test]
    fn histograms_read_back() {
        let span = |offset, length| Span { offset, length };
        let exponential = |n: f64| Histogram {
            reset_hint: ResetHint::NotReset,
            schema: 3,
            zero_threshold: 2f64.powi(-128),
            zero_count: n,
            count: 9.0 * n,
            sum: 1.5 * n,
            positive_spans: vec![span(-300, 2), span(5, 1)],
            positive: vec![n, 2.0 * n, 3.0],
            negative_spans: vec![span(0, 1)],
            negative: vec![n / 3.0],
            ..Histogram::default()
        };
        let custom = |n: f64| Histogram {
            reset_hint: ResetHint::NotReset,
            schema: -53,
            count: n,
            sum: -n,
            positive_spans: vec![span(1, 3)],
            positive: vec![n, 0.0, 1.0],
            custom_values: vec![0.005, 2.5, 1e-9, 33_554.43, 1e9],
            ..Histogram::default()
        };
        for of in [&exponential as &dyn Fn(f64) -> Histogram, &custom] {
            let given: Vec<_> =
                [(-7, 1.0), (15_000, 2.0), (30_000, 2.0), (1 << 40, 1e15)].map(|(t, n)| (t, of(n))).into();
            let mut chunks = PrometheusChunks::default();
            assert!(given.iter().all(|(t, h)| chunks.push_histogram(*t, h).is_none()));
            let chunk = chunks.finish().unwrap();
            let without_hint = |(t, h): (i64, Histogram)| (t, Histogram { reset_hint: ResetHint::Unknown, ..h });
            let want: Vec<_> = given.into_iter().map(without_hint).collect();
            assert_eq!(read_histograms(&chunk.bytes), want);
        }
    }

    #[test]
    fn floats_read_back_bit_for_bit() {
        let times = [-5, 0, 15_000, 30_000, 30_001, 38_192, 46_384, 112_000, 700_000, 1 << 41, (1 << 41) + 1];
        let values = [1.0, 1.0, 1.5, -1.5, f64::NAN, 0.1, 0.1 + 1e-16, f64::from_bits(1), 1e300, -0.0, 7.0];
        let samples: Vec<_> = times.into_iter().zip(values).collect();
        let want: Vec<_> = samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
        assert_eq!(read_xor(&chunk_of(&samples)), want);
        for edge in [8191, 8192, -8191, -8192, 65_536, -65_536, 524_288, 524_289, -524_288] {
            let samples = [(0, 1.0), (1_000_000, 1.0), (2_000_000 + edge, 1.0)];
            assert_eq!(read_xor(&chunk_of(&samples))[2].0, 2_000_000 + edge);
        }
    }

    #[test]
    fn a_chunk_of_floats_has_the_bytes_prometheus_writes() {
        // Two samples: count, zig-zag 1000, 1.0; then delta 15 000 and no change.
        assert_eq!(chunk_of(&[(1000, 1.0)]), [0, 1, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            chunk_of(&[(1000, 1.0), (16_000, 1.0)]),
            [0, 2, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0x98, 0x75, 0]
        );
    }

    #[test]
    fn chunks_end_after_enough_samples_and_between_kinds() {
        let mut chunks = PrometheusChunks::default();
        let mut done: Vec<_> = (0..250).filter_map(|i| chunks.push_float(i, i as f64)).collect();
        done.extend(chunks.push_histogram(250, &Histogram::default()));
        done.extend(chunks.finish());
        let shapes: Vec<_> = done.iter().map(|c| (c.min_t, c.max_t, c.encoding)).collect();
        use Encoding::{FloatHistogram, Xor};
        assert_eq!(shapes, [(0, 119, Xor), (120, 239, Xor), (240, 249, Xor), (250, 250, FloatHistogram)]);
    }

    #[test]
    fn histograms_share_a_chunk_only_while_no_reset_is_known() {
        let h = |reset_hint, spans: &[Span], sum| Histogram {
            reset_hint,
            sum,
            positive_spans: spans.to_vec(),
            positive: vec![1.0; spans.iter().map(|s| s.length as usize).sum()],
            ..Histogram::default()
        };
        let (one, two) = ([Span { offset: 0, length: 1 }], [Span { offset: 0, length: 2 }]);
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        let stale = crate::model::stale_nan();
        let given = [
            h(Unknown, &one, 1.0),
            h(NotReset, &one, 2.0),
            h(NotReset, &two, 3.0),
            h(Reset, &two, 1.0),
            h(Gauge, &two, 1.0),
            h(Gauge, &two, 0.5),
            h(NotReset, &two, stale),
            h(NotReset, &two, 1.0),
        ];
        let mut chunks = PrometheusChunks::default();
        let mut done: Vec<_> = given.iter().zip(0..).filter_map(|(h, t)| chunks.push_histogram(t, h)).collect();
        done.extend(chunks.finish());
        let shapes: Vec<_> = done.iter().map(|c| (c.bytes[1], c.bytes[2])).collect();
        assert_eq!(shapes, [(2, 0), (1, 0x40), (1, 0x80), (2, 0xc0), (1, 0), (1, 0x40)]);
    }

    #[test]
    fn numbers_of_histogram_chunks_take_their_classes() {
        let bits_of = |write: &dyn Fn(&mut Bits)| {
            let mut bits = Bits::with_header(0);
            write(&mut bits);
            (bits.buf.len() * 8 - usize::from(bits.free.0), bits.buf[0])
        };
        for (v, width) in [(0, 1), (4, 5), (-3, 5), (5, 9), (-4, 9), (256, 13), (2048, 17), (131_072, 24)] {
            assert_eq!(bits_of(&|b| b.varbit(v)).0, width, "{v}");
        }
        for (v, width) in [(1 << 24, 32), (1 << 55, 64), ((1 << 55) + 1, 72), (i64::MIN, 72)] {
            assert_eq!(bits_of(&|b| b.varbit(v)).0, width, "{v}");
        }
        for (v, width) in [(0, 1), (7, 5), (8, 9), (u64::MAX, 72)] {
            assert_eq!(bits_of(&|b| b.varbit_unsigned(v)).0, width, "{v}");
        }
        // 2^-128, the usual one, 1, 0, and one that is no power of two.
        for (threshold, first, width) in [(2f64.powi(-128), 116, 8), (1.0, 244, 8), (0.0, 0, 8), (0.3, 255, 72)] {
            assert_eq!(bits_of(&|b| b.zero_threshold(threshold)), (width, first), "{threshold}");
        }
        for (bound, width) in [(0.0, 5), (0.005, 5), (2.5, 17), (-1.0, 65), (0.0001, 65)] {
            assert_eq!(bits_of(&|b| b.custom_bound(bound)).0, width, "{bound}");
        }
    }
}
