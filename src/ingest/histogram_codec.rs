//! One native histogram as bytes of a log entry.
//!
//! *Invariants:* what was written comes back bit for bit; integer counts take a varint each, float counts eight bytes.
//!
//! *Not here:* the packing of many histograms of one series (`chunk::histogram`).

use super::codec::{Malformed, Reader, put_f64, put_varint, put_zigzag};
use crate::model::{Histogram, ResetHint, Span};

const INTEGER: u8 = 1;

/// Appends `h`.
pub fn put_histogram(buf: &mut Vec<u8>, h: &Histogram) {
    buf.push((u8::from(h.integer) * INTEGER) | ((h.reset_hint as u8) << 1));
    put_zigzag(buf, i64::from(h.schema));
    put_f64(buf, h.zero_threshold);
    put_f64(buf, h.sum);
    put_count(buf, h.integer, h.zero_count);
    put_count(buf, h.integer, h.count);
    for (spans, counts) in [(&h.positive_spans, &h.positive), (&h.negative_spans, &h.negative)] {
        put_varint(buf, spans.len() as u64);
        for span in spans {
            put_zigzag(buf, i64::from(span.offset));
            put_varint(buf, u64::from(span.length));
        }
        put_varint(buf, counts.len() as u64);
        counts.iter().for_each(|c| put_count(buf, h.integer, *c));
    }
    put_varint(buf, h.custom_values.len() as u64);
    h.custom_values.iter().for_each(|b| put_f64(buf, *b));
}

fn put_count(buf: &mut Vec<u8>, integer: bool, count: f64) {
    if integer { put_varint(buf, count as u64) } else { put_f64(buf, count) }
}

/// Reads one back.
pub fn read_histogram(r: &mut Reader<'_>) -> Result<Histogram, Malformed> {
    let flags = r.byte("histogram flags")?;
    let integer = flags & INTEGER != 0;
    let schema = i32::try_from(r.zigzag("schema")?).map_err(|_| r.malformed("schema"))?;
    let (zero_threshold, sum) = (r.f64("zero threshold")?, r.f64("sum")?);
    let (zero_count, count) = (read_count(r, integer)?, read_count(r, integer)?);
    let (positive_spans, positive) = read_side(r, integer)?;
    let (negative_spans, negative) = read_side(r, integer)?;
    let n = r.count("custom bounds")?;
    let custom_values = (0..n).map(|_| r.f64("custom bound")).collect::<Result<_, _>>()?;
    Ok(Histogram {
        integer,
        schema,
        reset_hint: ResetHint::from_u8(flags >> 1),
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        positive,
        negative_spans,
        negative,
        custom_values,
    })
}

fn read_side(r: &mut Reader<'_>, integer: bool) -> Result<(Vec<Span>, Vec<f64>), Malformed> {
    let n = r.count("spans")?;
    let span = |r: &mut Reader<'_>| {
        let offset = i32::try_from(r.zigzag("span offset")?).map_err(|_| r.malformed("span offset"))?;
        let length = u32::try_from(r.varint("span length")?).map_err(|_| r.malformed("span length"))?;
        Ok(Span { offset, length })
    };
    let spans = (0..n).map(|_| span(r)).collect::<Result<_, _>>()?;
    let n = r.count("buckets")?;
    let counts = (0..n).map(|_| read_count(r, integer)).collect::<Result<_, _>>()?;
    Ok((spans, counts))
}

fn read_count(r: &mut Reader<'_>, integer: bool) -> Result<f64, Malformed> {
    if integer { Ok(r.varint("count")? as f64) } else { r.f64("count") }
}
