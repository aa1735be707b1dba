//! Writes one label set at a time in canonical form, from parts of the request.
//!
//! *Invariants:* what [`LabelWriter::finish`] returns is canonical (`model::labels`): names strictly ascending, nothing
//! empty, valid UTF-8. Memory is reused; nothing is allocated per label.
//!
//! *Not here:* wire format, limits of a tenant (`ingest::admit`).
//!
//! Labels come sorted from every sane sender, so they are written as they come and the order is checked on the way by the
//! first eight bytes of each name. UTF-8 is checked once per set and not per label: a length is an ASCII byte, so a
//! character cut at the border of a part does not become whole by what follows.

use std::ops::Range;

use crate::ingest::outcome::Reason;
use crate::model::labels::long_length;

/// Lengths from here on take the long form.
const LONG: usize = 127;
/// Short parts are copied as half or all of this many bytes: a move of constant size costs a tenth of a `memcpy`.
const BLOCK: usize = 64;

/// A label set being written.
#[derive(Default)]
pub(super) struct LabelWriter {
    /// The set in the order of arrival; of it `len` bytes count, the rest is room for whole blocks.
    out: Vec<u8>,
    len: usize,
    count: usize,
    sorted: bool,
    last_prefix: u64,
    last_name: Range<usize>,
    problem: Option<Reason>,
    /// For sets that come out of order: places of names and of the ends of values in `out`, and the sorted set.
    places: Vec<(Range<usize>, Range<usize>)>,
    ordered: Vec<u8>,
}

impl LabelWriter {
    /// Begins a new set.
    pub(super) fn start(&mut self) {
        self.len = 0;
        self.count = 0;
        self.sorted = true;
        self.last_prefix = 0;
        self.last_name = 0..0;
        self.problem = None;
    }

    /// Marks the whole set as unusable (the first reason stays).
    #[cold]
    pub(super) fn refuse(&mut self, reason: Reason) {
        self.problem.get_or_insert(reason);
    }

    /// Adds a label whose name and value lie at these places of `data`. At most `limit` are taken.
    #[inline]
    pub(super) fn push(&mut self, data: &[u8], name: (usize, usize), value: (usize, usize), limit: usize) {
        let (name_len, value_len) = (name.1 - name.0, value.1 - value.0);
        if name_len == 0 {
            return self.refuse(Reason::LabelInvalid);
        }
        if value_len == 0 {
            return;
        }
        self.count += 1;
        if self.count > limit {
            return self.refuse(Reason::LabelSetTooLong);
        }
        let room = self.len + name_len + value_len + 12 + BLOCK;
        if self.out.len() < room {
            self.out.resize(room.next_power_of_two(), 0);
        }
        self.push_part(data, name.0, name_len);
        let written = self.len - name_len..self.len;
        self.check_order(prefix(data, name.0, name_len), written);
        self.push_part(data, value.0, value_len);
    }

    /// Adds labels as long as they come as every sender writes them, in remote write 1.0: field 1 of the series, in it name
    /// and value in this order, each of 1 to 126 bytes. Such a label holds its canonical form already, but for three
    /// bytes. Returns where in `data` it stopped; what follows there is for the general way.
    #[inline]
    pub(super) fn push_plain(&mut self, data: &[u8], mut pos: usize, end: usize, limit: usize) -> usize {
        const WINDOW: usize = 2 * (2 + LONG) + 2 + BLOCK + BLOCK;
        const TAG_1: u8 = 0x0a;
        const TAG_2: u8 = 0x12;
        while let Some(w) = data[pos..].first_chunk::<WINDOW>() {
            let name_len = w[3] as usize;
            if w[0] != TAG_1 || w[2] != TAG_1 || name_len == 0 || name_len >= LONG || w[4 + name_len] != TAG_2 {
                break;
            }
            let value_len = w[5 + name_len] as usize;
            let next = pos + 6 + name_len + value_len;
            if value_len == 0 || value_len >= LONG || w[1] as usize != 4 + name_len + value_len || next > end {
                break;
            }
            if self.count >= limit {
                break;
            }
            if self.out.len() < self.len + WINDOW {
                self.out.resize((self.len + WINDOW).next_power_of_two(), 0);
            }
            let at = self.len;
            copy(&mut self.out, at, w, 3, 1 + name_len);
            copy(&mut self.out, at + 1 + name_len, w, 5 + name_len, 1 + value_len);
            self.check_order(prefix(w, 4, name_len), at + 1..at + 1 + name_len);
            self.len = at + 2 + name_len + value_len;
            self.count += 1;
            pos = next;
        }
        pos
    }

