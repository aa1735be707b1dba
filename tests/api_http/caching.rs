//! Range queries through the results cache, and the same past it: the answers are equal to the last byte.
//!
//! `METROLITH_CASES=500` makes it a long run, `METROLITH_SEED` (up to 255) another one.

use std::collections::BTreeSet;

use metrolith::config::Limits;
use metrolith::proto::prometheus as v1;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::requests::series;
use super::{Served, now_ms, seconds};

/// Distance of scrapes, milliseconds.
const SCRAPE: i64 = 15_000;
/// How late samples may come, milliseconds.
const LATE: i64 = 120_000;

/// Of every kind: kept and not, with and without annotations, sums whose last bits tell their order.
const QUERIES: &[&str] = &[
    "g",
    "g > 0",
    "sum(g)",
    "avg by (job) (g)",
    "stddev(g)",
    "stdvar({__name__=~\"g|m_total\"})",
    "stdvar(sum by (pod) (g))",
    "stdvar by (job) (g - ignoring (x) m_total)",
    "stdvar(-(g * 3))",
    "sum(rate(m_total[1m]))",
    "sum by (job) (rate(m_total[2m])) / on (job) group_left () count by (job) (g)",
    "sum(g * on (az) group_left () m_total)",
    "sum(sum by (pod) (g)) + stdvar(sum by (pod) (rate(m_total[1m])))",
    "avg(g - ignoring (job) g offset 1m)",
    "rate(g[1m])",
    "rate(g[1m] offset -30s)",
    "g offset -1m",
    "count(g offset -100s)",
    "m_total + m_total offset -2m",
    "max_over_time(sum(m_total)[1m:15s] offset -1m)",
    "topk(2, g)",
    "topk(1, sum by (job) (changes(g[1m])))",
    "limitk(2, m_total)",
    "quantile(0.3, g)",
    "quantile(1.5, g)",
    "histogram_quantile(0.9, sum by (le) (rate(b_bucket[1m])))",
    "histogram_quantile(0.5, b_bucket)",
    "histogram_avg(rate(h[2m]))",
    "histogram_quantile(0.5, sum(rate(h[1m])))",
    "sum(h)",
    "sum_over_time(h[1m])",
    "histogram_count(sum_over_time(h[1m]))",
    "max_over_time(sum(g)[2m:30s])",
    "sum(avg_over_time(stddev by (job) (g)[1m:15s]))",
    "max_over_time(g[20s:5s])",
    "absent(g{az=\"2\"})",
    "absent_over_time(g{az=\"1\"}[1m])",
    "count_values(\"v\", changes(g[1m]))",
    "label_replace(g, \"pod\", \"x\", \"pod\", \"[ab]\")",
    "sum(label_replace(g, \"q\", \"$1\", \"pod\", \"(.*)\"))",
    "scalar(g{az=\"4\"}) + time()",
    "g and on (az) m_total or vector(1)",
    "sum(g unless m_total)",
    "-{__name__=~\"g|m_total\", az=~\"1|2\"}",
    "rate({__name__=~\"g|m_total\"}[1m])",
    "g @ end()",
    "sort(g)",
    "timestamp(g)",
    "last_over_time(g[30s])",
    "g + h",
];

/// What happens between two queries.
#[derive(Debug, Clone)]
enum Event {
    /// So many scrapes of the series whose bit is set.
    Scrape(u8, u16),
    /// A sample of a series so long before the newest, milliseconds.
    Late(usize, i64),
    Flush,
    /// One of the queries of the case, how many steps before the newest sample it ends, and how many it has.
    Ask(usize, i64, i64),
}

/// The queries of a case, few so that they meet again, the distance of steps, and what happens.
#[derive(Debug, Clone)]
struct Case {
    queries: Vec<usize>,
    step: i64,
    events: Vec<Event>,
}

fn case() -> impl Strategy<Value = Case> {
    let few = (0..SERIES, 0..SERIES).prop_map(|(a, b)| 1 << a | 1 << b);
    let mask = prop_oneof![2 => few, 1 => any::<u16>(), 1 => Just(u16::MAX)];
    let late = prop_oneof![3 => 0..LATE, 1 => LATE..6 * LATE];
    let event = prop_oneof![
        8 => (1..9u8, mask).prop_map(|(n, mask)| Event::Scrape(n, mask)),
        6 => (0..SERIES, late).prop_map(|(series, late)| Event::Late(series, late)),
        1 => Just(Event::Flush),
        14 => (0..4usize, prop_oneof![3 => Just(0), 1 => 0..20i64], prop_oneof![1 => Just(0), 9 => 1..40i64])
            .prop_map(|(query, end, steps)| Event::Ask(query, end, steps)),
    ];
    let queries = prop::collection::vec(0..QUERIES.len(), 1..5);
    (queries, select(vec![SCRAPE, 20_000, 30_000, 60_000]), prop::collection::vec(event, 10..80))
        .prop_map(|(queries, step, events)| Case { queries, step, events })
}

