-- A key is tied to an upload only once its whole body is there: of an upload under an idempotency key
-- 1 while its body arrives, 2 once it was taken and its digest agreed; 0 for all else.
ALTER TABLE operations ADD COLUMN upload INTEGER NOT NULL DEFAULT 0;

-- Uploads that an earlier version began or gave up under a key, which would keep their retries out.
UPDATE operations SET upload = 1
  WHERE phase < 3 AND idempotency_key IS NOT NULL AND task LIKE '%"origin":"upload"%';
UPDATE operations SET idempotency_key = NULL, request_hash = NULL
  WHERE phase = 4 AND idempotency_key IS NOT NULL AND error_reason = 'aborted'
    AND (error_message LIKE 'The upload ended early, after %'
         OR error_message LIKE 'The server stopped before the upload was complete%'
         OR error_message LIKE 'The body has % bytes, % were announced');