    #[inline(always)]
    fn push_part(&mut self, data: &[u8], from: usize, len: usize) {
        if len < LONG {
            self.out[self.len] = len as u8;
            self.len += 1;
        } else {
            self.out[self.len..self.len + 6].copy_from_slice(&long_length(len));
            self.len += 6;
        }
        copy(&mut self.out, self.len, data, from, len);
        self.len += len;
    }

    #[inline(always)]
    fn check_order(&mut self, prefix: u64, name: Range<usize>) {
        // Names with equal first eight bytes (zero-padded) are compared in full.
        let ascends = prefix > self.last_prefix
            || (prefix == self.last_prefix && self.out[self.last_name.clone()] < self.out[name.clone()]);
        self.sorted &= ascends;
        self.last_prefix = prefix;
        self.last_name = name;
    }

    /// The set in canonical form, or why there is none.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<&str, Reason> {
        if let Some(reason) = self.problem {
            return Err(reason);
        }
        if !self.sorted {
            self.sort()?;
            return std::str::from_utf8(&self.ordered).map_err(|_| Reason::LabelInvalid);
        }
        std::str::from_utf8(&self.out[..self.len]).map_err(|_| Reason::LabelInvalid)
    }

    #[cold]
    fn sort(&mut self) -> Result<(), Reason> {
        let out = &self.out[..self.len];
        self.places.clear();
        let mut at = 0;
        while at < out.len() {
            let name = part(out, at);
            let value = part(out, name.end);
            at = value.end;
            self.places.push((name, value));
        }
        self.places.sort_unstable_by(|a, b| out[a.0.clone()].cmp(&out[b.0.clone()]));
        if self.places.windows(2).any(|w| out[w[0].0.clone()] == out[w[1].0.clone()]) {
            return Err(Reason::DuplicateLabelNames);
        }
        self.ordered.clear();
        for (name, value) in &self.places {
            for part in [name, value] {
                let prefix = if part.len() < LONG { 1 } else { 6 };
                self.ordered.extend_from_slice(&out[part.start - prefix..part.end]);
            }
        }
        Ok(())
    }

    /// What was written so far, for error texts: readable, cut, not necessarily valid.
    pub(super) fn describe(&self) -> String {
        let out = &self.out[..self.len];
        let mut text = String::from("{");
        let mut at = 0;
        while at < out.len() && text.len() < 300 {
            let name = part(out, at);
            let value = part(out, name.end);
            at = value.end;
            let separator = if text.len() > 1 { ", " } else { "" };
            let lossy = |r: Range<usize>| String::from_utf8_lossy(&out[r.start..r.end.min(r.start + 100)]).into_owned();
            text.push_str(&format!("{separator}{}={:?}", lossy(name), lossy(value)));
        }
        text.push_str(if at < out.len() { ", …}" } else { "}" });
        text
    }
}

/// Copies `len` bytes; up to [`BLOCK`] of them as moves of constant size, where both sides have that much room.
#[inline(always)]
fn copy(to: &mut [u8], at: usize, from: &[u8], start: usize, len: usize) {
    match (from[start..].first_chunk::<BLOCK>(), to[at..].first_chunk_mut::<BLOCK>()) {
        (Some(source), Some(room)) if len <= BLOCK => {
            room[..BLOCK / 2].copy_from_slice(&source[..BLOCK / 2]);
            if len > BLOCK / 2 {
                room[BLOCK / 2..].copy_from_slice(&source[BLOCK / 2..]);
            }
        }
        _ => to[at..at + len].copy_from_slice(&from[start..start + len]),
    }
}

