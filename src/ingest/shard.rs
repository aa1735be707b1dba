//! One shard's replicated state: committed entries become samples in the head, closed windows, flushed windows.
//!
//! *Invariants:* `apply` reads no clock and no configuration. Windows get their flush sequence when they are closed, in
//! the order of the log; `Flushed(n)` says the table holds everything closed up to `n`. A reader that takes the lock
//! once sees heads and flush floor of the same moment.
//!
//! *Not here:* proposing (`ingest::ingester`), writing blocks (`ingest::flush`), consensus (`raft`).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::codec::{Malformed, Reader, put_str, put_varint, put_zigzag};
use super::entry::{Command, Section, SeriesRef};
use super::reply::{Refused, SectionReply, append_reply};
use super::series_budget::SeriesBudgets;
use crate::head::{Head, Verdict};
use crate::model::{SeriesId, TenantId};
use crate::raft::{SnapshotWriter, StateMachine};

/// A window that is closed and waits for its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedWindow {
    /// Flush sequence of the shard, from 1, without gaps.
    pub sequence: u64,
    /// Start of the window, milliseconds.
    pub start: i64,
    /// Which of the window's generations this is.
    pub generation: u32,
}

/// What has been closed and flushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Last sequence given.
    pub last_sequence: u64,
    /// Everything up to this sequence is in the table and no longer in the head.
    pub flushed: u64,
    /// Closed, not flushed; ascending sequence.
    pub closed: Vec<ClosedWindow>,
    /// Newest catalog version that holds a flush of this shard, by tenant.
    pub tables: BTreeMap<String, u64>,
    /// Whether the shard takes no samples anymore, because its epoch has ended.
    pub sealed: bool,
}

/// A shard's state at one moment.
pub struct ShardState {
    /// Recent samples.
    pub head: Head,
    /// Windows on their way to the table.
    pub ledger: Ledger,
}

/// A shard's state, shared by the one writer (apply) and many readers.
pub type SharedShard = Arc<RwLock<ShardState>>;

/// Applies a shard's entries.
pub struct ShardMachine {
    state: SharedShard,
    /// The node's count of series. What this replica holds is in it from the moment it is applied until the replica goes.
    budgets: SeriesBudgets,
}

impl ShardMachine {
    /// A machine over an empty `state`, which readers share; its series count in `budgets`.
    pub fn new(state: SharedShard, budgets: SeriesBudgets) -> Self {
        Self { state, budgets }
    }
}

impl Drop for ShardMachine {
    fn drop(&mut self) {
        let held = self.state.read().series_by_tenant();
        held.iter().for_each(|(tenant, n)| self.budgets.of(tenant).retired(*n));
    }
}

impl StateMachine for ShardMachine {
    fn apply(&mut self, index: u64, entry: &Bytes) -> Bytes {
        let applied = Command::decode(entry).and_then(|command| self.state.write().run(&command, &self.budgets));
        // A malformed entry passed a CRC and a leader of this very code: the log is not ours. Going on would let
        // replicas drift apart silently.
        applied.unwrap_or_else(|e| panic!("BUG: entry {index} of a shard cannot be read: {e}"))
    }

    fn snapshot(&mut self) -> io::Result<SnapshotWriter> {
        let state = self.state.read();
        let ledger = state.ledger.encode();
        let head = state.head.snapshot();
        Ok(Box::new(move |out| {
            out.write_all(&(ledger.len() as u32).to_le_bytes())?;
            out.write_all(&ledger)?;
            head.write(out)
        }))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut len = [0; 4];
        from.read_exact(&mut len)?;
        let mut ledger = Vec::new();
        from.take(u64::from(u32::from_le_bytes(len))).read_to_end(&mut ledger)?;
        let ledger = Ledger::decode(&ledger).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let mut state = self.state.write();
        let seed = state.head.seed();
        let head = Head::restore(from, seed).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let before = state.series_by_tenant();
        state.head = head;
        state.ledger = ledger;
        // Added first: a limit may be missed for a moment, but never exceeded.
        state.series_by_tenant().iter().for_each(|(tenant, n)| self.budgets.of(tenant).add(*n));
        before.iter().for_each(|(tenant, n)| self.budgets.of(tenant).retired(*n));
        Ok(())
    }
}

impl ShardState {
    /// An empty shard.
    pub fn new(head: Head) -> Self {
        Self { head, ledger: Ledger::default() }
    }

    fn run(&mut self, command: &Command<'_>, budgets: &SeriesBudgets) -> Result<Bytes, Malformed> {
        match command {
            // An answer without a word for any section: see `reply`.
            Command::Append(_) if self.ledger.sealed => Ok(Bytes::new()),
            Command::Append(sections) => {
                let replies = sections.iter().map(|s| self.append(s, budgets)).collect::<Result<Vec<_>, _>>()?;
                Ok(append_reply(&replies))
            }
            Command::Close { window_start } => {
                self.close(*window_start);
                Ok(Bytes::new())
            }
            Command::Flushed { sequence, tables } => {
                self.flushed(*sequence, tables, budgets);
                Ok(Bytes::new())
            }
            Command::Seal => {
                self.ledger.sealed = true;
                Ok(Bytes::new())
            }
        }
    }

