//! Floats, bit-packed: delta of delta for timestamps, and per value the cheapest of "same", a decimal step or an XOR.
//!
//! *Invariants:* every value comes back with its very bits, NaN payloads included: a decimal step is written only after
//! checking that it decodes to them. Timestamps of a chunk lie within 2³² ms.
//!
//! *Not here:* the header (`packed`), when to begin a new chunk (`head`).
//!
//! Gorilla (Pelkonen et al., VLDB 2015) with one addition: most values in the wild are short decimals (counts, bytes,
//! hundredths of seconds), for which the XOR of two doubles is long and the step of the decimal is short.

use super::bits::{BitReader, Free, fits, push_bits, push_dod, read_dod, sign_extend};
use super::packed::HEADER;
use super::{Chunk, ChunkKind, Error, StartRuns};
use crate::model::Columns;

/// Powers of ten a decimal may be scaled by.
const SCALES: [f64; 8] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e9];
/// Bits of a decimal step in each class.
const STEP_BITS: [u32; 4] = [5, 10, 18, 34];
/// Beyond this a double has no fraction left to speak of; keeps the scaled numbers exact.
const DECIMAL_MAX: f64 = 4_503_599_627_370_496.0;

/// The samples of an open chunk and what is needed to append the next one.
#[derive(Debug, Clone)]
pub struct FloatEncoder {
    buf: Vec<u8>,
    t: i64,
    v: f64,
    delta: u32,
    count: u16,
    free: Free,
    /// Leading zeros of the current XOR window; above 64: there is none yet.
    leading: u8,
    trailing: u8,
    scale: u8,
}

impl Default for FloatEncoder {
    fn default() -> Self {
        Self {
            buf: Vec::new(),
            t: i64::MIN,
            v: 0.0,
            delta: 0,
            count: 0,
            free: Free::default(),
            leading: u8::MAX,
            trailing: 0,
            scale: 0,
        }
    }
}

impl FloatEncoder {
    /// Number of samples.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Timestamp of the newest sample ever appended, chunks finished before included; `i64::MIN` before the first.
    pub fn last_t(&self) -> i64 {
        self.t
    }

    /// Moves the newest timestamp of an empty encoder.
    pub fn set_last_t(&mut self, t: i64) {
        debug_assert!(self.is_empty(), "BUG: the newest timestamp of an open chunk is its last sample's");
        self.t = t;
    }

    /// Value of the newest sample; meaningless while empty.
    pub fn last_v(&self) -> f64 {
        self.v
    }

    /// Timestamp of the oldest sample, if any.
    pub fn first_t(&self) -> Option<i64> {
        self.buf.get(8..HEADER).and_then(|b| b.first_chunk::<8>()).map(|b| i64::from_le_bytes(*b))
    }

    /// Bytes of the chunk so far.
    pub fn bytes(&self) -> usize {
        self.buf.len()
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.buf.capacity()
    }

    /// Appends a sample; the caller keeps `t` above [`FloatEncoder::last_t`], the chunk within 2³² ms and the count
    /// within `u16`.
    #[inline]
    pub fn push(&mut self, t: i64, v: f64) {
        if self.count == 0 {
            return self.push_first(t, v);
        }
        let delta = (t - self.t) as u32;
        let dod = i64::from(delta) - i64::from(self.delta);
        let same = v.to_bits() == self.v.to_bits();
        self.count += 1;
        self.t = t;
        self.delta = delta;
        if dod == 0 && same {
            return push_bits(&mut self.buf, &mut self.free, 0, 2);
        }
        push_dod(&mut self.buf, &mut self.free, dod);
        if same {
            push_bits(&mut self.buf, &mut self.free, 0, 1);
        } else {
            self.push_value(v);
            self.v = v;
        }
    }

    #[cold]
    fn push_first(&mut self, t: i64, v: f64) {
        self.buf.clear();
        if self.buf.capacity() == 0 {
            self.buf.reserve_exact(HEADER + 16);
        }
        self.buf.extend_from_slice(&[0; 8]);
        self.buf.extend_from_slice(&t.to_le_bytes());
        self.buf.extend_from_slice(&v.to_bits().to_le_bytes());
        *self = Self { buf: std::mem::take(&mut self.buf), t, v, count: 1, ..Self::default() };
    }

