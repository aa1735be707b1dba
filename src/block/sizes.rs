//! Where the bytes of a block's file are: by column, from the footer alone.
//!
//! *Invariants:* the columns' bytes never add up to more than the file.
//!
//! *Not here:* reading the columns (`select`), which files a block has (`store`).

use std::sync::Arc;

use object_store::ObjectStore;

use super::fetch::OpenFile;
use super::reader::FileRef;
use super::schema::Kind;
use super::{Error, Result};

/// What one file of a block is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSizes {
    /// What the file holds.
    pub kind: Kind,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// Its row groups.
    pub row_groups: usize,
    /// Its columns as stored, leaves of nested ones each for itself.
    pub columns: Vec<ColumnSize>,
}

/// One column over all row groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSize {
    /// Its name; of a nested one the path, such as `labels.key`.
    pub name: String,
    /// Its bytes in the file, compressed.
    pub bytes: u64,
    /// Its bytes before compression, after encoding.
    pub encoded_bytes: u64,
}

impl FileSizes {
    /// Fetches the footer and adds up what it says.
    pub async fn read(store: Arc<dyn ObjectStore>, file: FileRef) -> Result<Self> {
        let (kind, bytes) = (file.kind, file.size);
        let file = OpenFile::open(store, file).await?;
        let mut columns: Vec<ColumnSize> = Vec::new();
        let mut rows = 0;
        for group in 0..file.footer().num_row_groups() {
            rows += file.rows(group) as u64;
            for (i, chunk) in file.footer().row_group(group).columns().iter().enumerate() {
                if columns.len() <= i {
                    columns.push(ColumnSize { name: name(chunk.column_path().parts()), bytes: 0, encoded_bytes: 0 });
                }
                columns[i].bytes = columns[i].bytes.saturating_add(chunk.compressed_size().max(0) as u64);
                columns[i].encoded_bytes =
                    columns[i].encoded_bytes.saturating_add(chunk.uncompressed_size().max(0) as u64);
            }
        }
        let sizes = Self { kind, bytes, rows, row_groups: file.footer().num_row_groups(), columns };
        sizes.check(|what| file.corrupt(what))
    }

    /// Bytes that are no column's: page index and footer.
    pub fn footer_bytes(&self) -> u64 {
        self.bytes - self.columns.iter().map(|c| c.bytes).sum::<u64>()
    }

    fn check(self, corrupt: impl Fn(String) -> Error) -> Result<Self> {
        let sum = self.columns.iter().try_fold(0u64, |sum, c| sum.checked_add(c.bytes));
        match sum.filter(|sum| *sum <= self.bytes) {
            Some(_) => Ok(self),
            None => Err(corrupt("the columns are larger than the file".to_owned())),
        }
    }
}

/// A leaf's path without the words Parquet puts between.
fn name(path: &[String]) -> String {
    let words: Vec<&str> =
        path.iter().map(String::as_str).filter(|p| !["list", "element", "key_value"].contains(p)).collect();
    words.join(".")
}
