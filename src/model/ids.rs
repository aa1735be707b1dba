//! Identities that cannot be mixed up.
//!
//! *Invariants:* a [`TenantId`] is safe as one segment of an object key; node ids are never reused.
//!
//! *Not here:* who maps what to whom (`meta`).

use std::fmt;
use std::sync::Arc;

/// Most bytes a tenant's name may have.
pub const TENANT_MAX_BYTES: usize = 150;

/// The tenant of requests that name none.
pub const ANONYMOUS: &str = "anonymous";

/// A tenant's name: 1..=150 of `[A-Za-z0-9!_.*'()-]`, not `.`, not `..`, not reserved (`__…`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Checks a name; the error says what is wrong with it.
    pub fn new(name: &str) -> Result<Self, String> {
        if name.is_empty() || name.len() > TENANT_MAX_BYTES {
            return Err(format!("tenant id must have 1 to {TENANT_MAX_BYTES} bytes, has {}", name.len()));
        }
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
        if let Some(bad) = name.chars().find(|c| !c.is_ascii() || !ok(*c as u8)) {
            return Err(format!("tenant id contains the character {bad:?}, allowed are A-Z a-z 0-9 and !-_.*'()"));
        }
        if name == "." || name == ".." || name.starts_with("__") {
            return Err(format!("tenant id {name:?} is reserved"));
        }
        Ok(Self(Arc::from(name)))
    }

    /// The tenant of requests that name none.
    pub fn anonymous() -> Self {
        Self(Arc::from(ANONYMOUS))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A hash range of the series space, owned by one Raft group.
    ShardId(u32)
);
id!(
    /// A machine in the cluster; given once, never again.
    NodeId(u64)
);
id!(
    /// Version of the shard map.
    Epoch(u64)
);
id!(
    /// A series within one shard's head; never reused within a group.
    SeriesId(u32)
);

/// Name of a block: `<epoch>-<shard>-<window start, ms>-<flush sequence>` or
/// `compact-<day start, ms>-<sequence>-<hash of what it was made of>-<part>`; the same work always yields the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockName(pub Arc<str>);

impl BlockName {
    /// The name of what `shard` flushed as its `sequence`-th.
    pub fn of_flush(epoch: Epoch, shard: ShardId, window_start: i64, sequence: u64) -> Self {
        Self(format!("{epoch}-{shard:03}-{window_start}-{sequence:08}", shard = shard.0).into())
    }

    /// The name of part `part` of what a tenant's `sequence`-th compaction made of blocks whose names hash to `inputs`.
    pub fn of_compaction(day: i64, sequence: u64, inputs: u64, part: usize) -> Self {
        Self(format!("compact-{day}-{sequence:08}-{inputs:016x}-{part}").into())
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_tenants_that_are_no_single_path_segment() {
        for bad in ["", ".", "..", "a/b", "a\\b", "a b", "ä", "__meta", "a|b", &"x".repeat(151)] {
            assert!(TenantId::new(bad).is_err(), "{bad}");
        }
        for good in ["a", "team-1", "x_y.z", "(a)'*!"] {
            assert!(TenantId::new(good).is_ok(), "{good}");
        }
    }
}