    fn push_value(&mut self, v: f64) {
        let xor = v.to_bits() ^ self.v.to_bits();
        // 5 bits of leading zeros: 31 at most.
        let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        let fits_window = u32::from(self.leading) <= leading && u32::from(self.trailing) <= trailing;
        let fresh = 15 + 64 - leading - trailing;
        let xor_cost =
            if fits_window { fresh.min(3 + 64 - u32::from(self.leading) - u32::from(self.trailing)) } else { fresh };
        if let Some(step) = decimal_step(self.v, v, self.scale) {
            let class = STEP_BITS.iter().position(|bits| fits(step, *bits)).unwrap_or(3);
            if STEP_BITS[class] + 4 <= xor_cost {
                return self.push_step(step, class);
            }
        } else if xor_cost > 24
            && let Some((scale, step, class)) = self.other_scale(v)
            && STEP_BITS[class] + 9 <= xor_cost
        {
            self.scale = scale;
            push_bits(&mut self.buf, &mut self.free, (0b1111 << 3) | u64::from(scale), 7);
            return self.push_class(step, class);
        }
        if xor_cost < fresh {
            let bits = 64 - u32::from(self.leading) - u32::from(self.trailing);
            push_bits(&mut self.buf, &mut self.free, 0b110, 3);
            push_bits(&mut self.buf, &mut self.free, xor >> self.trailing, bits);
        } else {
            let bits = 64 - leading - trailing;
            let head = (0b1110 << 11) | (u64::from(leading) << 6) | u64::from(bits - 1);
            push_bits(&mut self.buf, &mut self.free, head, 15);
            push_bits(&mut self.buf, &mut self.free, xor >> trailing, bits);
            (self.leading, self.trailing) = (leading as u8, trailing as u8);
        }
    }

    fn push_step(&mut self, step: i64, class: usize) {
        push_bits(&mut self.buf, &mut self.free, 0b10, 2);
        self.push_class(step, class);
    }

    fn push_class(&mut self, step: i64, class: usize) {
        let bits = STEP_BITS[class];
        let low = step as u64 & ((1 << bits) - 1);
        push_bits(&mut self.buf, &mut self.free, ((class as u64) << bits) | low, 2 + bits);
    }

    /// The smallest other scale at which the value is a decimal step away.
    #[cold]
    fn other_scale(&self, v: f64) -> Option<(u8, i64, usize)> {
        (0..SCALES.len() as u8).filter(|scale| *scale != self.scale).find_map(|scale| {
            let step = decimal_step(self.v, v, scale)?;
            let class = STEP_BITS.iter().position(|bits| fits(step, *bits))?;
            Some((scale, step, class))
        })
    }

    /// The samples so far as a finished chunk; `None` when there are none.
    pub fn snapshot(&self, starts: Option<&StartRuns>) -> Option<Chunk> {
        (self.count > 0).then(|| Chunk::seal(ChunkKind::Float, self.count, self.t, &self.buf, starts))
    }

    /// Finishes the chunk and begins anew, remembering the newest timestamp.
    pub fn finish(&mut self, starts: Option<&StartRuns>) -> Option<Chunk> {
        let chunk = self.snapshot(starts)?;
        *self = Self { t: self.t, ..Self::default() };
        Some(chunk)
    }
}

/// The whole number nearest to `v` at a scale; wrong numbers do no harm, they only fail the encoder's check.
#[inline]
fn scaled(v: f64, scale: f64) -> i64 {
    let x = v * scale;
    (x + f64::copysign(0.5, x)) as i64
}

/// What a decoder makes of a step.
#[inline]
fn apply_step(last: f64, step: i64, scale: f64) -> f64 {
    scaled(last, scale).wrapping_add(step) as f64 / scale
}

/// The step from `last` to `v` at a scale, if it leads to the very bits of `v`.
#[inline]
fn decimal_step(last: f64, v: f64, scale: u8) -> Option<i64> {
    let scale = SCALES[usize::from(scale) & 7];
    let x = v * scale;
    // False for NaN too.
    let small = x.abs() < DECIMAL_MAX;
    if !small {
        return None;
    }
    let step = scaled(v, scale).wrapping_sub(scaled(last, scale));
    let exact = fits(step, STEP_BITS[3]) && apply_step(last, step, scale).to_bits() == v.to_bits();
    exact.then_some(step)
}

