//! Arithmetic and comparisons between two vectors.
//!
//! *Invariants:* label sets and signatures are worked out once per query, not per step. Where a signature has one series
//! on each side, whole columns are combined. Of several errors the one of the earliest step is reported.
//!
//! *Not here:* set operators (`set`), the operators themselves (`binary`).

use hashbrown::HashMap;

use super::binary::{Elements, changes_meaning};
use super::column::{Column, Sample, Series};
use super::error::Error;
use super::labels::{KeyIndex, KeyLabels, drop_reserved, is_reserved, merge_steps};
use super::set::signature_labels;
use super::work::NameRemoval;
use crate::model::Labels;
use crate::promql::annotations::Annotations;
use crate::promql::ast::{Cardinality, Matching};

/// Nobody owns a step.
const NONE: u32 = u32::MAX;

/// A join: the "many" side is the left one except with `group_right`.
pub struct Join<'a> {
    /// Operator.
    pub elements: Elements,
    /// How series are paired.
    pub matching: &'a Matching,
    /// How names are removed.
    pub removal: NameRemoval,
    /// Steps of the grid.
    pub steps: usize,
}

/// What is wrong, and on which step.
type Failure = (usize, Error);

/// A pair that was combined, to find pairs that ended up with the same labels.
struct Outcome {
    signature: usize,
    many: Option<usize>,
    one: Option<usize>,
}

struct Sides {
    many: Vec<Series>,
    one: Vec<Series>,
    many_signature: Vec<usize>,
    one_signature: Vec<usize>,
    /// By signature: series of the "one" side.
    ones: Vec<Vec<u32>>,
    /// By signature: series of the "many" side.
    manys: Vec<Vec<u32>>,
}