    fn append(&mut self, section: &Section<'_>, budgets: &SeriesBudgets) -> Result<SectionReply, Malformed> {
        let tenant = TenantId::new(section.tenant).map_err(|_| Malformed { what: "tenant", at: 0 })?;
        let (made, created) = self.new_series(&tenant, section)?;
        if !made.is_empty() {
            let hashes = section.new_series().filter_map(|series| series.ok().map(|(hash, _)| hash));
            budgets.of(&tenant).applied(created, hashes);
        }
        let id = |series: SeriesRef| match series {
            SeriesRef::Known(id) => SeriesId(id),
            // An index past the list reads as an id nobody has.
            SeriesRef::New(index) => made.get(index as usize).copied().unwrap_or(SeriesId(u32::MAX)),
        };
        let limit = section.out_of_order_ms;
        let mut refused = Vec::new();
        let mut row = 0u32;
        let mut judge = |verdict: Verdict| {
            match verdict {
                Verdict::Accepted | Verdict::Duplicate => {}
                Verdict::Conflict => refused.push((row, Refused::Conflict)),
                Verdict::TooOld => refused.push((row, Refused::TooOld)),
                Verdict::UnknownSeries => refused.push((row, Refused::UnknownSeries)),
            }
            row += 1;
        };
        for float in section.floats() {
            let (series, s) = float?;
            judge(self.head.append_float(id(series), s.t, s.v, s.start, limit));
        }
        for histogram in section.histograms() {
            let (series, h) = histogram?;
            judge(self.head.append_histogram(id(series), h.t, h.h, h.start, limit));
        }
        for exemplar in section.exemplars() {
            let (series, e) = exemplar?;
            // A series refused above has no exemplars either; a full ring is not an error.
            let _ = self.head.append_exemplar(id(series), &e);
        }
        for metadata in section.metadata() {
            self.head.put_metadata(&tenant, metadata?);
        }
        Ok(SectionReply { created, refused })
    }

    /// Ids of the section's new series, and how many of them the shard did not have.
    fn new_series(&mut self, tenant: &TenantId, section: &Section<'_>) -> Result<(Vec<SeriesId>, u64), Malformed> {
        let before = self.series_of(tenant);
        let made = section
            .new_series()
            .map(|s| s.map(|(hash, labels)| self.head.get_or_create(tenant, hash, labels)))
            .collect::<Result<Vec<SeriesId>, _>>()?;
        let created = if made.is_empty() { 0 } else { self.series_of(tenant) - before };
        Ok((made, created))
    }

    /// Series of a tenant in this shard.
    pub fn series_of(&self, tenant: &TenantId) -> u64 {
        self.head.tenant_stats(tenant).map_or(0, |s| s.series as u64)
    }

    fn close(&mut self, window_start: i64) {
        if let Some(generation) = self.head.close(window_start) {
            self.ledger.last_sequence += 1;
            let sequence = self.ledger.last_sequence;
            self.ledger.closed.push(ClosedWindow { sequence, start: window_start, generation });
        }
    }

    fn flushed(&mut self, sequence: u64, tables: &[(String, u64)], budgets: &SeriesBudgets) {
        let before = self.series_by_tenant();
        while let Some(window) = self.ledger.closed.first().copied().filter(|w| w.sequence <= sequence) {
            self.ledger.closed.remove(0);
            self.ledger.flushed = window.sequence;
            self.head.mark_flushed(window.start, window.generation);
        }
        for (tenant, version) in tables {
            let newest = self.ledger.tables.entry(tenant.clone()).or_default();
            *newest = (*newest).max(*version);
        }
        let after = self.series_by_tenant();
        for (tenant, n) in before {
            let left = after.get(&tenant).copied().unwrap_or(0);
            if left < n {
                budgets.of(&tenant).retired(n - left);
            }
        }
    }

    /// Whether everything the shard ever took is in the table, and it takes no more.
    pub fn is_over(&self) -> bool {
        self.ledger.sealed && self.ledger.closed.is_empty() && self.head.windows().is_empty()
    }

    fn series_by_tenant(&self) -> BTreeMap<TenantId, u64> {
        self.head.tenants().map(|(_, tenant)| (tenant.clone(), self.series_of(tenant))).collect()
    }
}

impl Ledger {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![2];
        put_varint(&mut out, self.last_sequence);
        put_varint(&mut out, self.flushed);
        put_varint(&mut out, self.closed.len() as u64);
        for window in &self.closed {
            put_varint(&mut out, window.sequence);
            put_zigzag(&mut out, window.start);
            put_varint(&mut out, u64::from(window.generation));
        }
        put_varint(&mut out, self.tables.len() as u64);
        for (tenant, version) in &self.tables {
            put_str(&mut out, tenant);
            put_varint(&mut out, *version);
        }
        out.push(u8::from(self.sealed));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let version = r.byte("ledger version")?;
        if !(1..=2).contains(&version) {
            return Err(r.malformed("ledger version"));
        }
        let (last_sequence, flushed) = (r.varint("sequence")?, r.varint("sequence")?);
        let n = r.count("windows")?;
        let window = |r: &mut Reader<'_>| {
            let (sequence, start) = (r.varint("sequence")?, r.zigzag("window start")?);
            let generation = u32::try_from(r.varint("generation")?).map_err(|_| r.malformed("generation"))?;
            Ok(ClosedWindow { sequence, start, generation })
        };
        let closed = (0..n).map(|_| window(&mut r)).collect::<Result<_, _>>()?;
        let n = r.count("tables")?;
        let table = |r: &mut Reader<'_>| Ok((r.str("tenant")?.to_owned(), r.varint("version")?));
        let tables = (0..n).map(|_| table(&mut r)).collect::<Result<_, _>>()?;
        // In the first version no epoch ended.
        let sealed = version > 1 && r.byte("sealed")? != 0;
        Ok(Self { last_sequence, flushed, closed, tables, sealed })
    }
}

#[cfg(test)]
mod tests;
