-- Who callers are, and what they may do. A row hangs on its parent, and is removed with it.
CREATE TABLE identity (
  kind            INTEGER NOT NULL,    -- 1 token, 2 service account, 3 its key, 4 grant, 5 key of signed URLs
  id              TEXT NOT NULL,
  parent_kind     INTEGER NOT NULL,                           -- 0 where there is none
  parent_id       TEXT NOT NULL,
  expires_at      INTEGER,
  row             TEXT NOT NULL,                              -- JSON
  PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_parent ON identity (parent_id, parent_kind) WHERE parent_kind <> 0;
CREATE INDEX identity_expiry ON identity (expires_at) WHERE expires_at IS NOT NULL;

-- The address that the request of an event came from.
ALTER TABLE audit_events ADD COLUMN peer TEXT NOT NULL DEFAULT '';
