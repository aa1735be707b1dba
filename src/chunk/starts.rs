//! Start (created) timestamps of the samples of a chunk, as runs: a counter keeps one for its whole life.
//!
//! *Invariants:* empty as long as every sample has none; else the runs cover every sample so far.
//!
//! *Not here:* the samples (`float`, `histogram`).

use super::Error;
use super::bits::{push_varint, push_zigzag, take_varint, take_zigzag};
use crate::model::Columns;

/// Start timestamps of one open chunk, run by run.
#[derive(Debug, Clone, Default)]
pub struct StartRuns {
    /// `(samples, start timestamp in milliseconds)`; 0 is none.
    runs: Vec<(u32, i64)>,
}

impl StartRuns {
    /// Whether no sample has one.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.runs.clear();
    }

    /// Notes the start timestamp (0: none) of the sample after the `before` samples of the chunk so far.
    pub fn push(&mut self, before: usize, start: i64) {
        if self.runs.is_empty() {
            if start == 0 {
                return;
            }
            if before > 0 {
                self.runs.push((before as u32, 0));
            }
        }
        match self.runs.last_mut() {
            Some((n, last)) if *last == start => *n += 1,
            _ => self.runs.push((1, start)),
        }
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<(u32, i64)>()
    }

    /// Appends the section.
    pub(super) fn write(&self, buf: &mut Vec<u8>) {
        let mut last = 0i64;
        for (n, start) in &self.runs {
            push_varint(buf, u64::from(*n));
            push_zigzag(buf, start.wrapping_sub(last));
            last = *start;
        }
    }

    /// Reads a section for the samples of `out` from `from` on.
    pub(super) fn read_into(mut section: &[u8], from: usize, out: &mut Columns) -> Result<(), Error> {
        out.starts.resize(from, 0);
        let mut last = 0i64;
        while !section.is_empty() {
            let n = take_varint(&mut section)?;
            last = last.wrapping_add(take_zigzag(&mut section)?);
            if n > (out.timestamps.len() - out.starts.len()) as u64 {
                return Err(Error::Malformed("more start timestamps than samples"));
            }
            out.starts.resize(out.starts.len() + n as usize, last);
        }
        if out.starts.len() != out.timestamps.len() {
            return Err(Error::Malformed("fewer start timestamps than samples"));
        }
        Ok(())
    }
}
