//! Finds series by matchers and time, and hands out their samples.
//!
//! *Invariants:* an absent label is matched as `""`. Everything returned owns its memory: chunks are shared, open ones
//! copied, so decoding happens outside of the lock.
//!
//! *Not here:* merging with blocks (`query::leaf`).

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::core::{Head, Tenant};
use super::exemplars::{Entry, SeriesExemplars};
use super::index::Index;
use super::series::Series;
use crate::chunk::{Chunk, ChunkCursor};
use crate::model::{Exemplar, Labels, MatchOp, Matcher, TenantId, TimeRange};

/// Below this many candidates per label value, looking at each candidate beats looking at each value.
const SCAN_VALUES_FACTOR: u64 = 2;

/// One selected series, with what the head holds of it in the range.
#[derive(Debug, Clone)]
pub struct HeadSeries {
    /// Labels.
    pub labels: Labels,
    /// [`series_hash`](crate::model::labels::series_hash) of tenant and labels.
    pub hash: u64,
    chunks: SmallVec<[Chunk; 2]>,
    range: TimeRange,
}

impl HeadSeries {
    /// Reads the samples in the range, chunk by chunk, ascending.
    pub fn cursor(&self) -> ChunkCursor {
        ChunkCursor::new(self.chunks.iter().cloned(), self.range)
    }

    /// As [`HeadSeries::cursor`], without copying.
    pub fn into_cursor(self) -> ChunkCursor {
        ChunkCursor::new(self.chunks, self.range)
    }

    /// First and last timestamp of the chunks, whatever the range.
    pub fn bounds(&self) -> TimeRange {
        let ranges = self.chunks.iter().map(Chunk::range);
        ranges.reduce(|a, b| TimeRange::new(a.start.min(b.start), a.end.max(b.end))).unwrap_or(TimeRange::new(0, -1))
    }

    /// Upper bound of the samples in the range.
    pub fn samples(&self) -> usize {
        self.chunks.iter().map(Chunk::len).sum()
    }

    /// Bytes held, those of its chunks and its cursor included.
    pub fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|c| c.heap_bytes() + size_of::<(usize, Chunk)>()).sum();
        size_of::<Self>() + size_of::<ChunkCursor>() + self.labels.heap_bytes() + chunks
    }
}

impl Series {
    /// Chunks that overlap a range, in order of commitment.
    pub(super) fn chunks_in(&self, range: TimeRange) -> SmallVec<[Chunk; 2]> {
        let mut out = SmallVec::new();
        out.extend(self.sealed.iter().map(|c| &c.chunk).filter(|c| c.range().overlaps(&range)).cloned());
        let from = self.floats.first_t().or_else(|| self.histograms()?.first_t());
        if from.is_some_and(|from| from <= range.end && range.start <= self.floats.last_t()) {
            out.extend(self.open_chunk());
        }
        for buffer in self.extra.iter().flat_map(|e| &e.ooo) {
            out.extend(buffer.pack().into_iter().filter(|c| c.range().overlaps(&range)));
        }
        out
    }
}

impl Head {
    pub(super) fn series_by_id(&self, id: u32) -> Option<&Series> {
        self.slab.get(self.ids.get(id)?)
    }

    pub(super) fn labels_of(&self, series: &Series) -> Labels {
        let mut canonical = String::with_capacity(256);
        let list = self.labels.get(series.labels_at, series.label_count);
        self.tenants[series.tenant as usize].index.write_canonical(list, &mut canonical);
        Labels::from_canonical(&canonical).unwrap_or_default()
    }

    /// The labels of a series.
    pub fn labels(&self, id: crate::model::SeriesId) -> Option<Labels> {
        self.series_by_id(id.0).map(|s| self.labels_of(s))
    }

    /// Series of a tenant that fulfil all matchers and may have samples in the range, in order of id.
    pub fn select(&self, tenant: &TenantId, matchers: &[Matcher], range: TimeRange) -> Vec<HeadSeries> {
        let all = self.select_within(tenant, matchers, range, |_| Ok::<(), std::convert::Infallible>(()));
        all.unwrap_or_else(|never| match never {})
    }

