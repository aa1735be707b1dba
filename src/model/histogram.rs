//! A native histogram sample: exponential or custom buckets, integer or float.
//!
//! *Invariants:* see [`Histogram::validate`]. Integer histograms keep their counts as `f64` too: exact up to 2⁵³, and
//! larger counts are refused at the door.
//!
//! *Not here:* arithmetic, quantiles, reset detection (`promql::histogram`), packing (`chunk::histogram`).
//!
//! Source: Prometheus native histograms specification (schemas −4..=8 exponential, −53 custom buckets).

/// Schema number of histograms with custom buckets (NHCB).
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known about a counter reset between the previous histogram and this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum ResetHint {
    /// Nothing: compare with the previous one.
    #[default]
    Unknown = 0,
    /// A reset happened.
    Reset = 1,
    /// None happened.
    NotReset = 2,
    /// A gauge histogram: resets mean nothing.
    Gauge = 3,
}

impl ResetHint {
    /// The hint with this number on the wire and in chunks; unknown numbers read as [`ResetHint::Unknown`].
    pub fn from_u8(n: u8) -> Self {
        match n {
            1 => Self::Reset,
            2 => Self::NotReset,
            3 => Self::Gauge,
            _ => Self::Unknown,
        }
    }
}

/// A run of consecutive buckets: `offset` empty buckets after the previous span (or from index 0), then `length` buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the previous span; for the first span the index of its first bucket.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// One native histogram. Bucket counts are absolute (not deltas), one per bucket named by the spans.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Whether it was sent with integer counts.
    pub integer: bool,
    /// Bucket schema: −4..=8 exponential, −53 custom.
    pub schema: i32,
    /// Reset hint.
    pub reset_hint: ResetHint,
    /// Width of the zero bucket, one side.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations; the stale marker here makes the whole sample one.
    pub sum: f64,
    /// Spans of the positive side.
    pub positive_spans: Vec<Span>,
    /// Counts of the positive side.
    pub positive: Vec<f64>,
    /// Spans of the negative side.
    pub negative_spans: Vec<Span>,
    /// Counts of the negative side.
    pub negative: Vec<f64>,
    /// Upper bounds of custom buckets, ascending, without +Inf; empty unless `schema` is −53.
    pub custom_values: Vec<f64>,
}

impl Histogram {
    /// Whether the buckets are custom ones.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Whether this sample is a stale marker.
    pub fn is_stale(&self) -> bool {
        super::is_stale(self.sum)
    }

    /// Heap bytes held, the struct itself included.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + 8 * (self.positive_spans.capacity() + self.negative_spans.capacity())
            + 8 * (self.positive.capacity() + self.negative.capacity() + self.custom_values.capacity())
    }

    /// Checks what a sender must keep; the error says what is wrong.
    pub fn validate(&self) -> Result<(), String> {
        if !(-4..=8).contains(&self.schema) && !self.is_custom() {
            return Err(format!("histogram has an unknown schema {}", self.schema));
        }
        check_side("positive", &self.positive_spans, &self.positive)?;
        check_side("negative", &self.negative_spans, &self.negative)?;
        if self.is_custom() {
            self.validate_custom()?;
        } else if !self.custom_values.is_empty() {
            return Err("histogram with exponential schema must not have custom bounds".into());
        }
        if self.count.is_nan() || self.count < 0.0 || self.zero_count.is_nan() || self.zero_count < 0.0 {
            return Err("histogram has a negative or NaN count".into());
        }
        self.validate_total()
    }

    fn validate_custom(&self) -> Result<(), String> {
        if self.zero_count != 0.0 || self.zero_threshold != 0.0 || !self.negative_spans.is_empty() {
            return Err("custom buckets: zero bucket and negative side must be empty".into());
        }
        if self.custom_values.iter().any(|b| !b.is_finite()) || !self.custom_values.is_sorted_by(|a, b| a < b) {
            return Err("custom buckets: bounds must be finite and strictly ascending".into());
        }
        let last = self.positive_spans.iter().fold(0i64, |at, s| at + i64::from(s.offset) + i64::from(s.length));
        if last > self.custom_values.len() as i64 + 1 {
            return Err(format!("custom buckets: {last} buckets but {} bounds", self.custom_values.len()));
        }
        Ok(())
    }

    /// Integer histograms: buckets add up to the count, or to less where NaN was observed.
    fn validate_total(&self) -> Result<(), String> {
        if !self.integer || self.is_stale() {
            return Ok(());
        }
        let total = self.zero_count + self.positive.iter().sum::<f64>() + self.negative.iter().sum::<f64>();
        if total > self.count || (total < self.count && !self.sum.is_nan()) {
            return Err(format!("{total} observations found in buckets, but the count field is {}", self.count));
        }
        Ok(())
    }
}

fn check_side(side: &str, spans: &[Span], counts: &[f64]) -> Result<(), String> {
    let want: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if want != counts.len() as u64 {
        return Err(format!("{side} side: spans need {want} buckets, have {}", counts.len()));
    }
    if spans.iter().skip(1).any(|s| s.offset < 0) {
        return Err(format!("{side} side: a span other than the first has a negative offset"));
    }
    match counts.iter().find(|c| c.is_nan() || **c < 0.0) {
        Some(c) => Err(format!("{side} side: observation count {c} is negative or NaN")),
        None => Ok(()),
    }
}
