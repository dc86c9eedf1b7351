-- Times are microseconds since 1970-01-01T00:00:00Z. JSON columns hold what no query looks into.
--
-- An id that this server makes is a prefix and 85 bits: 48 of milliseconds and 37 random ones. A row
-- keeps it as `key`, its first 63 significant bits, and `id_rest`, its last 17. A key is therefore
-- the time of its row's making too, every insert goes to the end of its table, and neither the id
-- nor the time needs an index of its own.

-- Folders are known by short numbers inside. 0 is none of them: there, quotas speak of the total.
CREATE TABLE folders (
  key             INTEGER PRIMARY KEY,
  id              TEXT NOT NULL UNIQUE
) STRICT;

-- Immutable bytes. A row is pending while its bytes are written, and live from then on. Rows are
-- committed before the first byte exists, so that a file without a row cannot come to be.
CREATE TABLE contents (
  key             INTEGER PRIMARY KEY,
  id              TEXT NOT NULL UNIQUE,
  state           INTEGER NOT NULL CHECK (state IN (0, 1)),   -- 0 pending, 1 live
  operation_key   INTEGER,                                    -- of a pending row: who writes it
  format          TEXT,
  size            INTEGER,                                    -- bytes
  stored_size     INTEGER,                                    -- bytes, without all-zero blocks
  virtual_size    INTEGER,                                    -- bytes of the disk inside
  sha256          BLOB,
  CHECK (state = 0 OR (format IS NOT NULL AND size IS NOT NULL AND stored_size IS NOT NULL
                       AND virtual_size IS NOT NULL AND length(sha256) = 32))
) STRICT;
CREATE UNIQUE INDEX contents_live_digest ON contents (sha256) WHERE state = 1;
CREATE INDEX contents_pending ON contents (operation_key) WHERE state = 0;

-- Contents whose row is gone and whose bytes are to go. An id stays until forget_after, since a
-- worker that lost its lease may come late and make the file once more.
CREATE TABLE content_deletions (
  content_id      TEXT PRIMARY KEY,
  forget_after    INTEGER NOT NULL
) STRICT;

-- The indexes by status leave out READY and ACTIVE, the states of all but a few: a list by status
-- finds those in the folder's own order.
CREATE TABLE compute_images (
  key             INTEGER PRIMARY KEY,
  id_rest         INTEGER NOT NULL,
  folder_key      INTEGER NOT NULL,
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
CREATE INDEX compute_images_folder ON compute_images (folder_key);
CREATE UNIQUE INDEX compute_images_unique_name ON compute_images (folder_key, name) WHERE name <> '';
CREATE INDEX compute_images_name ON compute_images (folder_key, name);
CREATE INDEX compute_images_status ON compute_images (folder_key, status) WHERE status <> 2;
CREATE INDEX compute_images_family ON compute_images (folder_key, family) WHERE family <> '';
CREATE INDEX compute_images_content ON compute_images (content_key);

CREATE TABLE desktop_images (
  key             INTEGER PRIMARY KEY,
  id_rest         INTEGER NOT NULL,
  folder_key      INTEGER NOT NULL,
  status          INTEGER NOT NULL,                           -- numbers of the contract
  name            TEXT NOT NULL,
  description     TEXT NOT NULL,
  labels          TEXT NOT NULL,                              -- JSON object
  min_disk_size   INTEGER NOT NULL,
  content_key     INTEGER NOT NULL REFERENCES contents (key)
) STRICT;
CREATE INDEX desktop_images_folder ON desktop_images (folder_key);
CREATE UNIQUE INDEX desktop_images_name ON desktop_images (folder_key, name);
CREATE INDEX desktop_images_status ON desktop_images (folder_key, status) WHERE status <> 2;
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

-- The operation row is the queue row too. Only rows that have not ended are in the queue's index:
-- there claimable_at is when a worker may take the row, because its turn has come or because the
-- lease of the worker before has run out.
CREATE TABLE operations (
  key             INTEGER PRIMARY KEY,
  id_rest         INTEGER NOT NULL,
  kind            INTEGER NOT NULL,
  phase           INTEGER NOT NULL,          -- 0 queued, 1 running, 2 undoing, 3 succeeded, 4 failed
  folder_key      INTEGER NOT NULL,
  image_key       INTEGER NOT NULL,
  image_id_rest   INTEGER NOT NULL,
  subject         TEXT NOT NULL,
  request_id      TEXT NOT NULL,
  idempotency_key BLOB,                                       -- 16 bytes, a UUID
  request_hash    BLOB,                                       -- SHA-256 of method and request
  modified_at     INTEGER NOT NULL,
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  attempt         INTEGER NOT NULL DEFAULT 0,
  claimable_at    INTEGER,
  lease_token     INTEGER,
  retry_until     INTEGER,                                    -- from the first failure that may pass
  task            TEXT,                                       -- JSON: the change, until it has ended
  progress_done   INTEGER NOT NULL DEFAULT 0,                 -- bytes, of this attempt
  progress_total  INTEGER,                                    -- bytes, where known
  response        TEXT,                                       -- JSON: the resource on success
  error_reason    TEXT,                                       -- of the last failure, while it runs
  error_message   TEXT,
  error_subject   TEXT,
  CHECK ((phase < 3) = (task IS NOT NULL AND claimable_at IS NOT NULL)),
  CHECK (phase <> 3 OR error_reason IS NULL),
  CHECK (phase <> 4 OR error_reason IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX operations_idempotency ON operations (idempotency_key, subject)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX operations_queue ON operations (folder_key, claimable_at) WHERE phase < 3;
-- Operations of compute images: the others are not listed.
CREATE INDEX operations_image ON operations (image_key) WHERE kind >= 4;

-- What has been done, for those who ask later. Rows outlive their operation, so they refer to
-- nothing.
CREATE TABLE audit_events (
  sequence        INTEGER PRIMARY KEY,
  recorded_at     INTEGER NOT NULL,
  status          INTEGER NOT NULL,    -- 0 started, 1 done, 2 error, 3 cancelled, 4 started and done
  kind            INTEGER NOT NULL,
  subject         TEXT NOT NULL,
  request_id      TEXT NOT NULL,
  folder_key      INTEGER NOT NULL,
  operation_key   INTEGER NOT NULL,
  operation_id_rest INTEGER NOT NULL,
  image_key       INTEGER NOT NULL,
  image_id_rest   INTEGER NOT NULL,
  message         TEXT                                        -- of an error
) STRICT;

-- Limits that stand, with what is used of them. Without a row there is no limit, and nothing is
-- counted.
CREATE TABLE quotas (
  folder_key      INTEGER NOT NULL,                           -- 0: all folders together
  metric          INTEGER NOT NULL,
  "limit"         INTEGER NOT NULL CHECK ("limit" >= 0),
  used            INTEGER NOT NULL,
  PRIMARY KEY (folder_key, metric)
) STRICT, WITHOUT ROWID;
