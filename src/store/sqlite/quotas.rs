//! Limits, and what is used of those that stand. Only folders with a limit are counted.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OptionalExtension, params};

use super::super::{Error, Result};
use super::audit::{self, About, Step};
use super::folders::{self, TOTAL};
use super::{Store, Transaction, unreadable};
use crate::model::{Accept, AuditKind, ExceededQuota, FieldChange, Metric, Quota, QuotaScope};

/// What an image takes of its folder's quotas.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub count: (Metric, i64),
    /// None as long as it is not known.
    pub size: (Metric, Option<i64>),
}

impl Usage {
    pub fn desktop_images(count: i64, bytes: Option<i64>) -> Self {
        Self {
            count: (Metric::DesktopImagesCount, count),
            size: (Metric::DesktopImagesSize, bytes),
        }
    }

    pub fn compute_images(count: i64, bytes: Option<i64>) -> Self {
        Self {
            count: (Metric::ComputeImagesCount, count),
            size: (Metric::ComputeImagesSize, bytes),
        }
    }
}

struct Row {
    folder_key: i64,
    metric: Metric,
    limit: i64,
    used: i64,
}

/// Whether there may be limits. As long as none has ever been set, which is the normal case,
/// nothing has to be looked up.
pub struct Limits(AtomicBool);

