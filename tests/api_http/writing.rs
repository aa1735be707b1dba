//! Remote write: what is stored and stays, what is refused and how that is said.

use std::sync::Arc;

use futures::future::join_all;
use metrolith::block::{BlockReader, FileRef, Kind};
use metrolith::config::Limits;
use metrolith::model::{TenantId, stale_nan};
use metrolith::proto::prometheus::{self as v1, metric_metadata::MetricType};
use metrolith::proto::write_v2 as v2;
use metrolith::store::{self, Bucket, Tables};
use prost::Message;

use super::requests::{Request2, V2, body, compress, metric, series};
use super::{Served, now_ms, seconds};

const STORED: u16 = 204;

/// A moment of the recent past, on a full ten seconds, with room for what is late and for what follows.
fn recent() -> i64 {
    now_ms() / 10_000 * 10_000 - 600_000
}

/// Six observations: two in (-1,-0.5], one around zero, one in (0.5,1], two in (1,2].
fn integer_histogram(t: i64) -> v1::Histogram {
    v1::Histogram {
        count: Some(v1::histogram::Count::CountInt(6)),
        sum: 3.5,
        schema: 0,
        zero_threshold: 0.001,
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountInt(1)),
        negative_spans: vec![v1::BucketSpan { offset: 0, length: 1 }],
        negative_deltas: vec![2],
        positive_spans: vec![v1::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 1],
        timestamp: t,
        ..v1::Histogram::default()
    }
}

/// Half an observation in (1,2], a quarter in (4,8].
fn float_histogram(t: i64) -> v2::Histogram {
    v2::Histogram {
        count: Some(v2::histogram::Count::CountFloat(0.75)),
        sum: 1.5,
        zero_count: Some(v2::histogram::ZeroCount::ZeroCountFloat(0.0)),
        positive_spans: vec![v2::BucketSpan { offset: 1, length: 1 }, v2::BucketSpan { offset: 1, length: 1 }],
        positive_counts: vec![0.5, 0.25],
        timestamp: t,
        ..v2::Histogram::default()
    }
}

/// Bounds 1 and 2.5: one below, one between, two above.
fn custom_histogram(t: i64) -> v2::Histogram {
    v2::Histogram {
        count: Some(v2::histogram::Count::CountInt(4)),
        sum: 20.0,
        schema: -53,
        zero_count: Some(v2::histogram::ZeroCount::ZeroCountInt(0)),
        positive_spans: vec![v2::BucketSpan { offset: 0, length: 3 }],
        positive_deltas: vec![1, 0, 1],
        custom_values: vec![1.0, 2.5],
        timestamp: t,
        ..v2::Histogram::default()
    }
}

async fn write_version_1(node: &Served, t: i64) {
    let mut histogram = metric("h_int", &[]);
    histogram.histograms.push(integer_histogram(t));
    let mut with_exemplar = series(&[("__name__", "one"), ("job", "a")], &[(t, 1.0), (t + 10_000, 1.5)]);
    let trace = v1::Label { name: "trace_id".into(), value: "abc".into() };
    with_exemplar.exemplars.push(v1::Exemplar { labels: vec![trace], value: 1.0, timestamp: t });
    let ended = metric("ended", &[(t, 1.0), (t + 10_000, stale_nan())]);
    let about = v1::MetricMetadata {
        r#type: MetricType::Gauge as i32,
        metric_family_name: "one".into(),
        help: "The first \"one\"".into(),
        unit: String::new(),
    };
    let request = v1::WriteRequest { timeseries: vec![with_exemplar, ended, histogram], metadata: vec![about] };
    let reply = node.send("application/x-protobuf", compress(&request.encode_to_vec())).await;
    assert_eq!((reply.written(), reply.body.as_str()), ((STORED, ["4", "1", "1"]), ""));
}

