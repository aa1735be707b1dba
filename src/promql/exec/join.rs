//! Arithmetic and comparisons between two vectors.
//!
//! *Invariants:* label sets and signatures are worked out once per query, not per step. Where a signature has one series
//! on each side, whole columns are combined. Of several errors the one of the earliest step is reported. Every pair of
//! series is held as soon as it is combined, and checks for cancellation.
//!
//! *Not here:* set operators (`set`), the operators themselves (`binary`).

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::binary::{Elements, changes_meaning};
use super::column::{Column, Sample, Series};
use super::control::Budget;
use super::error::Error;
use super::labels::{KeyIndex, drop_reserved, is_reserved, merge_steps};
use super::set::{numbers, signature_labels};
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

/// Pairs between two looks at the cancellation.
const CHECK_EVERY: usize = 1024;

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
    /// Steps from this one on do not matter.
    until: usize,
}

impl Sides {
    /// Whether a series has a sample before the steps that do not matter.
    fn begins(&self, series: &Series) -> bool {
        (0..self.until).any(|step| series.column.has(step))
    }

    /// Looks at the steps before `until` only, and at series that have a sample there.
    fn cut(&mut self, until: usize) {
        self.until = until;
        let (mut ones, mut manys) = (std::mem::take(&mut self.ones), std::mem::take(&mut self.manys));
        ones.iter_mut().for_each(|ones| ones.retain(|o| self.begins(&self.one[*o as usize])));
        manys.iter_mut().for_each(|manys| manys.retain(|m| self.begins(&self.many[*m as usize])));
        (self.ones, self.manys) = (ones, manys);
    }
}

