//! What is used more than once in an evaluation: values of nodes, fetched series, annotations.
//!
//! *Invariants:* a use that is not the last gets a copy, the last one gets the thing itself, so nothing is kept longer than
//! needed. Annotations of a shared part are said again wherever it stands in the text, in the order in which it would
//! have been evaluated there.
//!
//! Counted is what is done: samples of a series that is fetched once and decoded twice are read twice, a part that is
//! evaluated once reads its samples once. A value counts as held until its last use.
//!
//! *Not here:* which parts are equal (`plan::share`).

use std::collections::HashMap;

use super::column::Value;
use crate::promql::annotations::Annotations;
use crate::promql::plan::{NodeId, Plan};
use crate::promql::position::Span;
use crate::promql::source::SelectedSeries;

/// Something that is used a known number of times.
struct Kept<T> {
    thing: T,
    uses: u32,
}

/// Values of nodes until they are used.
pub struct Values {
    kept: Vec<Option<Kept<Value>>>,
    /// Uses beyond the first.
    again: HashMap<NodeId, u32>,
}

/// A value as its user gets it.
pub struct Taken {
    /// The value.
    pub value: Value,
    /// It was the last use: nothing of it is kept.
    pub last: bool,
}

impl Values {
    /// No values yet.
    pub fn new(plan: &Plan) -> Self {
        let kept = (0..plan.nodes.len()).map(|_| None).collect();
        Self { kept, again: plan.shared.iter().map(|s| (s.root, s.again)).collect() }
    }

    /// Keeps a value for all of its uses.
    pub fn keep(&mut self, id: NodeId, value: Value) {
        let uses = 1 + self.again.get(&id).copied().unwrap_or(0);
        self.kept[id.0 as usize] = Some(Kept { thing: value, uses });
    }

    /// Whether a value is there.
    pub fn has(&self, id: NodeId) -> bool {
        self.kept[id.0 as usize].is_some()
    }

    /// The value for one of its uses.
    pub fn take(&mut self, id: NodeId) -> Option<Taken> {
        let place = &mut self.kept[id.0 as usize];
        let kept = place.as_mut()?;
        kept.uses -= 1;
        if kept.uses > 0 {
            return Some(Taken { value: kept.thing.clone(), last: false });
        }
        place.take().map(|kept| Taken { value: kept.thing, last: true })
    }
}

/// Series as they were fetched, by request.
pub struct Fetched(Vec<Option<Kept<Vec<SelectedSeries>>>>);

impl Fetched {
    /// The series of each request of a plan.
    pub fn new(plan: &Plan, sets: Vec<Vec<SelectedSeries>>) -> Self {
        let mut uses = vec![0; sets.len()];
        for request in plan.nodes.iter().filter_map(|node| node.op.request()) {
            uses[request] += 1;
        }
        Self(sets.into_iter().zip(uses).map(|(thing, uses)| Some(Kept { thing, uses })).collect())
    }

    /// The series for one of the nodes that read them.
    pub fn take(&mut self, request: usize) -> Vec<SelectedSeries> {
        let place = &mut self.0[request];
        match place {
            Some(kept) if kept.uses > 1 => {
                kept.uses -= 1;
                kept.thing.iter().map(SelectedSeries::fork).collect()
            }
            _ => place.take().map(|kept| kept.thing).unwrap_or_default(),
        }
    }
}

/// Sets apart what shared parts have to say.
#[derive(Default)]
pub struct Said {
    /// Number of the next part of [`Plan::shared`].
    next: usize,
    /// Parts under way, and what was said before each of them.
    open: Vec<(NodeId, Annotations)>,
    said: HashMap<NodeId, Annotations>,
}

impl Said {
    /// Before a node: parts that begin with it are listened to from now on.
    pub fn begin(&mut self, plan: &Plan, at: NodeId, notes: &mut Annotations) {
        while let Some(shared) = plan.shared.get(self.next).filter(|s| s.begin == at) {
            self.open.push((shared.root, std::mem::take(notes)));
            self.next += 1;
        }
    }

    /// After a node: what the part that ends with it said is remembered.
    pub fn end(&mut self, at: NodeId, notes: &mut Annotations) {
        let Some((root, before)) = self.open.pop_if(|(root, _)| *root == at) else { return };
        let said = std::mem::replace(notes, before);
        if !said.is_empty() {
            notes.merge(said.clone());
            self.said.insert(root, said);
        }
    }

