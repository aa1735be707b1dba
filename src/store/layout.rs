//! Every key of the bucket.
//!
//! *Invariants:* all keys of a tenant begin with `tables/<tenant>/`, and no key of another tenant does. A data file's key
//! tells its resolution, kind, date and block.
//!
//! *Not here:* what is in the objects (`catalog`, `block`).

use jiff::civil::Date;
use jiff::tz::TimeZone;
use object_store::path::{Path, PathPart};

use crate::model::{BlockName, Epoch, ShardId, TenantId};

/// Directory of all tables.
pub const TABLES: &str = "tables";
/// Directory of a table's log.
pub const LOG: &str = "_delta_log";
/// Key that [`super::bucket::Bucket::probe`] writes.
pub const PROBE: &str = "_metrolith/probe";

/// Directory of all tables.
pub fn tables() -> Path {
    Path::from(TABLES)
}

/// Directory of `tenant`'s table.
pub fn table(tenant: &TenantId) -> Path {
    // A part, not a path: a separator in the name would be encoded rather than lead into another tenant's table.
    Path::from_iter([PathPart::from(TABLES), PathPart::from(tenant.as_str())])
}

/// Directory of `tenant`'s log.
pub fn log(tenant: &TenantId) -> Path {
    table(tenant).join(LOG)
}

/// The log entry that makes `version` of `tenant`'s table.
pub fn log_entry(tenant: &TenantId, version: u64) -> Path {
    log(tenant).join(format!("{version:020}.json"))
}

/// The checkpoint of `version`.
pub fn checkpoint(tenant: &TenantId, version: u64) -> Path {
    log(tenant).join(format!("{version:020}.checkpoint.parquet"))
}

/// The hint that says where the newest checkpoint is.
pub fn last_checkpoint(tenant: &TenantId) -> Path {
    log(tenant).join("_last_checkpoint")
}

/// A file of a table's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFile {
    /// The entry of this version.
    Entry(u64),
    /// The checkpoint of this version.
    Checkpoint(u64),
}

/// What a name in a log directory means; `None` for names that are not ours.
pub fn parse_log_name(name: &str) -> Option<LogFile> {
    let (digits, rest) = name.split_at_checked(20)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let version = digits.parse().ok()?;
    match rest {
        ".json" => Some(LogFile::Entry(version)),
        ".checkpoint.parquet" => Some(LogFile::Checkpoint(version)),
        _ => None,
    }
}

/// Where a data file is, relative to its table: what a Delta `add` calls `path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataFile {
    /// `raw`, `5m` or `1h`.
    pub resolution: String,
    /// `series`, `timelines`, `samples`, `histograms` or `exemplars`.
    pub kind: String,
    /// UTC date of the block's window, `YYYY-MM-DD`.
    pub date: String,
    /// The block it is a part of.
    pub block: BlockName,
}

impl DataFile {
    /// The file of `kind` of a block whose window starts at `window_start` (milliseconds).
    pub fn new(resolution: &str, kind: &str, window_start: i64, block: BlockName) -> Self {
        Self { resolution: resolution.into(), kind: kind.into(), date: date_of(window_start), block }
    }

    /// The path relative to the table.
    pub fn relative(&self) -> String {
        let Self { resolution, kind, date, block } = self;
        format!("resolution={resolution}/kind={kind}/date={date}/{block}.parquet")
    }

    /// The key in the bucket.
    pub fn key(&self, tenant: &TenantId) -> Path {
        table_file(tenant, &self.relative())
    }

    /// Reads a path relative to the table; `None` if it is not of this layout.
    pub fn parse(relative: &str) -> Option<Self> {
        let mut parts = relative.split('/');
        let mut value = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        let (resolution, kind, date) = (value("resolution")?, value("kind")?, value("date")?);
        let block = parts.next()?.strip_suffix(".parquet")?;
        if parts.next().is_some() || [&*resolution, &*kind, &*date, block].iter().any(|part| part.is_empty()) {
            return None;
        }
        Some(Self { resolution, kind, date, block: BlockName(block.into()) })
    }
}

/// The key of a file given relative to its table.
pub fn table_file(tenant: &TenantId, relative: &str) -> Path {
    relative.split('/').fold(table(tenant), |path, part| path.join(part))
}

/// What of `key` is relative to `tenant`'s table.
pub fn relative_to_table(tenant: &TenantId, key: &Path) -> Option<String> {
    let parts: Vec<_> = key.prefix_match(&table(tenant))?.collect();
    Some(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/"))
}

/// The flush that made a block, read from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlushId {
    /// Epoch of the shard map the shard belonged to.
    pub epoch: Epoch,
    /// The shard.
    pub shard: ShardId,
    /// Start of the window, milliseconds.
    pub window_start: i64,
    /// Number of the flush within the shard.
    pub sequence: u64,
}

