//! How many series each tenant has on this node: those in its heads, and those on their way there.
//!
//! *Invariants:* what is held is what the replicas of this node have applied, whoever led when it was proposed: applying
//! adds, retiring and a replica that goes take away. A series on its way is counted once, however many requests bring it,
//! and stops being on its way in the same moment in which it is held. So held and reserved together never exceed the limit
//! that was passed with the last granted series, as long as this node leads.
//!
//! *Not here:* which series are new (the shard's head knows), what the limit is (`config`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::model::TenantId;

/// The series of one tenant.
#[derive(Debug, Default)]
pub struct SeriesBudget {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Series in the heads of this node's replicas.
    held: u64,
    /// Hashes of series that were granted and are not applied yet, each with how many requests bring it. Of two series
    /// with one hash, which is rarer than a broken disk, only one is counted until they are applied.
    reserved: HashMap<u64, u32>,
}

impl SeriesBudget {
    /// Series counted now, reserved ones included.
    pub fn active(&self) -> u64 {
        let counts = self.counts.lock();
        counts.held + counts.reserved.len() as u64
    }

    /// Begins to take room for new series up to `limit` of the tenant; 0 is no limit. Nobody else takes room meanwhile.
    pub fn reserve(self: &Arc<Self>, limit: u64) -> Reserving<'_> {
        let limit = if limit == 0 { u64::MAX } else { limit };
        Reserving { budget: self, counts: self.counts.lock(), limit, hashes: Vec::new() }
    }

    /// Counts what a replica applied: `created` series were new to it, and those with these hashes are there now.
    pub fn applied(&self, created: u64, hashes: impl Iterator<Item = u64>) {
        let mut counts = self.counts.lock();
        counts.held += created;
        // A follower has nothing reserved and reads no hashes.
        if !counts.reserved.is_empty() {
            hashes.for_each(|hash| {
                counts.reserved.remove(&hash);
            });
        }
    }

    /// Counts the series of a replica that came with a snapshot.
    pub fn add(&self, n: u64) {
        self.counts.lock().held += n;
    }

    /// Forgets series that a replica no longer holds.
    pub fn retired(&self, n: u64) {
        let mut counts = self.counts.lock();
        let held = counts.held;
        if n > held {
            tracing::error!(n, held, "BUG: more series retired than were counted");
        }
        counts.held = held.saturating_sub(n);
    }
}

/// Takes room, one series after another; nobody else does until it is done.
pub struct Reserving<'a> {
    budget: &'a Arc<SeriesBudget>,
    counts: MutexGuard<'a, Counts>,
    limit: u64,
    hashes: Vec<u64>,
}

impl Reserving<'_> {
    /// Takes room for the series with this hash, if there is some.
    pub fn take(&mut self, hash: u64) -> bool {
        let Counts { held, reserved } = &mut *self.counts;
        let active = *held + reserved.len() as u64;
        match reserved.entry(hash) {
            Entry::Occupied(mut requests) => *requests.get_mut() += 1,
            Entry::Vacant(_) if active >= self.limit => return false,
            Entry::Vacant(free) => {
                free.insert(1);
            }
        }
        self.hashes.push(hash);
        true
    }

    /// What was taken.
    pub fn done(self) -> Reservation {
        Reservation { budget: Arc::clone(self.budget), hashes: self.hashes }
    }
}

/// Room for new series; given back when dropped, unless they are [applied](Self::applied).
#[derive(Debug)]
#[must_use = "a dropped reservation gives its room back"]
pub struct Reservation {
    budget: Arc<SeriesBudget>,
    hashes: Vec<u64>,
}

impl Reservation {
    /// Says that the series are applied on this node, and thereby counted as held.
    pub fn applied(mut self) {
        self.hashes.clear();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.hashes.is_empty() {
            return;
        }
        let mut counts = self.budget.counts.lock();
        for hash in &self.hashes {
            // Gone already if another request brought the series too and was applied.
            if let Entry::Occupied(mut requests) = counts.reserved.entry(*hash) {
                *requests.get_mut() -= 1;
                if *requests.get() == 0 {
                    requests.remove();
                }
            }
        }
    }
}

