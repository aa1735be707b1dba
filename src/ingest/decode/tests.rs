//! Both decoders against the generated types as an oracle, and against bytes nobody should send.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::ingest::outcome::Reason;
use crate::model::labels::series_hash;
use crate::model::{Histogram, Labels, MetricType, ResetHint, Span, TenantId, is_stale, stale_nan};
use crate::proto::{prometheus as v1, write_v2 as v2};

fn tenant() -> TenantId {
    TenantId::new("team-1").unwrap()
}

fn decode(protocol: Protocol, message: &[u8]) -> Result<Decoder, DecodeError> {
    decode_within(protocol, message, &DecodeLimits::default())
}

fn decode_within(protocol: Protocol, message: &[u8], limits: &DecodeLimits) -> Result<Decoder, DecodeError> {
    let body = snap::raw::Encoder::new().compress_vec(message).unwrap();
    let mut decoder = Decoder::default();
    decoder.decode(protocol, &body, &tenant(), limits)?;
    for row in &decoder.batch.series {
        let canonical = decoder.batch.labels_of(row);
        assert!(Labels::from_canonical(canonical).is_some(), "{canonical:?}");
        assert_eq!(row.hash, series_hash("team-1", canonical));
        decoder.batch.samples_of(row);
        decoder.batch.histograms_of(row);
        decoder.batch.exemplars_of(row);
    }
    Ok(decoder)
}

fn label(name: &str, value: &str) -> v1::Label {
    v1::Label { name: name.into(), value: value.into() }
}

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> v1::TimeSeries {
    v1::TimeSeries {
        labels: labels.iter().map(|(n, v)| label(n, v)).collect(),
        samples: samples.iter().map(|&(timestamp, value)| v1::Sample { value, timestamp }).collect(),
        ..Default::default()
    }
}

fn request(timeseries: Vec<v1::TimeSeries>) -> Vec<u8> {
    v1::WriteRequest { timeseries, metadata: vec![] }.encode_to_vec()
}

/// What of a series must come out, in a form both versions can be compared in.
#[derive(Debug, PartialEq)]
struct Plain {
    labels: Labels,
    samples: Vec<(i64, u64, i64)>,
    histograms: Vec<(i64, Histogram, i64)>,
    exemplars: Vec<(i64, u64, Labels)>,
}

fn plain(decoder: &Decoder) -> Vec<Plain> {
    let b = &decoder.batch;
    let of = |row| Plain {
        labels: Labels::from_canonical(b.labels_of(row)).unwrap(),
        samples: b.samples_of(row).iter().map(|s| (s.t, s.v.to_bits(), s.start)).collect(),
        histograms: b.histograms_of(row).iter().map(|h| (h.t, Histogram::clone(&h.h), h.start)).collect(),
        exemplars: b.exemplars_of(row).iter().map(|e| (e.t, e.v.to_bits(), e.labels.clone())).collect(),
    };
    b.series.iter().map(of).collect()
}

/// An integer histogram whose buckets add up to its count.
fn integer_histogram(t: i64, counts: &[u32], sum: f64) -> (v1::Histogram, Histogram) {
    let absolute: Vec<f64> = counts.iter().map(|c| f64::from(*c)).collect();
    let mut last = 0i64;
    let deltas = counts.iter().map(|c| i64::from(*c) - std::mem::replace(&mut last, i64::from(*c))).collect();
    let total: u64 = counts.iter().map(|c| u64::from(*c)).sum();
    let wire = v1::Histogram {
        count: Some(v1::histogram::Count::CountInt(total + 3)),
        sum,
        schema: -2,
        zero_threshold: 0.001,
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountInt(3)),
        positive_spans: vec![v1::BucketSpan { offset: -4, length: counts.len() as u32 }],
        positive_deltas: deltas,
        reset_hint: 2,
        timestamp: t,
        ..Default::default()
    };
    let want = Histogram {
        integer: true,
        schema: -2,
        reset_hint: ResetHint::NotReset,
        zero_threshold: 0.001,
        zero_count: 3.0,
        count: (total + 3) as f64,
        sum,
        positive_spans: vec![Span { offset: -4, length: counts.len() as u32 }],
        positive: absolute,
        ..Default::default()
    };
    (wire, want)
}

