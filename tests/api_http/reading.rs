//! The reading side of the API: exact answers, and exact words for what is wrong.

use std::fmt::Write;

use super::requests::{metric, series};
use super::{Reply, Served};

/// A node with a few series of the last minutes.
struct Data {
    node: Served,
    _dir: tempfile::TempDir,
    /// The first sample, on a full ten seconds, milliseconds.
    t: i64,
}

impl Data {
    /// Four series: `up{job="a|b"}` at t and t+10 s, `odd` with a name of its own in UTF-8, `big` beyond plain decimals.
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same with settings.
    async fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Served::start_with(dir.path(), settings, &[]).await;
        let t = super::now_ms() / 10_000 * 10_000 - 600_000;
        let up = |job: &str, value: f64| {
            series(&[("__name__", "up"), ("job", job)], &[(t, value), (t + 10_000, value + 1.0)])
        };
        let odd = series(&[("__name__", "odd"), ("http.code", "<2\"0\">")], &[(t, 0.1)]);
        let reply = node.write(vec![up("a", 1.0), up("b", 2.0), odd, metric("big", &[(t, 1e21)])]).await;
        assert_eq!(reply.status, 204, "{}", reply.body);
        Self { node, _dir: dir, t }
    }

    /// A text in which `@n` stands for n seconds after the first sample.
    fn at(&self, text: &str) -> String {
        let mut out = String::new();
        let mut parts = text.split('@');
        out.push_str(parts.next().unwrap());
        for part in parts {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            if digits == 0 {
                let _ = write!(out, "@{part}");
                continue;
            }
            let _ = write!(out, "{}{}", self.t / 1000 + part[..digits].parse::<i64>().unwrap(), &part[digits..]);
        }
        out
    }

    /// Asks for `path?parameters` (`a=1&b=2`, not encoded).
    async fn ask(&self, request: &str) -> Reply {
        let request = self.at(request);
        let (path, parameters) = request.split_once('?').unwrap_or((&request, ""));
        let pairs: Vec<(&str, &str)> = parameters.split('&').filter_map(|p| p.split_once('=')).collect();
        self.node.ask(path, &pairs).await
    }

    /// Compares the whole body of a success.
    async fn answers(&self, request: &str, data: &str) {
        let reply = self.ask(request).await;
        assert_eq!(reply.body, self.at(&format!(r#"{{"status":"success","data":{data}}}"#)), "{request}");
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{request}");
    }

    /// Compares the whole body of an error.
    async fn refuses(&self, request: &str, status: u16, error_type: &str, error: &str) {
        let reply = self.ask(request).await;
        let body = serde_json::json!({"status": "error", "errorType": error_type, "error": error}).to_string();
        assert_eq!((reply.status, reply.body), (status, body), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_have_the_shape_of_prometheus() {
    let data = Data::new().await;
    let vector = |result: &str| format!(r#"{{"resultType":"vector","result":[{result}]}}"#);
    let matrix = |result: &str| format!(r#"{{"resultType":"matrix","result":[{result}]}}"#);
    let a = r#"{"metric":{"__name__":"up","job":"a"},"value":[@10,"2"]}"#;
    let b = r#"{"metric":{"__name__":"up","job":"b"},"value":[@10,"3"]}"#;
    for (request, expected) in [
        ("query?query=up&time=@10", vector(&format!("{a},{b}"))),
        ("query?query=up{job=\"b\"}&time=@10", vector(b)),
        ("query?query=nothing&time=@10", vector("")),
        ("query?query=big&time=@0", vector(r#"{"metric":{"__name__":"big"},"value":[@0,"1e+21"]}"#)),
        (
            "query?query=odd&time=@0",
            vector(r#"{"metric":{"__name__":"odd","http.code":"<2\"0\">"},"value":[@0,"0.1"]}"#),
        ),
        ("query?query=1e21&time=@0.25", r#"{"resultType":"scalar","result":[@0.25,"1000000000000000000000"]}"#.into()),
        ("query?query=\"hi\"&time=@0", r#"{"resultType":"string","result":[@0,"hi"]}"#.into()),
        (
            "query?query=up{job=\"a\"}[20s]&time=@10",
            matrix(r#"{"metric":{"__name__":"up","job":"a"},"values":[[@0,"1"],[@10,"2"]]}"#),
        ),
        (
            "query_range?query=up{job=\"a\"}&start=@0&end=@20&step=10",
            matrix(r#"{"metric":{"__name__":"up","job":"a"},"values":[[@0,"1"],[@10,"2"],[@20,"2"]]}"#),
        ),
        ("query_range?query=2&start=@0&end=@5&step=5s", matrix(r#"{"metric":{},"values":[[@0,"2"],[@5,"2"]]}"#)),
        // What lies before the lookback is gone.
        ("query?query=up&time=@20&lookback_delta=10s", vector("")),
        ("query?query=count(up)&time=@20&lookback_delta=11", vector(r#"{"metric":{},"value":[@20,"2"]}"#)),
        ("query?query=count(up)&time=@20&lookback_delta=0&timeout=10s", vector(r#"{"metric":{},"value":[@20,"2"]}"#)),
        ("query?query=vector(1)&time=9e15", vector(r#"{"metric":{},"value":[2305843009213693.951,"1"]}"#)),
        ("series?match[]=up", r#"[{"__name__":"up","job":"a"},{"__name__":"up","job":"b"}]"#.into()),
        ("series?match[]=up{job=\"a\"}&match[]=big", r#"[{"__name__":"big"},{"__name__":"up","job":"a"}]"#.into()),
        ("series?match[]=up&start=@0&end=@10", r#"[{"__name__":"up","job":"a"},{"__name__":"up","job":"b"}]"#.into()),
        ("series?match[]=up&start=0&end=1", "[]".into()),
        ("labels", r#"["__name__","http.code","job"]"#.into()),
        ("labels?match[]=up", r#"["__name__","job"]"#.into()),
        ("label/__name__/values", r#"["big","odd","up"]"#.into()),
        ("label/job/values?match[]=up{job!=\"a\"}", r#"["b"]"#.into()),
        ("label/U__http_2e_code/values", r#"["\u003c2\"0\"\u003e"]"#.into()),
        ("label/none/values", "[]".into()),
        ("metadata", "{}".into()),
        ("format_query?query=sum by(job)(up)", r#""sum by (job) (up)""#.into()),
        ("parse_query?query=1", r#"{"type":"numberLiteral","val":"1"}"#.into()),
    ] {
        data.answers(request, &expected).await;
    }
    let build = data.ask("status/buildinfo").await.json();
    assert_eq!(build["data"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(data.ask("status/config").await.json()["data"]["yaml"].as_str().unwrap().contains("shards: 3"));
    data.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_in_the_words_of_prometheus() {
    let data = Data::new().await;
    let timestamp = |name: &str, text: &str| {
        format!(
            "invalid parameter \"{name}\": invalid time value for '{name}': cannot parse \"{text}\" to a valid timestamp"
        )
    };
    let (time, start, end) = (timestamp("time", "soon"), timestamp("start", "soon"), timestamp("end", "NaN"));
    let too_many =
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
    for (request, error) in [
        ("query", "invalid parameter \"query\": unknown position: parse error: no expression found in input"),
        ("query?query=sum(", "invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis"),
        ("query?query=up&time=soon", &*time),
        ("query?query=up&limit=abc", "invalid parameter \"limit\": strconv.Atoi: parsing \"abc\": invalid syntax"),
        ("query?query=up&limit=-1", "invalid parameter \"limit\": limit must be non-negative"),
        ("query?query=up&timeout=abc", "invalid parameter \"timeout\": cannot parse \"abc\" to a valid duration"),
        (
            "query?query=up&lookback_delta=abc",
            "error parsing lookback delta duration: cannot parse \"abc\" to a valid duration",
        ),
        ("query_range?query=up&end=10&step=1", "invalid parameter \"start\": cannot parse \"\" to a valid timestamp"),
        (
            "query_range?query=up&start=0&end=x&step=1",
            "invalid parameter \"end\": cannot parse \"x\" to a valid timestamp",
        ),
        (
            "query_range?query=up&start=10&end=5&step=1",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (
            "query_range?query=up&start=0&end=10&step=0",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "query_range?query=up&start=0&end=10&step=-1",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "query_range?query=up&start=0&end=10&step=abc",
            "invalid parameter \"step\": cannot parse \"abc\" to a valid duration",
        ),
        (
            "query_range?query=up&start=0&end=10&step=1e30",
            "invalid parameter \"step\": cannot parse \"1e30\" to a valid duration. It overflows int64",
        ),
        ("query_range?query=up&start=0&end=11001&step=1", too_many),
        ("query_range?query=up&start=-9e15&end=9e15&step=1", too_many),
        (
            "query_range?query=up[5m]&start=0&end=60&step=15",
            "invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
        ),
        ("series", "no match[] parameter provided"),
        (
            "series?match[]=up{",
            "invalid parameter \"match[]\": 1:4: parse error: unexpected end of input inside braces",
        ),
        (
            "series?match[]={job=~\".*\"}",
            "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
        ),
        ("series?match[]=up&start=soon", &*start),
        ("labels?match[]=up{", "1:4: parse error: unexpected end of input inside braces"),
        ("labels?end=NaN", &*end),
        ("label/job/values?match[]={}", "match[] must contain at least one non-empty matcher"),
        ("metadata?limit=some", "limit must be a number"),
        ("metadata?limit_per_metric=few", "limit_per_metric must be a number"),
        ("format_query?query=sum(", "invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis"),
    ] {
        data.refuses(request, 400, "bad_data", error).await;
    }
    data.refuses("query?query=up&timeout=0", 503, "timeout", "query timed out in expression evaluation").await;
    data.refuses("no/such", 404, "not_found", "no such path: /api/v1/no/such").await;
    let many = "many-to-many matching not allowed: matching labels must be unique on one side";
    let reply = data.ask("query?query=up * on() up&time=@0").await;
    assert!(reply.status == 422 && reply.json()["errorType"] == "execution", "{}", reply.body);
    assert!(reply.body.contains(many) || reply.body.contains("duplicate series"), "{}", reply.body);
    data.answers("query_range?query=up&start=0&end=11000&step=1", r#"{"resultType":"matrix","result":[]}"#).await;
    data.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_cut_and_say_so() {
    let data = Data::new().await;
    let cut = r#","warnings":["results truncated due to limit"]}"#;
    for (request, expected) in [
        (
            "query?query=up&time=@10&limit=1",
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[@10,"2"]}]}"#,
        ),
        (
            "query_range?query=up&start=@0&end=@0&step=1&limit=1",
            r#"{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"a"},"values":[[@0,"1"]]}]}"#,
        ),
        ("series?match[]=up&limit=1", r#"[{"__name__":"up","job":"a"}]"#),
        ("labels?limit=2", r#"["__name__","http.code"]"#),
        ("label/__name__/values?limit=2", r#"["big","odd"]"#),
    ] {
        let reply = data.ask(request).await;
        assert_eq!(reply.body, data.at(&format!(r#"{{"status":"success","data":{expected}{cut}"#)), "{request}");
    }
    data.answers("labels?limit=3", r#"["__name__","http.code","job"]"#).await;
    data.answers("labels?limit=0", r#"["__name__","http.code","job"]"#).await;
    data.answers("query?query=1&limit=1&time=0", r#"{"resultType":"scalar","result":[0,"1"]}"#).await;
    data.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_may_come_in_every_form() {
    let data = Data::new().await;
    let (node, expected) = (&data.node, data.ask("query?query=sum(up)&time=@10").await.body);
    assert!(expected.contains("\"5\""), "{expected}");
    let time = data.at("@10");
    assert_eq!(node.post_form("query", &[("query", "sum(up)"), ("time", &time)]).await.body, expected);
    // URL and form merge; the form wins.
    let merged = node.post_form(&format!("query?time={time}&query=up"), &[("query", "sum(up)")]).await;
    assert_eq!(merged.body, expected);
    assert_eq!(node.get(&format!("/prometheus/api/v1/query?query=sum(up)&time={time}")).await.body, expected);
    for moment in
        [format!("{time}.0"), format!("{time}.0004"), rfc3339(data.t + 10_000, "Z"), rfc3339(data.t + 10_000, "+00:00")]
    {
        assert_eq!(node.ask("query", &[("query", "sum(up)"), ("time", &moment)]).await.body, expected, "{moment}");
    }
    for path in ["series", "labels"] {
        let (get, post) =
            (node.ask(path, &[("match[]", "up")]).await, node.post_form(path, &[("match[]", "up")]).await);
        assert_eq!((get.status, get.body), (200, post.body), "{path}");
    }
    let format = node.post_form("format_query", &[("query", "1+1")]).await;
    assert_eq!(format.body, r#"{"status":"success","data":"1 + 1"}"#);
    let reply = node.get("/prometheus/api/v1/nothing").await;
    assert_eq!((reply.status, reply.json()["errorType"].as_str()), (404, Some("not_found")));

    let get = node.client.get(format!("{}/api/v1/query_range?query=vector(time())&start=0&end=600&step=1", node.url));
    let packed = get.header("Accept-Encoding", "gzip").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert!(packed.headers()["vary"].to_str().unwrap().to_lowercase().contains("accept-encoding"));
    assert!(packed.bytes().await.unwrap().starts_with(&[0x1f, 0x8b]));

    let ask = |origin: &'static str| {
        let get = node.client.get(format!("{}/api/v1/query?query=1", node.url));
        if origin.is_empty() { get } else { get.header("Origin", origin) }
    };
    let foreign = Reply::of(ask("http://a.example").send().await.unwrap()).await;
    assert_eq!(foreign.header("access-control-allow-origin"), "http://a.example");
    assert_eq!(Reply::of(ask("").send().await.unwrap()).await.header("access-control-allow-origin"), "");
    data.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_tells_what_it_cost_when_asked() {
    let data = Data::new().await;
    let reply = data.ask("query_range?query=sum(up)&start=@0&end=@10&step=10&stats=all").await.json();
    assert_eq!(reply["data"]["result"][0]["values"].as_array().unwrap().len(), 2);
    let stats = &reply["data"]["stats"];
    assert_eq!(stats["samples"]["samplesRead"], 4, "{stats}");
    assert!(stats["samples"]["peakSamples"].as_u64().unwrap() > 0, "{stats}");
    let timings = stats["timings"].as_object().unwrap();
    let names: Vec<&str> = timings.keys().map(String::as_str).collect();
    let expected = ["evalTotalTime", "resultSortTime", "queryPreparationTime", "innerEvalTime", "execQueueTime"];
    assert_eq!(names, [&expected[..], &["execTotalTime"]].concat());
    let of = |name: &str| timings[name].as_f64().unwrap();
    assert!(of("execTotalTime") >= of("innerEvalTime") && of("innerEvalTime") > 0.0, "{stats}");
    data.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_are_counted_on_each_step_as_prometheus_counts_them() {
    let data = Data::with(&[("query.features", "promql-per-step-stats")]).await;
    // Query, steps from 0, 10, …; samples used on each step; those no step before had used.
    let rows: [(&str, &[u64], &[u64]); 7] = [
        ("sum(up)", &[2, 2, 2], &[2, 2, 2]),
        ("up + up", &[4, 4, 4], &[4, 4, 4]),
        ("rate(up[15s])", &[2, 4, 2], &[2, 2, 0]),
        ("sum(up @ end())", &[2, 2, 2], &[2, 0, 0]),
        ("vector(1)", &[0, 0, 0], &[0, 0, 0]),
        ("count_over_time(up{job=\"a\"}[20s:10s])", &[1, 2, 2], &[1, 1, 1]),
        ("count_over_time(up{job=\"a\"}[20s:5s] @ 0)", &[0, 0, 0], &[0, 0, 0]),
    ];
    for (query, queryable, read) in rows {
        let reply = data.ask(&format!("query_range?query={query}&start=@0&end=@20&step=10&stats=all")).await.json();
        let samples = &reply["data"]["stats"]["samples"];
        let steps = |name: &str| -> Vec<u64> {
            let list = samples[name].as_array().unwrap_or_else(|| panic!("{query}: {reply}"));
            assert_eq!(
                list.iter().map(|s| s[0].as_i64().unwrap()).collect::<Vec<_>>(),
                [0, 10, 20].map(|s| data.t / 1000 + s)
            );
            list.iter().map(|s| s[1].as_u64().unwrap()).collect()
        };
        assert_eq!(
            (steps("totalQueryableSamplesPerStep"), steps("samplesReadPerStep")),
            (queryable.to_vec(), read.to_vec()),
            "{query}"
        );
        assert_eq!(samples["totalQueryableSamples"], queryable.iter().sum::<u64>(), "{query}");
        assert_eq!(samples["samplesRead"], read.iter().sum::<u64>(), "{query}");
    }
    let total = data.ask("query?query=up[1m]&time=@20&stats=true").await.json();
    assert_eq!(total["data"]["stats"]["samples"]["totalQueryableSamples"], 4);
    assert!(total["data"]["stats"]["samples"].get("samplesReadPerStep").is_none() && total.get("warnings").is_none());
    assert_eq!(total["data"]["stats"]["storage"]["seriesRead"], 2);
    let other = data.ask("query?query=up&time=@20&stats=yes").await.json();
    assert!(other["data"]["stats"].is_object() && other["warnings"][0].as_str().unwrap().contains("deprecated"));
    data.node.stop().await;
}

fn rfc3339(ms: i64, zone: &str) -> String {
    let text = jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
    text.replace('Z', zone)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_node_answer() {
    let data = Data::new().await;
    let node = &data.node;
    for (path, text) in [
        ("/-/ready", "Metrolith is ready.\n"),
        ("/ready", "Metrolith is ready.\n"),
        ("/-/healthy", "Metrolith is healthy.\n"),
    ] {
        let reply = node.get(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, text));
        assert_eq!(node.client.head(format!("{}{path}", node.url)).send().await.unwrap().status(), 200);
    }
    let plain = node.get("/metrics").await;
    assert!(plain.header("content-type").starts_with("text/plain"), "{:?}", plain.headers);
    assert!(
        plain.body.contains("\nmetrolith_written_samples_total{tenant=\"anonymous\"} 6\n")
            && !plain.body.contains("# EOF")
    );
    let get = node
        .client
        .get(format!("{}/metrics", node.url))
        .header("Accept", "application/openmetrics-text; version=1.0.0");
    let open = Reply::of(get.send().await.unwrap()).await;
    assert!(open.header("content-type").starts_with("application/openmetrics-text"), "{:?}", open.headers);
    assert!(open.body.ends_with("# EOF\n") && open.body.contains("# TYPE metrolith_written_samples counter"));
    assert_eq!(node.get("/").await.status, 200);
    let reply = node.get("/nothing").await;
    assert_eq!(reply.body, r#"{"status":"error","errorType":"not_found","error":"no such path: /nothing"}"#);
    data.node.stop().await;
}