/// A tenant to which things happen.
struct World<'a> {
    node: &'a Served,
    tenant: String,
    now: i64,
    scrapes: u64,
}

/// How many series there may be.
const SERIES: usize = 16;

impl World<'_> {
    /// One of the series with the samples of some scrapes. The first labels by name are not the first ones in blocks.
    fn row(&self, which: usize, scrapes: std::ops::Range<u64>, t: i64) -> v1::TimeSeries {
        let pod = ["a", "b", "c"][which % 3];
        let (job, az) = (["x", "y"][which % 2], ["5", "4", "3", "2", "1"][which % 5]);
        let times = scrapes.zip(0..).map(|(n, i)| (n, t + i * SCRAPE));
        let noise = |n: u64| ((n * 16 + which as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64;
        // Of all sizes, so that sums are not exact.
        let value = |n: u64| noise(n) / 10f64.powi((noise(n) as i64 % 11) as i32 - 2);
        let growing = |n: u64| (n % 50) as f64 * (which as f64 + 0.1) + noise(n) / 1e9;
        let floats = |of: &dyn Fn(u64) -> f64| -> Vec<(i64, f64)> { times.clone().map(|(n, t)| (t, of(n))).collect() };
        match which {
            0..5 => series(&[("__name__", "g"), ("az", az), ("job", job), ("pod", pod)], &floats(&value)),
            5..10 => series(&[("__name__", "m_total"), ("az", az), ("job", job), ("pod", pod)], &floats(&growing)),
            10..14 => {
                let le = ["0.5", "1", "1.0", "+Inf"][which - 10];
                series(&[("__name__", "b_bucket"), ("le", le)], &floats(&growing))
            }
            14 => series(&[("__name__", "g"), ("pod", pod)], &floats(&|n| noise(n) % 3.0)),
            _ => {
                let histograms = times.map(|(n, t)| histogram((n % 40) as i64, noise(n), t)).collect();
                v1::TimeSeries { histograms, ..series(&[("__name__", "h")], &[]) }
            }
        }
    }

    async fn happen(&mut self, case: &Case, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Scrape(n, mask) => {
                let scrapes = self.scrapes..self.scrapes + u64::from(*n);
                let row = |i| self.row(i, scrapes.clone(), self.now + SCRAPE);
                let rows = (0..SERIES).filter(|i| mask & (1 << i) != 0).map(row).collect();
                prop_assert_eq!(self.node.write_as(&self.tenant, rows).await.status, 204);
                (self.now, self.scrapes) = (self.now + i64::from(*n) * SCRAPE, scrapes.end);
            }
            Event::Late(which, late) => {
                // It may be too late, or there already.
                let row = self.row(*which, self.scrapes..self.scrapes + 1, self.now - late);
                let reply = self.node.write_as(&self.tenant, vec![row]).await;
                prop_assert!([204, 400].contains(&reply.status), "{}", reply.body);
            }
            Event::Flush => self.node.flush().await,
            Event::Ask(query, end, steps) => {
                let end = (self.now.div_euclid(case.step) - end) * case.step;
                let query = QUERIES[case.queries[query % case.queries.len()]];
                self.compare(query, end - steps * case.step, end, case.step).await?;
            }
        }
        Ok(())
    }

    async fn compare(&self, query: &str, start: i64, end: i64, step: i64) -> Result<(), TestCaseError> {
        let (start, end, step) = (seconds(start), seconds(end), seconds(step));
        let range = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        let ask = |more: &[(&'static str, &'static str)]| {
            let parameters = [&range[..], more].concat();
            async move { self.node.ask_as(Some(&self.tenant), "query_range", &parameters).await.body }
        };
        let through = ask(&[]).await;
        let past = ask(&[("nocache", "1")]).await;
        prop_assert_eq!(through, past, "{} from {} to {} by {}", query, start, end, step);
        Ok(())
    }
}

