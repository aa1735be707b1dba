//! Chunks read back by a reader written after the specification, and the bytes of some.

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
        let given: Vec<_> = [(-7, 1.0), (15_000, 2.0), (30_000, 2.0), (1 << 40, 1e15)].map(|(t, n)| (t, of(n))).into();
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
