-- Holds: while one stands, the bytes of blobs with a tombstone are not removed.
CREATE TABLE blob_holds (
  id              TEXT PRIMARY KEY,
  expires_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
