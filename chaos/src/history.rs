//! What was sent and how that ended, for every sample.
//!
//! *Invariants:* a sample's value follows from the seed, its series and its timestamp, so that a sample that is read back
//! proves itself. All series of a batch are sent together: one outcome stands for them all. One byte per batch and step.
//!
//! *Not here:* sending (`load`), judging what was read (`check`).

/// How the sending of one step of a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was sent at this time.
    Never,
    /// It was refused before a byte of it left: must not be there.
    Fail,
    /// Nobody knows, or it is still on its way: may be there.
    Info,
    /// Acknowledged: must be there, from now on.
    Ok,
}

/// The shape of what is written.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Decides all values.
    pub seed: u64,
    /// Timestamp of step 0, Unix milliseconds.
    pub base: i64,
    /// Milliseconds from step to step.
    pub step_ms: i64,
    /// Number of batches.
    pub batches: usize,
    /// Series of one batch.
    pub series: usize,
}

impl Shape {
    /// Timestamp of a step.
    pub fn time(&self, step: usize) -> i64 {
        self.base + step as i64 * self.step_ms
    }

    /// The step at a timestamp, if it is the timestamp of one.
    pub fn step(&self, t: i64) -> Option<usize> {
        let past = t - self.base;
        (past >= 0 && past % self.step_ms == 0).then_some((past / self.step_ms) as usize)
    }

    /// The value of a series at a time: a whole number that no other pair is likely to have.
    pub fn value(&self, batch: usize, series: usize, t: i64) -> f64 {
        let key = self.seed ^ (t as u64) ^ ((batch as u64) << 52) ^ ((series as u64) << 44);
        // The finalizer of splitmix64: all bits of the key reach all bits that are kept.
        let mixed = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 12) as f64
    }
}

/// The outcomes of everything that was sent.
#[derive(Debug)]
pub struct History {
    /// What is written.
    pub shape: Shape,
    outcomes: Vec<Vec<Outcome>>,
}

impl History {
    /// Nothing sent yet.
    pub fn new(shape: Shape) -> Self {
        Self { shape, outcomes: vec![Vec::new(); shape.batches] }
    }

    /// Notes that a step leaves now, perhaps not for the first time.
    pub fn sending(&mut self, batch: usize, step: usize) {
        let outcomes = &mut self.outcomes[batch];
        if outcomes.len() <= step {
            outcomes.resize(step + 1, Outcome::Never);
        }
        if outcomes[step] != Outcome::Ok {
            outcomes[step] = Outcome::Info;
        }
    }

    /// Notes how a step ended that had not been sent before or had been without a known end.
    pub fn ended(&mut self, batch: usize, step: usize, outcome: Outcome) {
        self.outcomes[batch][step] = outcome;
    }

    /// Outcomes of a batch from a step to another, both included.
    pub fn slice(&self, batch: usize, from: usize, to: usize) -> Vec<Outcome> {
        (from..=to).map(|step| self.outcomes[batch].get(step).copied().unwrap_or(Outcome::Never)).collect()
    }

    /// Number of steps of the longest batch.
    pub fn steps(&self) -> usize {
        self.outcomes.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The last acknowledged step of a batch that is not after `before`.
    pub fn last_ok(&self, batch: usize, before: usize) -> Option<usize> {
        let outcomes = &self.outcomes[batch];
        let end = outcomes.len().min(before + 1);
        outcomes[..end].iter().rposition(|o| *o == Outcome::Ok)
    }

    /// Number of samples that ended so.
    pub fn samples(&self, outcome: Outcome) -> usize {
        self.outcomes.iter().flatten().filter(|o| **o == outcome).count() * self.shape.series
    }
}