impl Join<'_> {
    /// Evaluates the join.
    pub fn eval(
        &self,
        lhs: Vec<Series>,
        rhs: Vec<Series>,
        notes: &mut Annotations,
        budget: &mut Budget,
    ) -> Result<Vec<Series>, Error> {
        let mut sides = self.sides(lhs, rhs, budget)?;
        let mut failed = self.check_one_side(&sides, budget)?;
        if let Some((step, _)) = failed {
            // Only an earlier error matters now, and what would be combined may be very much.
            sides.cut(step);
        }
        let (mut out, outcomes) = self.combine_all(&sides, notes, budget)?;
        let unique = match self.matching.cardinality {
            Cardinality::OneToOne => self.check_one_to_one(&sides, budget)?,
            _ => self.check_unique(&sides, &out, &outcomes, budget)?,
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
        if self.steps == 1 && self.removal == NameRemoval::Delayed { Ok(out) } else { merge_steps(out, budget) }
    }

    /// All pairs, and what they were combined of.
    fn combine_all(
        &self,
        sides: &Sides,
        notes: &mut Annotations,
        budget: &mut Budget,
    ) -> Result<(Vec<Series>, Vec<Outcome>), Error> {
        // With `group_right` Prometheus does not swap the fill values along with the sides: `fill_left` is that of the
        // "many" side always.
        let (fill_many, fill_one) = (self.matching.fill_left, self.matching.fill_right);
        let (mut out, mut outcomes) = (Vec::new(), Vec::new());
        let mut keep = |series: Series, outcome: Outcome, budget: &mut Budget| {
            out.push(series);
            outcomes.push(outcome);
            budget.hold(0, out[out.len() - 1].bytes() + size_of::<Outcome>())
        };
        for (m, many) in sides.many.iter().enumerate().filter(|(_, many)| sides.begins(many)) {
            let signature = sides.many_signature[m];
            let ones = &sides.ones[signature];
            for &o in ones {
                budget.check()?;
                let one = &sides.one[o as usize];
                // Of several that take turns most have nothing to do with this one.
                if ones.len() > 1 && !meet(&many.column, &one.column) {
                    continue;
                }
                let column = self.combine(&many.column, &one.column, notes);
                let outcome = Outcome { signature, many: Some(m), one: Some(o as usize) };
                keep(self.series(many, &one.labels, column), outcome, budget)?;
            }
            if let Some(fill) = fill_one {
                budget.check()?;
                let column = self.combine_fill(&many.column, &sides.one, ones, fill, true, notes);
                let labels = signature_labels_of(self.matching, &many.labels);
                let outcome = Outcome { signature, many: Some(m), one: None };
                keep(self.series(many, &labels, column), outcome, budget)?;
            }
        }
        if let Some(fill) = fill_many {
            for (o, one) in sides.one.iter().enumerate().filter(|(_, one)| sides.begins(one)) {
                budget.check()?;
                let signature = sides.one_signature[o];
                let column = self.combine_fill(&one.column, &sides.many, &sides.manys[signature], fill, false, notes);
                let labels = signature_labels_of(self.matching, &one.labels);
                let stand_in = Series { labels, dropped: false, column: Column::default() };
                let outcome = Outcome { signature, many: None, one: Some(o) };
                keep(self.series(&stand_in, &one.labels, column), outcome, budget)?;
            }
        }
        Ok((out, outcomes))
    }

    fn swapped(&self) -> bool {
        self.matching.cardinality == Cardinality::OneToMany
    }

    fn sides(&self, lhs: Vec<Series>, rhs: Vec<Series>, budget: &mut Budget) -> Result<Sides, Error> {
        let (many, one) = if self.swapped() { (rhs, lhs) } else { (lhs, rhs) };
        let keys = signature_labels(self.matching);
        let mut index = KeyIndex::default();
        let many_signature = numbers(&keys, &mut index, &many, budget)?;
        let one_signature = numbers(&keys, &mut index, &one, budget)?;
        // A list of at least four places for each signature on each side.
        budget.hold(0, 2 * index.count() * (size_of::<Vec<u32>>() + 16) + 8 * (many.len() + one.len()))?;
        let group = |numbers: &[usize]| {
            let mut groups = vec![Vec::new(); index.count()];
            numbers.iter().enumerate().for_each(|(i, n)| groups[*n].push(i as u32));
            groups
        };
        let (ones, manys) = (group(&one_signature), group(&many_signature));
        Ok(Sides { many, one, many_signature, one_signature, ones, manys, until: self.steps })
    }

    /// The steps on which anything is matched at all: two empty sides never fail.
    fn live(&self, sides: &Sides, budget: &Budget) -> Result<Vec<bool>, Error> {
        if self.matching.fill_left.is_some() || self.matching.fill_right.is_some() {
            return Ok(vec![true; self.steps]);
        }
        let any = |series: &[Series]| {
            let mut found = vec![false; self.steps];
            for s in series {
                budget.check()?;
                found.iter_mut().enumerate().for_each(|(step, f)| *f |= s.column.has(step));
            }
            Ok::<_, Error>(found)
        };
        let (mut live, one) = (any(&sides.many)?, any(&sides.one)?);
        live.iter_mut().zip(one).for_each(|(many, one)| *many &= one);
        Ok(live)
    }

    /// Two series of a signature on one step of the "one" side are an error.
    fn check_one_side(&self, sides: &Sides, budget: &Budget) -> Result<Option<Failure>, Error> {
        let mut first: Option<(usize, u32, u32)> = None;
        if sides.ones.iter().all(|ones| ones.len() < 2) {
            return Ok(None);
        }
        let live = self.live(sides, budget)?;
        for ones in sides.ones.iter().filter(|ones| ones.len() > 1) {
            let mut owners = vec![NONE; self.steps];
            for &o in ones {
                budget.check()?;
                for (step, owner) in owners.iter_mut().enumerate() {
                    if !sides.one[o as usize].column.has(step) {
                        continue;
                    }
                    if *owner != NONE && first.is_none_or(|f| step < f.0) && live[step] {
                        first = Some((step, *owner, o));
                    }
                    *owner = o;
                }
            }
        }
        let Some((step, a, b)) = first else { return Ok(None) };
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
        Ok(Some((step, Error::query(text))))
    }

    /// One-to-one: no two series of a signature may be matched on one step.
    fn check_one_to_one(&self, sides: &Sides, budget: &mut Budget) -> Result<Option<Failure>, Error> {
        let mut first: Option<usize> = None;
        for (signature, manys) in sides.manys.iter().enumerate().filter(|(_, m)| m.len() > 1) {
            let outcome =
                |m: u32, one: Option<u32>| Outcome { signature, many: Some(m as usize), one: one.map(|o| o as usize) };
            let fills = usize::from(self.matching.fill_right.is_some());
            budget.room(manys.len() * (sides.ones[signature].len() + fills) * size_of::<Outcome>())?;
            let mut pairs: Vec<Outcome> = Vec::new();
            for m in manys {
                budget.check()?;
                pairs.extend(sides.ones[signature].iter().map(|o| outcome(*m, Some(*o))));
                pairs.extend(self.matching.fill_right.map(|_| outcome(*m, None)));
            }
            let found = self.first_with_two(sides, pairs.iter(), budget)?;
            first = first.into_iter().chain(found).min();
        }
        let text = "many-to-one matching must be explicit (group_left/group_right)";
        Ok(first.map(|step| (step, Error::query(format!("multiple matches for labels: {text}")))))
    }

    /// The first step on which two of the pairs are combined.
    fn first_with_two<'o>(
        &self,
        sides: &Sides,
        pairs: impl Iterator<Item = &'o Outcome> + Clone,
        budget: &Budget,
    ) -> Result<Option<usize>, Error> {
        for step in 0..sides.until {
            let mut matched = 0;
            for (i, outcome) in pairs.clone().enumerate() {
                if i % CHECK_EVERY == 0 {
                    budget.check()?;
                }
                matched += usize::from(self.is_matched(sides, outcome, step));
                if matched == 2 {
                    return Ok(Some(step));
                }
            }
        }
        Ok(None)
    }

    fn combine(&self, many: &Column, one: &Column, notes: &mut Annotations) -> Column {
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
    fn check_unique(
        &self,
        sides: &Sides,
        out: &[Series],
        outcomes: &[Outcome],
        budget: &mut Budget,
    ) -> Result<Option<Failure>, Error> {
        type Same<'o> = SmallVec<[&'o Outcome; 1]>;
        budget.hold(0, 2 * outcomes.len() * size_of::<((usize, &str), Same<'_>)>())?;
        let mut seen: HashMap<(usize, &str), Same<'_>> = HashMap::new();
        for (i, outcome) in outcomes.iter().enumerate() {
            budget.check()?;
            seen.entry((outcome.signature, out[i].labels.canonical())).or_default().push(outcome);
        }
        let mut first: Option<usize> = None;
        for same in seen.values().filter(|same| same.len() > 1) {
            let found = self.first_with_two(sides, same.iter().copied(), budget)?;
            first = first.into_iter().chain(found).min();
        }
        let text = "grouping labels must ensure unique matches";
        Ok(first.map(|step| (step, Error::query(format!("multiple matches for labels: {text}")))))
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

/// Whether two columns have a sample on the same step.
fn meet(a: &Column, b: &Column) -> bool {
    (0..a.values.len()).any(|step| a.has(step) && b.has(step))
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
