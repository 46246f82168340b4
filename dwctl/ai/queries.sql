-- Idempotency keys. The primary key (owner, path, key) decides which of several attempts runs.

-- name: find_key  what a key stands for, and what has become of it. in_doubt: its process died, and what it leaves is still to be recorded.
--   was_withdrawn: its caller was told that nothing was accepted.
--   (Scalar sub-queries: each is a walk down one key.)
SELECT k.request_id, k.fingerprint, k.created_at < now() - %(keep_s)s * interval '1 second' AS is_old,
       r.created_at AS asked_at, r.state, r.response_status, r.error,
       coalesce(r.state = 'canceled' AND b.cancelled_at IS NULL, false) AS was_withdrawn,
       (SELECT true FROM credits_transactions t WHERE t.source_id = k.request_id::text) IS NOT NULL AS is_charged,
       (SELECT true FROM fusillade.unrecorded u WHERE u.id = k.request_id AND u.last_words IS NOT NULL) IS NOT NULL AS in_doubt
  FROM idempotency_keys k LEFT JOIN fusillade.requests r ON r.id = k.request_id
  LEFT JOIN fusillade.batches b ON b.id = r.batch_id
 WHERE k.owner_id = %(owner_id)s AND k.path = %(path)s AND k.key = %(key)s;

-- name: claim_key  take a key, or take it over from the attempt `instead_of`, and open its request: both or neither. A row: it was taken.
--   (Containers first, then requests, as everybody locks them.)
WITH contained AS MATERIALIZED (
    SELECT fusillade.ensure_files(%(files)s::json)
), free AS MATERIALIZED (
    SELECT fusillade.take_over(%(instead_of)s, %(seen)s) AS is_free FROM contained
), mine AS (
    INSERT INTO idempotency_keys AS k (owner_id, path, key, fingerprint, request_id)
    SELECT %(owner_id)s, %(path)s, %(key)s, %(fingerprint)s, %(request_id)s FROM free WHERE is_free
    ON CONFLICT (owner_id, path, key) DO UPDATE
        SET fingerprint = EXCLUDED.fingerprint, request_id = EXCLUDED.request_id, created_at = now()
      WHERE k.request_id = %(instead_of)s
    RETURNING request_id
)
SELECT request_id, fusillade.open_calls(%(opening)s::json) FROM mine;

-- name: wait_for_claim  until a claim that may still be on its way has been committed or not: both want the same key
INSERT INTO idempotency_keys (owner_id, path, key, fingerprint, request_id)
VALUES (%(owner_id)s, %(path)s, %(key)s, %(fingerprint)s, %(request_id)s) ON CONFLICT DO NOTHING;

-- name: give_back_key  of an attempt that is not to be; one that a worker has begun meanwhile keeps it
DELETE FROM idempotency_keys k
 WHERE k.owner_id = %(owner_id)s AND k.path = %(path)s AND k.key = %(key)s AND k.request_id = %(request_id)s
   AND (SELECT r.state = 'canceled' FROM fusillade.requests r WHERE r.id = k.request_id) IS DISTINCT FROM false;

-- name: withdraw  a request whose caller is told that nothing was accepted
SELECT fusillade.withdraw(ARRAY[%(request_id)s::uuid]);

-- name: forget_keys  keys past their time
DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
    SELECT k.ctid FROM idempotency_keys k WHERE k.created_at < now() - %(keep_s)s * interval '1 second'
     ORDER BY created_at LIMIT %(most)s FOR UPDATE SKIP LOCKED));
