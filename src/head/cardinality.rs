//! How many series there are of what, for whoever looks for the label that makes too many.

use super::core::Head;
use crate::model::{Matcher, TenantId};

impl Head {
    /// Every label name and value of the series that fulfil all matchers, in no order, with the number of series that
    /// carry it.
    pub fn label_pairs<'a>(
        &'a self,
        tenant: &TenantId,
        matchers: &[Matcher],
    ) -> impl Iterator<Item = (&'a str, &'a str, u64)> + use<'a> {
        let tenant = self.tenant(tenant).map(|n| &self.tenants[n.0 as usize]);
        let wanted = tenant.filter(|_| !matchers.is_empty()).map(|tenant| self.matching(tenant, matchers));
        let index = tenant.map(|tenant| &tenant.index);
        let pairs = index.into_iter().flat_map(|index| {
            let of_name = move |id: &u32| index.pair(*id);
            index.names().flat_map(move |name| name.pairs.iter().map(of_name).map(|pair| (&*name.text, pair)))
        });
        pairs.filter_map(move |(name, pair)| {
            let series = wanted.as_ref().map_or_else(|| pair.postings.len(), |wanted| pair.postings.count_in(wanted));
            (series > 0).then_some((name, &*pair.value, series))
        })
    }

    /// Number of series of a tenant that fulfil all matchers.
    pub fn count(&self, tenant: &TenantId, matchers: &[Matcher]) -> u64 {
        let tenant = self.tenant(tenant).map(|n| &self.tenants[n.0 as usize]);
        tenant.map_or(0, |tenant| self.matching(tenant, matchers).len())
    }

    /// Number of chunks of a tenant, open ones too. O(series).
    pub fn chunks(&self, tenant: &TenantId) -> u64 {
        let Some(tenant) = self.tenant(tenant) else { return 0 };
        let tenant = &self.tenants[tenant.0 as usize];
        let held = tenant.index.all.iter().filter_map(|id| self.series_by_id(id)).map(|s| s.chunks());
        tenant.left_out.saturating_add(held.sum())
    }
}