impl Join<'_> {
    /// Evaluates the join.
    pub fn eval(&self, lhs: Vec<Series>, rhs: Vec<Series>, notes: &mut Annotations) -> Result<Vec<Series>, Error> {
        let sides = self.sides(lhs, rhs);
        let mut failed = self.check_one_side(&sides);
        // With `group_right` Prometheus does not swap the fill values along with the sides: `fill_left` is that of the
        // "many" side always.
        let (fill_many, fill_one) = (self.matching.fill_left, self.matching.fill_right);
        let (mut out, mut outcomes) = (Vec::new(), Vec::new());
        for m in 0..sides.many.len() {
            let signature = sides.many_signature[m];
            for &o in &sides.ones[signature] {
                let column = self.combine(&sides, m, o as usize, notes);
                let (many, one) = (&sides.many[m], &sides.one[o as usize]);
                outcomes.push(Outcome { signature, many: Some(m), one: Some(o as usize) });
                out.push(self.series(many, &one.labels, column));
            }
            if let Some(fill) = fill_one {
                let column =
                    self.combine_fill(&sides.many[m].column, &sides.one, &sides.ones[signature], fill, true, notes);
                let labels = signature_labels_of(self.matching, &sides.many[m].labels);
                outcomes.push(Outcome { signature, many: Some(m), one: None });
                out.push(self.series(&sides.many[m], &labels, column));
            }
        }
        if let Some(fill) = fill_many {
            for o in 0..sides.one.len() {
                let (signature, one) = (sides.one_signature[o], &sides.one[o]);
                let column = self.combine_fill(&one.column, &sides.many, &sides.manys[signature], fill, false, notes);
                let labels = signature_labels_of(self.matching, &one.labels);
                let stand_in = Series { labels, dropped: false, column: Column::default() };
                outcomes.push(Outcome { signature, many: None, one: Some(o) });
                out.push(self.series(&stand_in, &one.labels, column));
            }
        }
        let unique = match self.matching.cardinality {
            Cardinality::OneToOne => self.check_one_to_one(&sides),
            _ => self.check_unique(&sides, &out, &outcomes),
        };
        // Within a step the "one" side is looked at first.
        if let Some(later) = unique
            && failed.as_ref().is_none_or(|f| later.0 < f.0)
        {
            failed = Some(later);
        }
        if let Some((_, error)) = failed {
            return Err(error);
        }
        out.retain(|s| !s.column.is_empty());
        // With one step only, labels that became equal are first noticed when names are removed, or by what comes next.
        if self.steps == 1 && self.removal == NameRemoval::Delayed { Ok(out) } else { merge_steps(out) }
    }

    fn swapped(&self) -> bool {
        self.matching.cardinality == Cardinality::OneToMany
    }

    fn sides(&self, lhs: Vec<Series>, rhs: Vec<Series>) -> Sides {
        let (many, one) = if self.swapped() { (rhs, lhs) } else { (lhs, rhs) };
        let keys = signature_labels(self.matching);
        let mut index = KeyIndex::default();
        let many_signature = number(&keys, &mut index, &many);
        let one_signature = number(&keys, &mut index, &one);
        let group = |numbers: &[usize]| {
            let mut groups = vec![Vec::new(); index.count()];
            numbers.iter().enumerate().for_each(|(i, n)| groups[*n].push(i as u32));
            groups
        };
        let (ones, manys) = (group(&one_signature), group(&many_signature));
        Sides { many, one, many_signature, one_signature, ones, manys }
    }

    /// Whether anything is matched at all on a step: two empty sides never fail.
    fn is_live(&self, sides: &Sides, step: usize) -> bool {
        let any = |series: &[Series]| series.iter().any(|s| s.column.has(step));
        let fills = self.matching.fill_left.is_some() || self.matching.fill_right.is_some();
        fills || (any(&sides.many) && any(&sides.one))
    }

    /// Two series of a signature on one step of the "one" side are an error.
    fn check_one_side(&self, sides: &Sides) -> Option<Failure> {
        let mut first: Option<(usize, u32, u32)> = None;
        for signature in 0..sides.ones.len() {
            if sides.ones[signature].len() < 2 {
                continue;
            }
            let mut owners = vec![NONE; self.steps];
            for &o in &sides.ones[signature] {
                for (step, owner) in owners.iter_mut().enumerate() {
                    if !sides.one[o as usize].column.has(step) {
                        continue;
                    }
                    if *owner != NONE && first.is_none_or(|f| step < f.0) && self.is_live(sides, step) {
                        first = Some((step, *owner, o));
                    }
                    *owner = o;
                }
            }
        }
        let (step, a, b) = first?;
        let (a, b) = (&sides.one[a as usize].labels, &sides.one[b as usize].labels);
        let group = Plain(&signature_labels_of(self.matching, a)).to_string();
        let side = if self.swapped() { "left" } else { "right" };
        let mut pair = [Plain(a).to_string(), Plain(b).to_string()];
        pair.sort();
        let text = format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
             [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            pair[0], pair[1]
        );
        Some((step, Error::query(text)))
    }

    /// One-to-one: no two series of a signature may be matched on one step.
    fn check_one_to_one(&self, sides: &Sides) -> Option<Failure> {
        let pairs_of = |(signature, manys): (usize, &Vec<u32>)| {
            let outcome =
                |m: u32, one: Option<u32>| Outcome { signature, many: Some(m as usize), one: one.map(|o| o as usize) };
            let mut pairs: Vec<Outcome> = Vec::new();
            for m in manys {
                pairs.extend(sides.ones[signature].iter().map(|o| outcome(*m, Some(*o))));
                pairs.extend(self.matching.fill_right.map(|_| outcome(*m, None)));
            }
            pairs
        };
        let crowded = sides.manys.iter().enumerate().filter(|(_, m)| m.len() > 1);
        let first = crowded.filter_map(|of| self.first_with_two(sides, pairs_of(of).iter())).min()?;
        let text = "many-to-one matching must be explicit (group_left/group_right)";
        Some((first, Error::query(format!("multiple matches for labels: {text}"))))
    }

    /// The first step on which two of the pairs are combined.
    fn first_with_two<'o>(&self, sides: &Sides, pairs: impl Iterator<Item = &'o Outcome> + Clone) -> Option<usize> {
        (0..self.steps).find(|step| pairs.clone().filter(|o| self.is_matched(sides, o, *step)).nth(1).is_some())
    }

    fn combine(&self, sides: &Sides, m: usize, o: usize, notes: &mut Annotations) -> Column {
        let (many, one) = (&sides.many[m].column, &sides.one[o].column);
        let mut out = Column::absent(self.steps);
        let (lhs, rhs) = if self.swapped() { (one, many) } else { (many, one) };
        self.elements.columns(lhs, rhs, &mut out, notes);
        out
    }

    /// Combines the samples of a series without counterpart with the fill value.
    fn combine_fill(
        &self,
        column: &Column,
        others: &[Series],
        counterparts: &[u32],
        fill: f64,
        is_many: bool,
        notes: &mut Annotations,
    ) -> Column {
        let mut out = Column::absent(self.steps);
        for step in 0..self.steps {
            let Some(sample) = column.sample(step) else { continue };
            if counterparts.iter().any(|o| others[*o as usize].column.has(step)) {
                continue;
            }
            let fill = Sample::Float(fill);
            // The sample is on the left when it is of the "many" side and that side is the left one, or neither is.
            let (lhs, rhs) = if is_many != self.swapped() { (&sample, &fill) } else { (&fill, &sample) };
            if let Some(found) = self.elements.pair(lhs, rhs, notes) {
                out.put(step, found);
            }
        }
        out
    }

    fn series(&self, many: &Series, one: &Labels, column: Column) -> Series {
        let return_bool = self.elements.return_bool;
        let mut labels = self.result_labels(&many.labels, one);
        if return_bool && self.removal == NameRemoval::AtOnce {
            labels = drop_reserved(&labels);
        }
        Series { labels, dropped: return_bool || many.dropped, column }
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let mut builder = many.to_builder();
        if changes_meaning(self.elements.op) {
            builder.retain(|name| !is_reserved(name));
        }
        let matching = self.matching;
        if matching.cardinality == Cardinality::OneToOne {
            builder.retain(|name| matching.labels.iter().any(|l| **l == *name) == matching.on);
        }
        for name in &matching.include {
            builder.set(name, one.get(name));
        }
        builder.build()
    }

    /// Many-to-one: outcomes of one signature must differ in labels on every step.
    fn check_unique(&self, sides: &Sides, out: &[Series], outcomes: &[Outcome]) -> Option<Failure> {
        let mut seen: HashMap<(usize, &str), Vec<&Outcome>> = HashMap::new();
        for (i, outcome) in outcomes.iter().enumerate() {
            seen.entry((outcome.signature, out[i].labels.canonical())).or_default().push(outcome);
        }
        let crowded = seen.values().filter(|same| same.len() > 1);
        let first = crowded.filter_map(|same| self.first_with_two(sides, same.iter().copied())).min()?;
        let text = "grouping labels must ensure unique matches";
        Some((first, Error::query(format!("multiple matches for labels: {text}"))))
    }

    /// Whether a pair is combined on a step: both are there, or one is and nothing stands against it but the fill value.
    fn is_matched(&self, sides: &Sides, outcome: &Outcome, step: usize) -> bool {
        let absent = |series: &[Series], of: &[u32]| !of.iter().any(|i| series[*i as usize].column.has(step));
        let fill = |v: Option<f64>| v.map(Sample::Float);
        let many = match outcome.many {
            Some(m) => sides.many[m].column.sample(step),
            None if absent(&sides.many, &sides.manys[outcome.signature]) => fill(self.matching.fill_left),
            None => None,
        };
        let one = match outcome.one {
            Some(o) => sides.one[o].column.sample(step),
            None if absent(&sides.one, &sides.ones[outcome.signature]) => fill(self.matching.fill_right),
            None => None,
        };
        let (Some(many), Some(one)) = (many, one) else { return false };
        let (lhs, rhs) = if self.swapped() { (one, many) } else { (many, one) };
        self.elements.is_possible(&lhs, &rhs)
    }
}

fn number(keys: &KeyLabels, index: &mut KeyIndex, series: &[Series]) -> Vec<usize> {
    let mut buf = String::new();
    let number = |s: &Series| {
        keys.write(&mut buf, &s.labels, false);
        index.number(&buf).0
    };
    series.iter().map(number).collect()
}

fn signature_labels_of(matching: &Matching, labels: &Labels) -> Labels {
    signature_labels(matching).of(labels)
}

/// A label set with its name as a label among others, as Prometheus prints it in errors.
struct Plain<'a>(&'a Labels);

impl std::fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::model::labels::{Quoted, is_legacy_label_name};
        f.write_str("{")?;
        for (i, (name, value)) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            if is_legacy_label_name(name) {
                write!(f, "{comma}{name}={}", Quoted(value))?;
            } else {
                write!(f, "{comma}{}={}", Quoted(name), Quoted(value))?;
            }
        }
        f.write_str("}")
    }
}
