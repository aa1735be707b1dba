#![doc = include_str!("partial.md")]
//!
//! *Invariants:* what was written is read bit for bit. Whatever bytes come, reading ends in rows or in an error, and takes no
//! more memory than the bytes, some for each row and label set, which `admit` is asked for before.
//!
//! *Not here:* computing and merging (`aggregate`, `grouping`), how bytes are sent (`query`).

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::cells::Cells;
use crate::error::{Error, Kind};
use crate::model::Labels;
use crate::promql::annotations::{Annotations, Severity};
use crate::promql::operator::AggregateOp;
use crate::promql::plan::NodeId;
use crate::promql::position::Span;

/// The version of the encoding, and of everything that decides what a node of a plan computes.
pub const VERSION: u32 = 1;

/// Bytes after which a piece is handed out.
const PIECE_BYTES: usize = 256 << 10;

const ROW: u8 = 1;
const END: u8 = 2;

/// What others computed of aggregations, by their node of the plan.
pub type Partials = HashMap<NodeId, Vec<Partial>>;

/// What somebody made of an aggregation with the series he has.
#[derive(Debug, Default)]
pub struct Partial {
    /// Groups and partitions.
    pub rows: Vec<Row>,
    /// What there is besides.
    pub end: End,
}

/// Cells of one partition's series of a group.
#[derive(Debug)]
pub struct Row {
    /// Labels of the group.
    pub labels: Labels,
    /// The group's first series by labels, of all partitions that were looked at.
    pub first: Labels,
    /// A series has lost its name, which is still there.
    pub dropped: bool,
    /// The partition; 0 where the order of series does not matter.
    pub partition: u32,
    /// What they come to.
    pub cells: Cells,
}

/// What is known when all series were seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct End {
    /// The metric of all series, where that may matter and there are any.
    pub metric: Option<Box<str>>,
    /// Samples read from storage.
    pub samples_read: u64,
    /// Series read from storage.
    pub series_read: u64,
    /// What there was to say.
    pub notes: Annotations,
}

/// The shape of an aggregation's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// What is computed.
    pub op: AggregateOp,
    /// Number of steps.
    pub steps: usize,
}

/// Why bytes are no partial results.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end within something, or it is not what it should be.
    #[error("bytes {at} before the end are no {what}")]
    Bytes {
        /// What was expected.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// Nobody asked for that.
    #[error("aggregation {0} was not asked for, or is complete")]
    Unasked(u64),
    /// Some are missing.
    #[error("aggregation {0} is not complete")]
    Incomplete(usize),
}

impl From<Malformed> for Error {
    fn from(e: Malformed) -> Self {
        Self::new(Kind::Corrupt, format!("read partial results: {e}"))
    }
}

impl Row {
    /// Bytes held, about; written it has as many.
    pub fn bytes(&self, shape: Shape) -> usize {
        let cells = shape.steps * Cells::bytes_per_step(shape.op);
        size_of::<Self>() + self.labels.heap_bytes() + self.first.heap_bytes() + cells
    }
}

/// The bytes of partial results in pieces, aggregations numbered as they come; `None` where an annotation cannot be written.
pub fn pieces(partials: &[Partial]) -> Option<Vec<Vec<u8>>> {
    let (mut done, mut out) = (Vec::new(), Vec::new());
    for (number, partial) in (0u64..).zip(partials) {
        for row in &partial.rows {
            out.push(ROW);
            push_number(&mut out, number);
            push_number(&mut out, u64::from(row.partition));
            out.push(u8::from(row.dropped));
            push_text(&mut out, row.labels.canonical());
            push_text(&mut out, row.first.canonical());
            row.cells.write(&mut out);
            if out.len() >= PIECE_BYTES {
                done.push(std::mem::take(&mut out));
            }
        }
        let End { metric, samples_read, series_read, notes } = &partial.end;
        out.push(END);
        push_number(&mut out, number);
        out.push(u8::from(metric.is_some()));
        push_text(&mut out, metric.as_deref().unwrap_or_default());
        push_number(&mut out, *samples_read);
        push_number(&mut out, *series_read);
        let notes = notes.plain()?;
        push_number(&mut out, notes.len() as u64);
        for (severity, text, span) in notes {
            out.push(u8::from(severity == Severity::Warning));
            push_number(&mut out, u64::from(span.start));
            push_number(&mut out, u64::from(span.end));
            push_text(&mut out, text);
        }
    }
    done.push(out);
    Some(done)
}

