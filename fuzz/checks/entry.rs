//! What must hold for any bytes taken for an entry of a shard.

use metrolith::ingest::entry::Command;

/// No panic, no rows out of nothing. Whether it is an entry.
pub fn shard_entry(data: &[u8]) -> bool {
    let sections = match Command::decode(data) {
        Ok(Command::Append(sections)) => sections,
        other => return other.is_ok(),
    };
    for section in &sections {
        // Every row takes at least one byte, or an iterator would go on for long after the bytes are used up.
        assert!(section.new_series().take_while(Result::is_ok).count() <= data.len());
        assert!(section.floats().take_while(Result::is_ok).count() <= data.len());
        assert!(section.histograms().take_while(Result::is_ok).count() <= data.len());
        assert!(section.exemplars().take_while(Result::is_ok).count() <= data.len());
        assert!(section.metadata().take_while(Result::is_ok).count() <= data.len());
    }
    true
}
