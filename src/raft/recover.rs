//! From segments back to groups, when the log is opened.
//!
//! *Invariants:* only the last segment may end in a torn group commit, which is cut; any other frame that does not verify
//! is [`RaftError::Corrupt`], never skipped. A bad frame followed by a later group commit was durable once (a commit is
//! written only after the one before was synced), so that is damage too, even in the last segment.
//!
//! *Not here:* writing (`writer`), the bytes of a frame (`frame`).

use std::collections::hash_map;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::codec;
use super::error::RaftError;
use super::frame::{self, Frame, Kind};
use super::index::{GroupState, Place, Slot};
use super::segment::{HEADER, Segment, SegmentHeader, Segments};
use super::types::{GroupId, LeaderId, LogId, Vote, next_index};

/// A log as its segments tell it.
pub(crate) struct Recovered {
    pub(crate) groups: HashMap<GroupId, RecoveredGroup>,
    /// All segments, oldest first, with their lengths; none is written to any more.
    pub(crate) segments: Vec<(Arc<Segment>, u64)>,
    pub(crate) last_batch: u64,
    /// Bytes of a torn group commit that were cut.
    pub(crate) cut_bytes: u64,
    /// Groups whose state the segment that is being read has told: without that it could not be the oldest one kept.
    told: HashSet<GroupId>,
}

/// A group as the segments tell it.
#[derive(Default)]
pub(crate) struct RecoveredGroup {
    pub(crate) replica: u64,
    pub(crate) state: GroupState,
}

/// Reads all segments, cuts a torn tail, and makes durable what is left.
pub(crate) fn recover(segments: &Segments) -> Result<Recovered, RaftError> {
    let numbers = segments.list()?;
    let mut out =
        Recovered { groups: HashMap::new(), segments: Vec::new(), last_batch: 0, cut_bytes: 0, told: HashSet::new() };
    let mut previous: Option<(u64, u64)> = None;
    for (at, &number) in numbers.iter().enumerate() {
        let is_last = at + 1 == numbers.len();
        let (segment, bytes) = segments.read(number)?;
        let corrupt = |reason: String| RaftError::corrupt(segments.path(number).display(), reason);
        let header = SegmentHeader::parse(&bytes).ok_or_else(|| corrupt("bad segment header".into()))?;
        if header.number != number {
            return Err(corrupt(format!("segment says it is number {}", header.number)));
        }
        match previous {
            None => out.last_batch = header.previous_batch,
            Some((before, _)) if before + 1 != number => {
                return Err(corrupt(format!("the segment before it is missing, found {before}")));
            }
            Some((_, end)) if (end, out.last_batch) != (header.previous_end, header.previous_batch) => {
                return Err(corrupt(format!(
                    "the segment before it ends at {end} in commit {}, should at {} in {}",
                    out.last_batch, header.previous_end, header.previous_batch
                )));
            }
            Some(_) => {}
        }
        let expected_end = if is_last { None } else { peek_previous_end(segments, numbers[at + 1])? };
        let segment = Arc::new(segment);
        let end = out.replay(&segment, &bytes, expected_end).map_err(corrupt)?;
        let segment = if is_last {
            out.cut_bytes = trailing(&bytes[end..]);
            out.rewrite(segments, header, &segment, &bytes[HEADER..end])?
        } else {
            segment
        };
        out.segments.push((segment, end as u64));
        previous = Some((number, end as u64));
    }
    out.check()
        .map_err(|(group, reason)| RaftError::corrupt(segments.dir().display(), format!("group {group}: {reason}")))?;
    Ok(out)
}

fn peek_previous_end(segments: &Segments, number: u64) -> Result<Option<u64>, RaftError> {
    let mut bytes = [0; HEADER];
    let path = segments.path(number);
    let file = segments.open(number)?;
    file.read_exact_at(0, &mut bytes).map_err(|e| RaftError::corrupt(path.display(), e))?;
    let header =
        SegmentHeader::parse(&bytes).ok_or_else(|| RaftError::corrupt(path.display(), "bad segment header"))?;
    Ok(Some(header.previous_end))
}

/// Bytes up to the last one that is not zero: what a torn commit left.
fn trailing(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at as u64 + 1)
}

