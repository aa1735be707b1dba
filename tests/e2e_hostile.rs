//! Queries that are made to break a node: each is answered with an error or a result, within its memory, and the node
//! stays up.
//!
//! `METROLITH_HOSTILE_SERIES` sets how many series the node holds (a million takes a release build: `METROLITH_BIN`).

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod support;

use std::time::Duration;

use serde_json::Value;
use support::node::{Node, Setup};
use support::writer::{Row, encode, send};
use support::{memory, now_ms, until};

/// Series of a short run.
const SERIES: usize = 20_000;
/// Series of a request that fills the node.
const BATCH: usize = 5_000;
/// What a query may take for each series of the node: all of them fit into an answer of one sample each.
const BYTES_PER_SERIES: u64 = 3_000;
/// What the process may take beyond that for a query: text and tree of the request, the answer on its way, pages the
/// allocator has not given back yet.
const BEYOND: u64 = 96 << 20;
/// The part of a budget that may go to the allocator's rounding: what is counted is what was asked of it.
const ROUNDING: u64 = 32;
/// How long the client waits. Nothing below depends on it: an answer that takes longer is taken for none.
const PATIENCE: Duration = Duration::from_secs(240);

struct Hostile {
    node: Node,
    client: reqwest::Client,
    series: usize,
    budget: u64,
    now: i64,
}

