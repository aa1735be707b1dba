//! Which queries compute each step on its own, so that finished steps may be kept and put together with others.
//!
//! *Invariants:* the answer errs to one side: a query that passes gives a step the same bits, the same series and the
//! same annotations whatever the other steps, given names removed at once, series read in an order that their labels
//! decide, at least two steps, and nothing entangled in the evaluation (`exec::result::QueryStats::entangled`).
//!
//! *Not here:* keeping steps (`query::results_cache`).

use super::ast::{Aggregate, Ast, Binary, Call, DurationOp, Expr, ExprId};
use super::exec::binary::changes_meaning;
use super::exec::labels::is_reserved;
use super::operator::AggregateOp;
use super::plan::PlanOptions;
use super::signature::FunctionName;
use super::value_type::ValueType;
use crate::model::{METRIC_NAME, MatchOp};

/// Why steps of a query cannot be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entangled {
    /// It depends on where the range begins or ends: `@`, `start()`, `end()`, `range()`, `step()`.
    Range,
    /// Series with several metric names lose them: whether two become equal is asked of the whole range.
    Names,
    /// The order of series decides, and it depends on which series the range has.
    Order,
    /// A parameter that may differ from step to step is judged as a whole.
    Parameter,
    /// Subqueries of which some steps are in no window.
    Gaps,
    /// Reset hints of native histograms are looked at: the first one read has none.
    Hints,
    /// It reads nothing: cheaper to evaluate than to keep.
    Constant,
}

/// Whose metric the series of a vector are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    None,
    One,
    Many,
}

/// What is known of a vector.
#[derive(Debug, Clone, Copy)]
struct Facts {
    names: Names,
    /// Which of two series comes first depends on these two alone.
    ordered: bool,
    /// Native histograms in it may have reset hints.
    hints: bool,
}

impl Facts {
    const PLAIN: Self = Self { names: Names::None, ordered: true, hints: false };

    /// After an operation that removes the name.
    fn nameless(self) -> Result<Self, Entangled> {
        if self.names == Names::Many { Err(Entangled::Names) } else { Ok(Self { names: Names::None, ..self }) }
    }

    /// With names as they may be once series are put together anew.
    fn grouped(self, names: Names) -> Self {
        Self { names, ordered: false, ..self }
    }
}

/// Where an expression stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Distance of the steps it is evaluated on, milliseconds.
    step: i64,
    /// How far behind the query's step its own may lie, milliseconds.
    ahead: i64,
    in_subquery: bool,
}

/// How far behind a step the newest sample may lie that its value depends on, milliseconds. The durations of the tree
/// are folded; `step` is that of the query.
pub fn reach(ast: &Ast, step: i64, options: PlanOptions) -> Result<i64, Entangled> {
    let on_range = |e: &Expr| matches!(e, Expr::Duration(d) if matches!(d.op, DurationOp::Step | DurationOp::Range));
    if ast.nodes.iter().any(|node| on_range(&node.expr)) {
        return Err(Entangled::Range);
    }
    let (places, reach) = places(ast, step, options)?;
    // Operands stand before what uses them.
    let mut facts: Vec<Facts> = Vec::with_capacity(ast.nodes.len());
    for (at, place) in places.iter().enumerate() {
        facts.push(match place {
            Some(place) => Known { ast, facts: &facts }.of(ExprId(at as u32), *place)?,
            None => Facts::PLAIN,
        });
    }
    reach.ok_or(Entangled::Constant)
}

/// Where each expression stands (`None` for those that are no operand), and the reach if anything is read.
fn places(ast: &Ast, step: i64, options: PlanOptions) -> Result<(Vec<Option<Place>>, Option<i64>), Entangled> {
    let mut places: Vec<Option<Place>> = vec![None; ast.nodes.len()];
    let mut reach = None;
    places[ast.root.0 as usize] = Some(Place { step, ahead: 0, in_subquery: false });
    for at in (0..ast.nodes.len()).rev() {
        let Some(place) = places[at] else { continue };
        let mut below = place;
        match ast.expr(ExprId(at as u32)) {
            Expr::Vector(vs) => {
                if vs.shift.at.is_some() {
                    return Err(Entangled::Range);
                }
                let after = if vs.smoothed { options.lookback } else { 0 };
                let ahead = ahead_of(place.ahead, vs.shift.offset_ms).saturating_add(after);
                reach = reach.max(Some(ahead));
            }
            Expr::Subquery(sub) => {
                if sub.shift.at.is_some() {
                    return Err(Entangled::Range);
                }
                if place.step > sub.range_ms {
                    return Err(Entangled::Gaps);
                }
                let ahead = ahead_of(place.ahead, sub.shift.offset_ms);
                let step = if sub.step_ms > 0 { sub.step_ms } else { options.subquery_step };
                below = Place { step, ahead, in_subquery: true };
            }
            _ => {}
        }
        for child in ast.children(ExprId(at as u32)) {
            places[child.0 as usize] = Some(below);
        }
    }
    Ok((places, reach))
}