impl Recovered {
    /// Applies a segment's frames; where they end.
    fn replay(&mut self, segment: &Arc<Segment>, bytes: &[u8], end: Option<u64>) -> Result<usize, String> {
        self.told.clear();
        let mut at = HEADER;
        let stop = end.map_or(bytes.len(), |e| e as usize);
        while at < stop {
            let frame = bytes.get(at..).and_then(|rest| frame::parse(rest, segment.number));
            let fits = |f: &Frame<'_>| {
                let next = f.head.is_first_of_batch() && f.head.batch == self.last_batch + 1;
                next || (f.head.batch == self.last_batch && !f.head.is_first_of_batch())
            };
            // A frame whose padding is missing ends the file: torn like any other.
            let whole = |f: &Frame<'_>| at + f.size <= bytes.len();
            let Some(frame) = frame.filter(fits).filter(whole) else {
                return match end {
                    Some(_) => Err(format!("bad frame at byte {at} of {stop}")),
                    None => self.torn(bytes, at, segment.number),
                };
            };
            self.last_batch = frame.head.batch;
            let place = Place {
                segment: segment.clone(),
                offset: at as u64,
                len: (frame::HEADER + frame.payload.len()) as u32,
            };
            self.apply(&frame, place).map_err(|why| format!("frame at byte {at}: {why}"))?;
            at += frame.size;
        }
        if end.is_some_and(|e| e as usize != at) { Err(format!("frames end at byte {at}, not {stop}")) } else { Ok(at) }
    }

    /// The end of the log, if the bad frame at `at` is part of the last group commit: of the one before it, or its very
    /// first frame (which may parse, its padding alone being torn).
    fn torn(&self, bytes: &[u8], at: usize, segment: u64) -> Result<usize, String> {
        // Payloads may look like frames, each a checksum over much of the segment: only what can be there is checked.
        let possible = self.last_batch + 1..=self.last_batch + 1 + (bytes.len() / frame::HEADER) as u64;
        let mut probe = at;
        while let Some(rest) = bytes.get(probe..).filter(|rest| rest.len() >= frame::HEADER) {
            if frame::claimed_batch(rest).is_some_and(|batch| possible.contains(&batch))
                && let Some(later) = frame::parse(rest, segment)
                && (later.head.batch > self.last_batch + 1
                    || (later.head.batch == self.last_batch + 1 && later.head.is_first_of_batch() && probe > at))
            {
                return Err(format!("bad frame at byte {at}, yet commit {} follows at {probe}", later.head.batch));
            }
            probe += 8;
        }
        Ok(at)
    }

    /// After a crash the tail may be readable yet not durable: a copy that was synced takes its place.
    fn rewrite(
        &mut self,
        segments: &Segments,
        header: SegmentHeader,
        old: &Arc<Segment>,
        frames: &[u8],
    ) -> Result<Arc<Segment>, RaftError> {
        let what = format!("rewrite log segment {}", segments.path(header.number).display());
        let new = Arc::new(segments.create(header, frames, false).map_err(RaftError::disk(what))?);
        for group in self.groups.values_mut() {
            for place in group.state.slots.iter_mut().rev().filter_map(|s| s.place.as_mut()) {
                if !Arc::ptr_eq(&place.segment, old) {
                    break;
                }
                place.segment = new.clone();
            }
        }
        Ok(new)
    }

    fn apply(&mut self, frame: &Frame<'_>, place: Place) -> Result<(), String> {
        let head = &frame.head;
        if !head.is_possible() {
            return Err("its numbers are higher than any log counts".into());
        }
        match head.kind {
            Kind::GroupCreated => return self.create(head.group, head.replica()),
            Kind::Checkpoint => return self.checkpoint(head.group, frame.payload),
            Kind::GroupDeleted => {
                self.groups.remove(&head.group);
                return Ok(());
            }
            _ => {}
        }
        if !self.told.contains(&head.group) {
            return Err(format!("group {} without a checkpoint in this segment", head.group));
        }
        let group = self.groups.get_mut(&head.group).ok_or_else(|| format!("unknown group {}", head.group))?;
        let state = &mut group.state;
        let id = || head.log_id().ok_or_else(|| "no log id".to_owned());
        match head.kind {
            Kind::Vote => {
                let (term, node_id, committed) = head.vote();
                state.vote = Some(Vote { leader_id: LeaderId { term, node_id }, committed });
            }
            Kind::TruncateAfter => drop(state.truncate_after(head.log_id().as_ref())),
            Kind::Purged => drop(state.purge(id()?)),
            Kind::Committed => state.committed = Some(id()?),
            _ => return state.replay_entry(id()?, place),
        }
        Ok(())
    }

    fn create(&mut self, group: GroupId, replica: u64) -> Result<(), String> {
        match self.groups.entry(group) {
            hash_map::Entry::Occupied(_) => Err(format!("group {group} is created twice")),
            hash_map::Entry::Vacant(slot) => {
                slot.insert(RecoveredGroup { replica, ..Default::default() });
                self.told.insert(group);
                Ok(())
            }
        }
    }

    fn checkpoint(&mut self, group: GroupId, payload: &[u8]) -> Result<(), String> {
        let check = codec::checkpoint(payload).ok_or("unreadable checkpoint")?;
        self.told.insert(group);
        let known = self.groups.entry(group).or_default();
        (known.replica, known.state.vote, known.state.committed) = (check.replica, check.vote, check.committed);
        if let Some(purged) = check.purged {
            drop(known.state.purge(purged));
        }
        Ok(())
    }

    /// What must hold at the end: no hole between the purged part and the first entry.
    fn check(&mut self) -> Result<(), (GroupId, String)> {
        for (id, group) in &mut self.groups {
            let state = &mut group.state;
            let expected = next_index(state.purged.as_ref());
            if !state.slots.is_empty() && state.first != expected {
                return Err((*id, format!("entries begin at {}, purged below {expected}", state.first)));
            }
            // The commit record is not synced on its own: it may have outlived the entries of a lost tail.
            if next_index(state.committed.as_ref()) > state.next() {
                state.committed = state.last();
            }
        }
        Ok(())
    }
}

impl GroupState {
    fn replay_entry(&mut self, id: LogId, place: Place) -> Result<(), String> {
        if id.index() < next_index(self.purged.as_ref()) {
            // Written before a purge that ran ahead of it.
            return Ok(());
        }
        let slot = Slot { leader: *id.committed_leader_id(), cached: None, place: Some(place) };
        self.push(id.index(), slot).map_err(|want| format!("entry {} where {want} belongs", id.index()))
    }
}
