-- Holds: while one stands, the bytes of blobs with a tombstone are not removed.
CREATE TABLE blob_holds (
  id              text COLLATE "C" PRIMARY KEY,
  expires_at      bigint NOT NULL
);

-- The process that prunes and collects garbage, until its lease runs out.
CREATE TABLE maintenance (
  one             boolean PRIMARY KEY DEFAULT true CHECK (one),
  holder          text NOT NULL,
  lease_until     bigint NOT NULL
);
INSERT INTO maintenance (holder, lease_until) VALUES ('', 0);

-- The last transaction of each connection that has changed anything. Where a connection is lost while it commits, the row
-- tells whether it did.
CREATE TABLE commits (
  connection      text COLLATE "C" PRIMARY KEY,
  last            bigint NOT NULL,
  at              timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
