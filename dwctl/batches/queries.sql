-- Batches: what is asked before one is made, and what an answer shows of others than itself.

-- name: be_patient  with others that make batches, but not for ever: who waits holds a connection
SET LOCAL lock_timeout = '10s';

-- name: claim_key  what the caller's Idempotency-Key stands for from now on; no row where it stands for an earlier batch already
INSERT INTO idempotency_keys AS k (owner_id, path, key, fingerprint, request_id)
VALUES (%(owner_id)s, '/batches', %(key)s, %(fingerprint)s, %(batch_id)s)
ON CONFLICT (owner_id, path, key) DO UPDATE
   SET fingerprint = EXCLUDED.fingerprint, request_id = EXCLUDED.request_id, created_at = now()
 WHERE k.created_at < now() - %(keep_s)s * interval '1 second'
RETURNING request_id;

-- name: find_key
SELECT request_id, fingerprint FROM idempotency_keys WHERE owner_id = %(owner_id)s AND path = '/batches' AND key = %(key)s;

-- name: is_made  whether there is a batch with that id
SELECT true FROM fusillade.batches WHERE id = %(id)s;

-- name: balance
SELECT balance FROM user_balance_checkpoints WHERE user_id = %(owner_id)s;

-- name: input_file  locked against being deleted before its batch is there
SELECT purpose, uploaded_by, status = 'expired' OR coalesce(expires_at <= now(), false) AS is_expired, status = 'error' AS is_broken
  FROM fusillade.files WHERE id = %(file_id)s AND NOT single AND deleted_at IS NULL FOR SHARE;

-- name: debtor  the name of an account that is in debt
SELECT coalesce(u.display_name, u.username) FROM users u JOIN user_balance_checkpoints b ON b.user_id = u.id
 WHERE u.id = %(owner_id)s AND b.balance < 0;

-- name: count_file  one that was written by hand and is counted by nobody
SELECT fusillade.count_file(%(file_id)s);

-- name: lines_of  how many lines of a file go to each model and path; path '': nobody has written it down
SELECT model, path, requests FROM fusillade.file_models WHERE file_id = %(file_id)s;

-- name: models_by_alias
SELECT id, alias, throughput, allowed_batch_completion_windows FROM deployed_models WHERE alias = ANY (%(aliases)s) AND NOT deleted;

-- name: lock_models  against other admissions, until the end of the transaction; everybody in the order of ids
SELECT pg_advisory_xact_lock(hashtextextended('batch capacity ' || id, 0)) FROM (SELECT id FROM unnest(%(ids)s::uuid[]) AS x(id) ORDER BY id) ids;

-- name: taken  what is to end at each model before the window is over: lines of batches, single requests that wait, reservations
--   (By the clock, not by the begin of the transaction: what was made while the lock was waited for is due a moment later.)
SELECT alias, sum(requests)::bigint FROM (
    SELECT m.model AS alias, m.requests - m.completed - m.failed - m.canceled AS requests
      FROM fusillade.batches b JOIN fusillade.batch_models m ON m.batch_id = b.id
     WHERE NOT b.single AND b.completed_at IS NULL AND b.failed_at IS NULL AND b.cancelled_at IS NULL AND b.expired_at IS NULL
       AND b.cancelling_at IS NULL AND b.deleted_at IS NULL
       AND b.expires_at <= (SELECT clock_timestamp() + %(window_s)s * interval '1 second') AND m.model = ANY (%(aliases)s)
    UNION ALL
    SELECT model, 1 FROM fusillade.ready
     WHERE batch_id = id AND model = ANY (%(aliases)s) AND deadline <= (SELECT clock_timestamp() + %(window_s)s * interval '1 second')
    UNION ALL
    SELECT w.alias, r.reserved_requests
      FROM unnest(%(ids)s::uuid[], %(aliases)s::text[]) AS w(id, alias) JOIN batch_capacity_reservations r ON r.model_id = w.id
     WHERE r.completion_window = %(window)s AND r.released_at IS NULL AND r.expires_at > now()
) taken GROUP BY alias;

-- name: create_batch
SELECT fusillade.create_batch(%(id)s, %(file_id)s, %(endpoint)s, %(window)s, %(window_s)s, %(owner)s, %(api_key_id)s, %(metadata)s::jsonb,
                              %(output_file_id)s, %(error_file_id)s);

-- name: forget_reservations  what is over and was held for the last time more than an hour ago
DELETE FROM batch_capacity_reservations WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM batch_capacity_reservations
     WHERE coalesce(released_at, expires_at) < now() - interval '1 hour' LIMIT %(most)s FOR UPDATE SKIP LOCKED));

-- name: models_and_tokens  the model of batches all of whose lines ask for one, and the tokens of what has succeeded
SELECT b.id, m.model, u.prompt_tokens, u.cached_tokens, u.completion_tokens, u.reasoning_tokens, u.total_tokens
  FROM unnest(%(ids)s::uuid[]) b(id) LEFT JOIN batch_usage u ON u.batch_id = b.id
  LEFT JOIN LATERAL (SELECT min(m.model) AS model FROM fusillade.batch_models m WHERE m.batch_id = b.id HAVING count(*) = 1) m ON true;

-- name: summaries  of batches that are listed: their file's name, the models with the most lines, and how long the last lines of what runs took to end
SELECT b.id, f.name AS file_name, m.models, coalesce(m.model_count, 0) AS model_count, b.canceled_requests AS cancelled,
       greatest(b.total_requests - b.completed_requests - b.failed_requests - b.canceled_requests, 0) AS remaining,
       extract(epoch FROM now())::float8 AS now, r.lines, r.seconds
  FROM fusillade.batches b
  LEFT JOIN LATERAL (SELECT f.name FROM fusillade.files f WHERE f.id = b.file_id LIMIT 1) f ON true
  LEFT JOIN LATERAL (
        SELECT (array_agg(m.model ORDER BY m.requests DESC, m.model))[:3] AS models, count(*) AS model_count
          FROM fusillade.batch_models m WHERE m.batch_id = b.id) m ON true
  LEFT JOIN LATERAL (
        SELECT b.output_lines - l.position AS lines, extract(epoch FROM now() - r.completed_at)::float8 AS seconds
          FROM fusillade.finished_lines l JOIN fusillade.requests r ON r.id = l.request_id
         WHERE l.batch_id = b.id AND NOT l.failed AND l.position >= greatest(b.output_lines - 1000, 0)
         ORDER BY l.position LIMIT 1) r
    ON b.completed_at IS NULL AND b.failed_at IS NULL AND b.cancelled_at IS NULL AND b.expired_at IS NULL AND b.cancelling_at IS NULL
 WHERE b.id = ANY (%(ids)s::uuid[]);
