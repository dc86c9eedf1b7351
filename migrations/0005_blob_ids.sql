-- Images refer to a content by an id of two parts, like all others: its key, and this. It stays when equal bytes take
-- the place of those that were there; the column id names the bytes. Contents from before this have 0.
ALTER TABLE contents ADD COLUMN id_rest INTEGER NOT NULL DEFAULT 0;
