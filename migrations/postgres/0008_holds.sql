-- Holds: while one stands, the bytes of blobs with a tombstone are not removed.
CREATE TABLE blob_holds (
  id              text COLLATE "C" PRIMARY KEY,
  expires_at      bigint NOT NULL
);
