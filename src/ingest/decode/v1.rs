//! Remote write 1.0: `prometheus.WriteRequest`.
//!
//! *Invariants:* label bytes go from the request to the batch once; fields may come in any order.
//!
//! *Not here:* limits and refusals (`assembly`), canonical form (`labels`).
//!
//! Source: `proto/vendor/remote.proto`, `types.proto`.

use super::assembly::{Assembly, Marks};
use super::labels::LabelWriter;
use super::wire::{FIXED64, LEN, Reader, VARINT, Wire, WireError, tag};
use crate::model::{MetricType, SampleRow};

/// Place of a text in the request.
type Place = (usize, usize);

/// Decodes a request; an error comes with the index of the series it was found in.
pub(super) fn decode(mut r: Reader<'_>, a: &mut Assembly<'_>) -> Result<(), (Option<usize>, WireError)> {
    const TIMESERIES: u32 = tag(1, LEN);
    const METADATA: u32 = tag(3, LEN);
    loop {
        let outside = |e: WireError| (None, e.inside("WriteRequest"));
        match r.next_tag().map_err(outside)? {
            0 => return Ok(()),
            TIMESERIES => {
                let message = r.message().map_err(outside)?;
                let index = a.series;
                series(message, a).map_err(|e| (Some(index), e.inside("TimeSeries")))?;
            }
            METADATA => {
                let message = r.message().map_err(outside)?;
                metadata(message, a).map_err(|e| (None, e.inside("MetricMetadata")))?;
            }
            other => r.skip(other, &[1, 3]).map_err(outside)?,
        }
    }
}

fn series(mut r: Reader<'_>, a: &mut Assembly<'_>) -> Wire<()> {
    const LABELS: u32 = tag(1, LEN);
    const SAMPLES: u32 = tag(2, LEN);
    const EXEMPLARS: u32 = tag(3, LEN);
    const HISTOGRAMS: u32 = tag(4, LEN);
    let mut marks = a.begin(&r)?;
    plain_labels(&mut r, a.labels, a.limits.labels_per_series);
    loop {
        match r.next_tag()? {
            0 => return a.end(&r, &marks, 0),
            LABELS => label(&mut r, a.labels, a.limits.labels_per_series)?,
            SAMPLES => {
                let row = sample(r.message()?).map_err(|e| e.inside("Sample"))?;
                a.sample(&r, row)?;
            }
            EXEMPLARS => exemplar(r.message()?, a).map_err(|e| e.inside("Exemplar"))?,
            HISTOGRAMS => histogram(r.message()?, a, &mut marks)?,
            other => r.skip(other, &[1, 2, 3, 4])?,
        }
    }
}

fn histogram(message: Reader<'_>, a: &mut Assembly<'_>, marks: &mut Marks) -> Wire<()> {
    a.histogram(message, false, marks)
}

/// Reads one label into `writer`, and those that follow it in the plain form.
#[inline]
fn label(r: &mut Reader<'_>, writer: &mut LabelWriter, limit: usize) -> Wire<()> {
    let (name, value) = any_label(r.message()?).map_err(|e| e.inside("Label"))?;
    writer.push(r.data(), name, value, limit);
    plain_labels(r, writer, limit);
    Ok(())
}

/// Reads the labels that follow in the plain form, tags included.
#[inline]
fn plain_labels(r: &mut Reader<'_>, writer: &mut LabelWriter, limit: usize) {
    let pos = writer.push_plain(r.data(), r.pos(), r.end(), limit);
    r.seek(pos);
}

fn any_label(mut r: Reader<'_>) -> Wire<(Place, Place)> {
    const NAME: u32 = tag(1, LEN);
    const VALUE: u32 = tag(2, LEN);
    let (mut name, mut value) = ((0, 0), (0, 0));
    loop {
        match r.next_tag()? {
            0 => return Ok((name, value)),
            NAME => name = r.span()?,
            VALUE => value = r.span()?,
            other => r.skip(other, &[1, 2])?,
        }
    }
}

#[inline]
fn sample(mut r: Reader<'_>) -> Wire<SampleRow> {
    const VALUE: u32 = tag(1, FIXED64);
    const TIMESTAMP: u32 = tag(2, VARINT);
    let mut row = SampleRow { t: 0, v: 0.0, start: 0 };
    loop {
        match r.next_tag()? {
            0 => return Ok(row),
            VALUE => row.v = r.double()?,
            TIMESTAMP => row.t = r.varint()? as i64,
            other => r.skip(other, &[1, 2])?,
        }
    }
}

fn exemplar(mut r: Reader<'_>, a: &mut Assembly<'_>) -> Wire<()> {
    const LABELS: u32 = tag(1, LEN);
    const VALUE: u32 = tag(2, FIXED64);
    const TIMESTAMP: u32 = tag(3, VARINT);
    let (mut t, mut v) = (0, 0.0);
    a.exemplar_labels.start();
    loop {
        match r.next_tag()? {
            0 => return a.exemplar(&r, t, v),
            LABELS => label(&mut r, a.exemplar_labels, a.limits.labels_per_series)?,
            VALUE => v = r.double()?,
            TIMESTAMP => t = r.varint()? as i64,
            other => r.skip(other, &[1, 2, 3])?,
        }
    }
}

fn metadata(mut r: Reader<'_>, a: &mut Assembly<'_>) -> Wire<()> {
    const TYPE: u32 = tag(1, VARINT);
    const FAMILY: u32 = tag(2, LEN);
    const HELP: u32 = tag(4, LEN);
    const UNIT: u32 = tag(5, LEN);
    let (mut kind, mut family, mut help, mut unit) = (MetricType::Unknown, "", "", "");
    loop {
        match r.next_tag()? {
            0 => return a.metadata(&r, family, kind, help, unit),
            TYPE => kind = MetricType::from_wire(r.varint()?),
            FAMILY => family = r.text()?,
            HELP => help = r.text()?,
            UNIT => unit = r.text()?,
            other => r.skip(other, &[1, 2, 4, 5])?,
        }
    }
}
