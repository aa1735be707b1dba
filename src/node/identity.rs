//! Who this node is, on its disk: without it a node that starts again could not find its cluster.
//!
//! *Invariants:* written once, before anything else of the cluster is, and whole or not at all. It goes with the data
//! directory: a node that lost its directory is another node.
//!
//! *Not here:* what the cluster knows of the node (`meta`).

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::model::NodeId;
use crate::raft::ReplicaId;

/// Name of the file in the data directory.
const FILE: &str = "node.json";

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: String,
    /// The node's id in it.
    pub node: u64,
    /// Its replica of the meta group, in hexadecimal.
    meta_replica: String,
    /// The cluster's bucket.
    pub bucket: String,
}

impl Identity {
    /// A node of a cluster.
    pub fn new(cluster: String, node: NodeId, meta_replica: ReplicaId, bucket: String) -> Self {
        Self { cluster, node: node.0, meta_replica: meta_replica.to_string(), bucket }
    }

    /// The node's id.
    pub fn node(&self) -> NodeId {
        NodeId(self.node)
    }

    /// Its replica of the meta group.
    pub fn meta_replica(&self) -> anyhow::Result<ReplicaId> {
        let id = u64::from_str_radix(&self.meta_replica, 16);
        id.map(ReplicaId).with_context(|| format!("{FILE}: replica {:?} is no number", self.meta_replica))
    }

    /// Who the node of a data directory is; `None` if it is of no cluster yet.
    pub fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        serde_json::from_slice(&text).map(Some).with_context(|| format!("read {}", path.display()))
    }

    /// Whether the cluster has answered: until then it is only what this node asks with.
    pub fn is_member(&self) -> bool {
        self.node != 0
    }

    /// Takes it out of a data directory; durable when it returns.
    pub fn forget(dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        let gone = fs::remove_file(&path).and_then(|()| File::open(dir)?.sync_all());
        gone.with_context(|| format!("remove {}", path.display()))
    }

    /// Keeps it in a data directory; durable when it returns.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let (path, temp): (PathBuf, PathBuf) = (dir.join(FILE), dir.join("node.json.tmp"));
        let text = serde_json::to_vec_pretty(self).context("BUG: an identity that is no JSON")?;
        let kept = || {
            let mut file = File::create(&temp)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temp, &path)?;
            File::open(dir)?.sync_all()
        };
        kept().with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_finds_itself_again_and_a_damaged_file_is_not_taken_for_a_new_node() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::read(dir.path()).unwrap(), None);
        let me = Identity::new("c".into(), NodeId(3), ReplicaId(u64::MAX), "file:///b".into());
        me.write(dir.path()).unwrap();
        let read = Identity::read(dir.path()).unwrap().unwrap();
        assert_eq!((read.meta_replica().unwrap(), &read), (ReplicaId(u64::MAX), &me));
        Identity::forget(dir.path()).unwrap();
        assert_eq!(Identity::read(dir.path()).unwrap(), None);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Identity::read(dir.path()).is_err());
    }
}
