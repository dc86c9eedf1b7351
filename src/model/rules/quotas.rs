//! Rules of quotas. Only scopes with a limit are counted.

use super::draft::Draft;
use crate::model::{
    AuditKind, AuditRow, AuditStep, Effect, ExceededQuota, FieldChange, Lookup, Metric, Quota,
    QuotaScope, Refusal, RequestContext, Timestamp,
};

/// The share of its folder's quotas that an image takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    count: (Metric, i64),
    /// None as long as it is not known.
    size: (Metric, Option<i64>),
}

impl Usage {
    pub(super) fn desktop_images(count: i64, bytes: Option<i64>) -> Self {
        Self {
            count: (Metric::DesktopImagesCount, count),
            size: (Metric::DesktopImagesSize, bytes),
        }
    }

    pub(super) fn compute_images(count: i64, bytes: Option<i64>) -> Self {
        Self {
            count: (Metric::ComputeImagesCount, count),
            size: (Metric::ComputeImagesSize, bytes),
        }
    }

    /// How much of a metric is taken, and None of a size that is not known. None of other metrics.
    fn of(&self, metric: Metric) -> Option<Option<i64>> {
        match metric {
            _ if metric == self.count.0 => Some(Some(self.count.1)),
            _ if metric == self.size.0 => Some(self.size.1),
            _ => None,
        }
    }
}

/// The lookups of the limits that stand over a folder.
pub(super) fn lookups(folder_id: &str) -> Vec<Lookup> {
    over(folder_id).map(Lookup::Quotas).into()
}

/// The scopes whose limits stand over a folder, in the order in which they are asked.
fn over(folder_id: &str) -> [QuotaScope; 2] {
    [QuotaScope::Total, QuotaScope::Folder(folder_id.to_owned())]
}

/// Counts what is taken in a folder.
///
/// # Errors
/// [`Refusal::QuotaExceeded`] with the first limit that stands in the way.
pub(super) fn reserve(draft: &mut Draft<'_>, folder_id: &str, usage: Usage) -> Result<(), Refusal> {
    for quota in over(folder_id)
        .iter()
        .flat_map(|scope| draft.facts.quotas(scope))
    {
        let Some(requested) = usage.of(quota.metric) else {
            continue;
        };
        let exceeded = match requested {
            // It will take at least something.
            None => quota.used >= quota.limit,
            Some(0) => false,
            Some(more) => quota
                .used
                .checked_add(more)
                .is_none_or(|used| used > quota.limit),
        };
        if exceeded {
            return Err(Refusal::QuotaExceeded(ExceededQuota {
                metric: quota.metric,
                scope: quota.scope.clone(),
                limit: quota.limit,
                used: quota.used,
                requested,
            }));
        }
    }
    add(draft, folder_id, usage, 1);
    Ok(())
}

/// Gives back what an image took.
pub(super) fn release(draft: &mut Draft<'_>, folder_id: &str, usage: Usage) {
    add(draft, folder_id, usage, -1);
}

fn add(draft: &mut Draft<'_>, folder_id: &str, usage: Usage, sign: i64) {
    for scope in over(folder_id) {
        for quota in draft.facts.quotas(&scope) {
            let more = sign * usage.of(quota.metric).flatten().unwrap_or(0);
            if more != 0 {
                draft.effects.push(Effect::UpdateQuota(Quota {
                    used: quota.used.saturating_add(more),
                    ..quota.clone()
                }));
            }
        }
    }
}

/// A new limit, also below what is used, or none.
#[derive(Debug, Clone)]
pub(crate) struct SetQuota {
    pub request: RequestContext,
    pub scope: QuotaScope,
    pub metric: Metric,
    pub limit: Option<i64>,
}

/// The limit as it is from now on, by what stood and by a count of what the images take, and the audit event of
/// it.
pub(crate) fn set_quota(
    set: &SetQuota,
    old: Option<i64>,
    used: i64,
    now: Timestamp,
) -> (Option<Quota>, AuditRow) {
    let text = |limit: &Option<i64>| limit.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let mut changes = Vec::new();
    FieldChange::note(
        &mut changes,
        set.metric.name(),
        &old,
        Some(&set.limit),
        text,
    );
    let quota = set.limit.map(|limit| Quota {
        scope: set.scope.clone(),
        metric: set.metric,
        limit,
        used,
    });
    let event = AuditRow {
        time: now,
        step: AuditStep::StartedAndDone,
        kind: AuditKind::SetQuota,
        subject: set.request.subject.clone(),
        request_id: set.request.request_id.clone(),
        peer: set.request.peer_text(),
        folder_id: match &set.scope {
            QuotaScope::Folder(id) => id.clone(),
            QuotaScope::Total => String::new(),
        },
        operation: None,
        image: None,
        message: None,
        changes,
    };
    (quota, event)
}
