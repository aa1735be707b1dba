//! Checkpoints: a whole table at one version as a Parquet file, so that readers need not replay the log.
//!
//! *Invariants:* classic single-file Delta checkpoints; the hint `_last_checkpoint` is written after the file it names. A
//! checkpoint only saves work: the log entries hold everything, and a damaged checkpoint is skipped.
//!
//! *Not here:* when to write one (`meta::copier`).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, Fields};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use super::actions::{Add, Format, Line, MetaData, Protocol, Remove, Txn};
use super::snapshot::TableSnapshot;
use crate::model::TenantId;
use crate::store::bucket::Bucket;
use crate::store::error::Error;
use crate::store::layout;

/// A checkpoint is written each time a table's version is a multiple of this.
pub const EVERY: u64 = 50;

/// The content of `_last_checkpoint`.
#[derive(Serialize, Deserialize)]
struct Hint {
    version: u64,
    /// Number of actions.
    size: u64,
}

/// Writes the checkpoint of `snapshot` and the hint to it. Repeats are harmless.
pub async fn write(bucket: &Bucket, snapshot: &TableSnapshot) -> Result<(), Error> {
    let Some(version) = snapshot.version() else { return Ok(()) };
    let key = layout::checkpoint(snapshot.tenant(), version);
    let (bytes, size) = encode(snapshot).map_err(|e| Error::corrupt(&key, e))?;
    bucket.put(&key, bytes).await?;
    let hint = serde_json::to_vec(&Hint { version, size }).map_err(|e| Error::corrupt(&key, e))?;
    bucket.put(&layout::last_checkpoint(snapshot.tenant()), hint.into()).await
}

/// The version of the newest checkpoint the hint names.
pub(crate) async fn last_version(bucket: &Bucket, tenant: &TenantId) -> Result<Option<u64>, Error> {
    let key = layout::last_checkpoint(tenant);
    let Some(bytes) = bucket.get_if_exists(&key).await? else { return Ok(None) };
    let hint: Hint = serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(&key, e))?;
    Ok(Some(hint.version))
}

/// The newest checkpoint, `None` if there is none.
pub(crate) async fn read_last(bucket: &Bucket, tenant: &TenantId) -> Result<Option<TableSnapshot>, Error> {
    let Some(version) = last_version(bucket, tenant).await? else { return Ok(None) };
    let key = layout::checkpoint(tenant, version);
    let Some(bytes) = bucket.get_if_exists(&key).await? else {
        return Err(Error::corrupt(&key, "named by _last_checkpoint but absent"));
    };
    // Parquet's reader checks lengths, but a page of rubbish costs time: off the reactor.
    let tenant = tenant.clone();
    let decoded = tokio::task::spawn_blocking(move || decode(&tenant, version, bytes)).await;
    match decoded {
        Ok(snapshot) => snapshot.map(Some).map_err(|e| Error::corrupt(&key, e)),
        Err(e) => Err(Error::corrupt(&key, e)),
    }
}

/// One row of a checkpoint: exactly one action.
enum Row<'a> {
    Protocol(&'a Protocol),
    MetaData(&'a MetaData),
    Txn(&'a String, u64),
    Add(&'a Add),
    Remove(&'a Remove),
}

fn encode(snapshot: &TableSnapshot) -> Result<(Bytes, u64), String> {
    let mut rows: Vec<Row> =
        Vec::with_capacity(2 + snapshot.txns.len() + snapshot.files.len() + snapshot.removed.len());
    rows.extend(snapshot.protocol.iter().map(Row::Protocol));
    rows.extend(snapshot.meta_data.iter().map(Row::MetaData));
    rows.extend(snapshot.txns.iter().map(|(app, version)| Row::Txn(app, *version)));
    rows.extend(snapshot.removed.values().map(|remove| Row::Remove(remove)));
    rows.extend(snapshot.files.values().map(|add| Row::Add(add)));
    let columns = [
        ("txn", txn_column(&rows)),
        ("add", add_column(&rows)),
        ("remove", remove_column(&rows)),
        ("metaData", meta_data_column(&rows)),
        ("protocol", protocol_column(&rows)),
    ];
    let build = || -> Result<Bytes, Box<dyn std::error::Error>> {
        let columns: Result<Vec<(&str, ArrayRef)>, ArrowError> =
            columns.into_iter().map(|(name, column)| Ok((name, Arc::new(column?) as ArrayRef))).collect();
        let batch = RecordBatch::try_from_iter_with_nullable(columns?.into_iter().map(|(name, c)| (name, c, true)))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
        let mut out = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(out.into())
    };
    build().map(|bytes| (bytes, rows.len() as u64)).map_err(|e| e.to_string())
}

/// A struct column whose rows are null where `present` says so.
fn structure(present: Vec<bool>, children: Vec<(&str, ArrayRef)>) -> Result<StructArray, ArrowError> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) =
        children.into_iter().map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array)).unzip();
    StructArray::try_new(Fields::from(fields), arrays, Some(NullBuffer::from(present)))
}

