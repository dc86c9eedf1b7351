-- Set when a read found other bytes than were written, or none. Cleared when equal bytes have taken
-- their place, and when all of them were read and are sound.
ALTER TABLE contents ADD COLUMN damaged INTEGER NOT NULL DEFAULT 0 CHECK (damaged IN (0, 1));

-- Contents that an image has stopped referring to. Whether another image refers to them is looked at
-- later, in a transaction of its own.
CREATE TABLE content_candidates (
  content_key     INTEGER PRIMARY KEY
) STRICT;

-- Checksums of the blocks of contents, in an encoding of their own. Contents from before this have none
-- until they are verified.
CREATE TABLE content_checksums (
  content_key     INTEGER PRIMARY KEY REFERENCES contents (key) ON DELETE CASCADE,
  checksums       BLOB NOT NULL
) STRICT;

-- The folder that held the contents at the last start, to tell it from an empty one in its place.
CREATE TABLE content_folder (
  key             INTEGER PRIMARY KEY CHECK (key = 1),
  device          INTEGER NOT NULL,
  inode           INTEGER NOT NULL
) STRICT;
