//! Decoders waiting for the next request, so that their memory is reused.
//!
//! *Invariants:* at most `idle` decoders wait, none of which holds more than [`KEEP_BYTES`]: one huge request does not
//! pin its memory.
//!
//! *Not here:* how many requests may run at once (`api`).

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Decoder;

/// Memory up to which a decoder is worth keeping, bytes.
const KEEP_BYTES: usize = 8 << 20;

/// A pool; clones share it.
#[derive(Clone)]
pub struct DecoderPool {
    waiting: Arc<Mutex<Vec<Decoder>>>,
    idle: usize,
}

impl DecoderPool {
    /// A pool that keeps at most `idle` unused decoders.
    pub fn new(idle: usize) -> Self {
        Self { waiting: Arc::default(), idle }
    }

    /// A decoder, used or new; it goes back to the pool when dropped.
    pub fn take(&self) -> PooledDecoder {
        let decoder = self.waiting.lock().pop().unwrap_or_default();
        PooledDecoder { decoder, pool: self.clone() }
    }
}

/// A decoder on loan.
pub struct PooledDecoder {
    decoder: Decoder,
    pool: DecoderPool,
}

impl Deref for PooledDecoder {
    type Target = Decoder;

    fn deref(&self) -> &Decoder {
        &self.decoder
    }
}

impl DerefMut for PooledDecoder {
    fn deref_mut(&mut self) -> &mut Decoder {
        &mut self.decoder
    }
}

impl Drop for PooledDecoder {
    fn drop(&mut self) {
        let mut decoder = std::mem::take(&mut self.decoder);
        if decoder.heap_bytes() > KEEP_BYTES {
            return;
        }
        decoder.clear();
        let mut waiting = self.pool.waiting.lock();
        if waiting.len() < self.pool.idle {
            waiting.push(decoder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_no_more_than_it_should() {
        let pool = DecoderPool::new(1);
        let (a, b) = (pool.take(), pool.take());
        drop((a, b));
        assert_eq!(pool.waiting.lock().len(), 1);
        let mut big = pool.take();
        big.batch.labels.reserve(KEEP_BYTES + 1);
        drop(big);
        assert_eq!(pool.waiting.lock().len(), 0);
    }
}