fn strings<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn longs(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

fn bools(values: impl Iterator<Item = Option<bool>>) -> ArrayRef {
    Arc::new(values.collect::<BooleanArray>())
}

type Pairs<'a> = Vec<(&'a str, Option<&'a str>)>;

fn optional_pairs(map: &BTreeMap<String, Option<String>>) -> Pairs<'_> {
    map.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect()
}

fn pairs(map: &BTreeMap<String, String>) -> Pairs<'_> {
    map.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect()
}

fn maps<'a>(values: impl Iterator<Item = Option<Pairs<'a>>>) -> Result<ArrayRef, ArrowError> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for value in values {
        for (key, value) in value.iter().flatten() {
            builder.keys().append_value(key);
            builder.values().append_option(*value);
        }
        builder.append(value.is_some())?;
    }
    Ok(ArrayBuilder::finish(&mut builder))
}

fn txn_column(rows: &[Row]) -> Result<StructArray, ArrowError> {
    let txns = || rows.iter().map(|row| if let Row::Txn(app, version) = row { Some((*app, *version)) } else { None });
    structure(
        txns().map(|t| t.is_some()).collect(),
        vec![
            ("appId", strings(txns().map(|t| t.map(|(app, _)| app.as_str())))),
            ("version", longs(txns().map(|t| t.map(|(_, version)| version as i64)))),
            ("lastUpdated", longs(txns().map(|_| None))),
        ],
    )
}

fn add_column(rows: &[Row]) -> Result<StructArray, ArrowError> {
    let adds = || rows.iter().map(|row| if let Row::Add(add) = row { Some(*add) } else { None });
    structure(
        adds().map(|a| a.is_some()).collect(),
        vec![
            ("path", strings(adds().map(|a| a.map(|a| a.path.as_str())))),
            ("partitionValues", maps(adds().map(|a| a.map(|a| optional_pairs(&a.partition_values))))?),
            ("size", longs(adds().map(|a| a.map(|a| a.size)))),
            ("modificationTime", longs(adds().map(|a| a.map(|a| a.modification_time)))),
            // A checkpoint restates; it changes nothing.
            ("dataChange", bools(adds().map(|a| a.map(|_| false)))),
            ("stats", strings(adds().map(|a| a.and_then(|a| a.stats.as_deref())))),
            ("tags", maps(adds().map(|a| a.and_then(|a| a.tags.as_ref()).map(optional_pairs)))?),
        ],
    )
}

fn remove_column(rows: &[Row]) -> Result<StructArray, ArrowError> {
    let removes = || rows.iter().map(|row| if let Row::Remove(remove) = row { Some(*remove) } else { None });
    let values = removes().map(|r| r.and_then(|r| r.partition_values.as_ref()).map(optional_pairs));
    structure(
        removes().map(|r| r.is_some()).collect(),
        vec![
            ("path", strings(removes().map(|r| r.map(|r| r.path.as_str())))),
            ("deletionTimestamp", longs(removes().map(|r| r.and_then(|r| r.deletion_timestamp)))),
            ("dataChange", bools(removes().map(|r| r.map(|_| false)))),
            ("extendedFileMetadata", bools(removes().map(|r| r.and_then(|r| r.extended_file_metadata)))),
            ("partitionValues", maps(values)?),
            ("size", longs(removes().map(|r| r.and_then(|r| r.size)))),
        ],
    )
}

