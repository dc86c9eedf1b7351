-- The name of this installation, made once. A place of blobs notes it, so that no other installation uses the place.
CREATE TABLE installation (
  key             INTEGER PRIMARY KEY CHECK (key = 1),
  id              TEXT NOT NULL
) STRICT;
