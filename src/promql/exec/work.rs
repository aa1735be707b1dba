//! What is computed for one series: its leaf and the stages behind it.
//!
//! *Invariants:* the outcome depends on the series (and on scalars) alone, whichever thread computes it and whatever it
//! computed before.
//!
//! *Not here:* which series come when (`exec::stream`), on how many threads (`exec::parallel`).

use std::sync::Arc;

use super::column::{Column, Series};
use super::counts::SampleCounts;
use super::error::Error;
use super::labels::{TYPE_LABEL, drop_name, drop_reserved};
use super::range::RangeFunction;
use super::range_histogram;
use super::reader::{RangeSamples, read_all, totals_only};
use super::select::select;
use super::stage::Stage;
use crate::model::labels::Quoted;
use crate::model::{Columns, Labels, StepGrid};
use crate::promql::annotations::Annotations;
use crate::promql::functions::histogram_range::Findings;
use crate::promql::functions::window::{Windows, is_absent};
use crate::promql::plan::{NodeId, Pick};
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;
use crate::promql::source::SelectedSeries;

/// A series before it is computed.
pub enum Input {
    /// In the storage.
    Stored(SelectedSeries),
    /// Of another node.
    Made(Series),
}

impl Input {
    /// Its labels.
    pub fn labels(&self) -> &Labels {
        match self {
            Self::Stored(series) => &series.labels,
            Self::Made(series) => &series.labels,
        }
    }

    /// The partition of the storage; 0 for what is computed already.
    pub fn partition(&self) -> u32 {
        match self {
            Self::Stored(series) => series.partition,
            Self::Made(_) => 0,
        }
    }

    /// Series of one batch are decoded together; 0 where each is on its own.
    pub fn batch(&self) -> u32 {
        match self {
            Self::Stored(series) => series.batch,
            Self::Made(_) => 0,
        }
    }
}

/// What makes columns of series.
#[derive(Clone)]
pub enum Leaf {
    /// An instant vector selector.
    Select {
        /// Steps and lookback.
        windows: Windows,
        /// What is taken of a sample.
        pick: Pick,
        /// Place of the selector in the text.
        span: Span,
    },
    /// A function of stored series.
    Range(Box<RangeFunction>),
    /// A function of a subquery.
    Subquery {
        /// Inner steps.
        grid: StepGrid,
        /// The function.
        function: Box<RangeFunction>,
    },
    /// Nothing: they are there already.
    Ready,
}

impl Leaf {
    /// Whether series lose their names.
    pub fn drops_names(&self) -> bool {
        use FunctionName as F;
        match self {
            Self::Range(function) | Self::Subquery { function, .. } => {
                !matches!(function.function, F::LastOverTime | F::FirstOverTime | F::AbsentOverTime)
            }
            Self::Select { pick, .. } => matches!(pick, Pick::Timestamp | Pick::StartTimestamp),
            Self::Ready => false,
        }
    }

    /// Whether it is a function of a range vector.
    pub fn is_range_call(&self) -> bool {
        matches!(self, Self::Range(_) | Self::Subquery { .. })
    }

    /// Bytes of the samples of a subquery's series, which are there twice until its function is evaluated.
    pub fn inner_bytes(&self) -> usize {
        if let Self::Subquery { grid, .. } = self { grid.len() * size_of::<(i64, f64)>() } else { 0 }
    }

    /// Number of steps, where columns are made.
    pub fn steps(&self) -> Option<usize> {
        match self {
            Self::Select { windows, .. } => Some(windows.grid.len()),
            Self::Range(function) | Self::Subquery { function, .. } => Some(function.windows.grid.len()),
            Self::Ready => None,
        }
    }
}

/// How names are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRemoval {
    /// By each operation.
    AtOnce,
    /// At the end of the query.
    Delayed,
}

/// What of the engine's options concerns single series.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How names are removed.
    pub removal: NameRemoval,
    /// Start timestamps tell counter resets.
    pub with_starts: bool,
    /// `__type__` tells counters from gauges.
    pub type_labels: bool,
}

/// What was read of a series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// Samples.
    pub samples: usize,
    /// Bytes they took when decoded.
    pub bytes: usize,
}

/// Computes one series after the other, with buffers of its own.
pub struct Worker {
    /// What makes columns.
    pub leaf: Leaf,
    /// The leaf in the plan.
    node: NodeId,
    /// From the leaf outwards.
    pub stages: Arc<[Stage]>,
    /// How.
    pub rules: Rules,
    columns: Columns,
    piece: Columns,
    samples: RangeSamples,
    last_metric: String,
}

impl Worker {
    /// A worker; `stages` from the leaf outwards.
    pub fn new((leaf, node): (Leaf, NodeId), stages: Vec<Stage>, rules: Rules) -> Self {
        Self {
            leaf,
            node,
            stages: stages.into(),
            rules,
            columns: Columns::default(),
            piece: Columns::default(),
            samples: RangeSamples::default(),
            last_metric: String::new(),
        }
    }