    /// As [`Head::select`]; `admit` is asked about each series before the next one is made, and ends it with an error.
    pub fn select_within<E>(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        mut admit: impl FnMut(&HeadSeries) -> Result<(), E>,
    ) -> Result<Vec<HeadSeries>, E> {
        let Some(tenant) = self.tenant(tenant).map(|n| &self.tenants[n.0 as usize]) else { return Ok(Vec::new()) };
        let ids = self.matching(tenant, matchers);
        let mut out = Vec::new();
        for series in ids.iter().filter_map(|id| self.series_by_id(id)) {
            let chunks = series.chunks_in(range);
            if !chunks.is_empty() {
                let found = HeadSeries { labels: self.labels_of(series), hash: series.hash, chunks, range };
                admit(&found)?;
                out.push(found);
            }
        }
        Ok(out)
    }

    /// Label sets of the series that `select` would find, without their samples; made one by one, so that whoever
    /// bounds them can stop.
    pub fn series_labels<'a>(
        &'a self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> impl Iterator<Item = Labels> + use<'a> {
        let tenant = self.tenant(tenant).map(|n| &self.tenants[n.0 as usize]);
        let ids = tenant.map(|t| self.matching_in(t, matchers, range)).unwrap_or_default();
        ids.into_iter().filter_map(|id| self.series_by_id(id)).map(|s| self.labels_of(s))
    }

    /// Names of the labels of such series, sorted.
    pub fn label_names(&self, tenant: &TenantId, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let Some(tenant) = self.tenant(tenant).map(|n| &self.tenants[n.0 as usize]) else { return Vec::new() };
        if matchers.is_empty() && self.covers(range) {
            let names: BTreeSet<_> = tenant.index.names().map(|n| &*n.text).collect();
            return names.into_iter().map(str::to_owned).collect();
        }
        let mut pairs = RoaringBitmap::new();
        for series in self.matching_in(tenant, matchers, range).iter().filter_map(|id| self.series_by_id(id)) {
            pairs.extend(self.labels.get(series.labels_at, series.label_count).iter().copied());
        }
        let names: BTreeSet<_> = pairs.iter().map(|p| tenant.index.name_of(tenant.index.pair(p))).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Values of one label of such series, each once, in no order.
    pub fn label_values<'a>(
        &'a self,
        tenant: &TenantId,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        let tenant = self.tenant(tenant).map(|n| &self.tenants[n.0 as usize]);
        let found = tenant.and_then(|tenant| Some((tenant, tenant.index.name(name)?)));
        let all = matchers.is_empty() && self.covers(range);
        let ids = found.filter(|_| !all).map(|(tenant, _)| self.matching_in(tenant, matchers, range));
        let pairs = found.into_iter().flat_map(|(tenant, name)| name.pairs.iter().map(|id| tenant.index.pair(*id)));
        pairs.filter(move |p| ids.as_ref().is_none_or(|ids| p.postings.meets(ids))).map(|p| &*p.value)
    }

    /// Exemplars in the range of series that fulfil all matchers.
    pub fn exemplars(&self, tenant: &TenantId, matchers: &[Matcher], range: TimeRange) -> Vec<SeriesExemplars> {
        let Some(tenant) = self.tenant(tenant).map(|n| &self.tenants[n.0 as usize]) else { return Vec::new() };
        let ids = self.matching(tenant, matchers);
        self.exemplars_where(tenant, range, |e| ids.contains(e.series))
    }

    pub(super) fn exemplars_where(
        &self,
        tenant: &Tenant,
        range: TimeRange,
        keep: impl Fn(&Entry) -> bool,
    ) -> Vec<SeriesExemplars> {
        let mut found = BTreeMap::<u32, Vec<Exemplar>>::new();
        for e in tenant.exemplars.iter().filter(|e| range.contains(e.exemplar.t) && keep(e)) {
            found.entry(e.series).or_default().push(e.exemplar.clone());
        }
        let with_labels = |(id, exemplars)| {
            let series = self.series_by_id(id)?;
            Some(SeriesExemplars { labels: self.labels_of(series), hash: series.hash, exemplars })
        };
        found.into_iter().filter_map(with_labels).collect()
    }