fn histogram(n: i64, noise: f64, t: i64) -> v1::Histogram {
    v1::Histogram {
        count: Some(v1::histogram::Count::CountInt(3 * n as u64)),
        sum: n as f64 * 0.7 + noise,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: Some(v1::histogram::ZeroCount::ZeroCountInt(n as u64)),
        positive_spans: vec![v1::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![n, 0],
        timestamp: t,
        ..v1::Histogram::default()
    }
}

fn limits() -> Limits {
    Limits { out_of_order_time_window: std::time::Duration::from_millis(LATE as u64), ..Limits::default() }
}

/// The figures of the results cache: `outcome reason` and how many, where there are any.
async fn outcomes(node: &Served) -> Vec<(String, u64)> {
    let text = node.get("/metrics").await.body;
    let of = |line: &str| {
        let (labels, n) = line.strip_prefix("metrolith_query_results_cache_requests_total{")?.split_once("} ")?;
        let values: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
        Some((values.join(" ").trim().to_owned(), n.parse().unwrap()))
    };
    text.lines().filter_map(of).filter(|(_, n)| *n > 0).collect()
}

#[test]
fn random_queries_answer_the_same_through_the_cache_and_past_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u32>().unwrap());
    let cases = number("METROLITH_CASES").unwrap_or(25);
    let seed = number("METROLITH_SEED").unwrap_or(7) as u8;
    let settings = [("flush.check_interval", "1h"), ("limits.out_of_order_time_window", "2m")];
    let node = runtime.block_on(Served::start_with(dir.path(), &settings, &[]));
    let tenants = std::cell::Cell::new(0);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(&case(), |case| {
        tenants.set(tenants.get() + 1);
        let now = now_ms() / 60_000 * 60_000 - 3 * 86_400_000;
        let tenant = format!("team-{}", tenants.get());
        let mut world = World { node: &node, tenant, now, scrapes: 0 };
        runtime.block_on(async {
            for event in &case.events {
                world.happen(&case, event).await?;
            }
            Ok(())
        })
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    let seen: BTreeSet<String> = runtime.block_on(outcomes(&node)).into_iter().map(|(outcome, _)| outcome).collect();
    for outcome in ["Hit", "Partial", "Miss", "Bypassed Range", "Bypassed Names", "Bypassed OneStep"] {
        assert!(seen.contains(outcome), "{seen:?}");
    }
    runtime.block_on(node.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_steps_are_used_again_unless_the_client_wants_it_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start_with(dir.path(), &[], &[("team", limits())]).await;
    let t = now_ms() / 60_000 * 60_000 - 3_600_000;
    let samples: Vec<(i64, f64)> = (0..80).map(|i| (t + i * SCRAPE, i as f64)).collect();
    let rows = vec![series(&[("__name__", "m_total")], &samples)];
    assert_eq!(node.write_as("team", rows).await.status, 204);
    let (start, end) = (seconds(t), seconds(t + 600_000));
    let ask = |query: &'static str, more: &[(&'static str, &'static str)]| {
        let range = [("query", query), ("start", &start), ("end", &end), ("step", "30")];
        let parameters = [&range[..], more].concat();
        let node = &node;
        async move {
            let reply = node.ask_as(Some("team"), "query_range", &parameters).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            reply
        }
    };
    let first = ask("rate(m_total[1m])", &[]).await.body;
    assert_eq!(ask(" rate( m_total[60s] ) # again", &[]).await.body, first);
    assert_eq!(ask("rate(m_total[1m])", &[("nocache", "1")]).await.body, first);
    assert_eq!(ask("rate(m_total[1m])", &[("nocache", "true")]).await.body, first);
    assert_eq!(ask("rate(m_total[1m])", &[("nocache", "0")]).await.body, first);
    let counted = ask("rate(m_total[1m])", &[("stats", "all")]).await.json();
    assert_eq!(counted["data"]["stats"]["storage"]["cachedSteps"], 0);
    ask("vector(time())", &[]).await;
    ask("m_total @ start()", &[]).await;
    let want = [
        ("Bypassed Constant", 1),
        ("Bypassed Counted", 1),
        ("Bypassed Range", 1),
        ("Bypassed Wanted", 2),
        ("Hit", 2),
        ("Miss", 1),
    ];
    let mut got = outcomes(&node).await;
    got.sort();
    assert_eq!(got, want.map(|(outcome, n)| (outcome.to_owned(), n)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_look_ahead_wait_until_what_they_see_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start_with(dir.path(), &[], &[("team", limits())]).await;
    let last = now_ms() / 60_000 * 60_000 - 3_600_000;
    let samples: Vec<(i64, f64)> = (0..80).rev().map(|i| (last - i * SCRAPE, i as f64)).collect();
    let write = |samples: Vec<(i64, f64)>| node.write_as("team", vec![series(&[("__name__", "m")], &samples)]);
    assert_eq!(write(samples).await.status, 204);
    // All steps are older than any sample that may still come.
    let (start, end) = (seconds(last - 400_000), seconds(last - 130_000));
    let ask = |cached: &'static str| {
        let range = [("query", "m offset -1m"), ("start", &start), ("end", &end), ("step", "10"), ("nocache", cached)];
        let node = &node;
        async move { node.ask_as(Some("team"), "query_range", &range).await.body }
    };
    let before = ask("0").await;
    // A minute behind a step of the query, and between two scrapes.
    assert_eq!(write(vec![(last - 80_000, 999.0)]).await.status, 204);
    let after = ask("0").await;
    // In quotes: a timestamp may hold these digits too.
    assert!(!before.contains("\"999\"") && after.contains("\"999\""), "{after}");
    assert_eq!(after, ask("1").await);
    let partial = ("Partial".to_owned(), 1);
    assert!(outcomes(&node).await.contains(&partial));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_of_no_bytes_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let node = Served::start_with(dir.path(), &[("query.results_cache_bytes", "0")], &[]).await;
    let range = [("query", "up"), ("start", "0"), ("end", "100"), ("step", "10")];
    assert_eq!(node.ask("query_range", &range).await.status, 200);
    assert_eq!(outcomes(&node).await, []);
    node.stop().await;
}
