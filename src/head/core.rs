//! The head: its tables, who is in it, and what it weighs.
//!
//! *Invariants:* `bytes` follows every change of a series; `check_invariants` recounts.
//!
//! *Not here:* appending (`append`), windows' way (`flush`), reading (`select`), snapshots (`snapshot`, `restore`).

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::arena::{IdMap, LabelArena, Slab};
use super::by_labels::ByLabels;
use super::exemplars::Exemplars;
use super::index::Index;
use super::metadata::Metadata;
use super::series::Series;
use super::window::{WindowInfo, Windows, start_of};
use crate::model::{MetadataRow, SeriesId, TenantId};

/// Bounds of a head. They are part of the replicated state: all replicas must be made with equal ones, and a restored
/// head keeps those of its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadOptions {
    /// Most exemplars kept per tenant.
    pub exemplars: usize,
    /// Most metrics per tenant whose metadata is kept.
    pub metadata_metrics: usize,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self { exemplars: 10_000, metadata_metrics: 20_000 }
    }
}

/// A tenant's number within one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantIdx(pub u32);

#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) id: TenantId,
    /// Newest accepted timestamp; `i64::MIN` before the first.
    pub(super) newest: i64,
    pub(super) index: Index,
    pub(super) exemplars: Exemplars,
    pub(super) metadata: Metadata,
    /// Chunks that a part of a head does not hold; 0 in a whole one.
    pub(super) left_out: u64,
}

/// Figures of one tenant in one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantStats {
    /// Series it has.
    pub series: usize,
    /// Newest accepted timestamp, milliseconds; `i64::MIN` before the first.
    pub newest_t: i64,
}

/// Figures of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Series of all tenants.
    pub series: usize,
    /// Heap bytes held (a close estimate).
    pub bytes: usize,
    /// Samples held, by the windows' count.
    pub samples: u64,
}

/// One shard's recent samples.
#[derive(Debug)]
pub struct Head {
    pub(super) options: HeadOptions,
    pub(super) tenants: Vec<Tenant>,
    pub(super) by_tenant: HashMap<TenantId, u32, FixedState>,
    pub(super) slab: Slab,
    pub(super) ids: IdMap,
    pub(super) by_labels: ByLabels,
    pub(super) labels: LabelArena,
    pub(super) windows: Windows,
    pub(super) next_id: u32,
    pub(super) series: usize,
    /// Heap bytes of all series beyond their slots.
    pub(super) series_bytes: usize,
    pub(super) scratch: Vec<u32>,
}

impl Head {
    /// An empty head. `seed` is this process's own, drawn at random: see [`ByLabels`].
    pub fn new(options: HeadOptions, seed: u64) -> Self {
        Self {
            options,
            tenants: Vec::new(),
            by_tenant: HashMap::default(),
            slab: Slab::default(),
            ids: IdMap::default(),
            by_labels: ByLabels::new(seed),
            labels: LabelArena::default(),
            windows: Windows::default(),
            next_id: 1,
            series: 0,
            series_bytes: 0,
            scratch: Vec::new(),
        }
    }

    /// The number of a tenant, if it has ever been written.
    pub fn tenant(&self, tenant: &TenantId) -> Option<TenantIdx> {
        self.by_tenant.get(tenant).map(|n| TenantIdx(*n))
    }

    /// The number of a tenant, given now if it has none.
    pub fn tenant_or_create(&mut self, tenant: &TenantId) -> TenantIdx {
        if let Some(n) = self.by_tenant.get(tenant) {
            return TenantIdx(*n);
        }
        let n = self.tenants.len() as u32;
        self.tenants.push(Tenant {
            id: tenant.clone(),
            newest: i64::MIN,
            index: Index::default(),
            exemplars: Exemplars::default(),
            metadata: Metadata::default(),
            left_out: 0,
        });
        self.by_tenant.insert(tenant.clone(), n);
        TenantIdx(n)
    }

    /// The seed it was made with.
    pub fn seed(&self) -> u64 {
        self.by_labels.seed()
    }

    /// All tenants ever written, in order of their numbers.
    pub fn tenants(&self) -> impl Iterator<Item = (TenantIdx, &TenantId)> {
        self.tenants.iter().enumerate().map(|(n, t)| (TenantIdx(n as u32), &t.id))
    }

    /// The series of a tenant with this label set (`hash` is the series hash of both).
    pub fn lookup(&self, tenant: &TenantId, hash: u64, canonical: &str) -> Option<SeriesId> {
        let fingerprint = self.by_labels.fingerprint(self.tenant(tenant)?.0, canonical);
        self.by_labels.find(hash, fingerprint).map(SeriesId)
    }

    /// As [`Head::lookup`], for many label sets of one tenant, in their order.
    ///
    /// The table is far larger than the processor's caches. Hashing all labels first leaves a loop so short that the
    /// processor waits for several entries at once.
    pub fn lookup_all<'a>(
        &self,
        tenant: TenantIdx,
        keys: impl Iterator<Item = (u64, &'a str)>,
    ) -> impl Iterator<Item = Option<SeriesId>> {
        let hashed = keys.map(|(hash, canonical)| (hash, self.by_labels.fingerprint(tenant.0, canonical)));
        let hashed: Vec<(u64, u64)> = hashed.collect();
        hashed.into_iter().map(|(hash, fingerprint)| self.by_labels.find(hash, fingerprint).map(SeriesId))
    }

