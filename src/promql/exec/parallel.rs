//! Series of one pipeline on several threads.
//!
//! *Invariants:* helpers compute runs of neighbouring series; the query's own thread takes finished runs strictly in the
//! order of the series, so sums, annotations, figures and errors are those of one thread, bit for bit. At most as many
//! runs as threads and two more are under way, and what they take is charged to the query. Whoever has nothing to take
//! computes: nobody waits while there is work that may be begun. A panic of a helper is an error of the query.
//!
//! *Not here:* what is computed (`exec::work`), how many helpers there are (`exec::helpers`).
//!
//! Partial sums are not merged: floating-point sums depend on their order, and answers must not depend on the number of
//! cores. A run is what blocks decode at a time where they do, so that two threads seldom want the same pages.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use super::column::Series;
use super::control::{Budget, CancelToken};
use super::error::Error;
use super::helpers::Borrowed;
use super::stream::{Context, Ranked, one};
use super::work::{Read, Worker};
use crate::promql::annotations::Annotations;

/// Bytes of the columns of a run, at most, if one series does not take more.
const RUN_BYTES: usize = 4 << 20;

/// Runs under way beyond one for each thread.
const AHEAD: usize = 2;

/// What helpers are called.
pub const THREAD_NAME: &str = "query-helper";

/// Takes a series that was computed, with its rank.
pub type Take<'t> = dyn FnMut(&mut Series, u32, &mut Budget) -> Result<(), Error> + 't;

/// What the series computed so far have shown.
#[derive(Debug, Default)]
pub struct Seen {
    /// How many they were.
    pub series: usize,
    work: usize,
    column_bytes: usize,
    read_bytes: usize,
}

impl Seen {
    /// Adds one.
    pub fn add(&mut self, read: Read, series: &Series) {
        self.series += 1;
        self.work += read.samples + series.column.values.len();
        self.column_bytes = self.column_bytes.max(series.column.bytes());
        self.read_bytes = self.read_bytes.max(read.bytes);
    }

    /// Helpers for the series that are `left`, with `steps` steps each, if there are any and they are worth it.
    pub fn share<'h>(&self, steps: usize, left: &[Ranked], context: &Context<'h>) -> Option<Share<'h>> {
        let (cut, series) = (context.helpers.cut, left.len());
        let work = self.work.checked_div(self.series).unwrap_or(0).saturating_mul(series);
        if series < cut.fewest || work < cut.least_work {
            return None;
        }
        // Each thread has a batch of its own decoded; all of them may take a quarter of what the query may hold.
        let batch = left[0].1.batch();
        let together = left.iter().take(cut.longest_run).take_while(|(_, i)| batch != 0 && i.batch() == batch).count();
        let decoded = self.read_bytes * together.max(1);
        let bearable = context.max_bytes / 4 / decoded.max(1);
        let helpers = context.helpers.borrow(bearable.min(series / cut.shortest_run));
        let threads = helpers.count + 1;
        let buffers = threads + AHEAD + threads;
        let bytes = RUN_BYTES.min(context.max_bytes / 8 / buffers);
        let longest = (bytes / self.column_bytes.max(8 * steps).max(1)).min(cut.longest_run);
        if helpers.count == 0 || longest == 0 {
            return None;
        }
        let shortest = cut.shortest_run.min(longest);
        let alone = (series / (4 * threads)).clamp(shortest, longest);
        Some(Share { helpers, lengths: Lengths { shortest, longest, alone }, decoded })
    }
}

/// How work is shared.
pub struct Share<'h> {
    helpers: Borrowed<'h>,
    lengths: Lengths,
    /// Bytes each helper has decoded at a time, about.
    decoded: usize,
}

/// Series of a run.
struct Lengths {
    /// From here on a run ends with its batch.
    shortest: usize,
    /// At most.
    longest: usize,
    /// Of series that have no batches.
    alone: usize,
}

/// Computes `series` with helpers and hands them to `take` in order.
pub fn run(
    series: std::vec::IntoIter<Ranked>,
    worker: &mut Worker,
    share: Share<'_>,
    context: &mut Context<'_>,
    take: &mut Take<'_>,
) -> Result<(), Error> {
    let Share { helpers, lengths, decoded } = share;
    let queue = Queue {
        state: Mutex::new(State { series, begun: 0, taken: 0, done: BTreeMap::new(), spare: Vec::new(), made: 0 }),
        changed: Condvar::new(),
        stopped: AtomicBool::new(false),
        lengths,
        ahead: helpers.count + 1 + AHEAD,
    };
    let (queue, cancel) = (&queue, context.cancel);
    std::thread::scope(|scope| {
        // However this ends, helpers do not wait for it to go on.
        let _stop = StopOnDrop(queue);
        for _ in 0..helpers.count {
            let own = worker.fork();
            let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned());
            // A thread that cannot be had is done without.
            if thread.spawn_scoped(scope, move || queue.help(own, cancel)).is_err() {
                break;
            }
        }
        queue.take_in_order(worker, decoded * helpers.count, context, take)
    })
}

/// Runs, and where they are.
struct Queue {
    state: Mutex<State>,
    /// A run was finished or taken, or all is over.
    changed: Condvar,
    /// Nobody takes runs any more.
    stopped: AtomicBool,
    lengths: Lengths,
    /// Runs under way, at most.
    ahead: usize,
}

struct State {
    /// Series that are in no run yet.
    series: std::vec::IntoIter<Ranked>,
    /// Runs begun so far.
    begun: usize,
    /// Runs taken so far.
    taken: usize,
    /// Runs that wait for being taken, by number.
    done: BTreeMap<usize, Run>,
    /// Runs that were taken: their columns are used again.
    spare: Vec<Run>,
    /// Runs that exist.
    made: usize,
}

