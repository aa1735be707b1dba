//! A shard's log entries: what its leader proposes and every replica applies.
//!
//! *Invariants:* an entry says everything `apply` needs (the out-of-order limit of the tenant too), so that applying
//! depends on entry and state alone. A series the shard knows is named by its id; labels appear only for series the
//! leader has not seen applied. Bytes: `format.md`.
//!
//! *Not here:* resolving labels to ids (`ingest::ingester`), applying (`ingest::shard`).

use bytes::Bytes;

use super::codec::{Malformed, Reader, put_f64, put_str, put_varint, put_zigzag};
use super::histogram_codec::{put_histogram, read_histogram};
use crate::model::{Batch, ExemplarRow, HistogramRow, Labels, MetadataRow, MetricType, SampleRow, SeriesRow};

const VERSION: u8 = 1;
const APPEND: u8 = 1;
const CLOSE: u8 = 2;
const FLUSHED: u8 = 3;
const SEAL: u8 = 4;

/// A series as an append names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesRef {
    /// Its id in the head.
    Known(u32),
    /// Index into the section's own list of label sets.
    New(u32),
}

impl SeriesRef {
    fn code(self) -> i64 {
        match self {
            Self::Known(id) => i64::from(id) << 1,
            Self::New(index) => i64::from(index) << 1 | 1,
        }
    }

    fn from_code(code: i64) -> Option<Self> {
        let n = u32::try_from(code >> 1).ok()?;
        Some(if code & 1 == 0 { Self::Known(n) } else { Self::New(n) })
    }
}

/// Collects the rows of one request for one shard; becomes one section of an append.
///
/// Rows keep the order in which they were pushed; verdicts name them by position: floats first, then histograms.
#[derive(Debug, Default)]
pub struct SectionBuilder {
    new_series: Vec<u8>,
    new_count: u64,
    refs: Vec<u8>,
    times: Vec<u8>,
    starts: Vec<u8>,
    values: Vec<u8>,
    floats: u64,
    last: (i64, i64),
    has_starts: bool,
    histograms: Vec<u8>,
    histogram_count: u64,
    exemplars: Vec<u8>,
    exemplar_count: u64,
    metadata: Vec<u8>,
    metadata_count: u64,
}

impl SectionBuilder {
    /// A section with room for the usual bytes of `floats` floats of known series.
    pub fn for_floats(floats: usize) -> Self {
        let room = |bytes_each| Vec::with_capacity(floats * bytes_each);
        Self { refs: room(3), times: room(1), values: room(8), ..Self::default() }
    }

    /// Names a series by its labels; the answer is how rows refer to it.
    pub fn new_series(&mut self, hash: u64, canonical: &str) -> SeriesRef {
        self.new_series.extend_from_slice(&hash.to_le_bytes());
        put_str(&mut self.new_series, canonical);
        self.new_count += 1;
        SeriesRef::New(self.new_count as u32 - 1)
    }

    /// Number of series named by their labels.
    pub fn new_series_count(&self) -> u64 {
        self.new_count
    }

    /// Number of float and histogram rows.
    pub fn rows(&self) -> u64 {
        self.floats + self.histogram_count
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.rows() + self.exemplar_count + self.metadata_count == 0
    }

    /// Adds a float.
    pub fn float(&mut self, series: SeriesRef, row: &SampleRow) {
        let code = series.code();
        put_zigzag(&mut self.refs, code - self.last.0);
        put_zigzag(&mut self.times, row.t.wrapping_sub(self.last.1));
        self.last = (code, row.t);
        put_f64(&mut self.values, row.v);
        if row.start != 0 && !self.has_starts {
            self.has_starts = true;
            self.starts.resize(self.floats as usize, 0);
        }
        if self.has_starts {
            put_start(&mut self.starts, row.t, row.start);
        }
        self.floats += 1;
    }