    /// Says what the part at `from` said about the equal one at `to`.
    pub fn repeat(&self, root: NodeId, (from, to): (Span, Span), notes: &mut Annotations) {
        if let Some(said) = self.said.get(&root) {
            notes.merge(said.moved(i64::from(to.start) - i64::from(from.start)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::executor::block_on;
    use futures::future::BoxFuture;

    use super::super::control::CancelToken;
    use super::super::result::QueryResult;
    use super::super::{Engine, EngineOptions, Times};
    use crate::error::Error;
    use crate::model::{Labels, StepGrid};
    use crate::promql::annotations::Severity;
    use crate::promql::source::{SelectRequest, SeriesSet, Source};
    use crate::promql::{ParseOptions, parse};
    use crate::testkit::memory_source::{MemorySource, Point};

    struct Counting(MemorySource, AtomicUsize);

    impl Source for Counting {
        fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.select(request)
        }
    }

    fn source() -> Counting {
        let mut source = MemorySource::new();
        for (name, job) in [("a", "x"), ("a", "y"), ("b", "x")] {
            let labels = Labels::from_pairs([("__name__", name), ("job", job)]);
            for i in 0..40 {
                source.append(&labels, i * 15_000, 0, &Point::Float((i * i) as f64 / 7.0)).unwrap();
            }
        }
        Counting(source, AtomicUsize::new(0))
    }

    const TIMES: Times = Times::Range(StepGrid { start: 0, end: 600_000, step: 60_000 });

    /// The answer of a query, and how often storage was asked.
    fn ask(query: &str, count_samples: bool) -> (QueryResult, usize) {
        let (ast, source) = (parse(query, ParseOptions::all()).unwrap(), source());
        let engine = Engine::new(EngineOptions { count_samples, ..EngineOptions::default() });
        let result = block_on(engine.query(&source, &ast, TIMES, &CancelToken::default())).unwrap();
        (result, source.1.into_inner())
    }

    #[test]
    fn equal_parts_are_fetched_and_evaluated_once() {
        for (query, once, selects, reads) in [
            ("sum(rate(a[5m])) / sum(rate(a[5m]))", "sum(rate(a[5m]))", 1, 1),
            ("a + a + a", "a", 1, 1),
            ("sum(rate(a[5m])) / count(rate(a[5m]))", "sum(rate(a[5m]))", 1, 2),
            ("a + a offset 1m", "a", 2, 2),
        ] {
            let (result, asked) = ask(query, false);
            assert_eq!(asked, selects, "{query}");
            let one = ask(once, false).0.stats;
            assert_eq!(result.stats.series_read, one.series_read * selects as u64, "{query}");
            // The window of an offset is a little shorter where data begin.
            let reads_done = (result.stats.samples_read as f64 / one.samples_read as f64).round();
            assert_eq!(reads_done, f64::from(reads), "{query}");
        }
    }

    #[test]
    fn an_answer_is_the_same_as_with_each_part_evaluated_at_its_place() {
        for query in [
            "a + a * a - a",
            "(a + b) * (a + b) - (a + b) * (a + b)",
            "sum(rate(a[5m])) / count(rate(a[5m]))",
            "max_over_time((a - b)[5m:30s]) - min_over_time((a - b)[5m:30s])",
            "topk(1, a) or bottomk(1, a)",
            "sum by (job) (a @ 300) / sum by (job) (a @ 300)",
            "absent(c) + absent(c)",
        ] {
            // Where samples are counted nothing is shared.
            let (shared, apart) = (ask(query, false).0, ask(query, true).0);
            assert_eq!((&shared.value, &shared.annotations), (&apart.value, &apart.annotations), "{query}");
            let shown = |r: &QueryResult| r.annotations.render(Severity::Info, query, 10);
            assert_eq!(shown(&shared), shown(&apart), "{query}");
        }
    }

    #[test]
    fn an_annotation_of_a_shared_part_stands_at_the_last_of_its_places() {
        let query = "topk(1, rate(a[5m])) + bottomk(1, rate(a[5m]))";
        let (result, _) = ask(query, false);
        let infos = result.annotations.render(Severity::Info, query, 10);
        assert_eq!(infos.len(), 1);
        assert!(infos[0].contains("might not be a counter") && infos[0].ends_with("(1:40)"), "{infos:?}");
        assert_eq!(infos, ask(query, true).0.annotations.render(Severity::Info, query, 10));
        let between = "topk(1, rate(a[5m])) + (sum(rate(b[5m])) + topk(1, rate(a[5m])))";
        let shown = |count| ask(between, count).0.annotations.render(Severity::Info, between, 1);
        assert_eq!(shown(false), shown(true));
        assert!(shown(false)[1].starts_with("1 more"));
    }

    #[test]
    fn samples_count_at_each_place_of_a_selector() {
        let counts = |query| ask(query, true).0.stats.counts.unwrap().queryable.iter().sum::<u64>();
        assert_eq!(counts("a + a"), 2 * counts("a"));
    }
}
