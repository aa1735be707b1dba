//! What must hold for any body of remote write.
#![allow(clippy::expect_used)]
#![allow(dead_code, reason = "each target uses its own part")]

use std::collections::BTreeMap;

use metrolith::ingest::decode::{DecodeError, DecodeLimits, Decoder, Fault, Protocol};
use metrolith::model::{Labels, TenantId};
use metrolith::proto::{prometheus, write_v2};
use prost::Message;

/// Labels and floats of one series: timestamp, bits of the value, start timestamp.
type Series = (Labels, Vec<(i64, u64, i64)>);

/// Remote write 1.0: no panic, and what the generated types make of it.
pub fn remote_write_v1(data: &[u8]) {
    let ours = decode(Protocol::V1, data);
    let Ok(oracle) = prometheus::WriteRequest::decode(data) else { return };
    let Some(ours) = ours else { return };
    let mut want = Vec::new();
    for series in &oracle.timeseries {
        let pairs = series.labels.iter().map(|l| (l.name.as_str(), l.value.as_str()));
        let samples = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), 0)).collect();
        want.extend(labels(pairs).map(|labels| (labels, samples)));
    }
    compare(&ours, want);
}

/// Remote write 2.0: no panic, and what the generated types make of it.
pub fn remote_write_v2(data: &[u8]) {
    let ours = decode(Protocol::V2, data);
    let Ok(oracle) = write_v2::Request::decode(data) else { return };
    let Some(ours) = ours else { return };
    let mut want = Vec::new();
    for series in &oracle.timeseries {
        let symbol = |reference: &u32| oracle.symbols.get(*reference as usize).map(String::as_str);
        let texts: Option<Vec<&str>> = series.labels_refs.iter().map(symbol).collect();
        let Some(texts) = texts.filter(|t| t.len() % 2 == 0) else { continue };
        let start = |own: i64| if own == 0 { series.created_timestamp } else { own };
        let samples = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), start(s.start_timestamp)));
        let samples = samples.collect();
        want.extend(labels(texts.chunks(2).map(|p| (p[0], p[1]))).map(|labels| (labels, samples)));
    }
    compare(&ours, want);
}

/// Decodes by hand; `None` when the request was refused for a reason that the oracle does not know.
fn decode(protocol: Protocol, data: &[u8]) -> Option<Decoder> {
    let (tenant, limits) = (TenantId::anonymous(), DecodeLimits::default());
    let mut decoder = Decoder::default();
    let result = decoder.decode_message(protocol, data, &tenant, &limits);
    // The same bytes as a compressed body: most are none, and none may panic.
    let _ = Decoder::default().decode(protocol, data, &tenant, &limits);
    let oracle_accepts = match protocol {
        Protocol::V1 => prometheus::WriteRequest::decode(data).is_ok(),
        Protocol::V2 => write_v2::Request::decode(data).is_ok(),
    };
    match result {
        Ok(()) => Some(decoder),
        Err(DecodeError::Malformed { error, .. }) => {
            assert!(decoder.batch.series.is_empty() && decoder.batch.samples.is_empty());
            let stricter = matches!(error.fault, Fault::TooMany { .. } | Fault::WireType(3 | 4));
            assert!(stricter || !oracle_accepts, "only we refuse it: {error}");
            None
        }
        Err(other) => panic!("not an error of a decompressed request: {other}"),
    }
}

/// The label set a series must have, `None` when it must be refused.
fn labels<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Labels> {
    let mut set = BTreeMap::new();
    let mut count = 0;
    for (name, value) in pairs {
        if name.is_empty() {
            return None;
        }
        if value.is_empty() {
            continue;
        }
        count += 1;
        if set.insert(name, value).is_some() {
            return None;
        }
    }
    (count <= DecodeLimits::default().labels_per_series).then(|| Labels::from_pairs(set))
}

fn compare(decoder: &Decoder, mut want: Vec<Series>) {
    let batch = &decoder.batch;
    let got = batch.series.iter().map(|row| {
        let labels = Labels::from_canonical(batch.labels_of(row)).expect("canonical labels");
        batch.histograms_of(row).iter().for_each(|h| h.h.validate().expect("a valid histogram"));
        batch.exemplars_of(row);
        (labels, batch.samples_of(row).iter().map(|s| (s.t, s.v.to_bits(), s.start)).collect())
    });
    let mut got: Vec<Series> = got.collect();
    // Series without floats may be there for other reasons.
    got.retain(|(_, samples)| !samples.is_empty());
    want.retain(|(_, samples)| !samples.is_empty());
    assert_eq!(got, want);
}
