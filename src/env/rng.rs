//! Randomness: the machine's, or a sequence fixed by a seed.
//!
//! *Invariants:* equal seeds give equal sequences.
//!
//! *Not here:* secrets; nothing cryptographic is drawn from this.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers.
pub trait Rng: Send + Sync + 'static {
    /// 64 uniform bits.
    fn next_u64(&self) -> u64;

    /// A number in `0..n`; 0 when `n` is 0.
    fn below(&self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }
}

/// The machine's randomness.
#[derive(Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        drawn()
    }
}

thread_local! {
    static FIXED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on what this thread [draws](drawn) is the sequence of `seed`: a simulation runs on one thread.
pub fn fix(seed: u64) {
    FIXED.set(Some(seed));
}

/// The machine's randomness, or the next number of a thread's [fixed](fix) sequence.
pub fn drawn() -> u64 {
    let Some(state) = FIXED.get() else { return rand::random() };
    let sequence = SeededRng::new(state);
    let next = sequence.next_u64();
    FIXED.set(Some(sequence.state.into_inner()));
    next
}

/// SplitMix64: a sequence fixed by its seed.
pub struct SeededRng {
    state: AtomicU64,
}

impl SeededRng {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_sequences() {
        let (a, b, c) = (SeededRng::new(7), SeededRng::new(7), SeededRng::new(8));
        let draw = |r: &SeededRng| (0..8).map(|_| r.next_u64()).collect::<Vec<_>>();
        let first = draw(&a);
        assert_eq!(first, draw(&b));
        assert_ne!(first, draw(&c));
    }

    #[test]
    fn stays_below_the_bound() {
        let r = SeededRng::new(1);
        assert!((0..1000).all(|_| r.below(3) < 3));
        assert_eq!(r.below(0), 0);
    }
}