impl Limits {
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let stand =
            connection.query_row("SELECT EXISTS (SELECT 1 FROM quotas)", [], |row| row.get(0))?;
        Ok(Self(AtomicBool::new(stand)))
    }

    fn may_stand(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// To be told before a limit is written, and not to be taken back: the limit may be one of a
    /// transaction that is undone, or that takes one away.
    fn one_is_set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The limits that stand over a folder for what `usage` counts.
fn over(
    transaction: &Transaction<'_>,
    store: &Store,
    folder_key: i64,
    usage: &Usage,
) -> Result<Vec<Row>> {
    if !store.limits().may_stand() {
        return Ok(Vec::new());
    }
    // Not with IN: SQLite would make a table of each list first.
    let mut statement = transaction.prepare_cached(
        "SELECT folder_key, metric, \"limit\", used FROM quotas
         WHERE folder_key = ?1 AND metric BETWEEN ?3 AND ?4
         UNION ALL
         SELECT folder_key, metric, \"limit\", used FROM quotas
         WHERE folder_key = ?2 AND ?2 <> ?1 AND metric BETWEEN ?3 AND ?4",
    )?;
    let rows = statement
        .query_map(
            [TOTAL, folder_key, usage.count.0 as i64, usage.size.0 as i64],
            |row| {
                Ok(Row {
                    folder_key: row.get(0)?,
                    metric: metric(row.get(1)?)?,
                    limit: row.get(2)?,
                    used: row.get(3)?,
                })
            },
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

impl Usage {
    fn of(&self, metric: Metric) -> Option<i64> {
        if metric == self.count.0 {
            Some(self.count.1)
        } else {
            self.size.1
        }
    }
}

/// What a check has found, to be counted once nothing can be refused any more.
pub struct Reservation {
    rows: Vec<Row>,
    usage: Usage,
}

/// Refuses what would exceed a limit. Writes nothing yet.
pub fn check(
    transaction: &Transaction<'_>,
    store: &Store,
    folder_id: &str,
    folder_key: i64,
    usage: Usage,
) -> Result<Reservation> {
    let rows = over(transaction, store, folder_key, &usage)?;
    for row in &rows {
        let exceeded = match usage.of(row.metric) {
            // It will take at least something.
            None => row.used >= row.limit,
            Some(0) => false,
            Some(more) => row
                .used
                .checked_add(more)
                .is_none_or(|used| used > row.limit),
        };
        if exceeded {
            return Err(Error::QuotaExceeded(ExceededQuota {
                metric: row.metric,
                scope: match row.folder_key {
                    TOTAL => QuotaScope::Total,
                    _ => QuotaScope::Folder(folder_id.to_owned()),
                },
                limit: row.limit,
                used: row.used,
                requested: usage.of(row.metric),
            }));
        }
    }
    Ok(Reservation { rows, usage })
}

impl Reservation {
    /// Counts what was checked in this transaction.
    pub fn take(self, transaction: &Transaction<'_>) -> Result<()> {
        add(transaction, &self.rows, &self.usage, 1)
    }
}

/// Gives back what an image took.
pub fn release(
    transaction: &Transaction<'_>,
    store: &Store,
    folder_key: i64,
    usage: Usage,
) -> Result<()> {
    let rows = over(transaction, store, folder_key, &usage)?;
    add(transaction, &rows, &usage, -1)
}

fn add(transaction: &Transaction<'_>, rows: &[Row], usage: &Usage, sign: i64) -> Result<()> {
    for row in rows {
        let more = sign * usage.of(row.metric).unwrap_or(0);
        if more != 0 {
            transaction
                .prepare_cached(
                    "UPDATE quotas SET used = used + ?3 WHERE folder_key = ?1 AND metric = ?2",
                )?
                .execute([row.folder_key, row.metric as i64, more])?;
        }
    }
    Ok(())
}

impl Store {
    /// The limits that stand, by scope and metric; those of all folders together come first.
    pub async fn quotas(&self) -> Result<Vec<Quota>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT folder.id, metric, \"limit\", used FROM quotas
                 LEFT JOIN folders AS folder ON folder.key = quotas.folder_key
                 ORDER BY folder.id, metric",
            )?;
            let quotas = statement
                .query_map([], |row| {
                    let folder: Option<String> = row.get(0)?;
                    Ok(Quota {
                        scope: folder.map_or(QuotaScope::Total, QuotaScope::Folder),
                        metric: metric(row.get(1)?)?,
                        limit: row.get(2)?,
                        used: row.get(3)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(quotas)
        })
        .await
    }

    /// Sets a limit, also below what is used, or takes it away; what is used.
    pub async fn set_quota(
        &self,
        accept: Accept,
        scope: QuotaScope,
        metric: Metric,
        limit: Option<i64>,
    ) -> Result<i64> {
        if self.is_short_of_room() {
            return Err(Error::Full);
        }
        self.write(move |transaction, store| {
            let folder_key = match (&scope, limit) {
                (QuotaScope::Total, _) => Some(TOTAL),
                (QuotaScope::Folder(id), Some(_)) => Some(folders::intern(transaction, id)?),
                (QuotaScope::Folder(id), None) => folders::find(transaction, id)?,
            };
            // Nothing was ever in it, and no limit stands.
            let Some(folder_key) = folder_key else {
                return Ok(0);
            };
            let used = used(transaction, folder_key, metric)?;
            let old: Option<i64> = transaction
                .prepare_cached(
                    "SELECT \"limit\" FROM quotas WHERE folder_key = ?1 AND metric = ?2",
                )?
                .query_row([folder_key, metric as i64], |row| row.get(0))
                .optional()?;
            let mut changes = Vec::new();
            FieldChange::note(&mut changes, metric.name(), &old, Some(&limit), limit_text);
            let about = About {
                operation: audit::NO_ID,
                kind: AuditKind::SetQuota,
                subject: &accept.subject,
                request_id: &accept.request_id,
                folder_key,
                image: audit::NO_ID,
                changes: &changes,
            };
            audit::record(transaction, store.now(), &about, Step::StartedAndDone)?;
            let Some(limit) = limit else {
                transaction
                    .prepare_cached("DELETE FROM quotas WHERE folder_key = ?1 AND metric = ?2")?
                    .execute([folder_key, metric as i64])?;
                return Ok(used);
            };
            store.limits().one_is_set();
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO quotas (folder_key, metric, \"limit\", used)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute([folder_key, metric as i64, limit, used])?;
            Ok(used)
        })
        .await
    }
}

fn limit_text(limit: &Option<i64>) -> String {
    limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}

/// What the images take, by the images themselves.
fn used(transaction: &Transaction<'_>, folder_key: i64, metric: Metric) -> Result<i64> {
    let (what, from) = match metric {
        Metric::DesktopImagesCount => ("count(*)", "desktop_images"),
        Metric::ComputeImagesCount => ("count(*)", "compute_images"),
        Metric::DesktopImagesSize => (
            "coalesce(sum(content.stored_size), 0)",
            "desktop_images JOIN contents AS content ON content.key = content_key",
        ),
        Metric::ComputeImagesSize => (
            "coalesce(sum(content.stored_size), 0)",
            "compute_images JOIN contents AS content ON content.key = content_key",
        ),
    };
    let which = match folder_key {
        TOTAL => "?1 = 0",
        // By the index.
        _ => "folder_key = ?1",
    };
    Ok(transaction.query_row(
        &format!("SELECT {what} FROM {from} WHERE {which}"),
        params![folder_key],
        |row| row.get(0),
    )?)
}

fn metric(number: i64) -> rusqlite::Result<Metric> {
    Metric::from_number(number).ok_or_else(|| unreadable(format!("metric {number}")))
}
