use std::collections::BTreeSet;

use futures::executor::block_on;
use futures::future::BoxFuture;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::model::StepGrid;
use crate::promql::exec::control::CancelToken;
use crate::promql::exec::error::Error as EvalError;
use crate::promql::exec::result::{QueryResult, QueryValue};
use crate::promql::exec::{Engine, EngineOptions, Times};
use crate::promql::plan::Fragment;
use crate::promql::source::{SelectRequest, SeriesSet, Source};
use crate::promql::{ParseOptions, parse};
use crate::testkit::memory_source::{MemorySource, Point};

const TIMES: Times = Times::Range(StepGrid { start: 0, end: 300_000, step: 30_000 });

/// Series of some partitions. The label `n` says of which a series is.
struct Parts<'a> {
    all: &'a MemorySource,
    partitions: &'a [u32],
    wanted: Vec<u32>,
}

impl Source for Parts<'_> {
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        Box::pin(async move {
            let mut set = self.all.select(request).await?;
            for series in &mut set.series {
                let n: usize = series.labels.get("n").parse().unwrap();
                series.partition = self.partitions[n % self.partitions.len()];
                // As storage has it: an order that labels decide, and not the one of labels.
                series.place = (n * 7 % 11) as u32;
            }
            set.series.retain(|s| self.wanted.contains(&s.partition));
            Ok(set)
        })
    }
}

fn data(values: &[Vec<f64>], histograms: bool) -> MemorySource {
    let mut source = MemorySource::new();
    for (n, values) in values.iter().enumerate() {
        let group = (n % 3).to_string();
        let pairs = [("__name__", "m_total"), ("g", &group), ("n", &n.to_string())];
        let labels = Labels::from_pairs(pairs);
        for (i, v) in values.iter().enumerate() {
            source.append(&labels, i as i64 * 15_000, 0, &Point::Float(*v)).unwrap();
        }
    }
    if histograms {
        let labels = Labels::from_pairs([("__name__", "m_total"), ("n", "0"), ("h", "1")]);
        source.append(&labels, 0, 0, &Point::Histogram(Default::default())).unwrap();
    }
    source
}

/// A series, its values as bits.
type Bits = (Labels, Vec<(i64, u64)>);

/// Every bit of an answer.
fn bits(result: &QueryResult) -> (Vec<Bits>, Annotations, u64, u64) {
    let QueryValue::Matrix(series) = &result.value else { panic!("no matrix") };
    let floats = |s: &[(i64, f64)]| s.iter().map(|(t, v)| (*t, v.to_bits())).collect();
    let value = series.iter().map(|s| (s.labels.clone(), floats(&s.floats))).collect();
    (value, result.annotations.clone(), result.stats.samples_read, result.stats.series_read)
}

fn engine() -> Engine {
    Engine::new(EngineOptions::default())
}

/// What nodes make of a query of which node `n` has the partitions that `nodes` assigns to it; node 0 is asked.
fn in_parts(query: &str, all: &MemorySource, partitions: &[u32], nodes: &[usize]) -> Result<QueryResult, EvalError> {
    let (ast, engine, cancel) = (parse(query, ParseOptions::all()).unwrap(), engine(), CancelToken::default());
    let plan = engine.plan(&ast, TIMES).unwrap();
    let fragments = plan.fragments();
    assert!(!fragments.is_empty(), "{query}");
    let shape = |f: &Fragment| match &plan.node(f.node).op {
        crate::promql::plan::Op::Aggregate { op, .. } => Shape { op: *op, steps: plan.node(f.node).grid.len() },
        _ => unreachable!(),
    };
    let shapes: Vec<Shape> = fragments.iter().map(shape).collect();
    let of = |node| (0..8).filter(|p| nodes[*p as usize % nodes.len()] == node).collect();
    let mut merged = Partials::new();
    for node in 1..4 {
        let source = Parts { all, partitions, wanted: of(node) };
        let fetched = block_on(engine.fetch(&source, &plan, &cancel)).unwrap();
        let partials = engine.partials(&plan, &fragments, fetched, &cancel, None)?;
        let mut reader = Reader::new(shapes.clone());
        for piece in pieces(&partials).unwrap() {
            reader.read(&piece, &mut |_| Ok(())).unwrap();
        }
        for (fragment, partial) in fragments.iter().zip(reader.finish().unwrap()) {
            merged.entry(fragment.node).or_default().push(partial);
        }
    }
    let source = Parts { all, partitions, wanted: of(0) };
    let fetched = block_on(engine.fetch(&source, &plan, &cancel)).unwrap();
    engine.evaluate_with(&plan, (fetched, merged), TIMES, &cancel, None)
}

fn alone(query: &str, all: &MemorySource, partitions: &[u32]) -> QueryResult {
    let ast = parse(query, ParseOptions::all()).unwrap();
    let source = Parts { all, partitions, wanted: (0..8).collect() };
    block_on(engine().query(&source, &ast, TIMES, &CancelToken::default())).unwrap()
}

