-- The name of this installation, made once. A place of blobs notes it, so that no other installation uses the place.
CREATE TABLE installation (
  one             boolean PRIMARY KEY DEFAULT true CHECK (one),
  id              text NOT NULL
);
