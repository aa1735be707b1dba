//! Remote write 2.0: `io.prometheus.write.v2.Request`.
//!
//! *Invariants:* symbols are checked once, wherever in the request they stand; a reference outside the table refuses its
//! series and nothing else.
//!
//! *Not here:* limits and refusals (`assembly`), canonical form (`labels`).
//!
//! Source: `proto/vendor/io/prometheus/write/v2/types.proto`.

use hashbrown::HashSet;

use super::assembly::Assembly;
use super::labels::LabelWriter;
use super::wire::{FIXED64, Fault, LEN, Reader, VARINT, Wire, WireError, tag};
use crate::ingest::outcome::Reason;
use crate::model::{METRIC_NAME, MetricType, SampleRow};

const SYMBOLS: u32 = tag(4, LEN);
const TIMESERIES: u32 = tag(5, LEN);

/// Tables of one request, reused for the next.
#[derive(Default)]
pub(super) struct Symbols {
    /// Place of each symbol in the request.
    places: Vec<(u32, u32)>,
    /// References of the series' labels being read: name, value, name, value, …
    refs: Vec<u32>,
    exemplar_refs: Vec<u32>,
    /// Metadata already in the batch: references of name, help and unit, and the type.
    seen: HashSet<(u32, u32, u32, u64)>,
}

impl Symbols {
    pub(super) fn heap_bytes(&self) -> usize {
        8 * self.places.capacity()
            + 24 * self.seen.capacity()
            + 4 * (self.refs.capacity() + self.exemplar_refs.capacity())
    }

    /// Collects the symbols of the whole request, stepping over the series.
    fn collect(&mut self, mut r: Reader<'_>, limit: usize) -> Wire<()> {
        self.places.clear();
        self.seen.clear();
        loop {
            match r.next_tag()? {
                0 => return Ok(()),
                SYMBOLS => {
                    if self.places.len() >= limit {
                        return r.fail(Fault::TooMany { what: "symbols", limit });
                    }
                    let (from, to) = r.span()?;
                    self.places.push((from as u32, to as u32));
                }
                other => r.skip(other, &[4])?,
            }
        }
    }

    fn place(&self, index: u32) -> Option<(usize, usize)> {
        self.places.get(index as usize).map(|&(from, to)| (from as usize, to as usize))
    }

    fn text<'a>(&self, data: &'a [u8], index: u32) -> Option<&'a str> {
        let (from, to) = self.place(index)?;
        std::str::from_utf8(&data[from..to]).ok()
    }
}

/// What a series says about its metric, by reference.
#[derive(Default)]
struct MetadataRefs {
    kind: u64,
    help: u32,
    unit: u32,
}

/// Decodes a request; an error comes with the index of the series it was found in.
pub(super) fn decode(r: Reader<'_>, s: &mut Symbols, a: &mut Assembly<'_>) -> Result<(), (Option<usize>, WireError)> {
    let outside = |e: WireError| (None, e.inside("Request"));
    s.collect(r, a.limits.symbols).map_err(outside)?;
    let mut r = r;
    loop {
        match r.next_tag().map_err(outside)? {
            0 => return Ok(()),
            TIMESERIES => {
                let message = r.message().map_err(outside)?;
                let index = a.series;
                series(message, s, a).map_err(|e| (Some(index), e.inside("TimeSeries")))?;
            }
            SYMBOLS => r.span().map(drop).map_err(outside)?,
            other => r.skip(other, &[4, 5]).map_err(outside)?,
        }
    }
}

fn series(mut r: Reader<'_>, s: &mut Symbols, a: &mut Assembly<'_>) -> Wire<()> {
    const SAMPLES: u32 = tag(2, LEN);
    const HISTOGRAMS: u32 = tag(3, LEN);
    const EXEMPLARS: u32 = tag(4, LEN);
    const METADATA: u32 = tag(5, LEN);
    const CREATED: u32 = tag(6, VARINT);
    let mut marks = a.begin(&r)?;
    let (mut created, mut metadata) = (0, None);
    s.refs.clear();
    loop {
        match r.next_tag()? {
            0 => break,
            t @ (PACKED | SINGLE) => references(&mut r, t, &mut s.refs, 2 * a.limits.labels_per_series)?,
            SAMPLES => {
                let row = sample(r.message()?).map_err(|e| e.inside("Sample"))?;
                a.sample(&r, row)?;
            }
            HISTOGRAMS => a.histogram(r.message()?, true, &mut marks)?,
            EXEMPLARS => exemplar(r.message()?, s, a).map_err(|e| e.inside("Exemplar"))?,
            METADATA => {
                metadata_refs(r.message()?, metadata.get_or_insert_default()).map_err(|e| e.inside("Metadata"))?
            }
            CREATED => created = r.varint()? as i64,
            other => r.skip(other, &[1, 2, 3, 4, 5, 6])?,
        }
    }
    resolve(r.data(), s, &s.refs, a.labels, a.limits.labels_per_series);
    a.end(&r, &marks, created)?;
    match metadata {
        Some(m) => add_metadata(&r, s, &m, a),
        None => Ok(()),
    }
}

