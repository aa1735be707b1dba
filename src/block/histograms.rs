//! Native histograms: a row per series and slice, a list of structs.
//!
//! *Invariants:* every field of [`Histogram`] comes back bit for bit.
//!
//! *Not here:* timestamps (`timelines`), floats (`samples`).

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int8Builder, Int32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int8Type, Int32Type, TimestampMillisecondType};
use arrow_array::{
    Array, ArrayRef, Int32Array, ListArray, RecordBatch, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::errors::Result;

use super::schema::{Kind, file_schema, histogram_fields, span_fields, timestamp};
use super::slices::SliceRows;
use crate::model::{Histogram, ResetHint, Span};

/// Rows of one row group, collected.
#[derive(Default)]
pub(crate) struct HistogramRows {
    pub(crate) rows: SliceRows,
    histograms: Vec<Arc<Histogram>>,
    /// Start timestamps of rows that have any (0: none), back to back.
    created: Vec<i64>,
    has_created: Vec<bool>,
}

impl HistogramRows {
    /// Adds one row; its scalars are pushed to `rows` by the caller. `starts` is empty or as long as `histograms`.
    pub(crate) fn push(&mut self, histograms: impl Iterator<Item = Arc<Histogram>>, starts: &[i64]) {
        self.histograms.extend(histograms);
        let any = starts.iter().any(|s| *s != 0);
        self.has_created.push(any);
        if any {
            self.created.extend_from_slice(starts);
        }
    }

    /// Writes the rows as one row group.
    pub(crate) fn write(&self, file: &mut ArrowWriter<Vec<u8>>, block: &str) -> Result<()> {
        let rows = &self.rows;
        let times =
            |v: &[i64]| Arc::new(TimestampMillisecondArray::from_iter_values(v.iter().copied()).with_timezone("UTC"));
        let metric = rows.metric.iter().map(|m| m.as_utf8()).collect::<Result<Vec<_>>>()?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(metric.iter().map(|_| block))),
            Arc::new(Int32Array::from(rows.series_id.clone())),
            times(&rows.min_ts),
            times(&rows.max_ts),
            Arc::new(Int32Array::from(rows.timeline_id.clone())),
            Arc::new(StringArray::from(metric)),
            list_of("element", Arc::new(structs(&self.histograms)?), rows.len.iter().map(|n| *n as usize), None)?,
            self.created_column()?,
        ];
        let schema = Arc::new(file_schema(Kind::Histograms, &[]));
        file.write(&RecordBatch::try_new(schema, columns)?)?;
        file.flush()
    }

    fn created_column(&self) -> Result<ArrayRef> {
        let values = TimestampMillisecondArray::from_iter(self.created.iter().map(|s| (*s != 0).then_some(*s)));
        let lengths = self.rows.len.iter().zip(&self.has_created).map(|(n, has)| if *has { *n as usize } else { 0 });
        let field = Arc::new(Field::new("element", timestamp(), true));
        let valid = NullBuffer::from(self.has_created.clone());
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(values.with_timezone("UTC")), Some(valid))?))
    }
}

/// A list column over `values` with rows of these lengths.
fn list_of(
    name: &str,
    values: ArrayRef,
    lengths: impl Iterator<Item = usize>,
    valid: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let field = Arc::new(Field::new(name, values.data_type().clone(), false));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, valid)?))
}

fn structs(histograms: &[Arc<Histogram>]) -> Result<StructArray> {
    let mut integer = BooleanBuilder::new();
    let (mut schema, mut hint) = (Int32Builder::new(), Int8Builder::new());
    let mut doubles: [Float64Builder; 4] = Default::default();
    for h in histograms {
        integer.append_value(h.integer);
        schema.append_value(h.schema);
        hint.append_value(h.reset_hint as i8);
        for (column, v) in doubles.iter_mut().zip([h.zero_threshold, h.zero_count, h.count, h.sum]) {
            column.append_value(v);
        }
    }
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(integer.finish()), Arc::new(schema.finish()), Arc::new(hint.finish())];
    columns.extend(doubles.iter_mut().map(|b| Arc::new(b.finish()) as ArrayRef));
    columns.push(spans(histograms, |h| &h.positive_spans)?);
    columns.push(float_lists(histograms, |h| &h.positive)?);
    columns.push(spans(histograms, |h| &h.negative_spans)?);
    columns.push(float_lists(histograms, |h| &h.negative)?);
    columns.push(float_lists(histograms, |h| &h.custom_values)?);
    Ok(StructArray::try_new(histogram_fields(), columns, None)?)
}

fn float_lists(histograms: &[Arc<Histogram>], of: fn(&Histogram) -> &Vec<f64>) -> Result<ArrayRef> {
    let mut values = Float64Builder::new();
    for h in histograms {
        values.append_slice(of(h));
    }
    list_of("element", Arc::new(values.finish()), histograms.iter().map(|h| of(h).len()), None)
}