    /// As [`Head::lookup`], comparing the labels themselves: what `apply` goes by.
    fn lookup_exact(&self, tenant: TenantIdx, hash: u64, canonical: &str) -> Option<SeriesId> {
        let index = &self.tenants.get(tenant.0 as usize)?.index;
        let is_it = |slot| {
            self.slab.get(slot).is_some_and(|s| {
                s.tenant == tenant.0 && index.is_same(self.labels.get(s.labels_at, s.label_count), canonical)
            })
        };
        self.by_labels.find_exact(hash, is_it).map(SeriesId)
    }

    /// The series with this label set, made now if there is none.
    pub fn get_or_create(&mut self, tenant: &TenantId, hash: u64, canonical: &str) -> SeriesId {
        let tenant = self.tenant_or_create(tenant);
        if let Some(id) = self.lookup_exact(tenant, hash, canonical) {
            return id;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.insert_series(id, tenant, hash, canonical);
        SeriesId(id)
    }

    /// Makes a series with a given id, higher than all before.
    pub(super) fn insert_series(&mut self, id: u32, tenant: TenantIdx, hash: u64, canonical: &str) -> u32 {
        let mut list = std::mem::take(&mut self.scratch);
        self.tenants[tenant.0 as usize].index.add_series(id, canonical, &mut list);
        let at = self.labels.push(&list);
        let slot = self.slab.insert(Series::new(id, tenant.0, hash, at, list.len() as u16));
        self.scratch = list;
        self.ids.insert(id, slot);
        let slab = &self.slab;
        self.by_labels.insert((tenant.0, hash, canonical), (id, slot), |slot| slab.get(slot).map_or(0, |s| s.hash));
        self.series += 1;
        slot
    }

    /// Whether a series is (still) there.
    pub fn series_exists(&self, id: SeriesId) -> bool {
        self.ids.get(id.0).is_some()
    }

    /// The tenant of a series.
    pub fn series_tenant(&self, id: SeriesId) -> Option<TenantIdx> {
        let slot = self.ids.get(id.0)?;
        self.slab.get(slot).map(|s| TenantIdx(s.tenant))
    }

    /// All windows that are not flushed, by start and generation.
    pub fn windows(&self) -> Vec<WindowInfo> {
        self.windows.list().to_vec()
    }

    /// Figures of one tenant.
    pub fn tenant_stats(&self, tenant: &TenantId) -> Option<TenantStats> {
        let tenant = &self.tenants[self.tenant(tenant)?.0 as usize];
        Some(TenantStats { series: tenant.index.all.len() as usize, newest_t: tenant.newest })
    }

    /// Figures of the head.
    pub fn stats(&self) -> Stats {
        let samples = self.windows.list().iter().map(|w| w.samples).sum();
        Stats { series: self.series, bytes: self.bytes(), samples }
    }

    /// Heap bytes held: exact for samples and tables, estimated for postings. O(tenants).
    pub fn bytes(&self) -> usize {
        let tenants = self
            .tenants
            .iter()
            .map(|t| size_of::<Tenant>() + t.index.heap_bytes() + t.exemplars.heap_bytes() + t.metadata.heap_bytes());
        tenants.sum::<usize>()
            + self.series_bytes
            + self.slab.heap_bytes()
            + self.ids.heap_bytes()
            + self.by_labels.heap_bytes()
            + self.labels.heap_bytes()
    }

    /// Notes metadata of a tenant; `false` when refused because too many metrics have some.
    pub fn put_metadata(&mut self, tenant: &TenantId, row: MetadataRow) -> bool {
        let tenant = self.tenant_or_create(tenant);
        self.tenants[tenant.0 as usize].metadata.put(row, self.options.metadata_metrics)
    }

    /// Metadata of a tenant: of one metric, or of all in order of their names.
    pub fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Vec<MetadataRow> {
        let Some(tenant) = self.tenant(tenant) else { return Vec::new() };
        let metadata = &self.tenants[tenant.0 as usize].metadata;
        match metric {
            Some(metric) => metadata.of(metric).to_vec(),
            None => metadata.iter().cloned().collect(),
        }
    }

    /// Recounts everything that is kept incrementally; panics where it differs. For tests.
    pub fn check_invariants(&self) {
        let mut bytes = 0;
        for (slot, series) in self.slab.iter() {
            assert_eq!(self.ids.get(series.id), Some(slot), "BUG: id map of series {}", series.id);
            assert!(self.tenants[series.tenant as usize].index.all.contains(series.id), "BUG: index of {}", series.id);
            assert!(series.floats.is_empty() || series.histograms().is_none(), "BUG: two open chunks");
            bytes += series.heap_bytes();
        }
        assert_eq!(self.slab.iter().count(), self.series, "BUG: number of series");
        assert_eq!(self.tenants.iter().map(|t| t.index.all.len()).sum::<u64>(), self.series as u64, "BUG: postings");
        assert_eq!(bytes, self.series_bytes, "BUG: bytes of series");
        assert!(self.windows_are_sound(), "BUG: samples per window: {:?}", self.windows.list());
    }

    /// Whether the windows list just the samples that the series hold.
    pub(super) fn windows_are_sound(&self) -> bool {
        let mut counted = BTreeMap::<(i64, u32), u64>::new();
        for (_, series) in self.slab.iter() {
            series.count_samples(|window, generation, n| {
                *counted.entry((start_of(window), generation)).or_default() += n;
            });
        }
        let listed = self.windows.list().iter().map(|w| ((w.start, w.generation), w.samples));
        self.windows.is_ordered() && listed.eq(counted)
    }
}
