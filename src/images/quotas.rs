//! Use cases of quotas, the limits of what folders may hold.

use super::{Error, Images, Result};
use crate::model::rules::SetQuota;
use crate::model::{Metric, Quota, QuotaScope, RequestContext, Role};

impl Images {
    /// The limits that stand: of a folder, or all of them.
    ///
    /// # Errors
    /// [`Error::Store`] with `Refusal::FolderDenied` or `Denied`.
    pub(crate) async fn quotas(
        &self,
        request: &RequestContext,
        folder_id: Option<String>,
    ) -> Result<Vec<Quota>> {
        let folder = folder_id.as_deref().unwrap_or_default();
        request.rights.demand_in(Role::Admin, folder)?;
        let wanted = folder_id.map(QuotaScope::Folder);
        let mut quotas = self.store.quotas().await?;
        quotas.retain(|quota| wanted.as_ref().is_none_or(|scope| *scope == quota.scope));
        Ok(quotas)
    }

    /// Sets a limit by its name, or takes it away. Returns the usage.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that no limit has; [`Error::Store`] with `Refusal::FolderDenied` or `Denied`.
    pub(crate) async fn set_quota(
        &self,
        request: RequestContext,
        scope: QuotaScope,
        name: &str,
        limit: Option<i64>,
    ) -> Result<i64> {
        let folder_id = match &scope {
            QuotaScope::Folder(id) => id,
            QuotaScope::Total => "",
        };
        request.rights.demand_in(Role::Admin, folder_id)?;
        let Some(metric) = Metric::from_name(name) else {
            let known = Metric::ALL.map(Metric::name).join(", ");
            return Err(Error::invalid("name", format!("Must be one of {known}")));
        };
        let set = SetQuota {
            request,
            scope,
            metric,
            limit,
        };
        Ok(self.store.set_quota(set).await?)
    }
}