fn meta_data_column(rows: &[Row]) -> Result<StructArray, ArrowError> {
    let metas = || rows.iter().map(|row| if let Row::MetaData(meta) = row { Some(*meta) } else { None });
    let present: Vec<bool> = metas().map(|m| m.is_some()).collect();
    let format = structure(
        present.clone(),
        vec![
            ("provider", strings(metas().map(|m| m.map(|m| m.format.provider.as_str())))),
            ("options", maps(metas().map(|m| m.map(|m| pairs(&m.format.options))))?),
        ],
    )?;
    let lengths = metas().map(|m| m.map_or(0, |m| m.partition_columns.len()));
    let names = metas().flatten().flat_map(|m| m.partition_columns.iter().map(|name| Some(name.as_str())));
    let partition_columns = ListArray::try_new(
        Arc::new(Field::new("element", DataType::Utf8, true)),
        OffsetBuffer::from_lengths(lengths),
        strings(names),
        Some(NullBuffer::from(present.clone())),
    )?;
    structure(
        present,
        vec![
            ("id", strings(metas().map(|m| m.map(|m| m.id.as_str())))),
            ("format", Arc::new(format)),
            ("schemaString", strings(metas().map(|m| m.map(|m| m.schema_string.as_str())))),
            ("partitionColumns", Arc::new(partition_columns)),
            ("configuration", maps(metas().map(|m| m.map(|m| pairs(&m.configuration))))?),
            ("createdTime", longs(metas().map(|m| m.and_then(|m| m.created_time)))),
        ],
    )
}

fn protocol_column(rows: &[Row]) -> Result<StructArray, ArrowError> {
    let protocols = || rows.iter().map(|row| if let Row::Protocol(protocol) = row { Some(*protocol) } else { None });
    let version =
        |pick: fn(&Protocol) -> i32| -> ArrayRef { Arc::new(protocols().map(|p| p.map(pick)).collect::<Int32Array>()) };
    structure(
        protocols().map(|p| p.is_some()).collect(),
        vec![
            ("minReaderVersion", version(|p| p.min_reader_version)),
            ("minWriterVersion", version(|p| p.min_writer_version)),
        ],
    )
}

fn decode(tenant: &TenantId, version: u64, bytes: Bytes) -> Result<TableSnapshot, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|b| b.build()).map_err(|e| e.to_string())?;
    let mut snapshot = TableSnapshot::empty(tenant);
    for batch in reader {
        let batch = batch.map_err(|e| e.to_string())?;
        let action = |name: &str| batch.column_by_name(name).and_then(|column| column.as_struct_opt());
        let (protocol, meta_data, txn) = (action("protocol"), action("metaData"), action("txn"));
        let (add, remove) = (action("add"), action("remove"));
        for row in 0..batch.num_rows() {
            let at = |column: Option<&StructArray>| {
                column.filter(|column| column.is_valid(row)).map(|column| Cells { column: column.clone(), row })
            };
            snapshot.apply_line(Line {
                commit_info: None,
                protocol: at(protocol).map(Cells::protocol).transpose()?,
                meta_data: at(meta_data).map(Cells::meta_data).transpose()?,
                txn: at(txn).map(Cells::txn).transpose()?,
                add: at(add).map(Cells::add).transpose()?,
                remove: at(remove).map(Cells::remove).transpose()?,
            })?;
        }
    }
    if snapshot.protocol.is_none() || snapshot.meta_data.is_none() {
        return Err("lacks protocol or metaData".into());
    }
    snapshot.set_version(version);
    snapshot.index();
    Ok(snapshot)
}

/// The fields of one action in one row.
struct Cells {
    column: StructArray,
    row: usize,
}

