//! The columns of each kind of file, and the one table schema that holds them all.
//!
//! *Invariants:* a column has the same type in every kind that has it, and every column is nullable in the table, so
//! that files of all kinds live in one Delta table and missing columns read as null. Types are those Delta knows.
//!
//! *Not here:* how columns are encoded (`encoding`), the catalog that stores the table schema (`store`).

use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use serde_json::{Value, json};

use crate::model::labels::is_legacy_label_name;

/// Version of the layout, written into every file's key-value metadata under [`VERSION_KEY`].
pub const VERSION: &str = "1";

/// Key of the layout version in a file's metadata.
pub const VERSION_KEY: &str = "metrolith.block.version";

/// Key of the tenant's name in the metadata of a series file whose hashes are derived from it.
pub const TENANT_KEY: &str = "metrolith.tenant";

/// Columns of the table that stand in paths, not in files.
pub const PARTITION_COLUMNS: [&str; 3] = ["resolution", "kind", "date"];

/// Labels that get a column of their own unless configured otherwise.
pub const DEFAULT_PROMOTED: [&str; 20] = [
    "cluster",
    "namespace",
    "job",
    "pod",
    "instance",
    "container",
    "node",
    "service",
    "endpoint",
    "zone",
    "region",
    "device",
    "mode",
    "code",
    "method",
    "handler",
    "path",
    "le",
    "quantile",
    "name",
];

/// Kind of a block file; the value of the partition column `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A row per series: its labels.
    Series,
    /// A row per distinct list of timestamps.
    Timelines,
    /// A row per series and slice: floats.
    Samples,
    /// A row per series and slice: native histograms.
    Histograms,
    /// A row per exemplar.
    Exemplars,
}

impl Kind {
    /// All kinds, in the order in which a block lists its files.
    pub const ALL: [Self; 5] = [Self::Series, Self::Timelines, Self::Samples, Self::Histograms, Self::Exemplars];

    /// The word in paths and in the partition column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Timelines => "timelines",
            Self::Samples => "samples",
            Self::Histograms => "histograms",
            Self::Exemplars => "exemplars",
        }
    }

    /// The kind of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Name of the column that holds the promoted label `name`.
pub fn promoted_column(name: &str) -> String {
    format!("l_{name}")
}

/// Checks a list of promoted labels: classic label names, each once even without regard to case (Delta's rule).
pub fn check_promoted(names: &[Arc<str>]) -> Result<(), String> {
    for (i, name) in names.iter().enumerate() {
        if !is_legacy_label_name(name) || name.starts_with("__") {
            return Err(format!("label {name:?} cannot be promoted: not a plain label name"));
        }
        if names[..i].iter().any(|n| n.eq_ignore_ascii_case(name)) {
            return Err(format!("label {name:?} is promoted twice"));
        }
    }
    Ok(())
}

/// The value of the partition column `date`: the UTC date of `ms` as `YYYY-MM-DD`.
pub fn partition_date(ms: i64) -> String {
    let (y, m, d) = civil(ms.div_euclid(86_400_000));
    format!("{y:04}-{m:02}-{d:02}")
}

/// Year, month and day of a day counted from 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// Type of all timestamps in files.
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

pub(crate) fn list(element: DataType, nullable: bool) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, nullable)))
}

/// Fields of one span of buckets.
pub(crate) fn span_fields() -> Fields {
    Fields::from(vec![Field::new("offset", DataType::Int32, false), Field::new("length", DataType::Int32, false)])
}

/// Fields of one native histogram.
pub(crate) fn histogram_fields() -> Fields {
    let double = |name| Field::new(name, DataType::Float64, false);
    let spans = |name| Field::new(name, list(DataType::Struct(span_fields()), false), false);
    let doubles = |name| Field::new(name, list(DataType::Float64, false), false);
    Fields::from(vec![
        Field::new("integer", DataType::Boolean, false),
        Field::new("schema", DataType::Int32, false),
        Field::new("reset_hint", DataType::Int8, false),
        double("zero_threshold"),
        double("zero_count"),
        double("count"),
        double("sum"),
        spans("positive_spans"),
        doubles("positive"),
        spans("negative_spans"),
        doubles("negative"),
        doubles("custom_values"),
    ])
}

pub(crate) fn label_map() -> DataType {
    let pair = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, false)]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(pair), false)), false)
}