/// The budgets of all tenants; clones share them.
#[derive(Debug, Clone, Default)]
pub struct SeriesBudgets {
    tenants: Arc<RwLock<HashMap<TenantId, Arc<SeriesBudget>>>>,
}

impl SeriesBudgets {
    /// The budget of `tenant`; ask once per request.
    pub fn of(&self, tenant: &TenantId) -> Arc<SeriesBudget> {
        if let Some(budget) = self.tenants.read().get(tenant) {
            return Arc::clone(budget);
        }
        Arc::clone(self.tenants.write().entry(tenant.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for the series of `hashes`, and how many got it.
    fn reserve(budget: &Arc<SeriesBudget>, hashes: impl IntoIterator<Item = u64>, limit: u64) -> (Reservation, usize) {
        let mut reserving = budget.reserve(limit);
        let granted = hashes.into_iter().filter(|hash| reserving.take(*hash)).count();
        (reserving.done(), granted)
    }

    #[test]
    fn grants_what_is_left_and_takes_back_what_was_not_used() {
        let budget = SeriesBudgets::default().of(&TenantId::anonymous());
        let (first, granted) = reserve(&budget, 0..7, 10);
        let (second, left) = reserve(&budget, 10..17, 10);
        assert_eq!((granted, left, reserve(&budget, [20], 10).1), (7, 3, 0));
        budget.applied(5, 0..7);
        first.applied();
        assert_eq!(budget.active(), 8, "two of the seven existed");
        drop(second);
        assert_eq!(budget.active(), 5);
        budget.retired(5);
        assert_eq!(reserve(&budget, 0..3, 0).1, 3);
        assert_eq!(budget.active(), 0);
    }

    #[test]
    fn a_series_is_counted_once_while_several_requests_bring_it() {
        let budget = Arc::new(SeriesBudget::default());
        let (first, _) = reserve(&budget, [1, 2], 2);
        let (second, granted) = reserve(&budget, [2, 3, 1], 2);
        assert_eq!((granted, budget.active()), (2, 2), "the third would be one too many");
        drop(first);
        assert_eq!(budget.active(), 2, "the second still brings both");
        budget.applied(2, [2, 1].into_iter());
        assert_eq!(budget.active(), 2, "held and no longer reserved");
        drop(second);
        assert_eq!(budget.active(), 2);
    }

    #[test]
    fn what_another_leader_made_counts_and_settles_what_is_reserved_here() {
        let budget = Arc::new(SeriesBudget::default());
        let (lost, _) = reserve(&budget, [1], 3);
        budget.applied(2, [1, 2].into_iter());
        assert_eq!(budget.active(), 2);
        drop(lost);
        assert_eq!((budget.active(), reserve(&budget, [3, 4], 3).1), (2, 1));
    }

    #[test]
    fn a_lowered_limit_grants_nothing_and_breaks_nothing() {
        let budget = Arc::new(SeriesBudget::default());
        budget.add(100);
        assert_eq!(reserve(&budget, [1], 10).1, 0);
        assert_eq!(budget.active(), 100);
    }

    #[test]
    fn racing_appends_never_exceed_the_limit() {
        let budget = Arc::new(SeriesBudget::default());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    for n in (0..1000).map(|n| thread * 10_000 + n * 3) {
                        let (reservation, granted) = reserve(budget, n..n + 3, 500);
                        assert!(budget.active() <= 500);
                        if granted > 0 {
                            budget.applied(1, n..n + granted as u64);
                            reservation.applied();
                        }
                    }
                });
            }
        });
        assert_eq!(budget.active(), 500, "each of 4,000 tries made one series as long as there was room");
    }

    #[test]
    fn tenants_have_budgets_of_their_own() {
        let budgets = SeriesBudgets::default();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        budgets.clone().of(&a).add(4);
        assert_eq!((budgets.of(&a).active(), budgets.of(&b).active()), (4, 0));
    }
}
