//! How many series there are of what, for whoever looks for the label that makes too many.

use super::core::Head;
use crate::model::TenantId;

impl Head {
    /// Every label name and value of a tenant, in no order, with the number of series that carry it.
    pub fn label_pairs<'a>(&'a self, tenant: &TenantId) -> impl Iterator<Item = (&'a str, &'a str, u64)> + use<'a> {
        let index = self.tenant(tenant).map(|n| &self.tenants[n.0 as usize].index);
        index.into_iter().flat_map(|index| {
            index.names().flat_map(move |name| {
                let pairs = name.pairs.iter().map(|id| index.pair(*id));
                pairs.map(|pair| (&*name.text, &*pair.value, pair.postings.len()))
            })
        })
    }

    /// Number of chunks of a tenant, open ones too. O(series).
    pub fn chunks(&self, tenant: &TenantId) -> u64 {
        let Some(tenant) = self.tenant(tenant) else { return 0 };
        let ids = self.tenants[tenant.0 as usize].index.all.iter();
        ids.filter_map(|id| self.series_by_id(id)).map(|s| s.chunks()).sum()
    }
}
