//! `info(v, selector)`: labels of info metrics put onto the series of a vector.
//!
//! *Invariants:* an info series belongs to a series of the same `instance` and `job`; of several of one info metric the
//! one with the newest sample counts. A label the series has already stays as it is.
//!
//! *Not here:* relabelling (`relabel`).

use super::data;
use super::evaluator::Evaluator;
use super::value::{self, Element, Sample, Series};
use crate::model::{Labels, METRIC_NAME, MatchOp, Matcher, StepGrid};
use crate::promql::ast::{Ast, Call, Expr, ExprId, Shift};
use crate::promql::exec::error::Error;

/// The info metric that is meant where none is named.
const TARGET_INFO: &str = "target_info";

/// An info series at one step: its labels and the time of its sample.
struct InfoSample {
    labels: Labels,
    t: i64,
}

/// What identifies a target.
fn target(labels: &Labels) -> Labels {
    labels.to_builder().retain(|name| name == "instance" || name == "job").build()
}

impl Evaluator<'_> {
    pub(super) fn info(&mut self, call: &Call, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let ast = self.ast;
        let base = self.vector(call.args[0], grid)?;
        let selector = call.args.get(1).and_then(|id| ast.selector(ast.unwrap_parens(*id)));
        let matchers = selector.map(|vs| vs.matchers.clone()).unwrap_or_default();
        let (mut names, data_labels): (Vec<Matcher>, Vec<Matcher>) =
            matchers.into_iter().partition(|m| *m.name == *METRIC_NAME);
        if call.args.len() < 2 {
            names = vec![Matcher::equal(METRIC_NAME, TARGET_INFO)];
        }
        let shift = first_shift(ast, call.args[0]);
        let wanted = wanted(&names, &data_labels)?;
        let known: Vec<Labels> = base.iter().map(|s| &s.labels).filter(|l| !is_info(&names, l)).map(target).collect();
        let known: Vec<Labels> = known.into_iter().filter(|l| !l.is_empty()).collect();
        let mut steps = Vec::new();
        for t in grid.iter() {
            let elements = value::at(&base, t);
            let mut out = Vec::new();
            let infos = match elements.is_empty() || known.is_empty() {
                true => Vec::new(),
                false => self.info_samples(&wanted, &known, self.seen_at(&shift, t))?,
            };
            for element in elements {
                if is_info(&names, &element.labels) {
                    out.push(element);
                    continue;
                }
                if let Some(labels) = with_info(&element.labels, &infos, &data_labels)? {
                    out.push(Element { labels, ..element });
                }
            }
            steps.push((t, out));
        }
        value::collect(steps, true)
    }

    /// The info series of a step, the newest of each target and metric. Only those are looked at whose identifying labels
    /// have values that `known` targets have.
    fn info_samples(&self, matchers: &[Matcher], known: &[Labels], t: i64) -> Result<Vec<InfoSample>, Error> {
        let occurs = |name: &str, labels: &Labels| {
            let values: Vec<&str> = known.iter().map(|l| l.get(name)).filter(|v| !v.is_empty()).collect();
            values.is_empty() || values.contains(&labels.get(name))
        };
        let mut out: Vec<InfoSample> = Vec::new();
        let found = data::select(self.data, matchers).into_iter();
        for (labels, points) in found.filter(|(l, _)| occurs("instance", l) && occurs("job", l)) {
            let Some(point) = data::newest(&points, t, self.options.lookback) else { continue };
            if matches!(point.sample, Sample::Histogram(_)) {
                return Err(Error::query("info sample should be float"));
            }
            let same =
                |o: &&mut InfoSample| o.labels.metric() == labels.metric() && target(&o.labels) == target(&labels);
            match out.iter_mut().find(same) {
                None => out.push(InfoSample { labels, t: point.t }),
                Some(known) if known.t == point.t => {
                    let known = &known.labels;
                    return Err(Error::query(format!(
                        "found duplicate series for info metric: existing {known} @ {0}, new {labels} @ {0}",
                        point.t
                    )));
                }
                Some(known) if known.t < point.t => *known = InfoSample { labels, t: point.t },
                Some(_) => {}
            }
        }
        Ok(out)
    }
}

/// Conditions on info series. Conditions on names that only exclude leave the other info metrics.
fn wanted(names: &[Matcher], data_labels: &[Matcher]) -> Result<Vec<Matcher>, Error> {
    let mut out: Vec<Matcher> = names.iter().chain(data_labels).cloned().collect();
    if names.is_empty() {
        out.push(Matcher::equal(METRIC_NAME, TARGET_INFO));
    } else if names.iter().all(|m| m.op.is_negative()) {
        out.push(Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info").map_err(Error::query)?);
    }
    Ok(out)
}

/// Whether a series is an info metric itself, which stays as it is; only a positive condition tells.
fn is_info(names: &[Matcher], labels: &Labels) -> bool {
    let tells = names.iter().any(|m| !m.op.is_negative());
    tells && names.iter().all(|m| m.matches(labels.metric()))
}

/// The labels with those of the target's info series; `None` where the selector wants info series and there is none.
fn with_info(base: &Labels, infos: &[InfoSample], data_labels: &[Matcher]) -> Result<Option<Labels>, Error> {
    let own = target(base);
    let found: Vec<&InfoSample> = infos.iter().filter(|i| !own.is_empty() && target(&i.labels) == own).collect();
    if found.is_empty() {
        let all_optional = data_labels.iter().all(Matcher::matches_empty);
        return Ok(all_optional.then(|| base.clone()));
    }
    let is_wanted = |name: &str| data_labels.is_empty() || data_labels.iter().any(|m| *m.name == *name);
    let mut added = Labels::empty();
    for info in found {
        for (name, value) in info.labels.iter().filter(|(n, _)| *n != METRIC_NAME && is_wanted(n)) {
            if added.has(name) && added.get(name) != value {
                return Err(Error::query(format!("conflicting label: {name}")));
            }
            if !base.has(name) {
                added = added.to_builder().set(name, value).build();
            }
        }
    }
    let mut builder = base.to_builder();
    for (name, value) in added.iter() {
        builder.set(name, value);
    }
    Ok(Some(builder.build()))
}

/// When the first selector below a node looks, seen from the node: its own shift on top of those of subqueries.
fn first_shift(ast: &Ast, id: ExprId) -> Shift {
    fn find(ast: &Ast, id: ExprId, outer: Shift) -> Option<Shift> {
        let inside = |inner: &Shift| match inner.at {
            Some(_) => *inner,
            None => Shift { offset_ms: outer.offset_ms + inner.offset_ms, ..outer },
        };
        let outer = match ast.expr(id) {
            Expr::Vector(vs) => return Some(inside(&vs.shift)),
            Expr::Subquery(sub) => inside(&sub.shift),
            _ => outer,
        };
        ast.children(id).into_iter().find_map(|child| find(ast, child, outer))
    }
    find(ast, id, Shift::default()).unwrap_or_default()
}
