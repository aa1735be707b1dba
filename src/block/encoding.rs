//! How columns become Parquet: properties per kind, and writing a column page by page.
//!
//! *Invariants:* list pages end where the caller ends them, scalars lie in one page per row group; statistics only on
//! scalars. Nothing of the machine or the moment goes into a file.
//!
//! *Not here:* which columns there are (`schema`), what is in them (`samples`, `timelines`, `series`, `histograms`).
//!
//! The crate cuts a page after a `write_batch` that reached the row limit; with a limit of one row and batches that are
//! never split, each `write_batch` is one page.

use std::sync::Arc;

use arrow_schema::Schema;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnPath;

use super::schema::{Kind, VERSION, VERSION_KEY};

/// Never split a batch, never cut a page for its size: pages end where we say.
const UNLIMITED: usize = 1 << 30;

/// A file being written with the low-level column writers.
pub(crate) type File = SerializedFileWriter<Vec<u8>>;

/// A row group being written.
pub(crate) type RowGroup<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

/// A file for row groups written column by column.
pub(crate) fn new_file(schema: &Schema, properties: WriterProperties) -> Result<File> {
    let schema = ArrowSchemaConverter::new().convert(schema)?;
    SerializedFileWriter::new(Vec::new(), schema.root_schema_ptr(), Arc::new(properties))
}

/// A file for record batches.
pub(crate) fn new_arrow_file(schema: &Schema, properties: WriterProperties) -> Result<ArrowWriter<Vec<u8>>> {
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(Vec::new(), Arc::new(schema.clone()), options)
}

/// Properties of a file of `kind` whose big columns are compressed at zstd `level`.
pub(crate) fn properties(kind: Kind, level: i32) -> Result<WriterProperties> {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(level)?);
    let base = WriterProperties::builder()
        .set_created_by(format!("metrolith block {VERSION}"))
        .set_key_value_metadata(Some(vec![KeyValue::new(VERSION_KEY.to_owned(), VERSION.to_owned())]))
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(None)
        .set_write_batch_size(UNLIMITED)
        .set_data_page_row_count_limit(UNLIMITED)
        .set_data_page_size_limit(UNLIMITED)
        .set_dictionary_page_size_limit(UNLIMITED);
    let delta = |p: WriterPropertiesBuilder, column: &str| plain_scalar(p, column, Encoding::DELTA_BINARY_PACKED);
    let built = match kind {
        Kind::Series => series_properties(base, zstd),
        Kind::Timelines => {
            let p = delta(base, "timeline_id");
            list(p, "ts.list.element", zstd, Encoding::DELTA_BINARY_PACKED)
        }
        Kind::Samples => {
            let p = slice_properties(base, zstd);
            let p = list(p, "value_i.list.element", zstd, Encoding::DELTA_BINARY_PACKED);
            let p = list(p, "value_f.list.element", zstd, Encoding::PLAIN);
            created(p, zstd)
        }
        Kind::Histograms => {
            created(slice_properties(base, zstd), zstd).set_write_batch_size(64).set_data_page_row_count_limit(4)
        }
        Kind::Exemplars => delta(base, "series_id").set_compression(zstd).set_data_page_row_count_limit(1024),
    };
    Ok(built.build())
}

/// Columns shared by samples and histograms.
fn slice_properties(p: WriterPropertiesBuilder, zstd: Compression) -> WriterPropertiesBuilder {
    let p = plain_scalar(p, "series_id", Encoding::DELTA_BINARY_PACKED);
    let p = plain_scalar(p, "timeline_id", Encoding::DELTA_BINARY_PACKED);
    // One page per row group, read once and kept (`directory`): worth compressing.
    p.set_compression(zstd)
}

fn series_properties(p: WriterPropertiesBuilder, zstd: Compression) -> WriterPropertiesBuilder {
    let p = plain_scalar(p, "series_id", Encoding::DELTA_BINARY_PACKED);
    let p = plain_scalar(p, "series_hash", Encoding::PLAIN);
    p.set_compression(zstd)
        .set_column_compression(ColumnPath::from("series_hash"), Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_write_batch_size(1024)
        .set_data_page_row_count_limit(8192)
}

fn created(p: WriterPropertiesBuilder, zstd: Compression) -> WriterPropertiesBuilder {
    let p = list(p, "created.list.element", zstd, Encoding::DELTA_BINARY_PACKED);
    // The null count tells a reader that a row group has none at all.
    p.set_column_statistics_enabled(path("created.list.element"), EnabledStatistics::Chunk)
}

fn plain_scalar(p: WriterPropertiesBuilder, column: &str, encoding: Encoding) -> WriterPropertiesBuilder {
    p.set_column_dictionary_enabled(path(column), false).set_column_encoding(path(column), encoding)
}

fn list(p: WriterPropertiesBuilder, column: &str, zstd: Compression, encoding: Encoding) -> WriterPropertiesBuilder {
    p.set_column_dictionary_enabled(path(column), false)
        .set_column_encoding(path(column), encoding)
        .set_column_compression(path(column), zstd)
        .set_column_statistics_enabled(path(column), EnabledStatistics::None)
        .set_column_data_page_row_count_limit(path(column), 1)
}

fn path(dotted: &str) -> ColumnPath {
    ColumnPath::new(dotted.split('.').map(str::to_owned).collect())
}

/// Writes the next column of a row group: all values in one page; `present` names the rows that have one.
pub(crate) fn write_scalar<T: DataType>(
    group: &mut RowGroup<'_>,
    values: &[T::T],
    present: Option<&[i16]>,
) -> Result<()> {
    let mut column = next_column(group)?;
    column.typed::<T>().write_batch(values, present, None)?;
    column.close()
}

/// The writer of the row group's next column.
pub(crate) fn next_column<'a>(
    group: &'a mut RowGroup<'_>,
) -> Result<parquet::file::writer::SerializedColumnWriter<'a>> {
    group.next_column()?.ok_or_else(|| ParquetError::General("BUG: the schema has fewer columns than rows fill".into()))
}

/// Repetition and definition levels of one page of an optional list of optional elements.
#[derive(Default)]
pub(crate) struct Levels {
    /// 0 begins a row, 1 continues its list.
    pub(crate) rep: Vec<i16>,
    /// 0: no list; 2: null element; 3: value (1 less each where the list, the element, is required).
    pub(crate) def: Vec<i16>,
}

impl Levels {
    /// Begins a new page.
    pub(crate) fn clear(&mut self) {
        self.rep.clear();
        self.def.clear();
    }

    /// A row without a list.
    pub(crate) fn push_null(&mut self) {
        self.rep.push(0);
        self.def.push(0);
    }

    /// A row with a list of `len ≥ 1` values of definition level `value`; returns where its levels begin.
    pub(crate) fn push_list(&mut self, len: usize, value: i16) -> usize {
        let at = self.rep.len();
        self.rep.resize(at + len, 1);
        self.rep[at] = 0;
        self.def.resize(at + len, value);
        at
    }
}
