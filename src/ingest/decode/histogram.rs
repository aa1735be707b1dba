//! Decodes native histograms: the message is the same in remote write 1.0 and 2.0, but for the start timestamp.
//!
//! *Invariants:* a histogram that comes out has passed [`Histogram::validate`] and its integer counts are below 2⁵³, so
//! that they are exact as `f64`. Its lists have exactly the memory they need.
//!
//! *Not here:* what is done with a histogram that is well-formed protobuf but contradicts itself (the caller counts it).

use super::wire::{FIXED64, Fault, LEN, Reader, VARINT, Wire, tag};
use crate::model::{Histogram, ResetHint, Span};

/// The largest integer below which every integer is a double.
const EXACT: u64 = 1 << 53;

/// One message, read but not judged; its lists are reused for the next.
#[derive(Default)]
pub(super) struct HistogramReader {
    count: u64,
    count_float: f64,
    /// Which of the two counts was set last decides the kind of the histogram.
    is_float: bool,
    zero_count: u64,
    zero_count_float: f64,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    reset_hint: u64,
    negative: Side,
    positive: Side,
    custom_values: Vec<f64>,
    /// Timestamp, milliseconds.
    pub(super) t: i64,
    /// Start timestamp, milliseconds; 0 is none.
    pub(super) start: i64,
}

#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

impl Side {
    fn clear(&mut self) {
        self.spans.clear();
        self.deltas.clear();
        self.counts.clear();
    }

    /// The absolute counts, each exact.
    fn absolute(&self, is_float: bool) -> Result<Vec<f64>, String> {
        if is_float {
            return Ok(self.counts.clone());
        }
        let mut count = 0i64;
        let step = |delta: &i64| {
            count = count.checked_add(*delta).ok_or("a bucket count overflows")?;
            match u64::try_from(count) {
                Ok(n) if n <= EXACT => Ok(n as f64),
                Ok(n) => Err(format!("a bucket count of {n} is above 2^53")),
                Err(_) => Err(format!("a bucket count of {count} is negative")),
            }
        };
        self.deltas.iter().map(step).collect()
    }
}

/// What a request may still hold of buckets, spans and bounds.
pub(super) struct BucketBudget {
    /// How many it may hold in all.
    pub(super) limit: usize,
    /// How many are left.
    pub(super) left: usize,
}

impl BucketBudget {
    fn take(&mut self, n: usize, r: &Reader<'_>) -> Wire<()> {
        match self.left.checked_sub(n) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => r.fail(Fault::TooMany { what: "histogram buckets", limit: self.limit }),
        }
    }
}

impl HistogramReader {
    fn clear(&mut self) {
        let (mut negative, mut positive) = (std::mem::take(&mut self.negative), std::mem::take(&mut self.positive));
        let mut custom_values = std::mem::take(&mut self.custom_values);
        negative.clear();
        positive.clear();
        custom_values.clear();
        *self = Self { negative, positive, custom_values, ..Self::default() };
    }

    /// Reads one message. `with_start` is true for remote write 2.0.
    pub(super) fn read(&mut self, mut r: Reader<'_>, with_start: bool, budget: &mut BucketBudget) -> Wire<()> {
        const KNOWN: [u32; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        const START: u32 = tag(17, VARINT);
        self.clear();
        loop {
            let t = r.next_tag()?;
            match (t >> 3, t & 7) {
                (0, _) => return Ok(()),
                (1, VARINT) => (self.count, self.is_float) = (r.varint()?, false),
                (2, FIXED64) => (self.count_float, self.is_float) = (r.double()?, true),
                (3, FIXED64) => self.sum = r.double()?,
                (4, VARINT) => self.schema = r.zigzag32()?,
                (5, FIXED64) => self.zero_threshold = r.double()?,
                (6, VARINT) => (self.zero_count, self.zero_count_float) = (r.varint()?, 0.0),
                (7, FIXED64) => (self.zero_count_float, self.zero_count) = (r.double()?, 0),
                (8, LEN) => span(&mut r, &mut self.negative.spans, budget)?,
                (9, VARINT | LEN) => zigzags(&mut r, t, &mut self.negative.deltas, budget)?,
                (10, FIXED64 | LEN) => doubles(&mut r, t, &mut self.negative.counts, budget)?,
                (11, LEN) => span(&mut r, &mut self.positive.spans, budget)?,
                (12, VARINT | LEN) => zigzags(&mut r, t, &mut self.positive.deltas, budget)?,
                (13, FIXED64 | LEN) => doubles(&mut r, t, &mut self.positive.counts, budget)?,
                (14, VARINT) => self.reset_hint = r.varint()?,
                (15, VARINT) => self.t = r.varint()? as i64,
                (16, FIXED64 | LEN) => doubles(&mut r, t, &mut self.custom_values, budget)?,
                _ if t == START && with_start => self.start = r.varint()? as i64,
                _ => r.skip(t, &KNOWN)?,
            }
        }
    }

    /// The histogram that was read; the error says how it contradicts itself.
    pub(super) fn build(&self) -> Result<Histogram, String> {
        let exact = |what: &str, n: u64| match n {
            0..=EXACT => Ok(n as f64),
            _ => Err(format!("{what} of {n} is above 2^53")),
        };
        let (count, zero_count) = if self.is_float {
            (self.count_float, self.zero_count_float)
        } else {
            (exact("a count", self.count)?, exact("a zero bucket count", self.zero_count)?)
        };
        let histogram = Histogram {
            integer: !self.is_float,
            schema: self.schema,
            reset_hint: ResetHint::from_u8(self.reset_hint.min(255) as u8),
            zero_threshold: self.zero_threshold,
            zero_count,
            count,
            sum: self.sum,
            positive_spans: self.positive.spans.clone(),
            positive: self.positive.absolute(self.is_float)?,
            negative_spans: self.negative.spans.clone(),
            negative: self.negative.absolute(self.is_float)?,
            custom_values: self.custom_values.clone(),
        };
        histogram.validate()?;
        Ok(histogram)
    }
}

fn span(r: &mut Reader<'_>, into: &mut Vec<Span>, budget: &mut BucketBudget) -> Wire<()> {
    budget.take(1, r)?;
    let mut span = Span { offset: 0, length: 0 };
    let mut inner = r.message()?;
    loop {
        const OFFSET: u32 = tag(1, VARINT);
        const LENGTH: u32 = tag(2, VARINT);
        match inner.next_tag()? {
            0 => break,
            OFFSET => span.offset = inner.zigzag32()?,
            LENGTH => span.length = inner.varint()? as u32,
            other => inner.skip(other, &[1, 2]).map_err(|e| e.inside("BucketSpan"))?,
        }
    }
    into.push(span);
    Ok(())
}

fn zigzags(r: &mut Reader<'_>, t: u32, into: &mut Vec<i64>, budget: &mut BucketBudget) -> Wire<()> {
    if t & 7 == VARINT {
        budget.take(1, r)?;
        into.push(r.zigzag()?);
        return Ok(());
    }
    let mut packed = r.message()?;
    while !packed.at_end() {
        budget.take(1, &packed)?;
        into.push(packed.zigzag()?);
    }
    Ok(())
}

fn doubles(r: &mut Reader<'_>, t: u32, into: &mut Vec<f64>, budget: &mut BucketBudget) -> Wire<()> {
    if t & 7 == FIXED64 {
        budget.take(1, r)?;
        into.push(r.double()?);
        return Ok(());
    }
    let mut packed = r.message()?;
    budget.take(packed.rest().len() / 8, &packed)?;
    while !packed.at_end() {
        into.push(packed.double()?);
    }
    Ok(())
}
