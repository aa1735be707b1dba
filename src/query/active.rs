//! The queries of this node that are not over: who asks what, since when, and how to stop it.
//!
//! *Invariants:* a query is listed from the moment it was asked until its answer is sent and its thread has ended,
//! whichever is later. Ids are not given twice, not even by the next process (they begin with the time of its start), so
//! that a late request to cancel hits nothing else.
//!
//! *Not here:* running them (`query::job`), who may see the list (`api`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelValue;
use tokio_util::sync::CancellationToken;

use super::budget::QueryBudget;
use crate::model::TenantId;
use crate::promql::exec::Times;
use crate::promql::exec::control::CancelToken;
use crate::store::FetchStats;

/// Ids of a process: bits below its start in milliseconds.
const COUNTER_BITS: u32 = 20;

/// Identifies a query; sixteen hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(u64);

impl QueryId {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for QueryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum QueryKind {
    /// PromQL at one moment.
    Instant,
    /// PromQL over a range.
    Range,
    /// Part of another node's query.
    Fragment,
    /// Exemplars.
    Exemplars,
    /// Remote read.
    Read,
    /// Federation.
    Federate,
    /// Label sets.
    Series,
    /// Label names or values.
    Labels,
    /// Metadata of metrics.
    Metadata,
    /// Statistics of series.
    Statistics,
}

impl QueryKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instant => "instant",
            Self::Range => "range",
            Self::Fragment => "fragment",
            Self::Exemplars => "exemplars",
            Self::Read => "read",
            Self::Federate => "federate",
            Self::Series => "series",
            Self::Labels => "labels",
            Self::Metadata => "metadata",
            Self::Statistics => "statistics",
        }
    }
}

/// Something to ask.
#[derive(Debug, Clone)]
pub struct Job {
    /// Who asks.
    pub tenant: TenantId,
    /// What sort of thing.
    pub kind: QueryKind,
    /// As the client wrote it.
    pub text: String,
    /// Steps, where there are any.
    pub times: Option<Times>,
}

/// What a query took so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Waiting for a place.
    pub queue: Duration,
    /// Planning, and fetching samples.
    pub prepare: Duration,
    /// Evaluating.
    pub evaluate: Duration,
    /// Processor time of its thread, where the system tells.
    pub cpu: Option<Duration>,
    /// Series read from storage.
    pub series: u64,
    /// Samples read from storage.
    pub samples: u64,
    /// Steps that were not evaluated, because the results cache had them.
    pub cached_steps: u64,
}

/// A query that is not over.
#[derive(Debug)]
pub struct Active {
    /// Its id.
    pub id: QueryId,
    /// What was asked.
    pub job: Job,
    /// When it was asked, milliseconds.
    pub since_ms: i64,
    /// When it was asked, on the monotonic clock.
    pub since: Duration,
    /// Bytes it holds.
    pub budget: Arc<QueryBudget>,
    /// What it fetched from the bucket.
    pub fetched: Arc<FetchStats>,
    /// What it took so far.
    pub spent: Mutex<Spent>,
    /// Tells its thread.
    pub(super) cancel: CancelToken,
    /// Tells whoever waits for its thread.
    pub(super) stop: CancellationToken,
    list: Arc<ActiveQueries>,
}

impl Active {
    /// Asks it to stop.
    pub fn cancel(&self) {
        self.cancel.cancel();
        self.stop.cancel();
    }

    /// Most bytes it has held at once; those of columns are counted in steps.
    pub fn peak_bytes(&self) -> u64 {
        self.budget.peak()
    }

    /// Changes what it took so far.
    pub(super) fn spend(&self, change: impl FnOnce(&mut Spent)) {
        change(&mut self.spent.lock());
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.list.queries.lock().remove(&self.id);
    }
}

/// The list.
#[derive(Debug)]
pub struct ActiveQueries {
    next: AtomicU64,
    queries: Mutex<BTreeMap<QueryId, Weak<Active>>>,
}

impl ActiveQueries {
    /// An empty list of a process that started at `now_ms`.
    pub fn new(now_ms: i64) -> Arc<Self> {
        let first = (now_ms.max(0) as u64) << COUNTER_BITS;
        Arc::new(Self { next: AtomicU64::new(first), queries: Mutex::default() })
    }

    /// Puts a query on the list; it stays there as long as what comes back is held.
    pub(super) fn begin(
        self: &Arc<Self>,
        job: Job,
        (since_ms, since): (i64, Duration),
        budget: impl FnOnce(CancelToken) -> QueryBudget,
    ) -> Arc<Active> {
        let id = QueryId(self.next.fetch_add(1, Ordering::Relaxed));
        let cancel = CancelToken::default();
        let active = Arc::new(Active {
            id,
            job,
            since_ms,
            since,
            budget: Arc::new(budget(cancel.clone())),
            fetched: Arc::default(),
            spent: Mutex::default(),
            cancel,
            stop: CancellationToken::new(),
            list: Arc::clone(self),
        });
        self.queries.lock().insert(id, Arc::downgrade(&active));
        active
    }

    /// All of them, oldest first; of one tenant where one is named.
    pub fn list(&self, tenant: Option<&TenantId>) -> Vec<Arc<Active>> {
        // Upgraded under the lock, dropped outside of it: the last one to drop takes the lock.
        let all: Vec<_> = self.queries.lock().values().filter_map(Weak::upgrade).collect();
        all.into_iter().filter(|a| tenant.is_none_or(|t| a.job.tenant == *t)).collect()
    }

    /// The one with this id, of one tenant where one is named.
    pub fn find(&self, id: QueryId, tenant: Option<&TenantId>) -> Option<Arc<Active>> {
        let found = self.queries.lock().get(&id).and_then(Weak::upgrade)?;
        tenant.is_none_or(|t| found.job.tenant == *t).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::budget::NodeBudget;

    fn begin(list: &Arc<ActiveQueries>, tenant: &str) -> Arc<Active> {
        let tenant = TenantId::new(tenant).unwrap();
        let job = Job { tenant, kind: QueryKind::Instant, text: "up".into(), times: None };
        list.begin(job, (7, Duration::ZERO), |cancel| QueryBudget::new(NodeBudget::new(100), 100, cancel))
    }

    #[test]
    fn a_query_is_listed_as_long_as_somebody_holds_it() {
        let list = ActiveQueries::new(1_700_000_000_000);
        let (one, two) = (begin(&list, "a"), begin(&list, "b"));
        assert!(one.id < two.id && QueryId::parse(&one.id.to_string()) == Some(one.id));
        let ids = |tenant: Option<&TenantId>| list.list(tenant).iter().map(|a| a.id).collect::<Vec<_>>();
        assert_eq!(ids(None), [one.id, two.id]);
        assert_eq!(ids(Some(&one.job.tenant)), [one.id]);
        let id = one.id;
        drop(one);
        assert_eq!(ids(None), [two.id]);
        assert!(list.find(id, None).is_none());
    }

    #[test]
    fn only_its_own_tenant_finds_a_query() {
        let list = ActiveQueries::new(0);
        let one = begin(&list, "a");
        assert!(list.find(one.id, Some(&TenantId::new("b").unwrap())).is_none());
        list.find(one.id, Some(&one.job.tenant)).unwrap().cancel();
        assert!(one.stop.is_cancelled() && one.cancel.check().is_err());
        assert!(one.budget.charge(1).is_err());
    }
}