struct Decoder<'a> {
    r: BitReader<'a>,
    t: i64,
    delta: i64,
    v: f64,
    leading: u32,
    bits: u32,
    scale: f64,
}

/// Appends the samples of a float payload to `out`.
pub(super) fn decode(payload: &[u8], first_t: i64, count: usize, out: &mut Columns) -> Result<(), Error> {
    let Some((first, rest)) = payload.split_first_chunk::<8>() else {
        return Err(Error::Truncated { len: payload.len(), part: "the first value" });
    };
    let v = f64::from_bits(u64::from_le_bytes(*first));
    let r = BitReader::new(rest);
    if count - 1 > r.left() / 2 {
        return Err(Error::Truncated { len: payload.len(), part: "the samples" });
    }
    out.timestamps.reserve(count);
    out.values.reserve(count);
    out.timestamps.push(first_t);
    out.values.push(v);
    let mut d = Decoder { r, t: first_t, delta: 0, v, leading: 0, bits: 0, scale: SCALES[0] };
    let mut left = count - 1;
    while left > 0 {
        left -= d.next(left, out)?;
    }
    d.r.overrun("the samples")
}

impl Decoder<'_> {
    /// Reads one sample, or a run of equal steps; the number read.
    #[inline]
    fn next(&mut self, left: usize, out: &mut Columns) -> Result<usize, Error> {
        let word = self.r.peek();
        if word >> 62 == 0 {
            // Each pair of zero bits is a sample with the same step and value; 56 bits of the word are valid.
            let run = (word.leading_zeros().min(56) as usize / 2).min(left);
            self.r.skip(2 * run as u32);
            if self.delta <= 0 {
                return Err(Error::Malformed("timestamps do not ascend"));
            }
            let (t, delta) = (self.t, self.delta);
            out.timestamps.extend((1..=run as i64).map(|i| t.wrapping_add(delta.wrapping_mul(i))));
            out.values.extend(std::iter::repeat_n(self.v, run));
            self.t = t.wrapping_add(delta.wrapping_mul(run as i64));
            return Ok(run);
        }
        self.delta += read_dod(&mut self.r, word);
        if self.delta <= 0 {
            return Err(Error::Malformed("timestamps do not ascend"));
        }
        self.t = self.t.wrapping_add(self.delta);
        self.read_value()?;
        out.timestamps.push(self.t);
        out.values.push(self.v);
        Ok(1)
    }

    #[inline]
    fn read_value(&mut self) -> Result<(), Error> {
        let word = self.r.peek();
        match word.leading_ones() {
            0 => self.r.skip(1),
            1 => self.read_step(word << 2, 2),
            2 => {
                if self.bits == 0 {
                    return Err(Error::Malformed("a value uses an XOR window before there is one"));
                }
                self.r.skip(3);
                self.read_xor();
            }
            3 => {
                self.leading = (word << 4 >> 59) as u32;
                self.bits = (word << 9 >> 58) as u32 + 1;
                if self.leading + self.bits > 64 {
                    return Err(Error::Malformed("an XOR window has more than 64 bits"));
                }
                self.r.skip(15);
                self.read_xor();
            }
            _ => {
                self.scale = SCALES[(word << 4 >> 61) as usize];
                self.read_step(word << 7, 7);
            }
        }
        Ok(())
    }

    /// Reads class and step at the head of `word`, which is `skipped` bits past the reader.
    #[inline]
    fn read_step(&mut self, word: u64, skipped: u32) {
        let bits = STEP_BITS[(word >> 62) as usize];
        let step = sign_extend(word << 2 >> (64 - bits), bits);
        self.v = apply_step(self.v, step, self.scale);
        self.r.skip(skipped + 2 + bits);
    }

    #[inline]
    fn read_xor(&mut self) {
        let xor = self.r.read(self.bits) << (64 - self.leading - self.bits);
        self.v = f64::from_bits(self.v.to_bits() ^ xor);
    }
}