    /// Adds a native histogram.
    pub fn histogram(&mut self, series: SeriesRef, row: &HistogramRow) {
        put_varint(&mut self.histograms, series.code() as u64);
        put_zigzag(&mut self.histograms, row.t);
        put_start(&mut self.histograms, row.t, row.start);
        put_histogram(&mut self.histograms, &row.h);
        self.histogram_count += 1;
    }

    /// Adds an exemplar.
    pub fn exemplar(&mut self, series: SeriesRef, row: &ExemplarRow) {
        put_varint(&mut self.exemplars, series.code() as u64);
        put_zigzag(&mut self.exemplars, row.t);
        put_f64(&mut self.exemplars, row.v);
        put_str(&mut self.exemplars, row.labels.canonical());
        self.exemplar_count += 1;
    }

    /// Adds metadata of a metric.
    pub fn metadata(&mut self, row: &MetadataRow) {
        put_str(&mut self.metadata, &row.metric);
        self.metadata.push(row.kind as u8);
        put_str(&mut self.metadata, &row.help);
        put_str(&mut self.metadata, &row.unit);
        self.metadata_count += 1;
    }

    /// Adds all rows of a series of `batch`.
    pub fn rows_of(&mut self, series: SeriesRef, batch: &Batch, row: &SeriesRow) {
        batch.samples_of(row).iter().for_each(|s| self.float(series, s));
        batch.histograms_of(row).iter().for_each(|h| self.histogram(series, h));
        batch.exemplars_of(row).iter().for_each(|e| self.exemplar(series, e));
    }

    /// The section's bytes, for [`append_entry`].
    pub fn finish(self, tenant: &str, out_of_order_ms: i64) -> Vec<u8> {
        let parts = [&self.new_series, &self.refs, &self.times, &self.starts, &self.values, &self.histograms];
        let mut out = Vec::with_capacity(parts.iter().map(|p| p.len() + 4).sum::<usize>() + 64);
        put_str(&mut out, tenant);
        put_varint(&mut out, out_of_order_ms.max(0) as u64);
        put_counted(&mut out, self.new_count, &self.new_series);
        put_varint(&mut out, self.floats);
        put_part(&mut out, &self.refs);
        put_part(&mut out, &self.times);
        put_part(&mut out, &self.starts);
        out.extend_from_slice(&self.values);
        put_counted(&mut out, self.histogram_count, &self.histograms);
        put_counted(&mut out, self.exemplar_count, &self.exemplars);
        put_counted(&mut out, self.metadata_count, &self.metadata);
        out
    }
}

fn put_start(buf: &mut Vec<u8>, t: i64, start: i64) {
    // 0 is "none"; the distance is shifted by one so that a start equal to the timestamp stays distinct from it.
    if start == 0 {
        buf.push(0);
    } else {
        let distance = t.wrapping_sub(start);
        put_varint(buf, (((distance << 1) ^ (distance >> 63)) as u64).wrapping_add(1));
    }
}

fn read_start(reader: &mut Reader<'_>, t: i64) -> Result<i64, Malformed> {
    let n = reader.varint("start timestamp")?;
    if n == 0 {
        return Ok(0);
    }
    let z = n - 1;
    Ok(t.wrapping_sub((z >> 1) as i64 ^ -((z & 1) as i64)))
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    put_varint(out, part.len() as u64);
    out.extend_from_slice(part);
}

fn put_counted(out: &mut Vec<u8>, count: u64, part: &[u8]) {
    put_varint(out, count);
    put_part(out, part);
}

/// One entry of several sections: concurrent appends to a shard travel together.
pub fn append_entry<'a>(sections: impl ExactSizeIterator<Item = &'a [u8]>) -> Bytes {
    let mut out = vec![VERSION, APPEND];
    put_varint(&mut out, sections.len() as u64);
    for section in sections {
        put_part(&mut out, section);
    }
    out.into()
}

/// The entry that closes a window.
pub fn close_entry(window_start: i64) -> Bytes {
    let mut out = vec![VERSION, CLOSE];
    put_zigzag(&mut out, window_start);
    out.into()
}