fn spans(histograms: &[Arc<Histogram>], of: fn(&Histogram) -> &Vec<Span>) -> Result<ArrayRef> {
    let all = || histograms.iter().flat_map(|h| of(h));
    let offset: ArrayRef = Arc::new(Int32Array::from_iter_values(all().map(|s| s.offset)));
    let length: ArrayRef = Arc::new(Int32Array::from_iter_values(all().map(|s| s.length as i32)));
    let values = StructArray::try_new(span_fields(), vec![offset, length], None)?;
    list_of("element", Arc::new(values), histograms.iter().map(|h| of(h).len()), None)
}

/// The histogram lists of a batch, row by row; the error says what is wrong.
pub(crate) fn decode(batch: &RecordBatch) -> std::result::Result<Vec<Vec<Arc<Histogram>>>, String> {
    let lists = batch.column_by_name("histogram").and_then(|c| c.as_list_opt::<i32>()).ok_or("no list histogram")?;
    let reader = StructReader::new(lists.values().as_struct_opt().ok_or("column histogram has no structs")?)?;
    let offsets = lists.value_offsets();
    let rows = offsets.windows(2).map(|w| (w[0] as usize..w[1] as usize).map(|i| reader.histogram(i)).collect());
    rows.collect()
}

/// The start timestamps of a batch, row by row (0: none); empty where a row has none.
pub(crate) fn decode_created(batch: &RecordBatch) -> std::result::Result<Vec<Vec<i64>>, String> {
    let lists = batch.column_by_name("created").and_then(|c| c.as_list_opt::<i32>()).ok_or("no list created")?;
    let values =
        lists.values().as_primitive_opt::<TimestampMillisecondType>().ok_or("column created has no timestamps")?;
    let offsets = lists.value_offsets();
    let start = |i: usize| if values.is_null(i) { 0 } else { values.value(i) };
    Ok(offsets.windows(2).map(|w| (w[0] as usize..w[1] as usize).map(start).collect()).collect())
}

/// The columns of the histogram struct.
struct StructReader<'a> {
    integer: &'a arrow_array::BooleanArray,
    schema: &'a [i32],
    hint: &'a [i8],
    doubles: [&'a [f64]; 4],
    spans: [&'a ListArray; 2],
    counts: [&'a ListArray; 3],
}

impl<'a> StructReader<'a> {
    fn new(of: &'a StructArray) -> std::result::Result<Self, String> {
        let column = |name: &str| {
            let found = of.column_by_name(name).filter(|c| c.null_count() == 0);
            found.ok_or_else(|| format!("histogram has no field {name}, or nulls in it"))
        };
        let wrong = |name: &str| format!("histogram field {name} has another type");
        let double = |name: &str| {
            let found = column(name)?.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong(name))?;
            Ok::<_, String>(&**found.values())
        };
        let list = |name: &str, element: fn(&DataType) -> bool| {
            let found = column(name)?.as_list_opt::<i32>().filter(|l| element(l.values().data_type()));
            found.filter(|l| l.values().null_count() == 0).ok_or_else(|| wrong(name))
        };
        let spans = |name: &str| list(name, |t| matches!(t, DataType::Struct(f) if f.len() == 2));
        let floats = |name: &str| list(name, |t| *t == DataType::Float64);
        Ok(Self {
            integer: column("integer")?.as_boolean_opt().ok_or_else(|| wrong("integer"))?,
            schema: column("schema")?.as_primitive_opt::<Int32Type>().ok_or_else(|| wrong("schema"))?.values(),
            hint: column("reset_hint")?.as_primitive_opt::<Int8Type>().ok_or_else(|| wrong("reset_hint"))?.values(),
            doubles: [double("zero_threshold")?, double("zero_count")?, double("count")?, double("sum")?],
            spans: [spans("positive_spans")?, spans("negative_spans")?],
            counts: [floats("positive")?, floats("negative")?, floats("custom_values")?],
        })
    }

    fn histogram(&self, i: usize) -> std::result::Result<Arc<Histogram>, String> {
        let floats = |l: &ListArray| {
            let values = l.value(i);
            values.as_primitive_opt::<Float64Type>().map(|v| v.values().to_vec()).ok_or("buckets are no doubles")
        };
        let spans = |l: &ListArray| -> std::result::Result<Vec<Span>, &'static str> {
            let values = l.value(i);
            let fields = values.as_struct_opt().ok_or("spans are no structs")?;
            let column = |n: usize| fields.column(n).as_primitive_opt::<Int32Type>().ok_or("spans are no integers");
            let pairs = column(0)?.values().iter().zip(column(1)?.values());
            Ok(pairs.map(|(offset, length)| Span { offset: *offset, length: *length as u32 }).collect())
        };
        let histogram = Histogram {
            integer: self.integer.value(i),
            schema: self.schema[i],
            reset_hint: ResetHint::from_u8(self.hint[i] as u8),
            zero_threshold: self.doubles[0][i],
            zero_count: self.doubles[1][i],
            count: self.doubles[2][i],
            sum: self.doubles[3][i],
            positive_spans: spans(self.spans[0])?,
            positive: floats(self.counts[0])?,
            negative_spans: spans(self.spans[1])?,
            negative: floats(self.counts[1])?,
            custom_values: floats(self.counts[2])?,
        };
        // Whoever evaluates it walks its spans and buckets together.
        histogram.validate()?;
        Ok(Arc::new(histogram))
    }
}
