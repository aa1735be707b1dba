//! Runs test scripts against the engine, or another evaluator.
//!
//! *Invariants:* every instant query is also evaluated at other times with its own time pinned by `@`, and as a range
//! query around each of those times; all must agree.
//!
//! *Not here:* reading scripts (`parse`), comparing (`compare`).

use super::compare::{check_annotations, check_sorted, check_value, check_vector};
use super::nhcb;
use super::parse::{Command, Eval, Kind, Load, When, parse_script};
use crate::model::{Labels, StepGrid};
use crate::promql::ast::{Ast, At, Expr, ExprId};
use crate::promql::exec::column::Sample;
use crate::promql::exec::control::CancelToken;
use crate::promql::exec::helpers::Helpers;
use crate::promql::exec::result::{InstantSample, QueryResult, QueryValue};
use crate::promql::exec::{Engine, EngineOptions, Times};
use crate::promql::signature::FunctionName;
use crate::promql::source::Source;
use crate::promql::{ParseOptions, parse};
use crate::testkit::memory_source::{MemorySource, Point};

/// The outcome of one eval.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Line of the eval, from 1.
    pub line: usize,
    /// Its query.
    pub query: String,
    /// What went wrong.
    pub error: Option<String>,
}

/// How scripts are run by default: as upstream's own tests run them.
pub fn options() -> EngineOptions {
    EngineOptions {
        delayed_name_removal: true,
        use_start_timestamps: true,
        limits: crate::promql::exec::control::Limits { max_samples: 10_000, ..Default::default() },
        ..EngineOptions::default()
    }
}

/// Where loads go.
pub trait Storage {
    /// Forgets everything.
    fn clear(&mut self);

    /// Appends a sample with its start timestamp (0 is none); the error says why it is refused.
    fn append(&mut self, labels: &Labels, t: i64, start: i64, point: &Point) -> Result<(), String>;

    /// All samples of a load are appended.
    fn commit(&mut self) -> Result<(), String>;
}

impl Storage for MemorySource {
    fn clear(&mut self) {
        *self = Self::new();
    }

    fn append(&mut self, labels: &Labels, t: i64, start: i64, point: &Point) -> Result<(), String> {
        MemorySource::append(self, labels, t, start, point)
    }

    fn commit(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Something that answers queries; an error is the text of one of the query.
pub type Evaluate<'a, S> = &'a dyn Fn(&S, &Ast, Times) -> Result<QueryResult, String>;

/// Runs a script against the engine; an error is one of the script itself.
pub fn run_script(text: &str, options: EngineOptions) -> Result<Vec<Outcome>, String> {
    let evaluate = |source: &MemorySource, ast: &Ast, times| query(&Engine::new(options), source, ast, times);
    run_script_with(text, &evaluate)
}

/// Runs a script against any evaluator; an error is one of the script itself.
pub fn run_script_with(text: &str, evaluate: Evaluate<'_, MemorySource>) -> Result<Vec<Outcome>, String> {
    run(text, &mut MemorySource::new(), Runner { evaluate, variants: true })
}

/// Runs a script against the engine over any storage, each eval as it is written, on one thread and on four, which must
/// agree bit for bit; an error is one of the script itself.
pub fn run_script_on<S: Storage + Source>(
    text: &str,
    options: EngineOptions,
    storage: &mut S,
) -> Result<Vec<Outcome>, String> {
    let evaluate = |source: &S, ast: &Ast, times| {
        let alone = query(&Engine::new(options), source, ast, times);
        let helped = query(&Engine::new(options).with_helpers(Helpers::eager(3)), source, ast, times);
        // Every float prints as itself; NaN does not equal itself.
        match format!("{alone:?}") == format!("{helped:?}") {
            true => alone,
            false => Err(format!("one thread answers {alone:?}, four answer {helped:?}")),
        }
    };
    run(text, storage, Runner { evaluate: &evaluate, variants: false })
}

fn query(engine: &Engine, source: &dyn Source, ast: &Ast, times: Times) -> Result<QueryResult, String> {
    let cancel = CancelToken::default();
    let query = engine.query(source, ast, times, &cancel);
    futures::executor::block_on(query).map_err(|e| e.to_string())
}

fn run<S: Storage>(text: &str, storage: &mut S, runner: Runner<'_, S>) -> Result<Vec<Outcome>, String> {
    let mut out = Vec::new();
    for Command { line, kind } in parse_script(text)? {
        match kind {
            Kind::Clear => storage.clear(),
            Kind::Load(load) => store(&load, storage).map_err(|e| format!("line {line}: {e}"))?,
            Kind::Eval(eval) => {
                let error = runner.check(&eval, storage).err();
                out.push(Outcome { line, query: eval.query.clone(), error });
            }
        }
    }
    Ok(out)
}

fn store(load: &Load, storage: &mut impl Storage) -> Result<(), String> {
    for series in &load.series {
        for (i, point) in series.points.iter().enumerate() {
            let Some(written) = point else { continue };
            let t = i as i64 * load.step;
            let start = series.starts.get(i).copied().flatten().map_or(0, |d| t + d);
            storage.append(&series.labels, t, start, &written.point)?;
        }
    }
    if load.with_nhcb {
        for (labels, t, histogram) in nhcb::convert(load)? {
            storage.append(&labels, t, 0, &histogram)?;
        }
    }
    storage.commit()
}

struct Runner<'a, S> {
    evaluate: Evaluate<'a, S>,
    /// Instant queries are also evaluated at other times and as range queries.
    variants: bool,
}

impl<S> Runner<'_, S> {
    fn check(&self, eval: &Eval, source: &S) -> Result<(), String> {
        let ast = match parse(&eval.query, ParseOptions::all()) {
            Ok(ast) => ast,
            Err(e) => return check_failure(eval, Err(e.to_string())).map(|_| ()),
        };
        match eval.when {
            When::Range(grid) => self.check_once(eval, source, &ast, Times::Range(grid)),
            When::Instant(t) => {
                let t = eval.matrix.map_or(t, |grid| grid.end);
                self.check_once(eval, source, &ast, Times::Instant(t))?;
                if !self.variants {
                    return Ok(());
                }
                self.check_as_range(eval, source, &ast, t)?;
                let Some(pinned) = pin(&ast, t) else { return Ok(()) };
                let times = if t == 0 { vec![-1000, 0, 1000] } else { vec![-10 * t, 0, t / 5, t, 10 * t] };
                for at in times {
                    let tag = |e: String| format!("pinned to {t} and evaluated at {at}: {e}");
                    self.check_once(eval, source, &pinned, Times::Instant(at)).map_err(tag)?;
                    self.check_as_range(eval, source, &pinned, at).map_err(tag)?;
                }
                Ok(())
            }
        }
    }