/// Only what looks ahead counts: offsets into the past are not made up for by it.
fn ahead_of(ahead: i64, offset: i64) -> i64 {
    ahead.saturating_add(offset.saturating_neg().max(0))
}

/// What is known of the operands of an expression.
struct Known<'a> {
    ast: &'a Ast,
    facts: &'a [Facts],
}

impl Known<'_> {
    fn get(&self, id: ExprId) -> Facts {
        self.facts[id.0 as usize]
    }

    fn of(&self, id: ExprId, place: Place) -> Result<Facts, Entangled> {
        match self.ast.expr(id) {
            Expr::Number { .. } | Expr::String(_) | Expr::Duration(_) => Ok(Facts::PLAIN),
            Expr::Vector(vs) => {
                let named = |m: &crate::model::Matcher| {
                    *m.name == *METRIC_NAME && m.op == MatchOp::Equal && !m.value.is_empty()
                };
                let names = if vs.matchers.iter().any(named) { Names::One } else { Names::Many };
                Ok(Facts { names, ordered: true, hints: true })
            }
            Expr::Matrix(ms) => Ok(self.get(ms.vector)),
            Expr::Subquery(sub) => Ok(self.get(sub.expr)),
            Expr::Paren(inner) | Expr::Unary { negative: false, expr: inner } => Ok(self.get(*inner)),
            Expr::Unary { expr, .. } => self.get(*expr).nameless(),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Call(call) => self.call(call, place),
        }
    }

    fn binary(&self, b: &Binary) -> Result<Facts, Entangled> {
        let is_vector = |id: ExprId| self.ast.value_type(id) == ValueType::Vector;
        let (l, r) = (self.get(b.lhs), self.get(b.rhs));
        let renamed = changes_meaning(b.op) || b.return_bool;
        match (is_vector(b.lhs), is_vector(b.rhs)) {
            (false, false) => Ok(Facts::PLAIN),
            (true, false) if renamed => l.nameless(),
            (true, false) => Ok(l),
            (false, true) if renamed => r.nameless(),
            (false, true) => Ok(r),
            (true, true) => {
                let included = b.matching.as_ref().is_some_and(|m| m.include.iter().any(|name| is_reserved(name)));
                let nameless = l.names == Names::None && r.names == Names::None;
                let names = if (renamed || nameless) && !included { Names::None } else { Names::Many };
                Ok(Facts { hints: l.hints || r.hints, ..l }.grouped(names))
            }
        }
    }

    fn aggregate(&self, a: &Aggregate) -> Result<Facts, Entangled> {
        use AggregateOp as A;
        let input = self.get(a.expr);
        let judged = matches!(a.op, A::Topk | A::Bottomk | A::Limitk | A::LimitRatio | A::Quantile);
        if judged && !a.param.is_some_and(|param| self.is_literal(param)) {
            return Err(Entangled::Parameter);
        }
        let kept = !a.without && a.grouping.iter().any(|name| is_reserved(name));
        let groups = if kept { Names::Many } else { Names::None };
        match a.op {
            A::Limitk | A::Stddev | A::Stdvar if !input.ordered => Err(Entangled::Order),
            A::Topk | A::Bottomk | A::Limitk | A::LimitRatio => Ok(input.grouped(input.names)),
            A::CountValues => Ok(input.grouped(Names::Many)),
            _ => Ok(input.grouped(groups)),
        }
    }

    fn is_literal(&self, id: ExprId) -> bool {
        match self.ast.expr(self.ast.unwrap_parens(id)) {
            Expr::Number { .. } => true,
            Expr::Unary { expr, .. } => matches!(self.ast.expr(self.ast.unwrap_parens(*expr)), Expr::Number { .. }),
            _ => false,
        }
    }

    fn call(&self, call: &Call, place: Place) -> Result<Facts, Entangled> {
        use FunctionName as F;
        let is_series = |id: &ExprId| matches!(self.ast.value_type(*id), ValueType::Vector | ValueType::Matrix);
        let Some(arg) = call.args.iter().copied().find(is_series) else {
            return match call.function.id {
                F::Start | F::End | F::Range | F::Step => Err(Entangled::Range),
                _ => Ok(Facts::PLAIN),
            };
        };
        let input = self.get(arg);
        match call.function.id {
            F::Info => Err(Entangled::Names),
            F::Scalar | F::Absent | F::AbsentOverTime => Ok(Facts::PLAIN),
            F::LastOverTime | F::FirstOverTime => Ok(input),
            F::Rate | F::Increase | F::Delta | F::Irate | F::Idelta => Facts { hints: false, ..input }.nameless(),
            // Within a subquery they speak up unless there is but one inner step.
            F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc if place.in_subquery => Err(Entangled::Range),
            F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc => Ok(input.grouped(input.names)),
            F::LabelReplace | F::LabelJoin => {
                let target = call.args.get(1).map(|id| self.ast.expr(self.ast.unwrap_parens(*id)));
                let reserved = |text: &[u8]| std::str::from_utf8(text).is_ok_and(is_reserved);
                let renames = !matches!(target, Some(Expr::String(text)) if !reserved(text));
                Ok(input.grouped(if renames { Names::Many } else { input.names }))
            }
            F::HistogramQuantile | F::HistogramQuantiles | F::HistogramFraction => {
                Ok(Facts { hints: false, ..input }.grouped(Names::None))
            }
            F::HistogramCount | F::HistogramSum | F::HistogramAvg => {
                let direct = matches!(self.ast.expr(self.ast.unwrap_parens(arg)), Expr::Vector(_));
                if input.hints && !direct { Err(Entangled::Hints) } else { input.nameless() }
            }
            _ => input.nameless(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StepGrid;
    use crate::promql::{ParseOptions, fold_durations, parse};

    fn of(query: &str) -> Result<i64, Entangled> {
        let mut ast = parse(query, ParseOptions::all()).unwrap();
        fold_durations(&mut ast, &StepGrid { start: 0, end: 600_000, step: 60_000 }).unwrap();
        reach(&ast, 60_000, PlanOptions { lookback: 300_000, subquery_step: 60_000, share: true })
    }

    #[test]
    fn most_queries_compute_each_step_on_its_own() {
        for query in [
            "m",
            "m offset 5m",
            "{job=\"a\"} > 1",
            "sum by (job) (rate(m[5m]))",
            "sum(rate(m[5m])) / ignoring(a) sum({job=~\".+\"})",
            "sum(m / on (a) group_left () n)",
            "histogram_quantile(0.9, sum by (le) (rate(m_bucket[5m])))",
            "topk(5, sum by (pod) (rate(m[5m])))",
            "topk((-5), m)",
            "limitk(5, m)",
            "stdvar by (a) (rate(m[5m]))",
            "max_over_time(sum(m)[1h:5m])",
            "label_replace(sum by (a) (m), \"b\", \"$1\", \"a\", \"(.*)\")",
            "absent(m) or vector(0)",
            "sort(m)",
            "histogram_avg(h)",
            "histogram_avg(sum(rate(h[5m])))",
            "time() - timestamp(m)",
        ] {
            assert_eq!(of(query), Ok(0), "{query}");
        }
    }

    #[test]
    fn what_depends_on_other_steps_is_named() {
        use Entangled as E;
        for (query, why) in [
            ("m @ 5", E::Range),
            ("sum(rate(m[5m] @ end()))", E::Range),
            ("max_over_time(m[1h:5m] @ start())", E::Range),
            ("m * step()", E::Range),
            ("rate(m[step()])", E::Range),
            ("m offset (range() / 2)", E::Range),
            ("max_over_time(sort(m)[1h:5m])", E::Range),
            ("rate({job=\"a\"}[5m])", E::Names),
            ("rate({__name__=~\"a|b\"}[5m])", E::Names),
            ("-{job=\"a\"}", E::Names),
            ("-(a or b)", E::Names),
            ("abs(label_replace(m, \"__name__\", \"x\", \"\", \"\"))", E::Names),
            ("abs(sum by (__name__) (m))", E::Names),
            ("info(m)", E::Names),
            ("limitk(5, sum by (a) (m))", E::Order),
            ("stddev(a or b)", E::Order),
            ("topk(scalar(n), m)", E::Parameter),
            ("quantile(time(), m)", E::Parameter),
            ("max_over_time(m[59s:5s])", E::Gaps),
            ("max_over_time(max_over_time(m[1m:5s])[1h:5m])", E::Gaps),
            ("max_over_time(max_over_time(m[59s:5s])[1h:])", E::Gaps),
            ("histogram_sum(sum_over_time(h[5m]))", E::Hints),
            ("histogram_count(h + h)", E::Hints),
            ("time() + 1", E::Constant),
            ("vector(time())", E::Constant),
        ] {
            assert_eq!(of(query), Err(why), "{query}");
        }
    }

    #[test]
    fn what_looks_ahead_adds_up() {
        assert_eq!(of("m offset -5m"), Ok(300_000));
        assert_eq!(of("rate(m[5m] offset -1m) + n offset -2m"), Ok(120_000));
        assert_eq!(of("max_over_time((m offset -1m)[1h:1m] offset -2m)"), Ok(180_000));
        assert_eq!(of("max_over_time((m offset -1m)[1h:1m] offset 2m)"), Ok(60_000));
        assert_eq!(of("rate(m[5m] smoothed)"), Ok(300_000));
        assert_eq!(of("m smoothed offset -1m"), Ok(360_000));
        assert_eq!(of(&format!("m{}", " offset -106751d")), Ok(106_751 * 86_400_000));
    }

    #[test]
    fn a_long_sum_takes_no_recursion() {
        assert_eq!(of(&vec!["m"; 50_000].join(" + ")), Ok(0));
    }
}