fn value() -> impl Strategy<Value = f64> {
    let special = select(&[0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -f64::MAX, 5e-324][..]);
    prop_oneof![6 => -1e3..1e3f64, 3 => (-300i32..300).prop_map(|e| 1.7 * 10f64.powi(e)), 2 => special]
}

const QUERIES: [&str; 12] = [
    "sum(m_total)",
    "sum by (g) (m_total)",
    "avg by (g) (m_total)",
    "avg without (n) (m_total * 3)",
    "min by (g) (m_total)",
    "max(m_total) - min(m_total)",
    "count by (g) (m_total > 1)",
    "group without (n) (m_total)",
    "sum by (n) (rate(m_total[1m]))",
    "topk(2, sum by (g) (rate(m_total[2m])))",
    "sum(avg_over_time(m_total[1m])) / count(avg_over_time(m_total[1m]))",
    "avg(quantile_over_time(2, m_total[1m]))",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_is_the_same_whoever_evaluates_which_partitions(
        values in vec(vec(value(), 1..24), 1..12),
        partitions in vec(0u32..6, 12),
        nodes in vec(0usize..4, 6),
    ) {
        let all = data(&values, false);
        for query in QUERIES {
            let got = in_parts(query, &all, &partitions, &nodes).unwrap();
            prop_assert_eq!(bits(&got), bits(&alone(query, &all, &partitions)), "{}", query);
        }
    }

    #[test]
    fn any_bytes_end_in_rows_or_in_an_error(
        bytes in vec(any::<u8>(), 0..80),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        op in select(&[AggregateOp::Sum, AggregateOp::Avg, AggregateOp::Count][..]),
    ) {
        let shape = Shape { op, steps: 3 };
        let survives = |bytes: &[u8]| {
            let mut asked = 0;
            let mut reader = Reader::new(vec![shape]);
            let read = reader.read(bytes, &mut |bytes| { asked += bytes; Ok(()) });
            assert!(asked <= 200 * bytes.len() + 200, "{asked}");
            read.and_then(|()| Ok(reader.finish()?))
        };
        let _ = survives(&bytes);
        let mut cells = Cells::new(op, 3);
        cells.push(&[1.0, 2.0, 3.0]);
        let labels = Labels::from_pairs([("a", "b")]);
        let rows = vec![Row { first: labels.clone(), labels, dropped: true, partition: 300, cells }];
        let mut end = End { metric: Some("m".into()), samples_read: 7, ..End::default() };
        end.notes.info(Span::new(1, 2), "something");
        let whole = pieces(&[Partial { rows, end: end.clone() }]).unwrap().concat();
        prop_assert_eq!(&survives(&whole).unwrap()[0].end, &end);
        for cut in 0..whole.len() {
            prop_assert!(survives(&whole[..cut]).is_err());
        }
        let mut changed = whole.clone();
        changes.iter().for_each(|(at, byte)| changed[at.index(whole.len())] ^= byte);
        let _ = survives(&changed);
    }
}

#[test]
fn a_part_that_depends_on_others_says_so() {
    let all = data(&[vec![1.0; 20], vec![2.0; 20], vec![3.0; 20]], true);
    let refused = in_parts("sum(m_total)", &all, &[0, 1, 2], &[0, 1, 2]).unwrap_err();
    assert!(matches!(refused, EvalError::NotMergeable(_)), "{refused}");
    let mut all = data(&[vec![1.0; 20], vec![2.0; 20]], false);
    let labels = Labels::from_pairs([("__name__", "other"), ("g", "0"), ("n", "2")]);
    for i in 0..20 {
        all.append(&labels, i * 15_000, 0, &Point::Float(i as f64)).unwrap();
    }
    let query = "sum(rate({g=~\".+\"}[1m]))";
    for nodes in [&[0, 1, 2][..], &[1, 1, 1], &[0, 1, 1], &[1, 2, 3]] {
        let refused = in_parts(query, &all, &[0, 1, 2], nodes).unwrap_err();
        assert!(matches!(refused, EvalError::NotMergeable(_)), "{refused}");
    }
    assert!(in_parts("sum({g=~\".+\"})", &all, &[0, 1, 2], &[0, 1, 2]).is_ok());
}

#[test]
fn sums_of_partitions_keep_what_was_lost_in_each() {
    // Each addition rounds to even.
    let values: Vec<Vec<f64>> = [1e16, 1.0, -1e16, 1.0].iter().map(|v| vec![*v]).collect();
    let sums: BTreeSet<u64> = [[0, 0, 0, 0], [0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 0, 1]]
        .iter()
        .map(|partitions| {
            let QueryValue::Matrix(series) = alone("sum(m_total)", &data(&values, false), partitions).value else {
                panic!("no matrix")
            };
            series[0].floats[0].1.to_bits()
        })
        .collect();
    assert_eq!(sums.into_iter().map(f64::from_bits).collect::<Vec<_>>(), [2.0]);
}