    fn check_once(&self, eval: &Eval, source: &S, ast: &Ast, times: Times) -> Result<(), String> {
        let Some(result) = check_failure(eval, (self.evaluate)(source, ast, times))? else { return Ok(()) };
        check_annotations(eval, &eval.query, &result.annotations)?;
        check_value(eval, &result.value)
    }

    /// The query as a range query around its time: the step in the middle must be as expected.
    fn check_as_range(&self, eval: &Eval, source: &S, ast: &Ast, t: i64) -> Result<(), String> {
        let query_context = ["start()", "end()", "range()", "step()"];
        let excluded = eval.matrix.is_some() || eval.string.is_some() || !eval.fail.is_empty();
        if excluded || query_context.iter().any(|f| eval.query.contains(f)) {
            return Ok(());
        }
        let grid = StepGrid { start: t - 60_000, end: t + 60_000, step: 60_000 };
        let tag = |e: String| format!("as a range query around {t}: {e}");
        let result = (self.evaluate)(source, ast, Times::Range(grid)).map_err(tag)?;
        if eval.ordered {
            return Ok(());
        }
        let QueryValue::Matrix(matrix) = result.value else { return Err(tag("not a matrix".into())) };
        check_sorted(&matrix).map_err(tag)?;
        if let Some(want) = eval.scalar {
            let got = matrix.iter().flat_map(|s| &s.floats).find(|p| p.0 == t).map(|p| p.1);
            let same = got.is_some_and(|v| super::compare::floats_equal(want, v));
            return if same { Ok(()) } else { Err(tag(format!("expected {want}, got {got:?}"))) };
        }
        let mut samples = Vec::new();
        for series in matrix {
            let floats = series.floats.iter().filter(|p| p.0 == t).map(|p| Sample::Float(p.1));
            let histograms = series.histograms.iter().filter(|p| p.0 == t).map(|p| Sample::Histogram(p.1.clone()));
            let labels = &series.labels;
            samples.extend(floats.chain(histograms).map(|sample| InstantSample { labels: labels.clone(), t, sample }));
        }
        check_vector(eval, &samples, false).map_err(tag)
    }
}

/// Checks that a query fails exactly when it should, with the right text; `None` when it failed as expected.
fn check_failure(eval: &Eval, result: Result<QueryResult, String>) -> Result<Option<QueryResult>, String> {
    match (result, eval.fail.is_empty()) {
        (Ok(result), true) => Ok(Some(result)),
        (Ok(_), false) => Err("expected an error, but there was none".into()),
        (Err(e), true) => Err(format!("failed: {e}")),
        (Err(e), false) => {
            let expected = eval.fail.iter().all(|p| p.matches(&e));
            if expected { Ok(None) } else { Err(format!("expected error {:?}, got {e:?}", eval.fail)) }
        }
    }
}

/// The query with its time pinned at every selector; `None` where a function of the step itself forbids it.
fn pin(ast: &Ast, t: i64) -> Option<Ast> {
    let forbidden = |e: &Expr| matches!(e, Expr::Call(c) if depends_on_time(c.function.id));
    if ast.post_order(ast.root).iter().any(|id| forbidden(ast.expr(*id))) {
        return None;
    }
    let mut pinned = ast.clone();
    let mut stack: Vec<ExprId> = vec![ast.root];
    while let Some(id) = stack.pop() {
        let mut descend = true;
        match pinned.expr_mut(id) {
            Expr::Vector(vs) => fix(&mut vs.shift.at, t),
            Expr::Subquery(sub) => {
                fix(&mut sub.shift.at, t);
                descend = false;
            }
            _ => {}
        }
        if descend {
            stack.extend(ast.children(id));
        }
    }
    Some(pinned)
}

fn fix(at: &mut Option<At>, t: i64) {
    if !matches!(at, Some(At::Time(_))) {
        *at = Some(At::Time(t));
    }
}

/// Functions whose value depends on the evaluation time whatever their arguments are pinned to.
fn depends_on_time(name: FunctionName) -> bool {
    use FunctionName as F;
    matches!(name, F::DaysInMonth | F::DayOfMonth | F::DayOfWeek | F::DayOfYear | F::Hour | F::Minute | F::Month)
        || matches!(name, F::Year | F::Time | F::Timestamp | F::PredictLinear)
        || matches!(name, F::Start | F::End | F::Range | F::Step)
}