/// The first eight bytes as a number that orders like them, zero-padded.
#[inline(always)]
fn prefix(data: &[u8], from: usize, len: usize) -> u64 {
    match data[from..].first_chunk::<8>() {
        Some(bytes) if len >= 8 => u64::from_be_bytes(*bytes),
        Some(bytes) => u64::from_be_bytes(*bytes) & !(u64::MAX >> (8 * len)),
        None => data[from..from + len.min(8)].iter().enumerate().fold(0, |n, (i, b)| n | u64::from(*b) << (56 - 8 * i)),
    }
}

/// The place of the text of the part that begins at `at` of a well-formed set.
fn part(out: &[u8], at: usize) -> Range<usize> {
    let first = out[at] as usize;
    if first < LONG {
        return at + 1..at + 1 + first;
    }
    let len = out[at + 1..at + 6].iter().fold(0usize, |n, d| n << 7 | *d as usize);
    at + 6..at + 6 + len
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Labels;

    fn write(pairs: &[(&[u8], &[u8])]) -> Result<String, Reason> {
        let mut data = Vec::new();
        let mut places = Vec::new();
        for (name, value) in pairs {
            let at = data.len();
            data.extend_from_slice(name);
            data.extend_from_slice(value);
            places.push(((at, at + name.len()), (at + name.len(), data.len())));
        }
        let mut w = LabelWriter::default();
        w.start();
        for (name, value) in places {
            w.push(&data, name, value, 64);
        }
        w.finish().map(str::to_owned)
    }

    proptest! {
        #[test]
        fn writes_the_canonical_form_of_any_set(
            pairs in proptest::collection::btree_map("[a-c]{1,12}", "[a-zé]{0,40}|[x]{120,135}", 0..12),
            rotate in 0usize..12,
        ) {
            let mut list: Vec<_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            if !list.is_empty() {
                let by = rotate % list.len();
                list.rotate_left(by);
            }
            let want = Labels::from_pairs(&pairs);
            let got = write(&list).unwrap();
            prop_assert_eq!(got.as_str(), want.canonical());
        }
    }

    #[test]
    fn refuses_duplicates_near_and_far_even_after_equal_prefixes() {
        for names in [[&b"a"[..], b"a", b"b"], [b"a", b"b", b"a"], [b"long_name_x", b"long_name_y", b"long_name_x"]] {
            assert_eq!(write(&names.map(|n| (n, &b"v"[..]))), Err(Reason::DuplicateLabelNames));
        }
        assert!(write(&[(b"long_name_x", b"v"), (b"long_name_xx", b"v"), (b"long_name_y", b"v")]).is_ok());
    }

    #[test]
    fn refuses_a_character_split_over_two_labels() {
        let split = "é".as_bytes();
        assert_eq!(write(&[(b"a", &split[..1]), (b"b", b"v")]), Err(Reason::LabelInvalid));
        assert_eq!(write(&[(b"a", &split[..1])]), Err(Reason::LabelInvalid));
        assert_eq!(write(&[(b"a", &split[..1]), (&split[1..], b"v")]), Err(Reason::LabelInvalid));
    }

    #[test]
    fn names_with_zero_bytes_keep_their_order() {
        let sorted = write(&[(b"a", b"1"), (b"a\0", b"2"), (b"a\0\0", b"3")]).unwrap();
        assert_eq!(write(&[(b"a\0", b"2"), (b"a\0\0", b"3"), (b"a", b"1")]).unwrap(), sorted);
        assert!(Labels::from_canonical(&sorted).is_some());
    }

    #[test]
    fn stops_at_the_limit() {
        let pair = (&b"a"[..], &b"v"[..]);
        assert_eq!(write(&[pair; 65]), Err(Reason::LabelSetTooLong));
    }
}