impl Cells {
    fn cell(&self, name: &str) -> Option<&ArrayRef> {
        self.column.column_by_name(name).filter(|array| array.is_valid(self.row))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.cell(name)?.as_string_opt::<i32>().map(|array| array.value(self.row).to_owned())
    }

    fn long(&self, name: &str) -> Option<i64> {
        self.cell(name)?.as_primitive_opt::<Int64Type>().map(|array| array.value(self.row))
    }

    fn int(&self, name: &str) -> Option<i32> {
        self.cell(name)?.as_primitive_opt::<Int32Type>().map(|array| array.value(self.row))
    }

    fn boolean(&self, name: &str) -> Option<bool> {
        self.cell(name)?.as_boolean_opt().map(|array| array.value(self.row))
    }

    fn nested(&self, name: &str) -> Option<Self> {
        Some(Self { column: self.cell(name)?.as_struct_opt()?.clone(), row: self.row })
    }

    fn map(&self, name: &str) -> Option<BTreeMap<String, Option<String>>> {
        let entries = self.cell(name)?.as_map_opt()?.value(self.row);
        let keys = entries.columns().first()?.as_string_opt::<i32>()?;
        let values = entries.columns().get(1)?.as_string_opt::<i32>()?;
        let value = |i| values.is_valid(i).then(|| values.value(i).to_owned());
        Some((0..entries.len()).map(|i| (keys.value(i).to_owned(), value(i))).collect())
    }

    fn plain_map(&self, name: &str) -> BTreeMap<String, String> {
        self.map(name).into_iter().flatten().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    fn texts(&self, name: &str) -> Option<Vec<String>> {
        let list = self.cell(name)?.as_list_opt::<i32>()?.value(self.row);
        Some(list.as_string_opt::<i32>()?.iter().flatten().map(str::to_owned).collect())
    }

    fn protocol(self) -> Result<Protocol, String> {
        let need = |name| self.int(name).ok_or_else(|| format!("protocol without {name}"));
        Ok(Protocol { min_reader_version: need("minReaderVersion")?, min_writer_version: need("minWriterVersion")? })
    }

    fn meta_data(self) -> Result<MetaData, String> {
        let missing = |name: &str| format!("metaData without {name}");
        let format = self.nested("format");
        Ok(MetaData {
            id: self.text("id").ok_or_else(|| missing("id"))?,
            format: Format {
                provider: format.as_ref().and_then(|f| f.text("provider")).ok_or_else(|| missing("format"))?,
                options: format.map(|f| f.plain_map("options")).unwrap_or_default(),
            },
            schema_string: self.text("schemaString").ok_or_else(|| missing("schemaString"))?,
            partition_columns: self.texts("partitionColumns").ok_or_else(|| missing("partitionColumns"))?,
            configuration: self.plain_map("configuration"),
            created_time: self.long("createdTime"),
        })
    }

    fn txn(self) -> Result<Txn, String> {
        Ok(Txn {
            app_id: self.text("appId").ok_or("txn without appId")?,
            version: self.long("version").ok_or("txn without version")?,
            last_updated: self.long("lastUpdated"),
        })
    }

    fn add(self) -> Result<Add, String> {
        Ok(Add {
            path: self.text("path").ok_or("add without path")?,
            partition_values: self.map("partitionValues").unwrap_or_default(),
            size: self.long("size").ok_or("add without size")?,
            modification_time: self.long("modificationTime").unwrap_or(0),
            data_change: self.boolean("dataChange").unwrap_or(false),
            stats: self.text("stats"),
            tags: self.map("tags"),
        })
    }

    fn remove(self) -> Result<Remove, String> {
        Ok(Remove {
            path: self.text("path").ok_or("remove without path")?,
            deletion_timestamp: self.long("deletionTimestamp"),
            data_change: self.boolean("dataChange").unwrap_or(false),
            extended_file_metadata: self.boolean("extendedFileMetadata"),
            partition_values: self.map("partitionValues"),
            size: self.long("size"),
        })
    }
}
