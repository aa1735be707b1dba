//! The series file: labels of every series, written and read.
//!
//! *Invariants:* `series_id` is the row number. A label is in its promoted column or in the map, never in both.
//!
//! *Not here:* finding series (`index`).

use std::sync::Arc;

use arrow_array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow_schema::Schema;
use hashbrown::HashMap;
use parquet::errors::Result;
use parquet::file::metadata::KeyValue;

use super::encoding;
use super::schema::{Kind, TENANT_KEY, file_schema, promoted_column};
use crate::model::{Labels, METRIC_NAME, TenantId};

/// Rows of a record batch handed to the encoder.
const BATCH_ROWS: usize = 8192;

/// Rows of a row group: dictionaries are per row group, and the file is read whole.
const ROW_GROUP_ROWS: usize = 1 << 18;

/// One row of the file.
#[derive(Debug, Clone)]
pub(crate) struct SeriesRow {
    pub(crate) labels: Labels,
    pub(crate) hash: u64,
    pub(crate) min_ts: i64,
    pub(crate) max_ts: i64,
}

/// Promoted labels by name.
type Promoted<'a> = HashMap<&'a str, usize>;

/// The file of all series of a block. Promoted labels that no series has get no column: it would read as null anyway.
///
/// With a tenant the column of hashes is left out too; the tenant's name in the file's metadata stands for it.
pub(crate) fn encode(
    rows: &[SeriesRow],
    block: &str,
    tenant: Option<&TenantId>,
    promoted: &[Arc<str>],
    level: i32,
) -> Result<Vec<u8>> {
    let all: Promoted<'_> = promoted.iter().enumerate().map(|(i, name)| (&**name, i)).collect();
    let mut used = vec![false; promoted.len()];
    for at in rows.iter().flat_map(|r| r.labels.iter()).filter_map(|(name, _)| all.get(name)) {
        used[*at] = true;
    }
    let names: Vec<Arc<str>> =
        promoted.iter().zip(&used).filter(|(_, used)| **used).map(|(n, _)| Arc::clone(n)).collect();
    let promoted: Promoted<'_> = names.iter().enumerate().map(|(i, name)| (&**name, i)).collect();
    let fields = file_schema(Kind::Series, &names).fields;
    let stored = |name: &str| tenant.is_none() || name != "series_hash";
    let schema = Arc::new(Schema::new(fields.iter().filter(|f| stored(f.name())).cloned().collect::<Vec<_>>()));
    let mut file = encoding::new_arrow_file(&schema, encoding::properties(Kind::Series, level)?)?;
    if let Some(tenant) = tenant {
        file.append_key_value_metadata(KeyValue::new(TENANT_KEY.to_owned(), tenant.to_string()));
    }
    let mut first = 0;
    for group in rows.chunks(ROW_GROUP_ROWS) {
        for batch in group.chunks(BATCH_ROWS) {
            file.write(&RecordBatch::try_new(
                Arc::clone(&schema),
                columns(batch, first, block, tenant.is_none(), &promoted),
            )?)?;
            first += batch.len();
        }
        file.flush()?;
    }
    file.into_inner()
}

fn columns(rows: &[SeriesRow], first: usize, block: &str, hashes: bool, promoted: &Promoted<'_>) -> Vec<ArrayRef> {
    let ids = first as i32..(first + rows.len()) as i32;
    let times = |of: fn(&SeriesRow) -> i64| {
        TimestampMillisecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC")
    };
    let mut values: Vec<Vec<Option<&str>>> = vec![vec![None; rows.len()]; promoted.len()];
    for (i, row) in rows.iter().enumerate() {
        for (name, value) in row.labels.iter() {
            if let Some(at) = promoted.get(name) {
                values[*at][i] = Some(value);
            }
        }
    }
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| block))),
        Arc::new(Int32Array::from_iter_values(ids)),
    ];
    if hashes {
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.hash as i64))));
    }
    columns.push(Arc::new(times(|r| r.min_ts)));
    columns.push(Arc::new(times(|r| r.max_ts)));
    columns.push(Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.labels.metric()))));
    columns.extend(values.into_iter().map(|v| Arc::new(StringArray::from(v)) as ArrayRef));
    let in_map = |name: &str| name != METRIC_NAME && !promoted.contains_key(name);
    columns.push(label_map(rows.iter().map(|r| r.labels.iter().filter(|(name, _)| in_map(name)))));
    columns
}

