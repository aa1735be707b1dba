//! Aggregations in an evaluation: where their series come from, and parts that somebody else computed.
//!
//! *Invariants:* what is said and what comes out is the same whoever computed which partitions, or it is an error that says
//! that parts do not merge: where names of metrics go and could have told series apart, where texts would be said about
//! two places, and where native histograms are aggregated.
//!
//! *Not here:* cells (`aggregate`), which aggregations may be computed in parts (`plan::fragment`).

use super::aggregate::{Aggregation, Place, key_labels};
use super::column::Value;
use super::error::Error;
use super::evaluate::Evaluation;
use super::partial::{End, Partial};
use super::select_k::{SelectK, count_values};
use super::work::NameRemoval;
use crate::promql::annotations::Annotations;
use crate::promql::operator::AggregateOp;
use crate::promql::plan::{Fragment, NodeId, Op};

/// Why parts do not merge.
const NAMES: &str = "series of different metrics lose their names";
const PLACES: &str = "an annotation has two places, or there are too many";

impl Evaluation<'_> {
    /// The value of an aggregation.
    pub(super) fn aggregate(&mut self, id: NodeId) -> Result<Value, Error> {
        let plan = self.plan;
        let node = plan.node(id);
        let Op::Aggregate { op, input, param, grouping, without } = &node.op else {
            return Err(Error::query("BUG: not an aggregation"));
        };
        let (steps, input_span) = (node.grid.len(), plan.span(*input));
        let mut keys = key_labels(grouping, *without);
        match (op, param) {
            (AggregateOp::CountValues, Some(param)) => {
                let Value::Text(label) = self.take(*param)? else {
                    return Err(Error::query("BUG: the label of count_values is not a string"));
                };
                let label = label_name(&label)?;
                if !without {
                    let mut names = grouping.clone();
                    names.push(label.as_str().into());
                    keys = key_labels(&names, false);
                }
                let input = self.vector(*input)?;
                Ok(Value::Vector(count_values(&input.series, &label, &keys, steps, &mut self.budget)?.into()))
            }
            (op, Some(param)) => {
                let param_span = plan.span(*param);
                let param = &self.scalar(*param)?;
                let instant = node.grid.start == node.grid.end;
                let (op, keys, span) = (*op, &keys, node.span);
                let select = SelectK { op, keys, param, param_span, input_span, span, steps, instant };
                let input = self.vector(*input)?;
                let (chosen, tied) = select.eval(input.series, &mut self.notes, &mut self.budget)?;
                self.entangled |= tied;
                Ok(Value::Vector(chosen))
            }
            (op, None) => {
                let mut aggregation = Aggregation::new(*op, keys, steps, input_span);
                match self.partials.remove(&id) {
                    Some(others) => aggregation = self.merge(*input, aggregation.mergeable(), others)?,
                    None => drop(self.feed(*input, &mut aggregation)?),
                }
                Ok(Value::Vector(aggregation.finish(&mut self.notes).into()))
            }
        }
    }

    /// Feeds the series of a node to an aggregation. Where it is to be merged with others, and series lose their names,
    /// all of them must be of the metric that is returned.
    fn feed(&mut self, input: NodeId, aggregation: &mut Aggregation) -> Result<Option<Box<str>>, Error> {
        let mut pipeline = self.pipeline(input)?;
        let at_once = self.removal == NameRemoval::AtOnce;
        let mut metric = None;
        if at_once && aggregation.is_mergeable() && pipeline.drops_names() {
            if pipeline.mixes_names() {
                return Err(Error::NotMergeable(NAMES));
            }
            metric = pipeline.metric().map(Box::from);
        } else if at_once && self.may_collide(&pipeline) {
            // What becomes of series that are equal is known only when all of them are there.
            let all = pipeline.collect_at_once(&mut self.context())?;
            for (rank, series) in (0u32..).zip(&all) {
                self.budget.check()?;
                aggregation.push(series, Place { rank, partition: 0 }, false, &mut self.budget)?;
            }
            return Ok(None);
        }
        // Group labels are all that is left of a series: its name need not be cut out of its labels.
        pipeline.delay_removal();
        if aggregation.is_compensated() {
            pipeline.order_by_labels();
        }
        let partitions = pipeline.partitions();
        self.budget.hold(0, partitions.heap_bytes())?;
        pipeline.run(&mut self.context(), |series, rank, budget| {
            let nameless = at_once && series.dropped;
            series.dropped &= !at_once;
            let partition = partitions.of(rank);
            aggregation.push(series, Place { rank, partition }, nameless, budget)
        })?;
        Ok(metric)
    }

    /// An aggregation of the series that are here, with what others computed of theirs.
    fn merge(&mut self, input: NodeId, mut here: Aggregation, others: Vec<Partial>) -> Result<Aggregation, Error> {
        let before = std::mem::take(&mut self.notes);
        let mut metric = self.feed(input, &mut here)?;
        let mut said = std::mem::replace(&mut self.notes, before);
        for Partial { rows, end } in others {
            if end.metric.is_some() && metric.is_some() && end.metric != metric {
                return Err(Error::NotMergeable(NAMES));
            }
            metric = metric.or(end.metric);
            if !said.agrees(&end.notes) {
                return Err(Error::NotMergeable(PLACES));
            }
            said.merge(end.notes);
            self.budget.samples_read += end.samples_read;
            for row in rows {
                here.absorb(row, &mut self.budget)?;
            }
        }
        self.notes.merge(said);
        if self.notes.is_whole() { Ok(here) } else { Err(Error::NotMergeable(PLACES)) }
    }

    /// What the series that are here make of an aggregation.
    pub(super) fn partial(&mut self, fragment: &Fragment) -> Result<Partial, Error> {
        let plan = self.plan;
        let Op::Aggregate { op, input, param: None, grouping, without } = &plan.node(fragment.node).op else {
            return Err(Error::query("BUG: a fragment is no aggregation that merges"));
        };
        for id in (fragment.begin.0..fragment.node.0).map(NodeId) {
            if !plan.node(id).streamed {
                self.step(id)?;
            }
        }
        // What was said by scalars they say to whoever asked, too.
        self.notes = Annotations::default();
        let read_before = self.budget.samples_read;
        let (steps, keys) = (plan.node(fragment.node).grid.len(), key_labels(grouping, *without));
        let mut aggregation = Aggregation::new(*op, keys, steps, plan.span(*input)).mergeable();
        let metric = self.feed(*input, &mut aggregation)?;
        let notes = std::mem::take(&mut self.notes);
        let samples_read = self.budget.samples_read - read_before;
        let end = End { metric, samples_read, series_read: 0, notes };
        Ok(Partial { rows: aggregation.into_rows(), end })
    }
}

/// The label `count_values` writes.
fn label_name(bytes: &[u8]) -> Result<String, Error> {
    match std::str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => {
            let quoted: String = bytes.iter().map(|b| quoted_byte(*b)).collect();
            Err(Error::query(format!("invalid label name \"{quoted}\"")))
        }
    }
}

fn quoted_byte(b: u8) -> String {
    match b {
        b'"' | b'\\' => format!("\\{}", b as char),
        0x20..0x7f => (b as char).to_string(),
        _ => format!("\\x{b:02x}"),
    }
}
