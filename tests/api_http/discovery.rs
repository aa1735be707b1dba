//! Finding out what there is: search as one types, and which labels make the most series.

use metrolith::proto::prometheus::{MetricMetadata, WriteRequest, metric_metadata::MetricType};
use prost::Message;

use super::requests::{compress, metric, series};
use super::{Served, now_ms};

async fn node_with_names(dir: &std::path::Path) -> Served {
    let node = Served::start(dir).await;
    let t = now_ms() - 60_000;
    let pod = |name: &str, pod: &str| series(&[("__name__", name), ("pod", pod)], &[(t, 1.0)]);
    let rows = vec![
        pod("node_cpu_seconds_total", "a"),
        pod("node_cpu_seconds_total", "b<"),
        pod("node_load1", "a"),
        metric("up", &[(t, 1.0)]),
    ];
    let metadata = vec![MetricMetadata {
        r#type: MetricType::Gauge as i32,
        metric_family_name: "up".into(),
        help: "whether it is <up>".into(),
        unit: String::new(),
    }];
    let request = WriteRequest { timeseries: rows, metadata };
    let reply = node.send("application/x-protobuf", compress(&request.encode_to_vec())).await;
    assert_eq!(reply.status, 204, "{}", reply.body);
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn search_answers_in_lines_with_what_fits_best() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with_names(dir.path()).await;
    let more = |more: bool| format!("{{\"status\":\"success\",\"has_more\":{more}}}\n");
    let expect = async |path: &str, parameters: &[(&str, &str)], lines: &str| {
        let reply = node.ask(&format!("search/{path}"), parameters).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, lines), "{path} {parameters:?}");
        assert_eq!(reply.header("content-type"), "application/x-ndjson; charset=utf-8");
        assert_eq!(node.post_form(&format!("search/{path}"), parameters).await.body, reply.body);
    };
    let all = r#"{"results":[{"name":"node_cpu_seconds_total"},{"name":"node_load1"},{"name":"up"}]}"#;
    expect("metric_names", &[], &format!("{all}\n{}", more(false))).await;
    let scored = r#"{"results":[{"name":"up","score":1.0}]}"#;
    let typed = [("search[]", "up"), ("sort_by", "score"), ("include_score", "true"), ("limit", "1")];
    // Letters of it occur in "node_cpu_seconds_total" only the other way round.
    expect("metric_names", &typed, &format!("{scored}\n{}", more(false))).await;
    let about = r#"{"results":[{"name":"up","type":"gauge","help":"whether it is \u003cup\u003e"}]}"#;
    let wanted = [("search[]", "UP"), ("case_sensitive", "false"), ("include_metadata", "1"), ("fuzz_threshold", "90")];
    expect("metric_names", &wanted, &format!("{about}\n{}", more(false))).await;
    let batches = "{\"results\":[{\"name\":\"b\\u003c\"}]}\n{\"results\":[{\"name\":\"a\"}]}\n";
    let downwards = [("label", "pod"), ("sort_by", "alpha"), ("sort_dir", "dsc"), ("batch_size", "1")];
    expect("label_values", &downwards, &format!("{batches}{}", more(false))).await;
    expect("label_values", &[("label", "pod"), ("match[]", "up")], &format!("{{\"results\":[]}}\n{}", more(false)))
        .await;
    expect("label_names", &[("limit", "1")], &format!("{{\"results\":[{{\"name\":\"__name__\"}}]}}\n{}", more(true)))
        .await;
    for (path, parameters, error) in [
        ("metric_names", &[("fuzz_threshold", "101")][..], "invalid fuzz_threshold \"101\": must be 0-100"),
        ("metric_names", &[("fuzz_alg", "x")], "unsupported fuzz_alg \"x\": must be one of [subsequence jarowinkler]"),
        ("metric_names", &[("sort_by", "x")], "invalid sort_by \"x\" for metric_names: must be \"alpha\" or \"score\""),
        ("metric_names", &[("sort_by", "score")], "sort_by=score requires search[] to be set"),
        ("metric_names", &[("sort_dir", "asc")], "sort_dir is only valid when sort_by is set"),
        ("metric_names", &[("include_metadata", "x")], "invalid include_metadata \"x\": must be boolean"),
        ("label_names", &[("limit", "-1")], "invalid limit \"-1\": must be non-negative integer"),
        ("label_names", &[("start", "x")], "invalid time value for 'start': cannot parse \"x\" to a valid timestamp"),
        ("label_values", &[], "missing required parameter \"label\""),
    ] {
        let reply = node.ask(&format!("search/{path}"), parameters).await;
        assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some(error)), "{path} {parameters:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cardinality_is_told_in_the_shapes_of_mimir() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with_names(dir.path()).await;
    let ask = async |path: &str, parameters: &[(&str, &str)]| {
        let reply = node.ask(&format!("cardinality/{path}"), parameters).await;
        (reply.status, reply.json())
    };
    let names = |total: u32, list: &[(&str, u32)]| {
        let list: Vec<_> =
            list.iter().map(|(n, v)| serde_json::json!({"label_name": n, "label_values_count": v})).collect();
        serde_json::json!({"label_values_count_total": total, "label_names_count": 2, "cardinality": list})
    };
    assert_eq!(ask("label_names", &[]).await, (200, names(5, &[("__name__", 3), ("pod", 2)])));
    assert_eq!(ask("label_names", &[("limit", "1")]).await, (200, names(5, &[("__name__", 3)])));
    let selector = ("selector", "{pod=\"a\"}");
    assert_eq!(ask("label_names", &[selector]).await, (200, names(3, &[("__name__", 2), ("pod", 1)])));
    let wanted = [("label_names[]", "none"), ("label_names[]", "pod")];
    assert_eq!(
        ask("label_values", &wanted).await,
        (
            200,
            serde_json::json!({"series_count_total": 4, "labels": [
                {"label_name": "pod", "label_values_count": 2, "series_count": 3, "cardinality": [
                    {"label_value": "a", "series_count": 2}, {"label_value": "b<", "series_count": 1}]},
                {"label_name": "none", "label_values_count": 0, "series_count": 0, "cardinality": []},
            ]})
        )
    );
    for (path, parameters, error) in [
        ("label_names", &[("limit", "501")][..], "'limit' param cannot be greater than '500'"),
        (
            "label_names",
            &[("selector", "{")],
            "invalid parameter \"selector\": 1:2: parse error: unexpected end of input inside braces",
        ),
        ("label_values", &[], "'label_names[]' param is required"),
        (
            "label_values",
            &[("label_names[]", "a"), ("count_method", "x")],
            "invalid 'count_method' param: must be one of [inmemory active]",
        ),
    ] {
        let (status, reply) = ask(path, parameters).await;
        assert_eq!((status, reply["error"].as_str()), (400, Some(error)));
    }
    let limits = node.get("/prometheus/api/v1/user_limits").await.json();
    assert_eq!(limits["max_global_series_per_user"], 2_000_000);
    assert_eq!(node.get("/api/prom/api/v1/label/pod/values").await.json()["data"], serde_json::json!(["a", "b<"]));
    node.stop().await;
}
