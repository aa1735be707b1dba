//! How anything that reads is run: on the list, in a place, on a blocking thread, within its time.
//!
//! *Invariants:* at most `max_concurrency` jobs work, and as many parts of other nodes' queries: nobody who has a place
//! waits for somebody who waits for it. A waiting one gives up when its time is over. A job whose client went
//! away, whose time is over or that was cancelled is answered at once, and keeps its place until its thread has ended.
//! Every job is counted once and, if it was slow, logged, however it ended.
//!
//! *Not here:* what the jobs do (`query::frontend`, `query::lookup`, `query::read`).

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::active::{Active, Job, QueryKind};
use super::budget::QueryBudget;
use super::frontend::Queries;
use super::leaf::Leaf;
use crate::error::{Error, Kind};
use crate::store::counted::counting;

/// Why a job did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// Its time was over.
    #[error("timed out")]
    TimedOut,
    /// Somebody asked for that.
    #[error("cancelled")]
    Cancelled,
    /// The thread that worked on it is gone.
    #[error("stopped unexpectedly")]
    Lost,
}

impl From<Interrupted> for Error {
    fn from(why: Interrupted) -> Self {
        match why {
            Interrupted::TimedOut => Error::new(Kind::Unavailable, "look-up took longer than query.timeout"),
            Interrupted::Cancelled => Error::new(Kind::Cancelled, "look-up was canceled"),
            Interrupted::Lost => Error::new(Kind::Internal, "look-up stopped unexpectedly"),
        }
    }
}

/// How a job ended, for the figures and the log.
#[derive(Debug, Clone, Copy)]
pub enum Ended<'a> {
    /// With an answer.
    Answered,
    /// With an error.
    Failed(&'a str),
    /// Nobody waited for it any more.
    Abandoned,
}

/// An outcome, and the job that came to it: it stays on the list, with its bytes, until this is dropped.
#[derive(Debug)]
pub struct Done<T> {
    /// What came out.
    pub value: T,
    /// What it cost.
    pub active: Arc<Active>,
}

impl Queries {
    /// Runs `work` as a job.
    pub(super) async fn job<T, E>(
        &self,
        job: Job,
        timeout: Option<Duration>,
        work: impl FnOnce(&Arc<Leaf>, &Arc<Active>, &Handle) -> Result<T, E> + Send + 'static,
    ) -> Result<Done<T>, E>
    where
        T: Send + 'static,
        E: From<Interrupted> + std::fmt::Display + Send + 'static,
    {
        let active = self.begin(job);
        let measured = Measured { queries: self, active: &active, open: true };
        let outcome = self.run_in_time(&active, timeout, work).await;
        match &outcome {
            Ok(_) => measured.end(Ended::Answered),
            Err(e) => measured.end(Ended::Failed(&e.to_string())),
        }
        outcome.map(|value| Done { value, active })
    }

    /// Runs a look-up in heads and blocks.
    pub async fn look_up<T: Send + 'static>(
        &self,
        job: Job,
        find: impl for<'a> FnOnce(&'a Leaf, &'a Active) -> BoxFuture<'a, Result<T, Error>> + Send + 'static,
    ) -> Result<Done<T>, Error> {
        self.job(job, None, |leaf, active, runtime| {
            runtime.block_on(counting(Arc::clone(&active.fetched), find(leaf, active)))
        })
        .await
    }

    pub(super) fn begin(&self, job: Job) -> Arc<Active> {
        let now = (self.clock.now_ms(), self.clock.monotonic());
        let limit = self.options.limits.max_bytes as u64;
        self.active.begin(job, now, |cancel| QueryBudget::new(Arc::clone(&self.node), limit, cancel))
    }

    async fn run_in_time<T, E>(
        &self,
        active: &Arc<Active>,
        timeout: Option<Duration>,
        work: impl FnOnce(&Arc<Leaf>, &Arc<Active>, &Handle) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Interrupted> + Send + 'static,
    {
        let timeout = timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        if timeout.is_zero() {
            // The timer would let a job through that never has to wait.
            return Err(Interrupted::TimedOut.into());
        }
        // A client that goes away drops this future, and the guard with it.
        let guard = CancelOnDrop(Some(active));
        let outcome = tokio::select! {
            outcome = self.run_in_place(active, work) => outcome,
            () = tokio::time::sleep(timeout) => {
                active.cancel.time_out();
                active.stop.cancel();
                Err(Interrupted::TimedOut.into())
            }
            () = active.stop.cancelled() => Err(Interrupted::Cancelled.into()),
        };
        guard.disarm();
        outcome
    }

    async fn run_in_place<T, E>(
        &self,
        active: &Arc<Active>,
        work: impl FnOnce(&Arc<Leaf>, &Arc<Active>, &Handle) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Interrupted> + Send + 'static,
    {
        // The semaphore is never closed.
        let places = if active.job.kind == QueryKind::Fragment { &self.fragments } else { &self.places };
        let place = Arc::clone(places).acquire_owned().await.map_err(|_| Interrupted::Lost)?;
        active.spend(|s| s.queue = self.clock.monotonic().saturating_sub(active.since));
        let (leaf, active, clock) = (Arc::clone(&self.leaf), Arc::clone(active), Arc::clone(&self.clock));
        let runtime = Handle::current();
        // Decoding and evaluating are work, not waiting. Place and bytes are held until that work has really ended,
        // which for a cancelled job is later than its answer.
        let on_thread = move || {
            let _place = place;
            let before = clock.thread_cpu();
            let outcome = work(&leaf, &active, &runtime);
            let cpu = clock.thread_cpu().zip(before).map(|(now, before)| now.saturating_sub(before));
            // A kernel that does not keep it says that there was none at all.
            active.spend(|s| s.cpu = cpu.filter(|cpu| !cpu.is_zero()));
            outcome
        };
        tokio::task::spawn_blocking(on_thread).await.map_err(|_| Interrupted::Lost)?
    }
}

/// Counts and logs a job when it ends, also by being dropped.
struct Measured<'a> {
    queries: &'a Queries,
    active: &'a Active,
    open: bool,
}

impl Measured<'_> {
    fn end(mut self, ended: Ended<'_>) {
        self.note(ended);
    }

    fn note(&mut self, ended: Ended<'_>) {
        self.open = false;
        let took = self.queries.clock.monotonic().saturating_sub(self.active.since);
        self.queries.metrics.finished(self.active, took, matches!(ended, Ended::Answered));
        self.queries.slow.note(self.active, took, ended);
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        if self.open {
            self.note(Ended::Abandoned);
        }
    }
}

/// Cancels a job when the future that waits for it is dropped.
struct CancelOnDrop<'a>(Option<&'a Active>);

impl CancelOnDrop<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(active) = self.0 {
            active.cancel();
        }
    }
}
