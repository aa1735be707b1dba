//! The data directory: made if needed, used by one process at a time.
//!
//! *Invariants:* while a [`Lock`] lives, no other process holds one for the same directory; the kernel frees it however
//! the process ends.
//!
//! *Not here:* what is inside (`raft`, `store::cache`).

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, bail};

/// A claimed data directory.
pub struct Lock(#[allow(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// Makes the directory if needed and claims it.
    pub fn take(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make data directory {}", dir.display()))?;
        let path = dir.join("lock");
        let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                bail!("data directory {} is in use by another process (setting data_dir)", dir.display())
            }
            Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        assert!(Lock::take(dir.path()).is_err());
        drop(first);
        assert!(Lock::take(dir.path()).is_ok());
    }
}