const PACKED: u32 = tag(1, LEN);
const SINGLE: u32 = tag(1, VARINT);

/// Reads label references; those past `limit` are dropped, which [`resolve`] finds out by the even limit plus one.
#[inline]
fn references(r: &mut Reader<'_>, t: u32, into: &mut Vec<u32>, limit: usize) -> Wire<()> {
    if t == SINGLE {
        let reference = r.varint()? as u32;
        if into.len() <= limit {
            into.push(reference);
        }
        return Ok(());
    }
    let mut packed = r.message()?;
    while !packed.at_end() {
        let reference = packed.varint()? as u32;
        if into.len() <= limit {
            into.push(reference);
        }
    }
    Ok(())
}

/// Writes the labels that `refs` name.
#[inline]
fn resolve(data: &[u8], s: &Symbols, refs: &[u32], writer: &mut LabelWriter, limit: usize) {
    if refs.len() > 2 * limit {
        return writer.refuse(Reason::LabelSetTooLong);
    }
    let (pairs, rest) = refs.as_chunks::<2>();
    if !rest.is_empty() {
        return writer.refuse(Reason::LabelInvalid);
    }
    for &[name, value] in pairs {
        let (Some(name), Some(value)) = (s.place(name), s.place(value)) else {
            return writer.refuse(Reason::LabelInvalid);
        };
        writer.push(data, name, value, limit);
    }
}

#[inline]
fn sample(mut r: Reader<'_>) -> Wire<SampleRow> {
    const VALUE: u32 = tag(1, FIXED64);
    const TIMESTAMP: u32 = tag(2, VARINT);
    const START: u32 = tag(3, VARINT);
    let mut row = SampleRow { t: 0, v: 0.0, start: 0 };
    loop {
        match r.next_tag()? {
            0 => return Ok(row),
            VALUE => row.v = r.double()?,
            TIMESTAMP => row.t = r.varint()? as i64,
            START => row.start = r.varint()? as i64,
            other => r.skip(other, &[1, 2, 3])?,
        }
    }
}

fn exemplar(mut r: Reader<'_>, s: &mut Symbols, a: &mut Assembly<'_>) -> Wire<()> {
    const VALUE: u32 = tag(2, FIXED64);
    const TIMESTAMP: u32 = tag(3, VARINT);
    let (mut t, mut v) = (0, 0.0);
    s.exemplar_refs.clear();
    loop {
        match r.next_tag()? {
            0 => break,
            t @ (PACKED | SINGLE) => references(&mut r, t, &mut s.exemplar_refs, 2 * a.limits.labels_per_series)?,
            VALUE => v = r.double()?,
            TIMESTAMP => t = r.varint()? as i64,
            other => r.skip(other, &[1, 2, 3])?,
        }
    }
    a.exemplar_labels.start();
    resolve(r.data(), s, &s.exemplar_refs, a.exemplar_labels, a.limits.labels_per_series);
    a.exemplar(&r, t, v)
}

fn metadata_refs(mut r: Reader<'_>, into: &mut MetadataRefs) -> Wire<()> {
    const TYPE: u32 = tag(1, VARINT);
    const HELP: u32 = tag(3, VARINT);
    const UNIT: u32 = tag(4, VARINT);
    loop {
        match r.next_tag()? {
            0 => return Ok(()),
            TYPE => into.kind = r.varint()?,
            HELP => into.help = r.varint()? as u32,
            UNIT => into.unit = r.varint()? as u32,
            other => r.skip(other, &[1, 3, 4])?,
        }
    }
}

/// Adds a series' metadata, once per request (senders repeat it with every series of a family).
fn add_metadata(r: &Reader<'_>, s: &mut Symbols, m: &MetadataRefs, a: &mut Assembly<'_>) -> Wire<()> {
    if m.kind == 0 && m.help == 0 && m.unit == 0 {
        return Ok(());
    }
    let data = r.data();
    let is_name = |index: u32| s.place(index).is_some_and(|(from, to)| &data[from..to] == METRIC_NAME.as_bytes());
    let Some(&[_, name]) = s.refs.as_chunks::<2>().0.iter().find(|pair| is_name(pair[0])) else { return Ok(()) };
    if !s.seen.insert((name, m.help, m.unit, m.kind)) {
        return Ok(());
    }
    let (Some(metric), Some(help), Some(unit)) = (s.text(data, name), s.text(data, m.help), s.text(data, m.unit))
    else {
        return Ok(());
    };
    let kind = MetricType::from_wire(m.kind);
    a.metadata(r, family(metric, kind), kind, help, unit)
}

/// The family a metric of a classic histogram or summary belongs to.
fn family(metric: &str, kind: MetricType) -> &str {
    let suffixes: &[&str] = match kind {
        MetricType::Histogram => &["_bucket", "_count", "_sum"],
        MetricType::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
        MetricType::Summary => &["_count", "_sum"],
        _ => &[],
    };
    suffixes.iter().find_map(|s| metric.strip_suffix(s)).unwrap_or(metric)
}
