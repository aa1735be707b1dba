//! How many series each tenant has in memory, kept exact under concurrent appends.
//!
//! *Invariants:* `active` never exceeds the limit that was passed with the last granted reservation: room is taken before
//! the append that needs it, and given back when the append fails or its series retire.
//!
//! *Not here:* which series are new (the shard's head knows), what the limit is (`config`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::model::TenantId;

/// The series of one tenant.
#[derive(Debug, Default)]
pub struct SeriesBudget {
    active: AtomicU64,
}

impl SeriesBudget {
    /// Series counted now, reserved ones included.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Takes room for up to `want` new series; `limit` 0 is no limit. The reservation says how many were granted.
    pub fn reserve(self: &Arc<Self>, want: u64, limit: u64) -> Reservation {
        let limit = if limit == 0 { u64::MAX } else { limit };
        let mut granted = 0;
        // Relaxed is enough: the count guards no other memory, and read-modify-write operations of one atomic are ordered.
        let _ = self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |active| {
            granted = want.min(limit.saturating_sub(active));
            (granted > 0).then(|| active + granted)
        });
        Reservation { budget: Arc::clone(self), granted }
    }

    /// Counts series that exist without having been reserved here: after a restart, or when a shard moves to this node.
    pub fn add(&self, n: u64) {
        self.active.fetch_add(n, Ordering::Relaxed);
    }

    /// Gives back the room of `n` series that have retired.
    pub fn release(&self, n: u64) {
        let released = self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |active| active.checked_sub(n));
        if let Err(active) = released {
            // Only after an append whose outcome nobody learned; fewer counted than held errs towards taking series.
            tracing::warn!(n, active, "BUG: more series released than were counted");
            self.active.store(0, Ordering::Relaxed);
        }
    }
}

/// Room for new series; what is not [committed](Self::commit) is given back when dropped.
#[derive(Debug)]
#[must_use = "a dropped reservation gives its room back"]
pub struct Reservation {
    budget: Arc<SeriesBudget>,
    granted: u64,
}

impl Reservation {
    /// How many new series may be made.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// Keeps the room of the `used` series that were made and gives the rest back.
    pub fn commit(mut self, used: u64) {
        assert!(used <= self.granted, "BUG: {used} series made, {} were granted", self.granted);
        self.granted -= used;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.granted > 0 {
            self.budget.release(self.granted);
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

    /// Every tenant with its number of series, in no particular order.
    pub fn active(&self) -> Vec<(TenantId, u64)> {
        self.tenants.read().iter().map(|(tenant, budget)| (tenant.clone(), budget.active())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_what_is_left_and_takes_back_what_was_not_used() {
        let budget = SeriesBudgets::default().of(&TenantId::anonymous());
        let first = budget.reserve(7, 10);
        let second = budget.reserve(7, 10);
        assert_eq!((first.granted(), second.granted(), budget.reserve(1, 10).granted()), (7, 3, 0));
        first.commit(5);
        assert_eq!(budget.active(), 8);
        drop(second);
        assert_eq!(budget.active(), 5);
        budget.release(5);
        assert_eq!(budget.reserve(3, 0).granted(), 3);
        assert_eq!(budget.active(), 0);
    }

    #[test]
    fn a_lowered_limit_grants_nothing_and_breaks_nothing() {
        let budget = Arc::new(SeriesBudget::default());
        budget.add(100);
        assert_eq!(budget.reserve(1, 10).granted(), 0);
        assert_eq!(budget.active(), 100);
    }

    #[test]
    fn racing_appends_never_exceed_the_limit() {
        let budget = Arc::new(SeriesBudget::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let reservation = budget.reserve(3, 500);
                        assert!(budget.active() <= 500);
                        let used = reservation.granted().min(1);
                        reservation.commit(used);
                    }
                });
            }
        });
        // Each thread may have given back two as the last thing it did.
        assert!((492..=500).contains(&budget.active()));
    }

    #[test]
    fn tenants_have_budgets_of_their_own() {
        let budgets = SeriesBudgets::default();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        budgets.of(&a).reserve(4, 5).commit(4);
        assert_eq!((budgets.of(&a).active(), budgets.of(&b).active()), (4, 0));
        assert_eq!(budgets.clone().active().len(), 2);
    }
}
