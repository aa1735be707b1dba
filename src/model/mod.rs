//! The words of the field as plain data: labels, samples, histograms, matchers, time, identities, decoded batches.
//!
//! *Invariants:* every type is a value: no clock, no I/O, no interior mutability. Timestamps are milliseconds since the
//! Unix epoch (`i64`), durations milliseconds too unless the name says otherwise.
//!
//! *Not here:* how samples are packed (`chunk`), kept (`head`, `block`) or evaluated (`promql`).

pub mod batch;
pub mod buckets;
pub mod histogram;
pub mod ids;
pub mod labels;
pub mod matcher;
pub mod number;
pub mod regexp;
pub mod sample;
pub mod time;

pub use batch::{Batch, ExemplarRow, HistogramRow, MetadataRow, MetricType, SampleRow, SeriesRow};
pub use histogram::{Histogram, ResetHint, Span};
pub use ids::{BlockName, Epoch, NodeId, SeriesId, ShardId, TenantId};
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use matcher::{MatchOp, Matcher, Stopped};
pub use sample::{Columns, Exemplar, STALE_NAN_BITS, is_stale, stale_nan};
pub use time::{StepGrid, TimeRange};
