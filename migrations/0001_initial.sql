-- Times are microseconds since 1970-01-01T00:00:00Z. JSON columns hold what no query looks into.

-- Immutable bytes. A row is pending while its bytes are written, and live from then on. Rows are
-- committed before the first byte exists, so that a file without a row cannot come to be.
CREATE TABLE contents (
  key             INTEGER PRIMARY KEY,
  id              TEXT NOT NULL UNIQUE,
  state           INTEGER NOT NULL CHECK (state IN (0, 1)),   -- 0 pending, 1 live
  created_at      INTEGER NOT NULL,
  operation_id    TEXT,                                       -- of a pending row: who writes it
  format          TEXT,
  size            INTEGER,                                    -- bytes
  stored_size     INTEGER,                                    -- bytes, without all-zero blocks
  virtual_size    INTEGER,                                    -- bytes of the disk inside
  sha256          BLOB,
  CHECK (state = 0 OR (format IS NOT NULL AND size IS NOT NULL AND stored_size IS NOT NULL
                       AND virtual_size IS NOT NULL AND length(sha256) = 32))
) STRICT;
CREATE UNIQUE INDEX contents_live_digest ON contents (sha256) WHERE state = 1;
CREATE INDEX contents_pending ON contents (operation_id) WHERE state = 0;

-- Contents whose row is gone and whose bytes are to go.
CREATE TABLE content_deletions (
  content_id      TEXT PRIMARY KEY,
  requested_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE compute_images (
  key             INTEGER PRIMARY KEY,
  id              TEXT NOT NULL UNIQUE,
  folder_id       TEXT NOT NULL,
  created_at      INTEGER NOT NULL,
  status          INTEGER NOT NULL,                           -- numbers of the contract
  name            TEXT NOT NULL,
  description     TEXT NOT NULL,
  labels          TEXT NOT NULL,                              -- JSON object
  family          TEXT NOT NULL,
  min_disk_size   INTEGER NOT NULL,
  product_ids     TEXT NOT NULL,                              -- JSON array
  os              TEXT,                                       -- JSON object
  pooled          INTEGER NOT NULL,
  hardware_generation TEXT,                                   -- JSON
  content_key     INTEGER REFERENCES contents (key)
) STRICT;
CREATE UNIQUE INDEX compute_images_name ON compute_images (folder_id, name) WHERE name <> '';
CREATE INDEX compute_images_by_id ON compute_images (folder_id, id);
CREATE INDEX compute_images_by_name ON compute_images (folder_id, name, id);
CREATE INDEX compute_images_by_created_at ON compute_images (folder_id, created_at, id);
CREATE INDEX compute_images_by_status ON compute_images (folder_id, status, id);
CREATE INDEX compute_images_family ON compute_images (folder_id, family, created_at) WHERE family <> '';
CREATE INDEX compute_images_content ON compute_images (content_key);

CREATE TABLE desktop_images (
  key             INTEGER PRIMARY KEY,
  id              TEXT NOT NULL UNIQUE,
  folder_id       TEXT NOT NULL,
  created_at      INTEGER NOT NULL,
  status          INTEGER NOT NULL,                           -- numbers of the contract
  name            TEXT NOT NULL,
  description     TEXT NOT NULL,
  labels          TEXT NOT NULL,                              -- JSON object
  min_disk_size   INTEGER NOT NULL,
  content_key     INTEGER NOT NULL REFERENCES contents (key)
) STRICT;
CREATE UNIQUE INDEX desktop_images_name ON desktop_images (folder_id, name);
CREATE INDEX desktop_images_by_id ON desktop_images (folder_id, id);
CREATE INDEX desktop_images_by_created_at ON desktop_images (folder_id, created_at, id);
CREATE INDEX desktop_images_by_status ON desktop_images (folder_id, status, id);
CREATE INDEX desktop_images_content ON desktop_images (content_key);

-- Names that images have given up by deletion or renaming. A page token names the last item of
-- its page by id and hash of the name; this is where the name is found once the image lost it.
CREATE TABLE retired_names (
  image_id        TEXT NOT NULL,
  name_hash       INTEGER NOT NULL,
  name            TEXT NOT NULL,
  retired_at      INTEGER NOT NULL,
  PRIMARY KEY (image_id, name_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX retired_names_age ON retired_names (retired_at);

-- The operation row is the queue row too.
CREATE TABLE operations (
  key             INTEGER PRIMARY KEY,
  id              TEXT NOT NULL UNIQUE,
  kind            TEXT NOT NULL,
  state           INTEGER NOT NULL CHECK (state IN (0, 1, 2, 3)), -- queued, running, succeeded, failed
  folder_id       TEXT NOT NULL,
  image_id        TEXT NOT NULL,
  subject         TEXT NOT NULL,
  idempotency_key BLOB,                                       -- 16 bytes, a UUID
  request_hash    BLOB,                                       -- SHA-256 of method and request
  created_at      INTEGER NOT NULL,
  modified_at     INTEGER NOT NULL,
  task            TEXT,                                       -- JSON: what a worker has to do
  attempt         INTEGER NOT NULL,
  lease_token     INTEGER,
  lease_expires_at INTEGER,
  deadline        INTEGER,                                    -- when retries end
  cancel_requested INTEGER NOT NULL,
  response        TEXT,                                       -- JSON: the resource on success
  error_reason    TEXT,
  error_message   TEXT,
  CHECK ((state = 3) = (error_reason IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX operations_idempotency ON operations (subject, idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX operations_unfinished ON operations (created_at) WHERE state < 2;
CREATE INDEX operations_by_image ON operations (image_id, id);