/// The entry that says what of the shard is in the table: everything closed as `sequence`; `tables` names, by tenant,
/// the catalog version that holds it.
pub fn flushed_entry(sequence: u64, tables: &[(String, u64)]) -> Bytes {
    let mut out = vec![VERSION, FLUSHED];
    put_varint(&mut out, sequence);
    put_varint(&mut out, tables.len() as u64);
    for (tenant, version) in tables {
        put_str(&mut out, tenant);
        put_varint(&mut out, *version);
    }
    out.into()
}

/// The entry after which the shard takes no samples anymore: its epoch has ended.
pub fn seal_entry() -> Bytes {
    Bytes::from_static(&[VERSION, SEAL])
}

/// A decoded entry.
#[derive(Debug)]
pub enum Command<'a> {
    /// Samples of one or more requests.
    Append(Vec<Section<'a>>),
    /// Close the window that starts here.
    Close {
        /// Start of the window, milliseconds.
        window_start: i64,
    },
    /// A closed window is in the table.
    Flushed {
        /// Flush sequence given when it was closed.
        sequence: u64,
        /// Catalog version by tenant.
        tables: Vec<(String, u64)>,
    },
    /// Take no samples anymore.
    Seal,
}

impl<'a> Command<'a> {
    /// Reads an entry; the sections' rows are read while they are applied.
    pub fn decode(entry: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(entry);
        if r.byte("entry version")? != VERSION {
            return Err(r.malformed("entry version"));
        }
        match r.byte("entry kind")? {
            APPEND => {
                let n = r.count("section count")?;
                let sections = (0..n).map(|_| Section::decode(r.part("section")?)).collect::<Result<_, _>>()?;
                Ok(Self::Append(sections))
            }
            CLOSE => Ok(Self::Close { window_start: r.zigzag("window start")? }),
            FLUSHED => {
                let sequence = r.varint("flush sequence")?;
                let n = r.count("table count")?;
                let table = |r: &mut Reader<'a>| Ok((r.str("tenant")?.to_owned(), r.varint("version")?));
                Ok(Self::Flushed { sequence, tables: (0..n).map(|_| table(&mut r)).collect::<Result<_, _>>()? })
            }
            SEAL => Ok(Self::Seal),
            _ => Err(r.malformed("entry kind")),
        }
    }
}

/// Checks a section that another node made, before it may become part of an entry: all of it can be read, and it makes no
/// series.
pub fn check_known(section: &[u8]) -> Result<(), Malformed> {
    let section = Section::decode(Reader::new(section))?;
    if section.new_count > 0 || crate::model::TenantId::new(section.tenant).is_err() {
        return Err(Malformed { what: "section of known series", at: 0 });
    }
    section.floats().try_for_each(|row| row.map(drop))?;
    section.histograms().try_for_each(|row| row.map(drop))?;
    section.exemplars().try_for_each(|row| row.map(drop))?;
    section.metadata().try_for_each(|row| row.map(drop))
}

/// One request's rows for one shard.
#[derive(Debug)]
pub struct Section<'a> {
    /// Whose they are.
    pub tenant: &'a str,
    /// How far behind the tenant's newest sample a sample may be, milliseconds.
    pub out_of_order_ms: i64,
    new_count: usize,
    new_series: Reader<'a>,
    floats: usize,
    refs: Reader<'a>,
    times: Reader<'a>,
    starts: Reader<'a>,
    values: Reader<'a>,
    histogram_count: usize,
    histograms: Reader<'a>,
    exemplar_count: usize,
    exemplars: Reader<'a>,
    metadata_count: usize,
    metadata: Reader<'a>,
}

