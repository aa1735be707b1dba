//! Open blocks: readers with their series and footers in memory, the most used ones kept.
//!
//! *Invariants:* the readers kept take at most the configured bytes (as they stood when they were last used). Blocks are
//! immutable, so a reader is never stale.
//!
//! *Not here:* cached ranges of files (`store::cache`).

use std::sync::Arc;

use foyer::{Cache, CacheBuilder};
use object_store::ObjectStore;
use object_store::path::Path;

use super::leaf::storage;
use crate::block::BlockReader;
use crate::error::{self, Error};
use crate::store::catalog::snapshot::Block;

/// Readers by the key of the block's first file (block names repeat between tenants).
pub struct Blocks {
    store: Arc<dyn ObjectStore>,
    open: Cache<Path, Arc<BlockReader>>,
}

impl Blocks {
    /// Readers over `store`, taking at most about `capacity_bytes`.
    pub fn new(store: Arc<dyn ObjectStore>, capacity_bytes: usize) -> Self {
        let open = CacheBuilder::new(capacity_bytes)
            .with_name("open_blocks")
            .with_weighter(|path: &Path, reader: &Arc<BlockReader>| path.as_ref().len() + reader.heap_bytes())
            .build();
        Self { store, open }
    }

    /// The reader of a block.
    pub async fn open(&self, block: &Block) -> Result<Arc<BlockReader>, Error> {
        let corrupt = |what: String| Error::new(error::Kind::Corrupt, format!("open block {}: {what}", block.name));
        let key = &block.files.first().ok_or_else(|| corrupt("it has no files".into()))?.key;
        if let Some(entry) = self.open.get(key) {
            return Ok(Arc::clone(entry.value()));
        }
        let files = block.file_refs().map_err(storage)?;
        let reader = Arc::new(BlockReader::open(Arc::clone(&self.store), files).await.map_err(storage)?);
        self.open.insert(key.clone(), Arc::clone(&reader));
        Ok(reader)
    }
}
