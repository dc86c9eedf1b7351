-- Tombstones are looked for by age, since bytes may be kept for a while after their images.
CREATE INDEX content_deletions_by_age ON content_deletions (forget_after, content_id);
