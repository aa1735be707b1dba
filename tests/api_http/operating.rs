//! What operators and tools ask of a node: its queries, its series, its settings.

use super::requests::{metric, series};
use super::{Reply, Served, now_ms};

async fn ask(node: &Served, path: &str) -> serde_json::Value {
    let reply = node.ask(path, &[]).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    reply.json()["data"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_active_query_is_listed_for_its_tenant_and_cancelled_by_id() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    assert_eq!(ask(&node, "status/active_queries").await, serde_json::json!([]));
    // Takes minutes, and looks after each term whether it should stop.
    let query = vec!["vector(time())"; 50_000].join(" + ");
    let form = [("query", query.as_str()), ("start", "0"), ("end", "10000"), ("step", "1")];
    let post = node.client.post(format!("{}/api/v1/query_range", node.url)).form(&form);
    let answer = tokio::spawn(async move { Reply::of(post.send().await.unwrap()).await });
    let listed = loop {
        let listed = ask(&node, "status/active_queries").await;
        if listed[0].is_object() {
            break listed[0].clone();
        }
    };
    assert_eq!((listed["query"].as_str(), listed["tenant"].as_str()), (Some(query.as_str()), Some("anonymous")));
    assert_eq!((&listed["kind"], &listed["end"], &listed["step"]), (&"range".into(), &1e4.into(), &1.0.into()));
    assert!(listed["age"].as_f64().unwrap() >= 0.0 && listed["peakBytes"].is_u64(), "{listed}");
    let id = listed["id"].as_str().unwrap();

    let others = node.ask_as(Some("other"), "status/active_queries", &[]).await.json();
    assert_eq!(others["data"], serde_json::json!([]));
    let path = format!("{}/api/v1/status/active_queries/{id}", node.url);
    let stranger = node.client.delete(&path).header("X-Scope-OrgID", "other").send().await.unwrap();
    assert_eq!(stranger.status(), 404);
    assert_eq!(ask(&node, "admin/active_queries").await[0]["id"], listed["id"]);
    assert_eq!(node.client.delete(&path).send().await.unwrap().status(), 204);
    let answer = answer.await.unwrap();
    let canceled = r#"{"status":"error","errorType":"canceled","error":"query was canceled in expression evaluation"}"#;
    assert_eq!((answer.status, answer.body.as_str()), (499, canceled));
    let none = format!("{}/api/v1/admin/active_queries/xyz", node.url);
    let reply = Reply::of(node.client.delete(none).send().await.unwrap()).await;
    assert_eq!((reply.status, reply.json()["error"].as_str()), (404, Some("no active query has the id \"xyz\"")));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_paths_are_served_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start_with(dir.path(), &[("enable_admin_api", "false")], &[]).await;
    let off =
        r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled (setting enable_admin_api)"}"#;
    for path in ["flush", "active_queries"] {
        let post = node.client.post(format!("{}/api/v1/admin/{path}", node.url)).send().await.unwrap();
        let reply = Reply::of(post).await;
        assert_eq!((reply.status, reply.body.as_str(), reply.header("retry-after")), (500, off, ""));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_stay_within_the_memory_of_a_query() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start_with(dir.path(), &[("query.max_bytes", "1MiB")], &[]).await;
    let t = now_ms() - 60_000;
    let long = "x".repeat(500);
    let row = |i: u32| series(&[("__name__", "wide"), ("id", &format!("{long}{i}"))], &[(t, 1.0)]);
    let reply = node.write((0..4000).map(row).collect()).await;
    assert_eq!(reply.status, 204, "{}", reply.body);
    for (path, parameters) in [
        ("series", &[("match[]", "wide")][..]),
        ("series", &[("match[]", "wide"), ("limit", "1")]),
        ("label/id/values", &[]),
        ("status/tsdb", &[]),
    ] {
        let reply = node.ask(path, parameters).await;
        assert_eq!((reply.status, reply.json()["errorType"].as_str()), (422, Some("execution")), "{path}");
        assert!(reply.body.contains("query.max_bytes is 1048576"), "{}", reply.body);
    }
    // What is held is given back.
    assert_eq!(ask(&node, "labels").await, serde_json::json!(["__name__", "id"]));
    assert_eq!(node.ask("series", &[("match[]", &format!("wide{{id=\"{long}7\"}}"))]).await.status, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_name_what_there_is_most_of() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    let empty = ask(&node, "status/tsdb").await;
    assert_eq!(empty["headStats"]["minTime"], i64::MAX);
    assert_eq!(empty["seriesCountByMetricName"], serde_json::json!([]));
    let t = now_ms() / 10_000 * 10_000 - 60_000;
    let row = |i: u32| series(&[("__name__", "many"), ("pod", &format!("pod-{i}"))], &[(t, 1.0), (t + 1, 2.0)]);
    let rows = (0..12).map(row).chain([metric("few", &[(t + 5, 1.0)])]).collect();
    assert_eq!(node.write(rows).await.status, 204);
    let all = ask(&node, "status/tsdb").await;
    assert_eq!(
        all["headStats"],
        serde_json::json!({"numSeries": 13, "numLabelPairs": 14, "chunkCount": 13, "minTime": t, "maxTime": t + 5})
    );
    assert_eq!(
        all["seriesCountByMetricName"],
        serde_json::json!([{"name": "many", "value": 12}, {"name": "few", "value": 1}])
    );
    assert_eq!(
        all["labelValueCountByLabelName"],
        serde_json::json!([{"name": "pod", "value": 12}, {"name": "__name__", "value": 2}])
    );
    // Ten times five bytes and twice six; twelve times four and once three.
    assert_eq!(
        all["memoryInBytesByLabelName"],
        serde_json::json!([{"name": "pod", "value": 62}, {"name": "__name__", "value": 51}])
    );
    assert_eq!(all["seriesCountByLabelValuePair"].as_array().unwrap().len(), 10);
    assert_eq!(all["seriesCountByLabelValuePair"][0], serde_json::json!({"name": "__name__=many", "value": 12}));
    let first = node.ask("status/tsdb", &[("limit", "1")]).await.json();
    assert_eq!(first["data"]["seriesCountByMetricName"].as_array().unwrap().len(), 1);
    for (limit, error) in [
        ("0", "limit must be a positive number"),
        ("x", "limit must be a positive number"),
        ("10001", "limit must not exceed 10000"),
    ] {
        let reply = node.ask("status/tsdb", &[("limit", limit)]).await;
        assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some(error)));
    }
    assert_eq!(ask(&node, "status/tsdb/blocks").await, serde_json::json!({"blocks": []}));
    node.flush().await;
    let blocks = ask(&node, "status/tsdb/blocks").await["blocks"].clone();
    let sum =
        |name: &str| -> u64 { blocks.as_array().unwrap().iter().map(|b| b["stats"][name].as_u64().unwrap()).sum() };
    assert_eq!((sum("numSamples"), sum("numSeries")), (25, 13));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_what_it_is_and_what_it_has_none_of() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    assert_eq!(ask(&node, "status/flags").await["shards"], "3");
    let runtime = ask(&node, "status/runtimeinfo").await;
    assert!(runtime["startTime"].as_str() <= runtime["serverTime"].as_str() && runtime["hostname"].is_string());
    assert_eq!(ask(&node, "status/walreplay").await, serde_json::json!({"min": 0, "max": 0, "current": 0}));
    let features = ask(&node, "features").await;
    assert_eq!(
        (&features["promql_functions"]["rate"], &features["promql_operators"]["@"]),
        (&true.into(), &true.into())
    );
    assert!(node.ask("features", &[]).await.body.contains(r#""<=":true"#), "not escaped for HTML");
    for (path, data) in [
        ("rules", r#"{"groups":[]}"#),
        ("rules?type=alert", r#"{"groups":[]}"#),
        ("alerts", r#"{"alerts":[]}"#),
        ("alertmanagers", r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#),
        ("targets?state=active", r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}"#),
        ("targets/metadata", "[]"),
        ("scrape_pools", r#"{"scrapePools":[]}"#),
        ("notifications", "[]"),
    ] {
        for prefix in ["/api/v1", "/prometheus/api/v1"] {
            let reply = node.get(&format!("{prefix}/{path}")).await;
            assert_eq!(reply.body, format!(r#"{{"status":"success","data":{data}}}"#), "{path}");
        }
    }
    let reply = node.ask("rules", &[("type", "none")]).await;
    assert_eq!(reply.json()["error"], "invalid parameter \"type\": not supported value \"none\"");
    let options = node.client.request(reqwest::Method::OPTIONS, format!("{}/api/v1/query", node.url));
    let reply = Reply::of(options.header("Origin", "http://a.example").send().await.unwrap()).await;
    assert_eq!((reply.status, reply.header("access-control-allow-methods")), (204, "GET, POST, OPTIONS"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_of_the_openapi_document_is_served_with_an_answer_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    let reply = node.get("/api/v1/openapi.yaml").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/yaml; charset=utf-8"));
    let document: serde_json::Value = serde_saphyr::from_str(&reply.body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let newer = node.get("/prometheus/api/v1/openapi.yaml?openapi_version=3.2").await;
    assert_eq!(newer.body, reply.body.replacen("3.1.0", "3.2.0", 1));
    assert_eq!(node.get("/api/v1/openapi.yaml?openapi_version=2").await.status, 400);

    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let at = format!("{}{}", node.url, path.replace("{name}", "job").replace("{id}", "none"));
            let request = node.client.request(method.to_uppercase().parse().unwrap(), at);
            let reply = Reply::of(request.send().await.unwrap()).await;
            assert!(reply.status != 405 && !reply.body.contains("no such path"), "{method} {path}: {reply:?}");
            let described = &operation["responses"][reply.status.to_string()];
            let success = (200..300).contains(&reply.status);
            let named = described.is_object() || (!success && operation["responses"]["default"].is_object());
            assert!(named, "{method} {path} answers {}, which the document does not name", reply.status);
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_its_metrics_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start(dir.path()).await;
    let families = ask(&node, "status/self_metrics").await;
    let families = families.as_array().unwrap();
    let page = node.get("/metrics").await.body;
    let named = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let (mut on_page, mut in_json): (Vec<_>, Vec<_>) =
        (named.collect(), families.iter().map(|f| f["name"].as_str().unwrap()).collect());
    on_page.sort_unstable();
    in_json.sort_unstable();
    assert_eq!(in_json, on_page);
    assert!(families.iter().all(|f| f["metric"].is_array() && f["type"].as_str().is_some_and(|t| t != "SUMMARY")));
    let some = ask(&node, "status/self_metrics?metric_name_pattern=process_(open|max)_fds").await;
    let some: Vec<_> = some.as_array().unwrap().iter().map(|f| (&f["name"], &f["type"])).collect();
    assert!(!some.is_empty() && some.iter().all(|(_, kind)| *kind == "GAUGE"), "{some:?}");
    assert!(
        some.len() < 3 && ask(&node, "status/self_metrics?metric_name_pattern=process").await == serde_json::json!([])
    );
    let wrong = node.get("/api/v1/status/self_metrics?metric_name_pattern=(").await;
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.json()["error"].as_str().unwrap().starts_with("invalid parameter \"metric_name_pattern\": "),
        "{wrong:?}"
    );
    node.stop().await;
}
