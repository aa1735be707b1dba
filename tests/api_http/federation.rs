//! Exemplars, federation and remote read: what other servers and Grafana take besides answers of queries.

use metrolith::model::stale_nan;
use metrolith::proto::client::{BucketSpan, MetricFamily, MetricType};
use metrolith::proto::prometheus as v1;
use metrolith::proto::prometheus::label_matcher::Type;
use metrolith::proto::prometheus::read_request::ResponseType;
use prost::Message;

use super::requests::{Request2, V2, compress, metric, series};
use super::{Reply, Served, now_ms, seconds};

fn exemplar(trace: &str, value: f64, timestamp: i64) -> v1::Exemplar {
    let labels = vec![v1::Label { name: "trace_id".into(), value: trace.into() }];
    v1::Exemplar { labels, value, timestamp }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exemplars_of_heads_and_blocks_are_found_once_by_the_selectors_of_a_query() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    let t = now_ms() / 10_000 * 10_000 - 600_000;
    let with = |job: &str, t: i64, exemplars: Vec<v1::Exemplar>| v1::TimeSeries {
        exemplars,
        ..series(&[("__name__", "hits"), ("job", job)], &[(t, 1.0)])
    };
    let first = vec![with("a", t, vec![exemplar("<1>", 0.5, t)]), with("b", t, vec![exemplar("2", 1e21, t + 250)])];
    assert_eq!(node.write(first).await.status, 204);
    node.flush().await;
    assert_eq!(node.write(vec![with("a", t + 10_000, vec![exemplar("3", 2.0, t + 10_000)])]).await.status, 204);
    let expect = async |parameters: &[(&str, &str)], data: &str| {
        let reply = node.ask("query_exemplars", parameters).await;
        let at = |ms| seconds(t + ms);
        let data = data.replace("@10", &at(10_000)).replace("@0.25", &at(250)).replace("@0", &at(0));
        assert_eq!((reply.status, reply.body), (200, format!(r#"{{"status":"success","data":{data}}}"#)));
    };
    let a = r#"{"seriesLabels":{"__name__":"hits","job":"a"},"exemplars":[{"labels":{"trace_id":"<1>"},"value":"0.5","timestamp":@0},{"labels":{"trace_id":"3"},"value":"2","timestamp":@10}]}"#;
    let b = r#"{"seriesLabels":{"__name__":"hits","job":"b"},"exemplars":[{"labels":{"trace_id":"2"},"value":"1e+21","timestamp":@0.25}]}"#;
    expect(&[("query", "rate(hits[5m]) / hits{job=\"a\"}")], &format!("[{a},{b}]")).await;
    expect(&[("query", "hits{job=\"b\"} or none")], &format!("[{b}]")).await;
    let (start, end) = (seconds(t + 1), seconds(t + 9_999));
    expect(&[("query", "hits"), ("start", &start), ("end", &end)], &format!("[{b}]")).await;
    expect(&[("query", "none")], "[]").await;
    let posted = node.post_form("query_exemplars", &[("query", "hits{job=\"b\"}")]).await;
    assert!(posted.status == 200 && posted.body.contains("1e+21"), "{}", posted.body);
    let nothing = node.ask("query_exemplars", &[("query", "1 + 1")]).await;
    assert_eq!((nothing.status, nothing.body.as_str()), (204, ""));
    for (parameters, error) in [
        (&[("query", "hits{")][..], "1:6: parse error: unexpected end of input inside braces"),
        (&[("query", "hits"), ("start", "2"), ("end", "1")], "end timestamp must not be before start timestamp"),
    ] {
        let reply = node.ask("query_exemplars", parameters).await;
        assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some(error)));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn federation_gives_the_newest_samples_that_are_neither_old_nor_stale() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    let t = now_ms() / 1000 * 1000 - 60_000;
    let labels = |job: &'static str| [("__name__", "up"), ("job", job)];
    let rows = vec![
        series(&labels("b"), &[(t, 1.0), (t + 10_000, 1234567.0)]),
        series(&labels("a\"\\\n"), &[(t, f64::NAN)]),
        series(&labels("ended"), &[(t, 1.0), (t + 1000, stale_nan())]),
        series(&labels("old"), &[(t - 600_000, 1.0)]),
        metric("alone", &[(t, f64::INFINITY)]),
        series(&[("__name__", "http.requests"), ("a.b", "c")], &[(t, 0.5)]),
    ];
    assert_eq!(node.write(rows).await.status, 204);
    let mut request = Request2::new();
    let histogram = metrolith::proto::write_v2::Histogram {
        count: Some(metrolith::proto::write_v2::histogram::Count::CountInt(4)),
        sum: 20.0,
        schema: -53,
        zero_count: Some(metrolith::proto::write_v2::histogram::ZeroCount::ZeroCountInt(0)),
        positive_spans: vec![metrolith::proto::write_v2::BucketSpan { offset: 0, length: 3 }],
        positive_deltas: vec![1, 0, 1],
        custom_values: vec![1.0, 2.5],
        timestamp: t,
        ..Default::default()
    };
    let of = |histogram| metrolith::proto::write_v2::TimeSeries { histograms: vec![histogram], ..Default::default() };
    request.push(&[("__name__", "lat"), ("zone", "z")], of(histogram.clone()));
    let exponential = metrolith::proto::write_v2::Histogram { schema: 0, custom_values: vec![], ..histogram };
    request.push(&[("__name__", "exp")], of(exponential));
    assert_eq!(node.send(V2, request.body()).await.status, 204);

    let federate = async |accept: &str| {
        let matches = [("match[]", "{__name__=~\".+\"}"), ("match[]", "up{job=\"b\"}")];
        let get = node.client.get(format!("{}/federate", node.url)).query(&matches).header("Accept", accept);
        Reply::of(get.send().await.unwrap()).await
    };
    let expected = |odd: &str| {
        format!(
            "# TYPE alone untyped\nalone +Inf {t}\n{odd}\
             # TYPE lat histogram\nlat_bucket{{zone=\"z\",le=\"1\"}} 1 {t}\nlat_bucket{{zone=\"z\",le=\"2.5\"}} 2 {t}\n\
             lat_bucket{{zone=\"z\",le=\"+Inf\"}} 4 {t}\nlat_sum{{zone=\"z\"}} 20 {t}\nlat_count{{zone=\"z\"}} 4 {t}\n\
             # TYPE up untyped\nup{{job=\"a\\\"\\\\\\n\"}} NaN {t}\nup{{job=\"b\"}} 1.234567e+06 {}\n",
            t + 10_000
        )
    };
    let plain = federate("text/plain").await;
    let odd = format!("# TYPE http_requests untyped\nhttp_requests{{a_b=\"c\"}} 0.5 {t}\n");
    assert_eq!((plain.status, plain.body.as_str()), (200, expected(&odd).as_str()));
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let quoted = federate("text/plain; version=1.0.0; escaping=allow-utf-8").await;
    let odd = format!("# TYPE \"http.requests\" untyped\n{{\"http.requests\",\"a.b\"=\"c\"}} 0.5 {t}\n");
    assert_eq!(quoted.body, expected(&odd));
    let nothing = node.get("/prometheus/federate").await;
    assert_eq!((nothing.status, nothing.body.as_str()), (200, ""));
    assert_eq!(node.get("/federate?match[]=up{").await.status, 400);
    node.stop().await;
}

/// A histogram of two buckets beside each other, with the counts 3 and 1, and one in the zero bucket.
fn native(t: i64) -> v1::Histogram {
    v1::Histogram {
        count: Some(v1::histogram::Count::CountInt(5)),
        sum: 7.5,
        schema: 2,
        zero_threshold: 0.01,
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountInt(1)),
        positive_spans: vec![v1::BucketSpan { offset: -3, length: 2 }],
        positive_deltas: vec![3, -2],
        timestamp: t,
        ..v1::Histogram::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn federation_in_messages_has_native_histograms_too() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    let t = now_ms() / 1000 * 1000 - 60_000;
    let with = |name: &str, job: &str, histogram| v1::TimeSeries {
        histograms: vec![histogram],
        ..series(&[("__name__", name), ("job", job)], &[])
    };
    let floats = v1::Histogram {
        count: Some(v1::histogram::Count::CountFloat(1.5)),
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountFloat(0.25)),
        positive_deltas: vec![],
        positive_counts: vec![1.0, 0.25],
        reset_hint: v1::histogram::ResetHint::Gauge as i32,
        ..native(t)
    };
    let empty = v1::Histogram {
        count: Some(v1::histogram::Count::CountInt(0)),
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountInt(0)),
        timestamp: t,
        ..v1::Histogram::default()
    };
    let custom = v1::Histogram {
        schema: -53,
        zero_threshold: 0.0,
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountInt(0)),
        positive_spans: vec![v1::BucketSpan { offset: 0, length: 3 }],
        positive_deltas: vec![2, -2, 3],
        custom_values: vec![1.0, 2.5],
        ..native(t)
    };
    let rows = vec![
        with("h", "a", native(t)),
        with("h", "b", empty),
        with("gauge", "a", floats),
        with("custom", "a", custom),
        series(&[("__name__", "up"), ("a.b", "<c>")], &[(t, f64::NAN)]),
    ];
    assert_eq!(node.write(rows).await.status, 204);

    let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let federate = async |accept: &str| {
        let get = node.client.get(format!("{}/federate", node.url)).query(&[("match[]", "{__name__!=\"\"}")]);
        let answer = get.header("Accept", accept).send().await.unwrap();
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let body = answer.bytes().await.unwrap();
        let (mut rest, mut families) = (&body[..], Vec::new());
        while !rest.is_empty() {
            families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
        }
        (content_type, families)
    };
    let (content_type, families) = federate(&format!("{kind}, text/plain;q=0.5")).await;
    assert_eq!(content_type, kind);
    let shapes: Vec<_> = families.iter().map(|f| (f.name.as_str(), f.r#type(), f.metric.len())).collect();
    let expected = [
        ("custom", MetricType::Histogram, 1),
        ("gauge", MetricType::GaugeHistogram, 1),
        ("h", MetricType::Histogram, 2),
        ("up", MetricType::Untyped, 1),
    ];
    assert_eq!(shapes, expected);
    assert!(families.iter().flat_map(|f| &f.metric).all(|m| m.timestamp_ms == t));
    let [custom, gauge, h, up] = &families[..] else { panic!("{families:?}") };
    let buckets = custom.metric[0].histogram.as_ref().unwrap().bucket.iter();
    let buckets: Vec<_> = buckets.map(|b| (b.upper_bound, b.cumulative_count)).collect();
    assert_eq!(buckets, [(1.0, 2), (2.5, 2), (f64::INFINITY, 5)]);
    let gauge = gauge.metric[0].histogram.as_ref().unwrap();
    assert_eq!((gauge.sample_count_float, gauge.zero_count_float, gauge.sample_count), (1.5, 0.25, 0));
    assert_eq!((&gauge.positive_count, gauge.positive_delta.len()), (&vec![1.0, 0.25], 0));
    let [filled, empty] = [0, 1].map(|at| h.metric[at].histogram.as_ref().unwrap());
    assert_eq!((filled.schema, filled.zero_threshold, filled.sample_sum), (2, 0.01, 7.5));
    assert_eq!((filled.sample_count, filled.zero_count, &filled.positive_delta), (5, 1, &vec![3, -2]));
    assert_eq!(filled.positive_span, [BucketSpan { offset: -3, length: 2 }]);
    assert_eq!(empty.positive_span, [BucketSpan::default()], "else it would be a classic one");
    let up = &up.metric[0];
    assert!(up.untyped.as_ref().unwrap().value.is_nan());
    assert_eq!((up.label[0].name.as_str(), up.label[0].value.as_str()), ("a_b", "<c>"));
    let (content_type, families) = federate(&format!("{kind}; escaping=allow-utf-8")).await;
    assert_eq!(
        (content_type, families[3].metric[0].label[0].name.as_str()),
        (format!("{kind}; escaping=allow-utf-8"), "a.b")
    );
    node.stop().await;
}

fn request(matchers: &[(Type, &str, &str)], range: (i64, i64), accepted: &[ResponseType]) -> v1::ReadRequest {
    let matcher =
        |(t, n, v): &(Type, &str, &str)| v1::LabelMatcher { r#type: *t as i32, name: (*n).into(), value: (*v).into() };
    let query = v1::Query {
        start_timestamp_ms: range.0,
        end_timestamp_ms: range.1,
        matchers: matchers.iter().map(matcher).collect(),
        hints: None,
    };
    v1::ReadRequest { queries: vec![query], accepted_response_types: accepted.iter().map(|t| *t as i32).collect() }
}

async fn read(node: &Served, request: &v1::ReadRequest) -> reqwest::Response {
    let body = compress(&request.encode_to_vec());
    node.client.post(format!("{}/api/v1/read", node.url)).body(body).send().await.unwrap()
}

/// Splits a streamed answer into its messages, checking each frame.
fn frames(mut body: &[u8]) -> Vec<v1::ChunkedReadResponse> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let length = prost::encoding::decode_varint(&mut body).unwrap() as usize;
        let (sum, rest) = body.split_at(4);
        let (message, rest) = rest.split_at(length);
        assert_eq!(sum, crc32c::crc32c(message).to_be_bytes());
        out.push(v1::ChunkedReadResponse::decode(message).unwrap());
        body = rest;
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_read_answers_in_samples_and_in_chunks() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283, "the Castagnoli polynomial");
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    let t = now_ms() / 10_000 * 10_000 - 3_000_000;
    let samples: Vec<(i64, f64)> = (0..250).map(|i| (t + i * 10_000, i as f64)).collect();
    let mut histogram = metric("h", &[]);
    histogram.histograms.push(v1::Histogram {
        count: Some(v1::histogram::Count::CountInt(3)),
        sum: 3.5,
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountInt(0)),
        positive_spans: vec![v1::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![2, -1],
        timestamp: t,
        ..v1::Histogram::default()
    });
    let up = |job: &str| series(&[("__name__", "up"), ("job", job)], &samples);
    let gone = metric("gone", &[(t, 1.0), (t + 1, stale_nan())]);
    assert_eq!(node.write(vec![up("b"), up("a"), histogram, gone]).await.status, 204);

    let any = [(Type::Re, "__name__", "up|h|gone"), (Type::Neq, "job", "b")];
    let range = (t, t + 20_000);
    let answer = read(&node, &request(&any, range, &[])).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["content-encoding"]), (200, &"snappy".parse().unwrap()));
    assert_eq!(answer.headers()["content-type"], "application/x-protobuf");
    let raw = snap::raw::Decoder::new().decompress_vec(&answer.bytes().await.unwrap()).unwrap();
    let response = v1::ReadResponse::decode(&raw[..]).unwrap();
    let rows = &response.results[0].timeseries;
    let name = |row: &v1::TimeSeries| row.labels[0].value.clone();
    assert_eq!(rows.iter().map(name).collect::<Vec<_>>(), ["gone", "h", "up"]);
    assert_eq!(rows[0].samples[1].value.to_bits(), stale_nan().to_bits());
    let h = &rows[1].histograms[0];
    assert_eq!((h.count, &h.positive_deltas), (Some(v1::histogram::Count::CountInt(3)), &vec![2, -1]));
    let got: Vec<_> = rows[2].samples.iter().map(|s| (s.timestamp, s.value)).collect();
    assert_eq!((got, rows[2].labels.len()), (samples[..3].to_vec(), 2));

    let accepted = [ResponseType::StreamedXorChunks, ResponseType::Samples];
    let answer = read(&node, &request(&[(Type::Re, "__name__", "up|h")], (t, t + 3_000_000), &accepted)).await;
    assert_eq!(
        answer.headers()["content-type"],
        "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
    );
    let frames = frames(&answer.bytes().await.unwrap());
    let shapes: Vec<_> = frames
        .iter()
        .map(|f| {
            let series = &f.chunked_series[0];
            let chunks: Vec<_> = series
                .chunks
                .iter()
                .map(|c| (c.r#type, (c.min_time_ms - t) / 10_000, (c.max_time_ms - t) / 10_000, c.data[1]))
                .collect();
            (series.labels.last().unwrap().value.clone(), chunks)
        })
        .collect();
    let floats = vec![(1, 0, 119, 120), (1, 120, 239, 120), (1, 240, 249, 10)];
    assert_eq!(shapes, [("h".into(), vec![(3, 0, 0, 1)]), ("a".into(), floats.clone()), ("b".into(), floats)]);

    let none = read(&node, &request(&[(Type::Eq, "__name__", "none")], range, &accepted)).await;
    assert_eq!((none.status().as_u16(), none.bytes().await.unwrap().len()), (200, 0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_read_says_what_is_wrong_with_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    let send = async |body: Vec<u8>| {
        Reply::of(node.client.post(format!("{}/api/v1/read", node.url)).body(body).send().await.unwrap()).await
    };
    let bad_regex = request(&[(Type::Re, "a", "(")], (0, 1), &[]).encode_to_vec();
    let mut bad_type = request(&[(Type::Eq, "a", "b")], (0, 1), &[]);
    bad_type.queries[0].matchers[0].r#type = 9;
    let mut many = request(&[], (0, 1), &[]);
    many.queries = vec![v1::Query::default(); 1001];
    let foreign = v1::ReadRequest { accepted_response_types: vec![7], ..v1::ReadRequest::default() };
    for (body, said) in [
        (b"nonsense".to_vec(), "decompress request"),
        (vec![0xff, 0xff, 0xff, 0xff, 0x0f], "request declares 4294967295 bytes, at most 16777216 are read"),
        (compress(b"\xff\xff"), "decode request"),
        (compress(&bad_regex), "missing closing )"),
        (compress(&many.encode_to_vec()), "request has 1001 matchers, at most 1000 are taken"),
        (compress(&bad_type.encode_to_vec()), "invalid matcher type 9"),
        (compress(&foreign.encode_to_vec()), "does not support any of the requested response types: [7]"),
    ] {
        let reply = send(body).await;
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert!(reply.body.contains(said), "{}", reply.body);
    }
    node.stop().await;
}
