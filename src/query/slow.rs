//! The log of slow queries: one structured line for each that took longer than `query.slow_log_threshold`.
//!
//! *Invariants:* a line is bounded in length whatever the query. A query is logged however it ended: the client that gave
//! up is the one who asks why.
//!
//! *Not here:* figures of all queries (`query::metrics`).

use std::time::Duration;

use super::active::Active;
use super::job::Ended;
use crate::model::StepGrid;
use crate::promql::exec::Times;

/// Most bytes of a query's text in a line.
const TEXT_BYTES: usize = 4096;

/// Writes the log.
#[derive(Debug, Clone, Copy)]
pub struct SlowLog {
    /// From how long on a query is logged; zero logs none.
    pub threshold: Duration,
}

impl SlowLog {
    /// Logs a query that took long.
    pub fn note(&self, active: &Active, took: Duration, ended: Ended<'_>) {
        if self.threshold.is_zero() || took < self.threshold {
            return;
        }
        let (spent, fetched) = (*active.spent.lock(), active.fetched.totals());
        let ms = |d: Duration| d.as_millis() as u64;
        let (start, end, step) = match active.job.times {
            Some(Times::Instant(t)) => (Some(t), Some(t), None),
            Some(Times::Range(StepGrid { start, end, step })) => (Some(start), Some(end), Some(step)),
            None => (None, None, None),
        };
        let (outcome, error) = match ended {
            Ended::Answered => ("answered", None),
            Ended::Failed(error) => ("failed", Some(shortened(error))),
            Ended::Abandoned => ("abandoned", None),
        };
        tracing::warn!(
            id = %active.id,
            tenant = active.job.tenant.as_str(),
            kind = active.job.kind.as_str(),
            query = shortened(&active.job.text),
            start_ms = start,
            end_ms = end,
            step_ms = step,
            outcome,
            error,
            took_ms = ms(took),
            queue_ms = ms(spent.queue),
            prepare_ms = ms(spent.prepare),
            evaluate_ms = ms(spent.evaluate),
            cpu_ms = spent.cpu.map(ms),
            series = spent.series,
            samples = spent.samples,
            cached_steps = spent.cached_steps,
            peak_bytes = active.peak_bytes(),
            bucket_bytes = fetched.bytes,
            bucket_requests = fetched.requests,
            cache_hits = fetched.cache_hits,
            cache_misses = fetched.cache_misses,
            "slow query"
        );
    }
}

/// The beginning of a text that is too long for a line.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shortened("up"), "up");
        let long = format!("{}é", "x".repeat(TEXT_BYTES - 1));
        assert_eq!(shortened(&long).len(), TEXT_BYTES - 1);
    }
}
