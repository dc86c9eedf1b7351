-- Tombstones are looked for by age, since bytes may be kept for a while after their images.
CREATE INDEX tombstones_age ON tombstones (forget_after, file);