impl FlushId {
    /// Reads a name made by [`BlockName::of_flush`]; `None` for other blocks.
    pub fn parse(block: &BlockName) -> Option<Self> {
        let (epoch, rest) = block.0.split_once('-')?;
        let (shard, rest) = rest.split_once('-')?;
        let (window, sequence) = rest.rsplit_once('-')?;
        Some(Self {
            epoch: Epoch(epoch.parse().ok()?),
            shard: ShardId(shard.parse().ok()?),
            window_start: window.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    }

    /// The transaction id of the shard's flushes in the catalog.
    pub fn app(&self) -> String {
        app_of(self.epoch, self.shard)
    }
}

/// The transaction id under which compactions of a tenant's table are committed.
pub fn compaction_of(tenant: &TenantId) -> String {
    format!("compact-{tenant}")
}

/// Which commit makes a block part of the table, read from its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Transaction id.
    pub app: String,
    /// Number of the commit.
    pub sequence: u64,
    /// Epoch of the shard, for a flush.
    pub epoch: Option<Epoch>,
}

impl Origin {
    /// Reads a name made by [`BlockName::of_flush`] or [`BlockName::of_compaction`]; `None` for other blocks.
    pub fn parse(tenant: &TenantId, block: &BlockName) -> Option<Self> {
        let Some(compaction) = block.0.strip_prefix("compact-") else {
            let flush = FlushId::parse(block)?;
            return Some(Self { app: flush.app(), sequence: flush.sequence, epoch: Some(flush.epoch) });
        };
        // From behind: days before 1970 have a sign.
        let mut parts = compaction.rsplit('-');
        let (part, inputs, sequence) = (parts.next()?, parts.next()?, parts.next()?);
        part.parse::<u32>().ok()?;
        u64::from_str_radix(inputs, 16).ok()?;
        Some(Self { app: compaction_of(tenant), sequence: sequence.parse().ok()?, epoch: None })
    }
}

/// The transaction id under which a shard commits its flushes: `shard-<epoch>-<n>`.
pub fn app_of(epoch: Epoch, shard: ShardId) -> String {
    format!("shard-{epoch}-{shard}")
}

/// The epoch and shard of a transaction id made by [`app_of`].
pub fn parse_app(app: &str) -> Option<(Epoch, ShardId)> {
    let (epoch, shard) = app.strip_prefix("shard-")?.split_once('-')?;
    Some((Epoch(epoch.parse().ok()?), ShardId(shard.parse().ok()?)))
}

/// UTC date of a time, `YYYY-MM-DD`; times beyond year 9999 count as its last day.
pub fn date_of(ms: i64) -> String {
    let date = match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.to_zoned(TimeZone::UTC).date(),
        Err(_) if ms < 0 => Date::MIN,
        Err(_) => Date::MAX,
    };
    date.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant_name() -> impl Strategy<Value = TenantId> {
        "[A-Za-z0-9!_.*'()-]{1,12}".prop_filter_map("reserved", |name| TenantId::new(&name).ok())
    }

    proptest! {
        #[test]
        fn tenants_never_share_a_prefix(a in tenant_name(), b in tenant_name(), version in any::<u64>()) {
            prop_assume!(a != b);
            for key in [log_entry(&b, version), checkpoint(&b, version), last_checkpoint(&b),
                        DataFile::new("raw", "samples", 0, BlockName("x".into())).key(&b)] {
                prop_assert!(!key.prefix_matches(&table(&a)), "{key} is inside the table of {a}");
                let prefix = format!("{}/", table(&a));
                prop_assert!(!key.as_ref().starts_with(&prefix));
                prop_assert!(key.prefix_matches(&table(&b)));
            }
        }

        #[test]
        fn data_files_and_flushes_come_back_from_their_names(
            tenant in tenant_name(), epoch in any::<u64>(), shard in any::<u32>(), window in any::<i64>(), sequence in any::<u64>(),
        ) {
            let block = BlockName::of_flush(Epoch(epoch), ShardId(shard), window, sequence);
            let file = DataFile::new("raw", "samples", window, block.clone());
            let relative = relative_to_table(&tenant, &file.key(&tenant)).unwrap();
            prop_assert_eq!(DataFile::parse(&relative), Some(file));
            let flush = FlushId::parse(&block).unwrap();
            prop_assert_eq!((flush.epoch, flush.shard, flush.window_start, flush.sequence), (Epoch(epoch), ShardId(shard), window, sequence));
            prop_assert_eq!(parse_app(&flush.app()), Some((Epoch(epoch), ShardId(shard))));
        }
    }

    #[test]
    fn keys_are_pinned() {
        let tenant = TenantId::new("team-1").unwrap();
        let block = BlockName::of_flush(Epoch(1), ShardId(7), 1_700_006_400_000, 12);
        let file = DataFile::new("raw", "samples", 1_700_006_400_000, block);
        assert_eq!(
            file.key(&tenant).as_ref(),
            "tables/team-1/resolution=raw/kind=samples/date=2023-11-15/1-007-1700006400000-00000012.parquet"
        );
        assert_eq!(log_entry(&tenant, 7).as_ref(), "tables/team-1/_delta_log/00000000000000000007.json");
        assert_eq!(parse_log_name("00000000000000000007.json"), Some(LogFile::Entry(7)));
        assert_eq!(parse_log_name("00000000000000000050.checkpoint.parquet"), Some(LogFile::Checkpoint(50)));
        for foreign in ["_last_checkpoint", "7.json", "0000000000000000000x.json", "00000000000000000007.crc", "ä"] {
            assert_eq!(parse_log_name(foreign), None, "{foreign}");
        }
    }
}