/// Columns of a file of `kind`, in the order in which they are stored.
pub fn file_schema(kind: Kind, promoted: &[Arc<str>]) -> Schema {
    let required = |name: &str, t: DataType| Field::new(name, t, false);
    let optional = |name: &str, t: DataType| Field::new(name, t, true);
    let mut fields = vec![required("block", DataType::Utf8)];
    let slice = || {
        vec![
            required("series_id", DataType::Int32),
            required("min_ts", timestamp()),
            required("max_ts", timestamp()),
            required("timeline_id", DataType::Int32),
            required("metric", DataType::Utf8),
        ]
    };
    match kind {
        Kind::Series => {
            fields.push(required("series_id", DataType::Int32));
            fields.push(optional("series_hash", DataType::Int64));
            fields.push(required("min_ts", timestamp()));
            fields.push(required("max_ts", timestamp()));
            fields.push(required("metric", DataType::Utf8));
            fields.extend(promoted.iter().map(|name| optional(&promoted_column(name), DataType::Utf8)));
            fields.push(required("labels", label_map()));
        }
        Kind::Timelines => {
            fields.push(required("timeline_id", DataType::Int32));
            fields.push(required("ts", list(timestamp(), false)));
        }
        Kind::Samples => {
            fields.extend(slice());
            fields.push(optional("scale", DataType::Int8));
            fields.push(optional("mul", DataType::Int64));
            fields.push(optional("value_i", list(DataType::Int64, true)));
            fields.push(optional("value_f", list(DataType::Float64, true)));
            fields.push(optional("created", list(timestamp(), true)));
        }
        Kind::Histograms => {
            fields.extend(slice());
            fields.push(required("histogram", list(DataType::Struct(histogram_fields()), false)));
            fields.push(optional("created", list(timestamp(), true)));
        }
        Kind::Exemplars => {
            fields.push(required("series_id", DataType::Int32));
            fields.push(required("exemplar_ts", timestamp()));
            fields.push(required("exemplar_value", DataType::Float64));
            fields.push(required("labels", label_map()));
        }
    }
    Schema::new(fields)
}

/// The columns of all kinds together, each once, without the partition columns.
pub fn union_schema(promoted: &[Arc<str>]) -> Schema {
    let mut fields: Vec<Field> = Vec::new();
    for kind in Kind::ALL {
        for field in file_schema(kind, promoted).fields() {
            if !fields.iter().any(|f| f.name() == field.name()) {
                fields.push(field.as_ref().clone().with_nullable(true));
            }
        }
    }
    Schema::new(fields)
}

/// The table's schema as Delta's `metaData.schemaString` wants it, partition columns ([`PARTITION_COLUMNS`]) included.
pub fn delta_schema_json(promoted: &[Arc<str>]) -> String {
    let mut fields: Vec<Value> = vec![
        delta_field("resolution", json!("string"), true),
        delta_field("kind", json!("string"), true),
        delta_field("date", json!("date"), true),
    ];
    fields
        .extend(union_schema(promoted).fields().iter().map(|f| delta_field(f.name(), delta_type(f.data_type()), true)));
    json!({"type": "struct", "fields": fields}).to_string()
}

fn delta_field(name: &str, of: Value, nullable: bool) -> Value {
    json!({"name": name, "type": of, "nullable": nullable, "metadata": {}})
}

fn delta_type(of: &DataType) -> Value {
    match of {
        DataType::Utf8 => json!("string"),
        DataType::Boolean => json!("boolean"),
        DataType::Int8 => json!("byte"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float64 => json!("double"),
        DataType::Timestamp(..) => json!("timestamp"),
        // Nullability inside lists and structs is loosened: readers may then check nothing that a later version gives up.
        DataType::List(item) => {
            json!({"type": "array", "elementType": delta_type(item.data_type()), "containsNull": true})
        }
        DataType::Struct(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|f| delta_field(f.name(), delta_type(f.data_type()), true)).collect();
            json!({"type": "struct", "fields": fields})
        }
        DataType::Map(..) => {
            json!({"type": "map", "keyType": "string", "valueType": "string", "valueContainsNull": true})
        }
        other => unreachable!("BUG: the schema has a column of type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_utc_days() {
        for (ms, date) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (951_782_400_000, "2000-02-29"),
            (1_780_272_000_000, "2026-06-01"),
            (4_107_542_399_999, "2100-02-28"),
            (4_107_542_400_000, "2100-03-01"),
        ] {
            assert_eq!(partition_date(ms), date);
        }
    }

    #[test]
    fn a_column_has_one_type_in_all_kinds() {
        let promoted: Vec<Arc<str>> = DEFAULT_PROMOTED.map(Arc::from).to_vec();
        check_promoted(&promoted).unwrap();
        let union = union_schema(&promoted);
        for kind in Kind::ALL {
            for field in file_schema(kind, &promoted).fields() {
                assert_eq!(union.field_with_name(field.name()).unwrap().data_type(), field.data_type(), "{field}");
            }
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        let json: Value = serde_json::from_str(&delta_schema_json(&promoted)).unwrap();
        assert_eq!(json["fields"].as_array().unwrap().len(), union.fields().len() + PARTITION_COLUMNS.len());
    }

    #[test]
    fn refuses_labels_that_make_no_column() {
        for bad in [&["__name__"][..], &["a.b"], &["a", "A"], &[""]] {
            let names: Vec<Arc<str>> = bad.iter().map(|n| Arc::from(*n)).collect();
            assert!(check_promoted(&names).is_err(), "{bad:?}");
        }
    }
}