/// A column of label maps, as the schema declares them.
pub(crate) fn label_map<'a>(rows: impl Iterator<Item = impl Iterator<Item = (&'a str, &'a str)>>) -> ArrayRef {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut map = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
        .with_values_field(arrow_schema::Field::new("value", arrow_schema::DataType::Utf8, false));
    for row in rows {
        for (name, value) in row {
            map.keys().append_value(name);
            map.values().append_value(value);
        }
        // Fails only for keys and values of different number.
        let _ = map.append(true);
    }
    Arc::new(map.finish())
}

/// A decoded batch of the file, columns found and checked.
pub(crate) struct SeriesBatch<'a> {
    hash: Option<&'a Int64Array>,
    min_ts: &'a TimestampMillisecondArray,
    max_ts: &'a TimestampMillisecondArray,
    metric: &'a StringArray,
    promoted: Vec<(&'a str, &'a StringArray)>,
    maps: &'a arrow_array::MapArray,
}

impl<'a> SeriesBatch<'a> {
    /// Finds the columns; `first` is the row number of the batch's first row. The error says what is wrong.
    pub(crate) fn new(
        batch: &'a RecordBatch,
        promoted: &'a [Arc<str>],
        first: usize,
    ) -> std::result::Result<Self, String> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column {name}"));
        let wrong = |name: &str| format!("column {name} has another type or nulls");
        let required =
            |name: &str| column(name).and_then(|c| if c.null_count() > 0 { Err(wrong(name)) } else { Ok(c) });
        let ids = required("series_id")?.as_primitive_opt::<Int32Type>().ok_or_else(|| wrong("series_id"))?;
        if !ids.values().iter().zip(first..).all(|(id, row)| *id as usize == row) {
            return Err("series_id is not the row number".into());
        }
        let time =
            |name: &str| required(name)?.as_primitive_opt::<TimestampMillisecondType>().ok_or_else(|| wrong(name));
        let mut found = Vec::with_capacity(promoted.len());
        for name in promoted {
            let column_name = promoted_column(name);
            let values = column(&column_name)?.as_string_opt::<i32>().ok_or_else(|| wrong(&column_name))?;
            found.push((&**name, values));
        }
        Ok(Self {
            hash: match batch.column_by_name("series_hash") {
                Some(_) => {
                    let found = required("series_hash")?.as_primitive_opt::<Int64Type>();
                    Some(found.ok_or_else(|| wrong("series_hash"))?)
                }
                None => None,
            },
            min_ts: time("min_ts")?,
            max_ts: time("max_ts")?,
            metric: required("metric")?.as_string_opt::<i32>().ok_or_else(|| wrong("metric"))?,
            promoted: found,
            maps: required("labels")?.as_map_opt().ok_or_else(|| wrong("labels"))?,
        })
    }

    /// Hash (where stored), first and last timestamp of row `i`.
    pub(crate) fn scalars(&self, i: usize) -> (Option<u64>, i64, i64) {
        (self.hash.map(|h| h.value(i) as u64), self.min_ts.value(i), self.max_ts.value(i))
    }

    /// Hands the labels of row `i` to `each`, in no particular order.
    pub(crate) fn labels(&self, i: usize, mut each: impl FnMut(&str, &str)) -> std::result::Result<(), String> {
        if !self.metric.value(i).is_empty() {
            each(METRIC_NAME, self.metric.value(i));
        }
        for (name, values) in self.promoted.iter().filter(|(_, v)| v.is_valid(i)) {
            each(name, values.value(i));
        }
        read_map(self.maps, i, each)
    }
}

/// Hands the pairs of row `i` of a column of label maps to `each`.
pub(crate) fn read_map(
    maps: &arrow_array::MapArray,
    i: usize,
    mut each: impl FnMut(&str, &str),
) -> std::result::Result<(), String> {
    let keys = maps.keys().as_string_opt::<i32>().ok_or("column labels has another type")?;
    let values = maps.values().as_string_opt::<i32>().ok_or("column labels has another type")?;
    let offsets = maps.value_offsets();
    for at in offsets[i] as usize..offsets[i + 1] as usize {
        each(keys.value(at), values.value(at));
    }
    Ok(())
}