    /// Whether no sample of the head is outside of the range.
    fn covers(&self, range: TimeRange) -> bool {
        self.windows.list().iter().all(|w| range.start <= w.min_t && w.max_t <= range.end)
    }

    /// As [`Head::matching`], only series with a chunk that overlaps the range.
    pub(super) fn matching_in(&self, tenant: &Tenant, matchers: &[Matcher], range: TimeRange) -> RoaringBitmap {
        let mut ids = self.matching(tenant, matchers);
        if !self.covers(range) {
            let out: RoaringBitmap = ids
                .iter()
                .filter(|id| self.series_by_id(*id).is_some_and(|s| !s.chunks_in(range).is_empty()))
                .collect();
            ids = out;
        }
        ids
    }

    /// Series that fulfil all matchers: known values first, then whatever must be scanned.
    pub(super) fn matching(&self, tenant: &Tenant, matchers: &[Matcher]) -> RoaringBitmap {
        let index = &tenant.index;
        let mut scans = Vec::new();
        let mut wanted = Vec::new();
        for m in matchers.iter().filter(|m| !m.matches_everything()) {
            match m.literals() {
                Some(values) if !m.matches_empty() => match Literals::find(index, m, &values) {
                    Some(found) => wanted.push(found),
                    None => return RoaringBitmap::new(),
                },
                _ => scans.push(m),
            }
        }
        wanted.sort_by_key(Literals::len);
        let mut wanted = wanted.into_iter();
        let mut ids = match wanted.next() {
            Some(first) => first.into_bitmap(),
            None => index.all.clone(),
        };
        wanted.for_each(|w| w.keep_in(&mut ids));
        // What removes single values is cheap; what scans comes last and sees the fewest candidates.
        scans.sort_by_key(|m| m.op != MatchOp::NotEqual);
        for m in scans {
            if ids.is_empty() {
                break;
            }
            self.scan(index, m, &mut ids);
        }
        ids
    }

    /// Keeps the series that fulfil a matcher without a list of values.
    fn scan(&self, index: &Index, m: &Matcher, ids: &mut RoaringBitmap) {
        let empty = m.matches_empty();
        if m.op == MatchOp::NotEqual && empty {
            if let Some(pair) = index.find(&m.name, &m.value) {
                pair.postings.remove_from(ids);
            }
            return;
        }
        let Some(name) = index.name(&m.name) else {
            if !empty {
                ids.clear();
            }
            return;
        };
        if ids.len() < SCAN_VALUES_FACTOR * name.pairs.len() as u64 {
            let fulfils = |id: &u32| {
                self.series_by_id(*id)
                    .is_some_and(|s| m.matches(index.value_in(self.labels.get(s.labels_at, s.label_count), &m.name)))
            };
            let kept: RoaringBitmap = ids.iter().filter(fulfils).collect();
            *ids = kept;
            return;
        }
        let pairs = name.pairs.iter().map(|id| index.pair(*id));
        if empty {
            pairs.filter(|p| !m.matches(&p.value)).for_each(|p| p.postings.remove_from(ids));
        } else {
            let mut found = RoaringBitmap::new();
            pairs.filter(|p| m.matches(&p.value)).for_each(|p| p.postings.add_to(&mut found));
            *ids &= found;
        }
    }
}

/// The postings of the values a matcher names.
struct Literals<'a>(SmallVec<[&'a super::postings::Postings; 2]>);

impl<'a> Literals<'a> {
    /// `None` when no series has any of the values.
    fn find(index: &'a Index, m: &Matcher, values: &[&str]) -> Option<Self> {
        let found: SmallVec<_> = values.iter().filter_map(|v| index.find(&m.name, v)).map(|p| &p.postings).collect();
        (!found.is_empty()).then_some(Self(found))
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|p| p.len()).sum()
    }

    fn into_bitmap(self) -> RoaringBitmap {
        let mut all = self.0.iter();
        let mut set = all.next().map(|p| p.to_bitmap()).unwrap_or_default();
        all.for_each(|p| p.add_to(&mut set));
        set
    }

    fn keep_in(self, set: &mut RoaringBitmap) {
        if let [one] = &self.0[..] {
            one.keep_in(set);
        } else {
            *set &= self.into_bitmap();
        }
    }
}