/// What has to come back.
enum Want {
    /// A status, and a part of the answer.
    Says(u16, &'static str),
    /// A result with so many rows.
    Rows(usize),
    /// A result, or an error about limits.
    ResultOrLimit,
    /// An error about limits, or, where the budget has room for reading to the end, this one.
    LimitOr(&'static str),
}
use Want::{LimitOr, ResultOrLimit, Rows, Says};

impl Hostile {
    async fn start(dir: &std::path::Path) -> Self {
        let series = std::env::var("METROLITH_HOSTILE_SERIES").map_or(SERIES, |n| n.parse().unwrap());
        let budget = (series as u64 * BYTES_PER_SERIES).max(128 << 20);
        let setup = Setup::new(dir)
            .flag("query-max-bytes", &budget.to_string())
            .flag("query-max-total-bytes", &(budget + budget / 2).to_string())
            .flag("query-timeout", "120s")
            .flag("query-features", "promql-experimental-functions");
        let node = setup.start().await;
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        let hostile = Self { node, client, series, budget, now: now_ms() };
        for first in (0..series).step_by(BATCH) {
            let rows: Vec<Row<'_>> = (first..(first + BATCH).min(series)).map(|n| hostile.row(n)).collect();
            let (status, said) = send(&hostile.node.api, encode(&rows)).await.unwrap();
            assert!((200..300).contains(&status), "{status}: {said}");
        }
        hostile
    }

    fn row(&self, n: usize) -> Row<'static> {
        let labels = vec![
            ("__name__", format!("m{}", n % 10)),
            ("instance", format!("host-{:03}.example:9100", n % 500)),
            ("job", "hostile".to_owned()),
            ("n", n.to_string()),
        ];
        (labels, vec![(self.now - 15_000, n as f64), (self.now, n as f64 + 1.0)])
    }

    fn seconds(&self) -> String {
        (self.now / 1000 + 1).to_string()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, String) {
        let answer = self.client.post(format!("{}/api/v1/{path}", self.node.api.url)).form(form).send().await;
        let answer = answer.unwrap_or_else(|e| panic!("{path}: {e:?}"));
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Asks, and looks at answer and memory.
    async fn ask(&self, name: &str, path: &str, form: &[(&str, &str)], want: Want) {
        let pid = self.node.program.pid();
        let before = memory::reset_peak(pid);
        let (status, said) = self.post(path, form).await;
        let grown = memory::peak(pid).saturating_sub(before);
        let short: String = said.chars().take(200).collect();
        println!("{name}: {status}, {} KiB more, {} bytes: {short}", grown >> 10, said.len());
        let may = self.budget + self.budget / ROUNDING + BEYOND;
        assert!(grown <= may, "{name}: took {grown} bytes, may take {may}");
        let limits = ["max_bytes", "its budget of", "too many samples", "too large"];
        // 800,000 operations on a column of each of 100,000 series take longer than a query may.
        let timed_out = self.series > SERIES && status == 503 && said.contains("query timed out");
        let limit = timed_out || (matches!(status, 400 | 422) && limits.iter().any(|part| said.contains(part)));
        match want {
            Says(code, part) => assert!(status == code && said.contains(part), "{name}: {status}: {short}"),
            Rows(n) => {
                assert_eq!(status, 200, "{name}: {short}");
                let reply: Value = serde_json::from_str(&said).unwrap();
                let data = if reply["data"].is_array() { &reply["data"] } else { &reply["data"]["result"] };
                assert_eq!(data.as_array().unwrap().len(), n, "{name}: {short}");
            }
            ResultOrLimit => assert!(status == 200 || limit, "{name}: {status}: {short}"),
            LimitOr(part) => assert!(limit || (status == 400 && said.contains(part)), "{name}: {status}: {short}"),
        }
    }

    async fn instant(&self, name: &str, query: &str, want: Want) {
        self.ask(name, "query", &[("query", query), ("time", &self.seconds())], want).await;
    }

    async fn range(&self, name: &str, query: &str, steps: i64, want: Want) {
        let (end, start) = (self.now / 1000, self.now / 1000 - steps + 1);
        let form = [("query", query), ("start", &start.to_string()), ("end", &end.to_string()), ("step", "1")];
        self.ask(name, "query_range", &form, want).await;
    }

    /// A small query and a write work, and nothing is left of what was asked before.
    async fn is_well(&self) {
        let api = &self.node.api;
        let found = api.instant("m1{n=\"1\"}", self.now).await.unwrap();
        assert_eq!(found[0]["value"][1], "2", "{found}");
        let t = self.now + 1;
        let (status, said) =
            send(api, encode(&[(vec![("__name__", "well".to_owned())], vec![(t, 7.0)])])).await.unwrap();
        assert!((200..300).contains(&status), "{status}: {said}");
        assert_eq!(api.instant("well", t).await.unwrap()[0]["value"][1], "7");
        self.idle().await;
    }

    /// Waits until no query is under way: one that was given up ends on its own.
    async fn idle(&self) {
        until("queries to end", Duration::from_secs(600), || async {
            let (_, listed) = self.node.api.get("/api/v1/status/active_queries").await.ok()?;
            let listed: Value = serde_json::from_str(&listed).ok()?;
            listed["data"].as_array().is_some_and(Vec::is_empty).then_some(())
        })
        .await;
    }
}

/// `open`, `n` times, around `inner`.
fn nested(open: &str, inner: &str, close: &str, n: usize) -> String {
    format!("{}{inner}{}", open.repeat(n), close.repeat(n))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_and_long_texts_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let of = Hostile::start(dir.path()).await;
    let terms = |term: &dyn Fn(usize) -> String, n: usize| (0..n).map(term).collect::<Vec<_>>().join("+");
    let range = "[5m:1m]";
    for (name, query, want) in [
        ("400,000 parentheses", nested("(", "1", ")", 400_000), ResultOrLimit),
        ("parentheses that stay open", "(".repeat(800_000), LimitOr("unclosed left parenthesis")),
        ("minuses", "-".repeat(800_000) + "m1", ResultOrLimit),
        ("minuses before a number", "-".repeat(800_000) + "1", ResultOrLimit),
        ("functions", nested("abs(", "m1{n=\"1\"}", ")", 160_000), ResultOrLimit),
        ("aggregations", nested("sum(", "m1{n=\"1\"}", ")", 160_000), ResultOrLimit),
        ("subqueries", nested("sum_over_time(", "m1{n=\"1\"}", &format!("{range})"), 1_000), ResultOrLimit),
        ("a tree to the right", "2^".repeat(300_000) + "1", ResultOrLimit),
        ("100,000 numbers", terms(&|n| n.to_string(), 100_000), ResultOrLimit),
        ("100,000 selectors of what is there", terms(&|n| format!("m1{{n=\"{}1\"}}", n % 99), 100_000), ResultOrLimit),
        ("100,000 selectors of nothing", terms(&|n| format!("x{n}"), 100_000), ResultOrLimit),
        ("20,000 vectors", terms(&|_| "vector(1)".to_owned(), 20_000), Rows(1)),
    ] {
        of.instant(name, &query, want).await;
    }
    of.range("100,000 numbers on 11,000 steps", &terms(&|n| n.to_string(), 100_000), 11_000, ResultOrLimit).await;
    of.range("20,000 vectors on 11,000 steps", &terms(&|_| "vector(1)".to_owned(), 20_000), 11_000, ResultOrLimit)
        .await;
    // What is too long is refused before all of it is read: the client may notice that first.
    let form = [("query", "1+".repeat(3 << 20))];
    let asked = of.client.post(format!("{}/api/v1/query", of.node.api.url)).form(&form).send().await;
    assert!(asked.map_or_else(|e| !e.is_timeout(), |answer| answer.status().as_u16() == 400));
    let parentheses = nested("(", "1", ")", 400_000);
    for path in ["parse_query", "format_query"] {
        of.ask(path, path, &[("query", &parentheses)], Says(400, "is not shown")).await;
    }
    of.is_well().await;
    of.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_over_everything_stay_within_their_memory() {
    let dir = tempfile::tempdir().unwrap();
    let of = Hostile::start(dir.path()).await;
    let (n, all) = (of.series, "{__name__=~\".+\"}");
    of.instant("everything", "{__name__=~\".*\"}", Says(400, "at least one non-empty matcher")).await;
    of.instant("a sample of everything", all, Rows(n)).await;
    let ones = "many-to-many matching not allowed";
    for (name, query, want) in [
        ("count", format!("count({all})"), Rows(1)),
        ("sum by n", format!("sum by (n) ({all})"), Rows(n)),
        ("sort", format!("sort_desc({all})"), ResultOrLimit),
        ("sort by label", format!("sort_by_label({all}, \"n\")"), ResultOrLimit),
        ("topk", format!("topk(1000000, {all})"), ResultOrLimit),
        ("quantile by n", format!("quantile by (n) (0.5, {all})"), ResultOrLimit),
        ("count_values", format!("count_values(\"v\", {all})"), ResultOrLimit),
        ("group_left", format!("{all} * on(n) group_left(job) {all}"), ResultOrLimit),
        ("a join of everything with everything", format!("{all} * on() {all}"), Says(422, ones)),
        ("the same with group_left", format!("{all} * on(job) group_left {all}"), Says(422, ones)),
        ("and", format!("{all} and on(n) {all}"), ResultOrLimit),
        ("or", format!("{all} or ignoring(n) {all}"), ResultOrLimit),
        ("label_replace", format!("label_replace({all}, \"m\", \"$1$1\", \"n\", \"(.*)\")"), ResultOrLimit),
        ("label_join", format!("label_join({all}, \"m\", \"-\", \"n\", \"instance\")"), ResultOrLimit),
        ("quantiles of what is no histogram", format!("histogram_quantile(0.5, {all})"), ResultOrLimit),
        ("info", format!("info({all}, {{__name__=~\"m.\"}})"), ResultOrLimit),
        ("rate", format!("rate({all}[5m])"), ResultOrLimit),
        ("a range of everything", format!("{all}[1h]"), ResultOrLimit),
        ("a subquery of everything", format!("max_over_time({all}[1h:1s])"), ResultOrLimit),
    ] {
        of.instant(name, &query, want).await;
    }
    of.range("everything on 60 steps", all, 60, ResultOrLimit).await;
    of.range("everything on 11,000 steps", all, 11_000, Says(422, "bytes")).await;
    of.range("a count of it", &format!("count({all})"), 60, ResultOrLimit).await;
    of.range("a join of it", &format!("{all} * on() group_left {all}"), 60, Says(422, ones)).await;
    let matches: Vec<(&str, &str)> = (0..2000).map(|_| ("match[]", all)).chain([("limit", "3")]).collect();
    of.ask("2,000 match[]", "series", &matches, Rows(3)).await;
    of.ask("2,000 match[] of names", "labels", &matches, Rows(3)).await;
    let different: Vec<String> = (0..30).map(|i| format!("{{__name__=~\".+\",x!=\"{i}\"}}")).collect();
    let different: Vec<(&str, &str)> = different.iter().map(|m| ("match[]", m.as_str())).collect();
    of.ask("30 that are different", "series", &different, Rows(n)).await;
    of.ask("all series", "series", &[("match[]", all)], Rows(n)).await;
    let many: Vec<(&str, &str)> = vec![("match[]", all); 20_000];
    of.ask("20,000 match[]", "series", &many, Says(400, "more than 10000 parameters")).await;
    let (status, said) = of.node.api.get(&format!("/federate?{}", vec!["match[]=m1"; 1000].join("&"))).await.unwrap();
    assert!(status == 200 || said.contains("max_bytes"), "{status}");
    of.is_well().await;
    of.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_ranges_patterns_and_labels_that_explode_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let of = Hostile::start(dir.path()).await;
    let year = |step: &'static str| [("start", "0"), ("end", "31536000"), ("step", step)];
    let points = "exceeded maximum resolution of 11,000 points";
    for (step, query, want) in [
        ("1", "up", Says(400, points)),
        ("1", "vector(1)", Says(400, points)),
        ("0.001", "rate(up[1y])", Says(400, points)),
        ("2866.5", "up", Says(400, points)),
        ("2867", "up", Rows(0)),
        ("2867", "vector(1)", Rows(1)),
        ("2867", "m1[1y:1s]", Says(400, "invalid expression type")),
    ] {
        let [start, end, step] = year(step);
        of.ask("a year in steps", "query_range", &[("query", query), start, end, step], want).await;
    }
    for (name, query, want) in [
        ("rate over a year", "rate(m1{n=\"1\"}[1y])".to_owned(), Rows(1)),
        ("a year of seconds", "count_over_time(m1{n=\"1\"}[1y:1s])".to_owned(), ResultOrLimit),
        ("a year of seconds of ones", "sum_over_time(vector(1)[1y:1s])".to_owned(), ResultOrLimit),
        ("a year of milliseconds", "sum_over_time(vector(1)[1y:1ms])".to_owned(), Says(422, "too many samples")),
        ("years in years", "sum_over_time(sum_over_time(m1[1y:1s])[1y:1s])".to_owned(), ResultOrLimit),
        ("a hundred years", "last_over_time(m1[100y])".to_owned(), ResultOrLimit),
    ] {
        of.instant(name, &query, want).await;
    }
    of.range("days in days", "max_over_time(max_over_time(vector(1)[1h:1s])[1h:1s])", 60, Rows(1)).await;
    let words = |n: usize| (0..n).map(|i| format!("w{i}")).collect::<Vec<_>>().join("|");
    for (name, pattern, want) in [
        ("nested quantifiers", "(((.*)*)*)*x".to_owned(), Rows(0)),
        ("many quantifiers", "(.*.*.*.*.*.*.*.*)+x".to_owned(), Rows(0)),
        ("repeated repetitions", "((a{100}){100}){100}".to_owned(), Says(400, "invalid repeat count")),
        ("a pattern that is too large", "\\\\pL{1000}x*".to_owned(), Says(400, "expression too large")),
        ("deep groups", nested("(", "a", ")", 50_000), Rows(0)),
        ("deep repetitions", nested("(?:", "a", ")*", 50_000), Says(400, "nests too deeply")),
        ("a list of words", words(20_000), Rows(0)),
        ("words in between", format!(".*({}).*", words(2_000)), Rows(0)),
        ("words in any case", format!("(?i)({})", words(2_000)), Rows(0)),
    ] {
        of.instant(name, &format!("{{n=~\"{pattern}\"}}"), want).await;
    }
    let patterns: Vec<String> = (0..200).map(|i| format!("n=~\"[\\\\pL{i}]{{40}}\"")).collect();
    of.instant("many patterns", &format!("{{{}}}", patterns.join(",")), Says(400, "regular expressions")).await;
    let joined = nested("label_join(", "m1{n=\"1\"}", ",\"n\",\"\",\"n\",\"n\")", 40);
    of.instant("a label that doubles", &joined, Says(422, "label value of")).await;
    let replaced = nested("label_replace(", "m1", ",\"n\",\"$0$0$0$0\",\"n\",\".*\")", 40);
    of.instant("labels that grow by four", &replaced, Says(422, "bytes")).await;
    let long = "x".repeat(900_000);
    of.instant("long labels", &format!("label_replace(m1,\"y\",\"{long}\",\"n\",\".*\")"), Says(422, "bytes")).await;
    of.is_well().await;
    of.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_that_nobody_waits_for_end() {
    let dir = tempfile::tempdir().unwrap();
    let of = Hostile::start(dir.path()).await;
    let all = "{__name__=~\".+\"}";
    let heavy = [
        format!("{all} * on(n, instance, job) group_left {all}"),
        format!("sort_by_label({all}, \"n\")"),
        format!("label_replace({all}, \"m\", \"$1\", \"n\", \"(.*)*(.*)*\")"),
        format!("count({{n=~\"{}\"}})", "(.{0,9}){0,90}x"),
        "quantile_over_time(0.5, quantile_over_time(0.5, vector(time())[1d:1s])[1d:1s])".to_owned(),
        "1+".repeat(100_000) + "1",
    ];
    for query in &heavy {
        // By its own time limit.
        let form = [("query", query.as_str()), ("time", &of.seconds()), ("timeout", "10ms")];
        let (status, said) = of.post("query", &form).await;
        assert!(status == 503 || status == 200, "{status}: {said}");
        of.idle().await;
        // By a client that goes away.
        let asked = of.post("query", &form[..2]);
        assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err() || status == 200, "{query}");
        of.idle().await;
    }
    // By its id.
    let slow = heavy[4].clone();
    let form = [("query", slow.as_str()), ("time", "0")];
    let (asked, ()) = tokio::join!(of.post("query", &form), async {
        let id = until("the query to be listed", Duration::from_secs(60), || async {
            let (_, listed) = of.node.api.get("/api/v1/status/active_queries").await.ok()?;
            let listed: Value = serde_json::from_str(&listed).ok()?;
            listed["data"][0]["id"].as_str().map(str::to_owned)
        })
        .await;
        let url = format!("{}/api/v1/status/active_queries/{id}", of.node.api.url);
        assert!(of.client.delete(url).send().await.unwrap().status().is_success());
    });
    assert!(asked.1.contains("query was canceled"), "{}: {}", asked.0, asked.1);
    of.is_well().await;
    of.node.stop().await;
}