/// What the thread that takes does next.
enum Turn {
    Take(Run),
    Compute(usize, Run),
    Over,
}

impl Queue {
    /// Computes runs until there are none left.
    fn help(&self, mut worker: Worker, cancel: &CancelToken) {
        while let Some((number, mut run)) = self.begin_or_wait() {
            let computed = catch_unwind(AssertUnwindSafe(|| run.compute(&mut worker, cancel, &self.stopped)));
            if computed.is_err() {
                run.error = Some(Error::Panicked);
            }
            self.finish(number, run);
            if computed.is_err() {
                return;
            }
        }
    }

    fn begin_or_wait(&self) -> Option<(usize, Run)> {
        let mut state = self.state.lock();
        loop {
            if self.stopped.load(Ordering::Relaxed) || state.series.as_slice().is_empty() {
                return None;
            }
            if let Some(begun) = self.begin(&mut state) {
                return Some(begun);
            }
            self.changed.wait(&mut state);
        }
    }

    /// The next run, if it may be begun already.
    fn begin(&self, state: &mut State) -> Option<(usize, Run)> {
        if state.series.as_slice().is_empty() || state.begun >= state.taken + self.ahead {
            return None;
        }
        let mut run = state.spare.pop().unwrap_or_else(|| {
            state.made += 1;
            Run::default()
        });
        while let Some((rank, input)) = state.series.next() {
            let batch = input.batch();
            run.inputs.push((rank, input));
            let (length, next) = (run.inputs.len(), state.series.as_slice().first().map_or(0, |(_, i)| i.batch()));
            let full = if batch == 0 { self.lengths.alone } else { self.lengths.longest };
            if length >= full || (batch != 0 && next != batch && length >= self.lengths.shortest) {
                break;
            }
        }
        state.begun += 1;
        Some((state.begun - 1, run))
    }

    fn finish(&self, number: usize, run: Run) {
        self.state.lock().done.insert(number, run);
        self.changed.notify_all();
    }

    fn turn(&self, number: usize) -> Turn {
        let mut state = self.state.lock();
        loop {
            if let Some(run) = state.done.remove(&number) {
                return Turn::Take(run);
            }
            if let Some((number, run)) = self.begin(&mut state) {
                return Turn::Compute(number, run);
            }
            if state.begun == number {
                return Turn::Over;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Gives a run back; returns how many there are.
    fn taken(&self, run: Run) -> usize {
        let mut state = self.state.lock();
        state.taken += 1;
        state.spare.push(run);
        self.changed.notify_all();
        state.made
    }

    fn take_in_order(
        &self,
        worker: &mut Worker,
        decoded: usize,
        context: &mut Context<'_>,
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        let (mut number, mut charged, mut largest) = (0, 0, 0);
        let mut out = Series::default();
        loop {
            let mut run = match self.turn(number) {
                Turn::Over => break,
                Turn::Compute(ahead, mut run) if ahead > number => {
                    run.compute(worker, context.cancel, &self.stopped);
                    self.finish(ahead, run);
                    continue;
                }
                // The very next one needs no buffers.
                Turn::Compute(_, mut run) => {
                    run.inputs.drain(..).try_for_each(|next| one(worker, next, &mut out, context, take).map(|_| ()))?;
                    run
                }
                Turn::Take(mut run) => {
                    largest = run.bytes.max(largest);
                    run.take(context, take)?;
                    run
                }
            };
            run.reset();
            let held = self.taken(run) * largest + decoded;
            if held > charged {
                context.budget.hold(0, held - charged)?;
                charged = held;
            }
            number += 1;
        }
        context.budget.release(0, charged);
        Ok(())
    }
}

struct StopOnDrop<'a>(&'a Queue);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
        // Under the lock: nobody is between looking and waiting.
        let _state = self.0.state.lock();
        self.0.changed.notify_all();
    }
}

/// Neighbouring series, before and after they are computed.
#[derive(Default)]
struct Run {
    inputs: Vec<Ranked>,
    computed: Vec<Computed>,
    /// How many of `computed` are of this run: the others are kept for their memory.
    used: usize,
    notes: Annotations,
    /// What ended it early.
    error: Option<Error>,
    bytes: usize,
}

#[derive(Default)]
struct Computed {
    rank: u32,
    read: Read,
    has_samples: bool,
    series: Series,
}

impl Run {
    fn compute(&mut self, worker: &mut Worker, cancel: &CancelToken, stopped: &AtomicBool) {
        for (rank, input) in self.inputs.drain(..) {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            if let Err(e) = cancel.check() {
                self.error = Some(e);
                return;
            }
            if self.used == self.computed.len() {
                self.computed.push(Computed::default());
            }
            let computed = &mut self.computed[self.used];
            let (read, outcome) = worker.column(input, &mut computed.series, &mut self.notes);
            (computed.rank, computed.read, computed.has_samples) = (rank, read, false);
            self.used += 1;
            if let Err(e) = outcome {
                self.error = Some(e);
                return;
            }
            computed.has_samples = worker.stage(&mut computed.series, &mut self.notes);
            self.bytes += computed.series.column.bytes();
        }
    }

    fn take(&mut self, context: &mut Context<'_>, take: &mut Take<'_>) -> Result<(), Error> {
        context.cancel.check()?;
        context.notes.merge(std::mem::take(&mut self.notes));
        for computed in &mut self.computed[..self.used] {
            context.count_read(computed.read)?;
            if computed.has_samples {
                take(&mut computed.series, computed.rank, context.budget)?;
            }
        }
        self.error.take().map_or(Ok(()), Err)
    }

    /// Makes it ready for other series.
    fn reset(&mut self) {
        (self.used, self.bytes) = (0, 0);
    }
}
