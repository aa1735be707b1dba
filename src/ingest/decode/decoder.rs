//! A decoder with its buffers: one per request at a time, reused for the next.
//!
//! *Invariants:* after an error the batch is empty.
//!
//! *Not here:* the pool of decoders (`pool`).

use super::assembly::Assembly;
use super::histogram::{BucketBudget, HistogramReader};
use super::labels::LabelWriter;
use super::v2::Symbols;
use super::wire::{Reader, WireError};
use super::{DecodeError, Protocol, snappy, v1, v2};
use crate::ingest::outcome::Rejections;
use crate::model::labels::tenant_seed;
use crate::model::{Batch, TenantId};

/// Most that one request may hold. These guard memory; what a tenant may send is `admit`'s.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeLimits {
    /// Bytes after decompression (default 32 MiB, as in Prometheus).
    pub body_bytes: usize,
    /// Series (default 250,000).
    pub series: usize,
    /// Labels of one series, or of one exemplar (default 1,024).
    pub labels_per_series: usize,
    /// Bytes of all label sets and metadata together, symbols resolved (default 64 MiB).
    pub text_bytes: usize,
    /// Float samples (default 1,000,000).
    pub samples: usize,
    /// Native histograms (default 100,000).
    pub histograms: usize,
    /// Buckets, spans and bounds of all native histograms (default 2,000,000).
    pub histogram_buckets: usize,
    /// Exemplars (default 100,000).
    pub exemplars: usize,
    /// Metadata entries (default 100,000).
    pub metadata: usize,
    /// Symbols of a 2.0 request (default 1,000,000).
    pub symbols: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            series: 250_000,
            labels_per_series: 1024,
            text_bytes: 64 << 20,
            samples: 1_000_000,
            histograms: 100_000,
            histogram_buckets: 2_000_000,
            exemplars: 100_000,
            metadata: 100_000,
            symbols: 1_000_000,
        }
    }
}

/// Decodes requests, one at a time.
#[derive(Default)]
pub struct Decoder {
    /// The last request.
    pub batch: Batch,
    /// What of it was left out.
    pub rejected: Rejections,
    buffer: Vec<u8>,
    labels: LabelWriter,
    exemplar_labels: LabelWriter,
    histogram: HistogramReader,
    symbols: Symbols,
}

impl Decoder {
    /// Decompresses and decodes one request of `tenant` into `self.batch` and `self.rejected`, replacing the last.
    pub fn decode(
        &mut self,
        protocol: Protocol,
        body: &[u8],
        tenant: &TenantId,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        self.clear();
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = snappy::decompress(body, limits.body_bytes, &mut buffer)
            .and_then(|len| self.decode_message(protocol, &buffer[..len], tenant, limits));
        self.buffer = buffer;
        result
    }

    /// Decodes one decompressed request.
    pub fn decode_message(
        &mut self,
        protocol: Protocol,
        message: &[u8],
        tenant: &TenantId,
        limits: &DecodeLimits,
    ) -> Result<(), DecodeError> {
        self.clear();
        let mut assembly = Assembly {
            batch: &mut self.batch,
            rejected: &mut self.rejected,
            labels: &mut self.labels,
            exemplar_labels: &mut self.exemplar_labels,
            histogram: &mut self.histogram,
            limits,
            buckets: BucketBudget { limit: limits.histogram_buckets, left: limits.histogram_buckets },
            seed: tenant_seed(tenant.as_str()),
            series: 0,
            text_left: limits.text_bytes,
        };
        let result: Result<(), (Option<usize>, WireError)> = match protocol {
            Protocol::V1 => v1::decode(Reader::new(message), &mut assembly),
            Protocol::V2 => v2::decode(Reader::new(message), &mut self.symbols, &mut assembly),
        };
        result.map_err(|(series, error)| {
            self.clear();
            DecodeError::Malformed { series, error }
        })
    }

    /// Forgets the request, keeping the memory.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.rejected.clear();
    }

    /// Roughly the heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        let b = &self.batch;
        self.buffer.capacity()
            + self.symbols.heap_bytes()
            + b.labels.capacity()
            + bytes_of(&b.series)
            + bytes_of(&b.samples)
            + bytes_of(&b.histograms)
            + bytes_of(&b.exemplars)
            + bytes_of(&b.metadata)
    }
}

fn bytes_of<T>(rows: &Vec<T>) -> usize {
    rows.capacity() * size_of::<T>()
}