fn label_sets() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[a-z_]{1,10}|__name__|[é☃]{1,3}", "[a-z0-9é]{1,20}|[0-9]{125,130}", 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn v1_gives_what_the_oracle_gives(
        sets in proptest::collection::vec(label_sets(), 0..8),
        values in proptest::collection::vec((any::<i64>(), any::<u64>()), 1..5),
        counts in proptest::collection::vec(0u32..1000, 1..20),
        reverse in any::<bool>(),
    ) {
        let (wire, want_histogram) = integer_histogram(values[0].0, &counts, 7.5);
        let mut timeseries = Vec::new();
        let mut want = Vec::new();
        for set in &sets {
            let mut labels: Vec<_> = set.iter().map(|(n, v)| label(n, v)).collect();
            if reverse {
                labels.reverse();
            }
            let exemplar = v1::Exemplar { labels: vec![label("trace_id", "é1")], value: 1.5, timestamp: 17 };
            timeseries.push(v1::TimeSeries {
                labels,
                samples: values.iter().map(|&(timestamp, v)| v1::Sample { value: f64::from_bits(v), timestamp }).collect(),
                exemplars: vec![exemplar],
                histograms: vec![wire.clone()],
            });
            want.push(Plain {
                labels: Labels::from_pairs(set),
                samples: values.iter().map(|&(t, v)| (t, v, 0)).collect(),
                histograms: vec![(values[0].0, want_histogram.clone(), 0)],
                exemplars: vec![(17, 1.5f64.to_bits(), Labels::from_pairs([("trace_id", "é1")]))],
            });
        }
        let decoder = decode(Protocol::V1, &request(timeseries)).unwrap();
        prop_assert!(decoder.rejected.is_empty(), "{}", decoder.rejected);
        prop_assert_eq!(plain(&decoder), want);
    }

    #[test]
    fn v2_gives_what_v1_gives(
        sets in proptest::collection::vec(label_sets(), 1..8),
        values in proptest::collection::vec((any::<i64>(), any::<u64>()), 1..5),
        created in any::<i64>(),
    ) {
        let mut symbols = Table::default();
        let timeseries: Vec<_> = sets
            .iter()
            .map(|set| v2::TimeSeries {
                labels_refs: set.iter().flat_map(|(n, v)| [n, v]).map(|s| symbols.of(s)).collect(),
                samples: values
                    .iter()
                    .map(|&(timestamp, v)| v2::Sample { value: f64::from_bits(v), timestamp, start_timestamp: 0 })
                    .collect(),
                created_timestamp: created,
                ..Default::default()
            })
            .collect();
        let message = v2::Request { symbols: symbols.list, timeseries }.encode_to_vec();
        let got = decode(Protocol::V2, &message).unwrap();
        let want: Vec<_> = sets
            .iter()
            .map(|set| Plain {
                labels: Labels::from_pairs(set),
                samples: values.iter().map(|&(t, v)| (t, v, created)).collect(),
                histograms: vec![],
                exemplars: vec![],
            })
            .collect();
        prop_assert_eq!(plain(&got), want);
    }

    #[test]
    fn damaged_requests_never_panic(cut in 0usize..2000, at in 0usize..2000, byte in any::<u8>()) {
        for (protocol, mut message) in [(Protocol::V1, rich_v1()), (Protocol::V2, rich_v2())] {
            let _ = decode(protocol, &message[..cut.min(message.len())]);
            let at = at % message.len();
            message[at] = byte;
            let ours = decode(protocol, &message);
            // What we accept, the oracle accepts, with as many series at most (it keeps those without samples).
            if let Ok(decoder) = ours {
                let kept = decoder.batch.series.len();
                match protocol {
                    Protocol::V1 => if let Ok(oracle) = v1::WriteRequest::decode(&message[..]) {
                        prop_assert!(kept <= oracle.timeseries.len());
                    },
                    Protocol::V2 => if let Ok(oracle) = v2::Request::decode(&message[..]) {
                        prop_assert!(kept <= oracle.timeseries.len());
                    },
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(message in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(Protocol::V1, &message);
        let _ = decode(Protocol::V2, &message);
        let _ = Decoder::default().decode(Protocol::V1, &message, &tenant(), &DecodeLimits::default());
    }
}

#[derive(Default)]
struct Table {
    list: Vec<String>,
}

impl Table {
    fn of(&mut self, text: &str) -> u32 {
        if self.list.is_empty() {
            self.list.push(String::new());
        }
        let at = self.list.iter().position(|s| s == text).unwrap_or_else(|| {
            self.list.push(text.to_owned());
            self.list.len() - 1
        });
        at as u32
    }
}

fn rich_v1() -> Vec<u8> {
    let mut a = series(&[("__name__", "up"), ("job", "node"), ("long", &"x".repeat(200))], &[(1_700_000_000_000, 1.0)]);
    a.histograms.push(integer_histogram(5, &[1, 2, 3], 9.0).0);
    a.exemplars.push(v1::Exemplar { labels: vec![label("trace_id", "abc")], value: 2.0, timestamp: 3 });
    let b = series(&[("z", "1"), ("__name__", "down")], &[(1, stale_nan()), (2, 3.0)]);
    let help = v1::MetricMetadata { r#type: 1, metric_family_name: "up".into(), help: "h".into(), unit: "s".into() };
    v1::WriteRequest { timeseries: vec![a, b], metadata: vec![help] }.encode_to_vec()
}

fn rich_v2() -> Vec<u8> {
    let mut s = Table::default();
    let labels_refs = ["__name__", "rpc_bucket", "le", "0.5"].map(|x| s.of(x)).to_vec();
    let metadata = Some(v2::Metadata { r#type: 3, help_ref: s.of("helps"), unit_ref: s.of("seconds") });
    let exemplars = vec![v2::Exemplar { labels_refs: vec![s.of("trace_id"), s.of("abc")], value: 2.0, timestamp: 3 }];
    let samples = vec![v2::Sample { value: stale_nan(), timestamp: 9, start_timestamp: 4 }];
    let histogram = v2::Histogram {
        count: Some(v2::histogram::Count::CountFloat(2.5)),
        schema: -53,
        sum: 1.0,
        positive_spans: vec![v2::BucketSpan { offset: 0, length: 2 }],
        positive_counts: vec![1.0, 1.5],
        custom_values: vec![0.5],
        timestamp: 10,
        ..Default::default()
    };
    let one =
        v2::TimeSeries { labels_refs, samples, histograms: vec![histogram], exemplars, metadata, created_timestamp: 2 };
    let two = v2::TimeSeries { exemplars: vec![], histograms: vec![], ..one.clone() };
    v2::Request { symbols: s.list, timeseries: vec![one, two] }.encode_to_vec()
}

#[test]
fn v2_keeps_histograms_exemplars_start_times_and_one_metadata_row_per_family() {
    let decoder = decode(Protocol::V2, &rich_v2()).unwrap();
    assert!(decoder.rejected.is_empty(), "{}", decoder.rejected);
    let b = &decoder.batch;
    assert_eq!(b.series.len(), 2);
    assert!(is_stale(b.samples[0].v));
    assert_eq!((b.samples[0].start, b.histograms[0].start), (4, 2), "its own wins over the series'");
    let h = &b.histograms[0].h;
    assert!(h.is_custom() && !h.integer && h.positive == [1.0, 1.5] && h.custom_values == [0.5]);
    assert_eq!(b.exemplars[0].labels.get("trace_id"), "abc");
    assert_eq!(b.metadata.len(), 1);
    let m = &b.metadata[0];
    assert_eq!((&*m.metric, m.kind, &*m.help, &*m.unit), ("rpc", MetricType::Histogram, "helps", "seconds"));
}

#[test]
fn v2_finds_symbols_that_stand_behind_their_series() {
    let message = rich_v2();
    let request = v2::Request::decode(&message[..]).unwrap();
    let mut swapped = v2::Request { symbols: vec![], timeseries: request.timeseries }.encode_to_vec();
    swapped.extend(v2::Request { symbols: request.symbols, timeseries: vec![] }.encode_to_vec());
    assert_eq!(plain(&decode(Protocol::V2, &swapped).unwrap()), plain(&decode(Protocol::V2, &message).unwrap()));
}

#[test]
fn a_bad_series_is_counted_and_the_others_stay() {
    let good = series(&[("__name__", "up")], &[(1, 1.0)]);
    let twice = series(&[("__name__", "up"), ("a", "1"), ("a", "2")], &[(1, 1.0), (2, 2.0)]);
    let nameless = series(&[("", "x")], &[(1, 1.0)]);
    let decoder = decode(Protocol::V1, &request(vec![good.clone(), twice, nameless, good])).unwrap();
    assert_eq!(decoder.batch.series.len(), 2);
    assert_eq!(decoder.batch.samples.len(), 2);
    assert_eq!(decoder.rejected.count(Reason::DuplicateLabelNames), 2);
    assert_eq!(decoder.rejected.count(Reason::LabelInvalid), 1);
    let text = decoder.rejected.to_string();
    assert!(text.contains("series 1 {__name__=\"up\", a=\"1\", a=\"2\"}"), "{text}");

    let refs = |labels_refs| v2::TimeSeries { labels_refs, samples: vec![Default::default()], ..Default::default() };
    let symbols = ["", "__name__", "up"].map(String::from).to_vec();
    let message = v2::Request { symbols, timeseries: vec![refs(vec![1, 2]), refs(vec![1, 3]), refs(vec![1])] };
    let decoder = decode(Protocol::V2, &message.encode_to_vec()).unwrap();
    assert_eq!((decoder.batch.series.len(), decoder.rejected.count(Reason::LabelInvalid)), (1, 2));
}

#[test]
fn histograms_that_contradict_themselves_are_left_out_alone() {
    let (good, _) = integer_histogram(1, &[1, 2], 1.0);
    let mut missing = good.clone();
    missing.positive_deltas.pop();
    let mut negative = good.clone();
    negative.positive_deltas = vec![1, -2];
    let mut huge = good.clone();
    huge.count = Some(v1::histogram::Count::CountInt((1 << 53) + 1));
    let mut overflow = good.clone();
    overflow.positive_deltas = vec![i64::MAX, i64::MAX];
    let mut one = series(&[("__name__", "h")], &[]);
    one.histograms = vec![missing, negative, good, huge, overflow];
    let decoder = decode(Protocol::V1, &request(vec![one])).unwrap();
    assert_eq!(decoder.batch.histograms.len(), 1);
    assert_eq!(decoder.rejected.count(Reason::NativeHistogramInvalid), 4);
}

#[test]
fn overlong_exemplars_are_left_out_alone() {
    let mut one = series(&[("__name__", "h")], &[(1, 1.0)]);
    for len in [120, 121] {
        one.exemplars.push(v1::Exemplar {
            labels: vec![label("trace_id", &"é".repeat(len))],
            value: 1.0,
            timestamp: 1,
        });
    }
    let decoder = decode(Protocol::V1, &request(vec![one])).unwrap();
    assert_eq!((decoder.batch.exemplars.len(), decoder.rejected.count(Reason::ExemplarInvalid)), (1, 1));
}

#[test]
fn errors_name_the_series_the_field_and_the_byte() {
    let mut message = request(vec![series(&[("a", "b")], &[(1, 1.0)])]);
    let second = message.len();
    message.extend([0x0a, 4, 0x12, 2, 0x09, 0x01]);
    let error = decode(Protocol::V1, &message).err().unwrap().to_string();
    let want = format!(
        "decode write request: series 1, Sample field 1 at byte {}: the message ends inside a value",
        second + 5
    );
    assert_eq!(error, want);
}

#[test]
fn count_bombs_stop_at_their_limits() {
    let limits =
        DecodeLimits { series: 100, samples: 100, histogram_buckets: 100, symbols: 100, ..DecodeLimits::default() };
    let too_many = |protocol, message: &[u8], what: &str| {
        let error = decode_within(protocol, message, &limits).err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
    };
    too_many(Protocol::V1, &[0x0a, 0].repeat(1 << 20), "more than 100 series");
    too_many(Protocol::V2, &[0x2a, 0].repeat(1 << 20), "more than 100 series");
    too_many(Protocol::V2, &[0x22, 0].repeat(1 << 20), "more than 100 symbols");
    too_many(Protocol::V1, &request(vec![series(&[("a", "b")], &[(1, 1.0); 101])]), "more than 100 samples");
    let mut one = series(&[("a", "b")], &[]);
    one.histograms.push(v1::Histogram { positive_counts: vec![0.0; 101], ..Default::default() });
    too_many(Protocol::V1, &request(vec![one]), "more than 100 histogram buckets");
}

#[test]
fn symbols_cannot_be_blown_up_by_referring_to_them_again_and_again() {
    let one = v2::TimeSeries { labels_refs: vec![1, 2], samples: vec![Default::default()], ..Default::default() };
    let symbols = vec![String::new(), "a".into(), "x".repeat(1 << 20)];
    let message = v2::Request { symbols, timeseries: vec![one; 100] }.encode_to_vec();
    let limits = DecodeLimits { text_bytes: 8 << 20, ..DecodeLimits::default() };
    let error = decode_within(Protocol::V2, &message, &limits).err().unwrap().to_string();
    assert!(error.contains("bytes of labels and metadata"), "{error}");
}

#[test]
fn too_many_labels_refuse_the_series_in_both_versions() {
    let names: Vec<String> = (0..2000).map(|i| format!("l{i:04}")).collect();
    let pairs: Vec<_> = names.iter().map(|n| (n.as_str(), "v")).collect();
    let decoder = decode(Protocol::V1, &request(vec![series(&pairs, &[(1, 1.0)])])).unwrap();
    assert_eq!(decoder.rejected.count(Reason::LabelSetTooLong), 1);
    let one = v2::TimeSeries { labels_refs: vec![1; 5000], samples: vec![Default::default()], ..Default::default() };
    let message = v2::Request { symbols: vec![String::new(), "a".into()], timeseries: vec![one] }.encode_to_vec();
    let decoder = decode(Protocol::V2, &message).unwrap();
    assert_eq!(decoder.rejected.count(Reason::LabelSetTooLong), 1);
}

#[test]
fn a_decoder_forgets_the_last_request() {
    let mut decoder = decode(Protocol::V1, &rich_v1()).unwrap();
    assert!(decoder.decode(Protocol::V1, &[0xff; 3], &tenant(), &DecodeLimits::default()).is_err());
    assert!(decoder.batch.series.is_empty() && decoder.batch.labels.is_empty());
    let body = snap::raw::Encoder::new().compress_vec(&rich_v2()).unwrap();
    decoder.decode(Protocol::V2, &body, &tenant(), &DecodeLimits::default()).unwrap();
    assert_eq!(plain(&decoder), plain(&decode(Protocol::V2, &rich_v2()).unwrap()));
}
