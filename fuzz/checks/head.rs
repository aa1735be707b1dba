//! What must hold for any bytes taken for a snapshot of a head.
#![allow(clippy::expect_used)]

use metrolith::head::Head;
use metrolith::model::{Columns, TenantId, TimeRange};

/// Bytes of tag and length before each section's payload.
const SECTION_HEADER: usize = 9;

/// No panic; a head that is restored answers, and writes a snapshot that restores to the same.
/// Whether it was restored.
///
/// The input is a byte (1: checksums are made to fit, so that what lies behind them is reached) and the snapshot.
pub fn head_snapshot(data: &[u8]) -> bool {
    let Some((flags, bytes)) = data.split_first() else { return false };
    let mut bytes = bytes.to_vec();
    if flags & 1 != 0 {
        fit_checksums(&mut bytes);
    }
    let Ok(head) = Head::restore(&mut &bytes[..], 0) else { return false };
    head.check_invariants();
    let tenants: Vec<TenantId> = head.tenants().map(|(_, tenant)| tenant.clone()).collect();
    let mut part = Columns::default();
    for tenant in &tenants {
        head.label_names(tenant, &[], TimeRange::all());
        head.exemplars(tenant, &[], TimeRange::all());
        for series in head.select(tenant, &[], TimeRange::all()) {
            let mut cursor = series.into_cursor();
            while let Ok(true) = cursor.next(&mut part) {}
        }
    }
    let written = snapshot(&head);
    let again = Head::restore(&mut &written[..], 0).expect("what a head wrote restores");
    assert_eq!(snapshot(&again), written);
    true
}

fn snapshot(head: &Head) -> Vec<u8> {
    let mut bytes = Vec::new();
    head.snapshot().write(&mut bytes).expect("memory");
    bytes
}

/// Writes the checksums that the sections would have, one after the other (`head/format.md`).
fn fit_checksums(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| rest.len() >= SECTION_HEADER) {
        let len = u64::from_le_bytes(*rest[1..].first_chunk().expect("a header"));
        let Some(end) = usize::try_from(len).ok().and_then(|len| len.checked_add(SECTION_HEADER)) else { return };
        let Some(stored) = end.checked_add(4).filter(|e| *e <= rest.len()) else { return };
        let sum = crc32fast::hash(&rest[..end]);
        rest[end..stored].copy_from_slice(&sum.to_le_bytes());
        at += stored;
    }
}