/// Reads pieces one after the other.
pub struct Reader {
    shapes: Vec<Shape>,
    partials: Vec<Partial>,
    complete: Vec<bool>,
}

impl Reader {
    /// Nothing was read yet of what is to come for aggregations of these shapes.
    pub fn new(shapes: Vec<Shape>) -> Self {
        let partials = shapes.iter().map(|_| Partial::default()).collect();
        let complete = vec![false; shapes.len()];
        Self { shapes, partials, complete }
    }

    /// Reads a piece; `admit` is asked for the bytes of each thing before it is held.
    pub fn read(&mut self, mut data: &[u8], admit: &mut dyn FnMut(usize) -> Result<(), Error>) -> Result<(), Error> {
        while let Some((kind, rest)) = data.split_first() {
            data = rest;
            let number = take_number(&mut data).ok_or_else(|| malformed("number", data))?;
            let at = usize::try_from(number).ok().filter(|at| self.complete.get(*at) == Some(&false));
            let at = at.ok_or(Malformed::Unasked(number))?;
            match *kind {
                ROW => {
                    let mut shared = data;
                    let texts = texts_of(&mut shared).ok_or_else(|| malformed("row", data))?;
                    let cells = self.shapes[at].steps * Cells::bytes_per_step(self.shapes[at].op);
                    admit(size_of::<Row>() + 2 * (texts + 2 * size_of::<usize>()) + cells.min(3 * data.len()))?;
                    let row = row(self.shapes[at], &mut data).ok_or_else(|| malformed("row", data))?;
                    self.partials[at].rows.push(row);
                }
                END => {
                    admit(2 * data.len())?;
                    self.partials[at].end = end(&mut data).ok_or_else(|| malformed("end", data))?;
                    self.complete[at] = true;
                }
                _ => return Err(malformed("row or end", data).into()),
            }
        }
        Ok(())
    }

    /// All of them, once they are complete.
    pub fn finish(self) -> Result<Vec<Partial>, Malformed> {
        match self.complete.iter().position(|complete| !complete) {
            Some(missing) => Err(Malformed::Incomplete(missing)),
            None => Ok(self.partials),
        }
    }
}

fn malformed(what: &'static str, data: &[u8]) -> Malformed {
    Malformed::Bytes { what, at: data.len() }
}

/// Bytes of the longer label set of a row.
fn texts_of(data: &mut &[u8]) -> Option<usize> {
    take_number(data)?;
    data.split_off_first()?;
    let labels = take_text(data)?.len();
    Some(take_text(data)?.len().max(labels))
}

fn row(shape: Shape, data: &mut &[u8]) -> Option<Row> {
    let partition = u32::try_from(take_number(data)?).ok()?;
    let dropped = take_flag(data)?;
    let labels = Labels::from_canonical(take_text(data)?)?;
    let first = Labels::from_canonical(take_text(data)?)?;
    let cells = Cells::read(shape.op, shape.steps, data)?;
    Some(Row { labels, first, dropped, partition, cells })
}

fn end(data: &mut &[u8]) -> Option<End> {
    let named = take_flag(data)?;
    let metric = take_text(data)?;
    let metric = named.then(|| Box::from(metric));
    let (samples_read, series_read) = (take_number(data)?, take_number(data)?);
    let mut notes = Annotations::default();
    for _ in 0..take_number(data)? {
        let warning = take_flag(data)?;
        let mut place = || u32::try_from(take_number(data)?).ok();
        let span = Span { start: place()?, end: place()? };
        let text = take_text(data)?;
        if warning { notes.warning(span, text) } else { notes.info(span, text) }
    }
    Some(End { metric, samples_read, series_read, notes })
}

fn push_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_number(data: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *data.split_off_first()?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has one bit left.
        if bits << shift >> shift != bits {
            return None;
        }
        n |= bits << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'d>(data: &mut &'d [u8]) -> Option<&'d str> {
    let len = usize::try_from(take_number(data)?).ok()?;
    std::str::from_utf8(data.split_off(..len)?).ok()
}

fn take_flag(data: &mut &[u8]) -> Option<bool> {
    match data.split_off_first()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
