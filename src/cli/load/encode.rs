//! Write requests of a workload, encoded by hand into reused buffers: the generator must cost less than what it measures.
//!
//! *Invariants:* what is written decodes to the workload's labels and values (tested through `ingest::decode`).
//!
//! *Not here:* HTTP (`sender`).

use std::collections::HashMap;
use std::ops::Range;

use super::slots::{FIELDS, Field, Text};
use super::workload::Workload;
use crate::ingest::decode::Protocol;

const ALL_FIELDS: [Field; FIELDS] =
    [Field::Cluster, Field::Instance, Field::Namespace, Field::Node, Field::Pod, Field::Region, Field::Service];

/// Encodes requests, one at a time.
pub struct Encoder {
    protocol: Protocol,
    message: Vec<u8>,
    series: Vec<u8>,
    timeseries: Vec<u8>,
    snappy: snap::raw::Encoder,
    /// 2.0: symbols that every request has, encoded.
    symbols: Vec<u8>,
    symbol_count: u32,
    /// 2.0: for each slot of a block, what its labels refer to.
    references: Vec<Vec<(u32, Reference)>>,
}

/// What a label's value refers to.
#[derive(Clone, Copy)]
enum Reference {
    Symbol(u32),
    Of(Field),
}

impl Encoder {
    /// An encoder of requests of `workload`.
    pub fn new(protocol: Protocol, workload: &Workload) -> Self {
        let mut numbers = HashMap::from([(String::new(), 0)]);
        let mut symbols = Vec::new();
        bytes_field(&mut symbols, 4, b"");
        let mut number = |text: &str| {
            let next = numbers.len() as u32;
            *numbers.entry(text.to_owned()).or_insert_with(|| {
                bytes_field(&mut symbols, 4, text.as_bytes());
                next
            })
        };
        let mut refer = |(name, text): &(&str, Text)| match text {
            Text::Fixed(text) => (number(name), Reference::Symbol(number(text))),
            Text::Of(field) => (number(name), Reference::Of(*field)),
        };
        let references = workload.block().map(|slot| slot.labels.iter().map(&mut refer).collect()).collect();
        Self {
            protocol,
            message: Vec::new(),
            series: Vec::new(),
            timeseries: Vec::new(),
            snappy: snap::raw::Encoder::new(),
            symbol_count: numbers.len() as u32,
            symbols,
            references,
        }
    }

    /// The compressed request with one sample at `t` (milliseconds) of each series of `range`.
    pub fn encode(&mut self, workload: &Workload, range: Range<u64>, t: i64) -> Result<Vec<u8>, snap::Error> {
        match self.protocol {
            Protocol::V1 => self.encode_v1(workload, range, t),
            Protocol::V2 => self.encode_v2(workload, range, t),
        }
        self.snappy.compress_vec(&self.message)
    }

    fn encode_v1(&mut self, workload: &Workload, range: Range<u64>, t: i64) {
        let Self { message, series, .. } = self;
        message.clear();
        workload.visit(range, |i, slot, target| {
            series.clear();
            for (name, text) in &slot.labels {
                let value = target.text(text);
                series.push(0x0a);
                varint(series, (field_len(name.len()) + field_len(value.len())) as u64);
                bytes_field(series, 1, name.as_bytes());
                bytes_field(series, 2, value.as_bytes());
            }
            sample(series, workload.value(i, t), t);
            bytes_field(message, 1, series);
        });
    }

    fn encode_v2(&mut self, workload: &Workload, range: Range<u64>, t: i64) {
        let Self { message, series, timeseries, symbols, symbol_count, references, .. } = self;
        message.clear();
        message.extend_from_slice(symbols);
        timeseries.clear();
        let mut next = *symbol_count;
        let (mut pod, mut fields) = (String::new(), [0u32; FIELDS]);
        let mut refs = Vec::new();
        workload.visit(range, |i, slot, target| {
            // A target's instance is unlike any other's: a new one needs new symbols.
            if target.field(Field::Instance) != pod {
                pod.clear();
                pod.push_str(target.field(Field::Instance));
                for field in ALL_FIELDS {
                    bytes_field(message, 4, target.field(field).as_bytes());
                    fields[field as usize] = next;
                    next += 1;
                }
            }
            refs.clear();
            for &(name, value) in &references[i as usize % references.len()] {
                varint(&mut refs, name.into());
                varint(
                    &mut refs,
                    match value {
                        Reference::Symbol(number) => number.into(),
                        Reference::Of(field) => fields[field as usize].into(),
                    },
                );
            }
            series.clear();
            bytes_field(series, 1, &refs);
            sample(series, workload.value(i, t), t);
            // Metadata: the type.
            series.extend_from_slice(&[0x2a, 2, 0x08, slot.kind as u8]);
            bytes_field(timeseries, 5, series);
        });
        message.extend_from_slice(timeseries);
    }
}

/// Field 2 of a series in both versions.
fn sample(series: &mut Vec<u8>, v: f64, t: i64) {
    series.extend_from_slice(&[0x12, 10 + varint_len(t as u64) as u8, 0x09]);
    series.extend_from_slice(&v.to_le_bytes());
    series.push(0x10);
    varint(series, t as u64);
}

fn varint(into: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        into.push(n as u8 | 0x80);
        n >>= 7;
    }
    into.push(n as u8);
}

fn varint_len(n: u64) -> usize {
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

/// Length of a length-delimited field with a one-byte tag.
fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn bytes_field(into: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    into.push(field << 3 | 2);
    varint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::decode::{DecodeLimits, Decoder};
    use crate::model::TenantId;

    #[test]
    fn requests_decode_to_the_workload_in_both_versions() {
        let workload = Workload::new(9);
        let t = 1_760_000_000_123;
        for protocol in [Protocol::V1, Protocol::V2] {
            let mut encoder = Encoder::new(protocol, &workload);
            for range in [0..700, 650..1500] {
                let body = encoder.encode(&workload, range.clone(), t).unwrap();
                let mut d = Decoder::default();
                d.decode(protocol, &body, &TenantId::anonymous(), &DecodeLimits::default()).unwrap();
                assert!(d.rejected.is_empty(), "{}", d.rejected);
                assert_eq!(d.batch.series.len() as u64, range.end - range.start);
                for (row, i) in d.batch.series.iter().zip(range) {
                    assert_eq!(d.batch.labels_of(row), workload.labels(i).canonical());
                    let samples = d.batch.samples_of(row);
                    assert_eq!((samples.len(), samples[0].t), (1, t));
                    assert_eq!(samples[0].v.to_bits(), workload.value(i, t).to_bits());
                }
                assert_eq!(d.batch.metadata.is_empty(), protocol == Protocol::V1);
            }
        }
    }
}