impl<'a> Section<'a> {
    /// Reads a section; its rows are read when they are asked for.
    pub(super) fn decode(mut r: Reader<'a>) -> Result<Self, Malformed> {
        let tenant = r.str("tenant")?;
        let out_of_order_ms = r.varint("out-of-order limit")? as i64;
        let new_count = r.count("series count")?;
        let new_series = r.part("series")?;
        let floats = r.count("float count")?;
        let (refs, times, starts) = (r.part("references")?, r.part("timestamps")?, r.part("start timestamps")?);
        let values = Reader::new(r.take(floats.saturating_mul(8), "values")?);
        let histogram_count = r.count("histogram count")?;
        let histograms = r.part("histograms")?;
        let exemplar_count = r.count("exemplar count")?;
        let exemplars = r.part("exemplars")?;
        let metadata_count = r.count("metadata count")?;
        let metadata = r.part("metadata")?;
        Ok(Self {
            tenant,
            out_of_order_ms,
            new_count,
            new_series,
            floats,
            refs,
            times,
            starts,
            values,
            histogram_count,
            histograms,
            exemplar_count,
            exemplars,
            metadata_count,
            metadata,
        })
    }

    /// Number of floats.
    pub fn float_count(&self) -> usize {
        self.floats
    }

    /// Hash and canonical labels of each series named by its labels, in order of [`SeriesRef::New`].
    pub fn new_series(&self) -> impl Iterator<Item = Result<(u64, &'a str), Malformed>> + use<'a> {
        let mut r = self.new_series.clone();
        (0..self.new_count).map(move |_| Ok((r.u64("series hash")?, r.str("series labels")?)))
    }

    /// The floats in order.
    pub fn floats(&self) -> impl Iterator<Item = Result<(SeriesRef, SampleRow), Malformed>> + use<'a> {
        let (mut refs, mut times) = (self.refs.clone(), self.times.clone());
        let (mut starts, mut values) = (self.starts.clone(), self.values.clone());
        let has_starts = !starts.is_empty();
        let mut last = (0i64, 0i64);
        (0..self.floats).map(move |_| {
            last.0 = last.0.wrapping_add(refs.zigzag("series reference")?);
            last.1 = last.1.wrapping_add(times.zigzag("timestamp")?);
            let series = SeriesRef::from_code(last.0).ok_or(refs.malformed("series reference"))?;
            let start = if has_starts { read_start(&mut starts, last.1)? } else { 0 };
            Ok((series, SampleRow { t: last.1, v: values.f64("value")?, start }))
        })
    }

    /// The native histograms in order.
    pub fn histograms(&self) -> impl Iterator<Item = Result<(SeriesRef, HistogramRow), Malformed>> + use<'a> {
        let mut r = self.histograms.clone();
        (0..self.histogram_count).map(move |_| {
            let series = read_ref(&mut r)?;
            let t = r.zigzag("timestamp")?;
            let start = read_start(&mut r, t)?;
            Ok((series, HistogramRow { t, h: read_histogram(&mut r)?.into(), start }))
        })
    }

    /// The exemplars in order.
    pub fn exemplars(&self) -> impl Iterator<Item = Result<(SeriesRef, ExemplarRow), Malformed>> + use<'a> {
        let mut r = self.exemplars.clone();
        (0..self.exemplar_count).map(move |_| {
            let series = read_ref(&mut r)?;
            let (t, v) = (r.zigzag("timestamp")?, r.f64("value")?);
            let labels = Labels::from_canonical(r.str("exemplar labels")?).ok_or(r.malformed("exemplar labels"))?;
            Ok((series, ExemplarRow { t, v, labels }))
        })
    }

    /// The metadata in order.
    pub fn metadata(&self) -> impl Iterator<Item = Result<MetadataRow, Malformed>> + use<'a> {
        let mut r = self.metadata.clone();
        (0..self.metadata_count).map(move |_| {
            let metric = r.str("metric name")?.into();
            let kind = MetricType::from_wire(u64::from(r.byte("metric type")?));
            Ok(MetadataRow { metric, kind, help: r.str("help")?.into(), unit: r.str("unit")?.into() })
        })
    }
}

fn read_ref(r: &mut Reader<'_>) -> Result<SeriesRef, Malformed> {
    let code = r.varint("series reference")? as i64;
    SeriesRef::from_code(code).ok_or(r.malformed("series reference"))
}

#[cfg(test)]
mod tests;