    /// Another one for the same work.
    pub fn fork(&self) -> Self {
        Self {
            leaf: self.leaf.clone(),
            node: self.node,
            stages: Arc::clone(&self.stages),
            rules: self.rules,
            columns: Columns::default(),
            piece: Columns::default(),
            samples: RangeSamples::default(),
            last_metric: String::new(),
        }
    }

    /// Computes the column of a series into `out`. What was read is known even if that fails.
    pub fn column(&mut self, input: Input, out: &mut Series, notes: &mut Annotations) -> (Read, Result<(), Error>) {
        let mut read = Read::default();
        let outcome = self.try_column(input, out, notes, &mut read);
        (read, outcome)
    }

    fn try_column(
        &mut self,
        input: Input,
        out: &mut Series,
        notes: &mut Annotations,
        read: &mut Read,
    ) -> Result<(), Error> {
        match input {
            Input::Stored(mut series) => {
                read_all(series.cursor.as_mut(), &mut self.columns, &mut self.piece)?;
                *read = Read { samples: self.columns.len(), bytes: self.columns.heap_bytes() };
                (out.labels, out.dropped) = (series.labels, false);
            }
            Input::Made(series) => {
                let Leaf::Subquery { grid, .. } = &self.leaf else {
                    *out = series;
                    return Ok(());
                };
                self.samples.take_steps(&series.column, *grid);
                (out.labels, out.dropped) = (series.labels, series.dropped);
            }
        }
        match &mut self.leaf {
            Leaf::Ready => {}
            Leaf::Select { windows, pick, span } => {
                if *pick == Pick::Totals {
                    totals_only(&mut self.columns);
                }
                let mut found = Findings::default();
                select(&self.columns, windows, *pick, &mut out.column, &mut found);
                range_histogram::note(found, out.labels.metric(), *span, notes);
            }
            Leaf::Range(function) => {
                if function.totals {
                    totals_only(&mut self.columns);
                }
                self.samples.take(&mut self.columns, self.rules.with_starts);
                function.eval(&out.labels, &self.samples, &mut out.column, notes)?;
                note_gauges(function, out, &mut self.last_metric, self.rules.type_labels, notes);
            }
            Leaf::Subquery { function, .. } => {
                function.eval(&out.labels, &self.samples, &mut out.column, notes)?;
                note_gauges(function, out, &mut self.last_metric, self.rules.type_labels, notes);
            }
        }
        if self.leaf.drops_names() {
            remove_name(out, self.rules.removal, false);
        }
        Ok(())
    }

    /// Counts what the series computed last, which is not staged yet, has seen.
    pub fn count(&self, series: &Series, counts: &mut SampleCounts) {
        match &self.leaf {
            Leaf::Ready => {}
            Leaf::Select { windows, .. } => counts.selected(self.node, windows.grid, &series.column),
            Leaf::Range(function) => counts.windowed(self.node, &function.windows, &self.samples, true),
            Leaf::Subquery { function, .. } => counts.windowed(self.node, &function.windows, &self.samples, false),
        }
    }

    /// Takes a column through all stages; `false` when nothing is left of it.
    pub fn stage(&self, series: &mut Series, notes: &mut Annotations) -> bool {
        if series.column.is_empty() {
            return false;
        }
        self.stages.iter().for_each(|stage| self.apply(stage, series, notes));
        self.stages.is_empty() || !series.column.is_empty()
    }

    /// Takes a column through one stage.
    pub fn apply(&self, stage: &Stage, series: &mut Series, notes: &mut Annotations) {
        stage.apply(series, notes);
        if stage.drops_name() {
            remove_name(series, self.rules.removal, stage.keeps_metadata());
        }
    }
}

fn remove_name(series: &mut Series, removal: NameRemoval, keep_metadata: bool) {
    match removal {
        NameRemoval::Delayed => series.dropped = true,
        NameRemoval::AtOnce if keep_metadata => series.labels = drop_name(&series.labels),
        NameRemoval::AtOnce => series.labels = drop_reserved(&series.labels),
    }
}

/// Hints at metrics that do not look like counters.
fn note_gauges(
    function: &RangeFunction,
    series: &Series,
    last: &mut String,
    type_labels: bool,
    notes: &mut Annotations,
) {
    if !matches!(function.function, FunctionName::Rate | FunctionName::Increase) {
        return;
    }
    let metric = series.labels.metric();
    let counter_name = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| metric.ends_with(suffix));
    let has_floats = |c: &Column| c.values.iter().any(|v| !is_absent(*v));
    if metric.is_empty() || (!type_labels && (counter_name || *last == metric)) || !has_floats(&series.column) {
        return;
    }
    if !type_labels {
        metric.clone_into(last);
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
        notes.info(function.span, format!("{text} {}", Quoted(metric)));
        return;
    }
    let declared = series.labels.get(TYPE_LABEL);
    if declared != "counter" && declared != "histogram" {
        let text = "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\"";
        notes.info(function.span, format!("{text}, got {}: {}", Quoted(declared), Quoted(metric)));
    }
}
