-- What an update or a new quota set to another value: a JSON array of objects with the members field, old
-- and new. Empty for other events. The kind 101 of an event is a quota: it has neither operation nor
-- image, and the folder 0 where it is one of all folders together.
ALTER TABLE audit_events ADD COLUMN changes TEXT;

-- What a quota that stood in the way was about: a JSON object.
ALTER TABLE operations ADD COLUMN error_quota TEXT;