async fn write_version_2(node: &Served, t: i64) {
    let mut request = Request2::new();
    let (help, unit) = (request.symbol("Counts twos"), request.symbol("twos"));
    let exemplar = v2::Exemplar { labels_refs: request.labels(&[("trace_id", "def")]), value: 3.0, timestamp: t };
    let metadata = v2::Metadata { r#type: v2::metadata::MetricType::Counter as i32, help_ref: help, unit_ref: unit };
    let two = v2::TimeSeries {
        samples: vec![
            v2::Sample { value: 2.0, timestamp: t, start_timestamp: t - 5_000 },
            v2::Sample { value: 3.0, timestamp: t + 10_000, start_timestamp: t + 1 },
        ],
        exemplars: vec![exemplar],
        metadata: Some(metadata),
        ..v2::TimeSeries::default()
    };
    request.push(&[("__name__", "two_total"), ("job", "b")], two);
    for (name, histogram) in [("h_float", float_histogram(t)), ("h_custom", custom_histogram(t))] {
        request
            .push(&[("__name__", name)], v2::TimeSeries { histograms: vec![histogram], ..v2::TimeSeries::default() });
    }
    let reply = node.send(V2, request.body()).await;
    assert_eq!(reply.written(), (STORED, ["2", "2", "1"]), "{}", reply.body);
}

/// Everything that was written, as it must be answered wherever it lies.
async fn check_everything(node: &Served, t: i64) {
    let (at, later) = (seconds(t), seconds(t + 10_000));
    let sample =
        |labels: &str, value: &str, when: &str| format!(r#"[{{"metric":{{{labels}}},{value}}}]"#).replace('@', when);
    for (query, when, expected) in [
        ("one", t, sample(r#""__name__":"one","job":"a""#, r#""value":[@,"1"]"#, &at)),
        ("one", t + 10_000, sample(r#""__name__":"one","job":"a""#, r#""value":[@,"1.5"]"#, &later)),
        (
            "two_total[20s]",
            t + 10_000,
            format!(r#"[{{"metric":{{"__name__":"two_total","job":"b"}},"values":[[{at},"2"],[{later},"3"]]}}]"#),
        ),
        ("ended", t + 9_999, sample(r#""__name__":"ended""#, r#""value":[@,"1"]"#, &seconds(t + 9_999))),
        ("ended", t + 10_000, "[]".to_owned()),
        (
            "late[30s]",
            t + 20_000,
            format!(
                r#"[{{"metric":{{"__name__":"late"}},"values":[[{at},"1"],[{later},"2"],[{},"3"]]}}]"#,
                seconds(t + 20_000)
            ),
        ),
        (
            "h_int",
            t,
            sample(
                r#""__name__":"h_int""#,
                r#""histogram":[@,{"count":"6","sum":"3.5","buckets":[[1,"-1","-0.5","2"],[3,"-0.001","0.001","1"],[0,"0.5","1","1"],[0,"1","2","2"]]}]"#,
                &at,
            ),
        ),
        (
            "h_float",
            t,
            sample(
                r#""__name__":"h_float""#,
                r#""histogram":[@,{"count":"0.75","sum":"1.5","buckets":[[0,"1","2","0.5"],[0,"4","8","0.25"]]}]"#,
                &at,
            ),
        ),
        (
            "h_custom",
            t,
            sample(
                r#""__name__":"h_custom""#,
                r#""histogram":[@,{"count":"4","sum":"20","buckets":[[3,"-Inf","1","1"],[0,"1","2.5","1"],[0,"2.5","+Inf","2"]]}]"#,
                &at,
            ),
        ),
        ("histogram_count(h_int)", t, sample("", r#""value":[@,"6"]"#, &at)),
    ] {
        assert_eq!(node.instant(query, when).await, expected, "{query}");
    }
    let about = node.ask("metadata", &[]).await;
    assert_eq!(
        about.body,
        r#"{"status":"success","data":{"one":[{"type":"gauge","help":"The first \"one\"","unit":""}],"two_total":[{"type":"counter","help":"Counts twos","unit":"twos"}]}}"#
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_read_at_once_after_a_flush_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    let t = recent();
    write_version_1(&node, t).await;
    write_version_2(&node, t).await;
    // Out of order within the window, and the same sample twice.
    for (at, value) in [(t + 20_000, 3.0), (t, 1.0), (t + 10_000, 2.0), (t, 1.0)] {
        assert_eq!(node.write(vec![metric("late", &[(at, value)])]).await.written(), (STORED, ["1", "0", "0"]));
    }
    check_everything(&node, t).await;
    node.flush().await;
    check_everything(&node, t).await;
    node.stop().await;
    let node = Served::start(dir.path()).await;
    check_everything(&node, t).await;
    // The window of these is in the table already: a late generation of it, in which the sample committed first wins.
    for value in [1.0, 9.0] {
        let repeated = series(&[("__name__", "one"), ("job", "a")], &[(t, value)]);
        node.write(vec![repeated]).await;
        check_everything(&node, t).await;
    }
    assert_eq!(node.write(vec![metric("after", &[(t, 1.0)])]).await.status, STORED);
    assert_eq!(
        node.instant("after", t).await,
        format!(r#"[{{"metric":{{"__name__":"after"}},"value":[{},"1"]}}]"#, seconds(t))
    );
    node.flush().await;
    check_everything(&node, t).await;
    node.stop().await;
    starts_are_in_the_table(&dir.path().join("data/bucket"), t).await;
}

async fn starts_are_in_the_table(bucket: &std::path::Path, t: i64) {
    let bucket = Bucket::open_dir(bucket).unwrap();
    let tables = Tables::new(bucket.clone(), store::Metrics::default());
    let table = tables.latest(&TenantId::anonymous()).await.unwrap();
    let mut starts = Vec::new();
    for block in table.blocks() {
        let file = |f: &store::catalog::snapshot::BlockFile| FileRef {
            kind: Kind::parse(&f.kind).unwrap(),
            path: f.key.clone(),
            size: f.size,
        };
        let files = block.files.iter().map(file).collect();
        let reader = BlockReader::open(Arc::clone(bucket.store()), files).await.unwrap();
        let mut scan = reader.read_all(100);
        while let Some(found) = scan.next().await.unwrap() {
            let of = found.iter().filter(|s| s.labels.metric() == "two_total").map(|s| &s.samples);
            starts.extend(of.flat_map(|samples| (0..samples.len()).map(|i| (samples.timestamps[i], samples.start(i)))));
        }
    }
    assert_eq!(starts, [(t, t - 5_000), (t + 10_000, t + 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_write_request_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start_with(dir.path(), &[("write.max_body_bytes", "64KiB")], &[]).await;
    let good = body(vec![metric("m", &[(recent(), 1.0)])]);
    for content_type in
        ["application/json", "text/plain", "application/x-protobuf;proto=io.prometheus.write.v3.Request"]
    {
        let reply = node.send(content_type, good.clone()).await;
        assert_eq!(reply.status, 415, "{content_type}: {}", reply.body);
        assert!(reply.body.contains(content_type), "{}", reply.body);
    }
    let gzip =
        node.client.post(format!("{}/api/v1/write", node.url)).header("Content-Encoding", "gzip").body(good.clone());
    assert_eq!(gzip.send().await.unwrap().status(), 415);

    let inflated = [&[0xff, 0xff, 0x03][..], &[0; 10]].concat();
    for (what, bytes, words) in [
        ("no snappy", b"\xff\xff\xff\xff\xff\xff not snappy".to_vec(), "snappy"),
        ("a declared length that cannot be", inflated, "declare"),
        ("no protobuf", compress(b"\x0a\xff\xff\xff\xff\x0f"), "decode write request"),
        ("a long body", vec![0; (64 << 10) + 1], "write.max_body_bytes (65536)"),
        ("a body that grows too long", compress(&vec![0; 65 << 10]), "the limit is 65536"),
    ] {
        let reply = node.send("application/x-protobuf", bytes).await;
        assert_eq!(reply.status, 400, "{what}: {}", reply.body);
        assert!(reply.body.contains(words), "{what}: {}", reply.body);
    }
    assert_eq!(node.instant(r#"{__name__=~".+"}"#, now_ms()).await, "[]");
    // The other paths of writers.
    for path in ["push", "receive"] {
        let post = node.client.post(format!("{}/api/v1/{path}", node.url)).body(good.clone());
        assert_eq!(post.send().await.unwrap().status(), STORED, "{path}");
    }
    let reply = node.get("/api/v1/write").await;
    assert_eq!(reply.status, 405);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_samples_are_named_and_counted_while_the_good_ones_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("limits.max_label_names_per_series", "3"), ("limits.max_label_value_length", "40")];
    let node = Served::start_with(dir.path(), &settings, &[]).await;
    let t = recent();
    assert_eq!(node.write(vec![metric("old", &[(t, 1.0)])]).await.status, STORED);
    let many: Vec<(&str, &str)> = vec![("__name__", "many"), ("a", "1"), ("b", "1"), ("c", "1")];
    let long = "x".repeat(41);
    let future = now_ms() + 660_000;
    let too_old = t - 2 * 3_600_000;
    for (bad, reason, example) in [
        (series(&[("job", "x")], &[(t, 1.0)]), "missing_metric_name", "{job=\"x\"} has no metric name"),
        (series(&many, &[(t, 1.0)]), "max_label_names_per_series", "has 4 labels, the limit is 3"),
        (
            series(&[("__name__", "m"), ("l", &long)], &[(t, 1.0)]),
            "label_value_too_long",
            "of 41 bytes, the limit is 40",
        ),
        (series(&[("__name__", "m"), ("a", "1"), ("a", "2")], &[(t, 1.0)]), "duplicate_label_names", "a"),
        (metric("future", &[(future, 1.0)]), "too_far_in_future", "more than 600 s ahead"),
        (metric("old", &[(too_old, 1.0)]), "sample_too_old", "older than the out-of-order window"),
        (metric("old", &[(t, 2.0)]), "new_value_for_timestamp", "another value is stored for this timestamp of old"),
    ] {
        // The good sample comes after the bad one: nothing stops at the first fault.
        let name = format!("good_{reason}");
        let reply = node.write(vec![bad, metric(&name, &[(t, 7.0)])]).await;
        assert_eq!(reply.written(), (400, ["1", "0", "0"]), "{reason}: {}", reply.body);
        let counted = format!("1 sample rejected (1 {reason}); first: ");
        assert!(reply.body.starts_with(&counted) && reply.body.contains(example), "{reason}: {}", reply.body);
        assert!(reply.body.contains("(err-mimir-"), "{}", reply.body);
        assert_eq!(node.instant(&format!("{name} == 7"), t).await.matches("good_").count(), 1, "{reason}");
    }
    let at = seconds(t);
    assert_eq!(node.instant("old", t).await, format!(r#"[{{"metric":{{"__name__":"old"}},"value":[{at},"1"]}}]"#));
    let reply =
        node.write(vec![metric("far", &[(future, 1.0), (future, 2.0), (t, 1.0)]), series(&[], &[(t, 1.0)])]).await;
    assert_eq!(reply.written(), (400, ["1", "0", "0"]), "{}", reply.body);
    assert!(
        reply.body.starts_with("3 samples rejected (1 missing_metric_name, 2 too_far_in_future)"),
        "{}",
        reply.body
    );
    bad_series_of_version_2_are_named(&node, t).await;
    let pages = node.get("/metrics").await.body;
    let counted = r#"metrolith_rejected_samples_total{reason="sample_too_old",tenant="anonymous"} 1"#;
    assert!(pages.contains(counted), "{counted}");
    node.stop().await;
}

/// A histogram whose buckets are not its count, a label that refers to no symbol, and a good series.
async fn bad_series_of_version_2_are_named(node: &Served, t: i64) {
    let of = |h: v2::Histogram| v2::TimeSeries { histograms: vec![h], ..v2::TimeSeries::default() };
    let sample = v2::Sample { value: 1.0, timestamp: t, start_timestamp: 0 };
    let mut request = Request2::new();
    request.push(&[("__name__", "h_bad")], of(v2::Histogram { positive_deltas: vec![1], ..custom_histogram(t) }));
    request.push_raw(v2::TimeSeries { labels_refs: vec![90, 91], samples: vec![sample], ..v2::TimeSeries::default() });
    request.push(&[("__name__", "h_good")], of(custom_histogram(t)));
    let reply = node.send(V2, request.body()).await;
    assert_eq!(reply.written(), (400, ["0", "1", "0"]), "{}", reply.body);
    let counted = "2 samples rejected (1 label_invalid, 1 native_histogram_invalid); first: ";
    assert!(reply.body.starts_with(counted), "{}", reply.body);
    assert_eq!(node.instant("count({__name__=~\"h_.*\"})", t).await.matches(r#","1"]"#).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_see_only_their_own_and_their_limits_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let limited = Limits { max_global_series_per_user: 10, ..Limits::default() };
    let node = Served::start_with(dir.path(), &[], &[("limited", limited)]).await;
    let t = recent();
    for (tenant, value) in [("team-a", 1.0), ("team-b", 2.0)] {
        assert_eq!(node.write_as(tenant, vec![metric("m", &[(t, value)])]).await.status, STORED);
    }
    let at = seconds(t);
    let only = |value: &str| format!(r#"[{{"metric":{{"__name__":"m"}},"value":[{at},"{value}"]}}]"#);
    assert_eq!(node.instant_as(Some("team-a"), "m", t).await, only("1"));
    assert_eq!(node.instant_as(Some("team-b"), "m", t).await, only("2"));
    assert_eq!(node.instant("m", t).await, "[]");
    let reply = node.ask_as(Some("team-a"), "label/__name__/values", &[]).await;
    assert_eq!(reply.body, r#"{"status":"success","data":["m"]}"#);
    for bad in ["a/b", "..", "a|b", ""] {
        let reply = node.ask_as(Some(bad), "query", &[("query", "1")]).await;
        assert_eq!(reply.status, 400, "{bad:?}");
        assert!(reply.json()["error"].as_str().unwrap().starts_with("X-Scope-OrgID: tenant id"), "{}", reply.body);
        assert_eq!(node.write_as(bad, vec![metric("m", &[(t, 1.0)])]).await.status, 400, "{bad:?}");
    }

    // 25 series in five requests at once: ten are let in, wherever they hash to.
    let names: Vec<String> = (0..25).map(|i| i.to_string()).collect();
    let requests = names.chunks(5).map(|part| {
        let series = part.iter().map(|n| series(&[("__name__", "s"), ("n", n)], &[(t, 1.0)])).collect();
        node.write_as("limited", series)
    });
    let replies = join_all(requests).await;
    let mut stored = 0;
    for reply in &replies {
        let (status, [samples, ..]) = reply.written();
        let samples: u64 = samples.parse().unwrap();
        stored += samples;
        if status == 429 {
            let counted = format!(
                "{} rejected (",
                if samples == 4 { "1 sample".into() } else { format!("{} samples", 5 - samples) }
            );
            assert!(reply.body.starts_with(&counted) && reply.body.contains("per_user_series_limit"), "{}", reply.body);
            assert_eq!(reply.header("Retry-After"), "5");
        } else {
            assert_eq!((status, samples), (STORED, 5), "{}", reply.body);
        }
    }
    assert_eq!(stored, 10);
    assert!(node.instant_as(Some("limited"), "count(s)", t).await.contains(r#""10"]"#));
    // Series that are there may go on.
    let known: serde_json::Value = serde_json::from_str(&node.instant_as(Some("limited"), "s", t).await).unwrap();
    let known = known[0]["metric"]["n"].as_str().unwrap();
    let more = vec![series(&[("__name__", "s"), ("n", known)], &[(t + 1000, 2.0)])];
    assert_eq!(node.write_as("limited", more).await.status, STORED);
    node.stop().await;
}
