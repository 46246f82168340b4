-- What batches are taken through: by the routes (changes.py) and by the duties. What writes is in queue/batches.sql.

-- name: cancel  stop a batch
SELECT fusillade.cancel_batch(%(id)s);

-- name: delete  hide a batch for good
SELECT fusillade.delete_batch(%(id)s);

-- name: retry  its failed lines once more
SELECT fusillade.retry_batch(%(id)s, %(most)s);

-- name: is_retriable  whether it is neither cancelled nor deleted
SELECT true FROM fusillade.batches
 WHERE id = %(id)s AND NOT single AND cancelling_at IS NULL AND cancelled_at IS NULL AND deleted_at IS NULL;

-- name: retry_requests  some of its failed lines once more
SELECT * FROM fusillade.retry_requests(%(id)s, %(ids)s);

-- name: finalise  its counters, if they are behind and nobody is counting
SELECT fusillade.recount(w.batch_id)
  FROM (SELECT batch_id FROM fusillade.recounts WHERE batch_id = %(id)s FOR UPDATE SKIP LOCKED) w;

-- name: to_populate  a batch that has not all its requests (%(least)s: one that has the fewest; else any, by lot)
--   A batch whose requests were written by hand has begun without having any line populated.
SELECT id FROM fusillade.batches
 WHERE NOT single AND completed_at IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL
   AND populated_lines < total_requests AND file_id IS NOT NULL AND (requests_started_at IS NULL OR populated_lines > 0)
 ORDER BY CASE WHEN %(least)s THEN populated_lines END, random() LIMIT 1;

-- name: populate  some more of its lines get their requests
SELECT fusillade.populate(%(id)s, %(most)s, %(grace_s)s);

-- name: fail  it cannot begin
SELECT fusillade.fail_batch(%(id)s, %(code)s, %(message)s);

-- name: to_sweep  a batch that is cancelled or past its deadline, and has lines that nobody has looked at (or not for a minute)
SELECT b.id FROM fusillade.batches b LEFT JOIN fusillade.sweeps w ON w.batch_id = b.id AND NOT w.retries
 WHERE NOT b.single AND b.completed_at IS NULL AND b.failed_at IS NULL AND b.cancelled_at IS NULL AND b.expired_at IS NULL
   AND (b.cancelling_at IS NOT NULL OR b.expires_at < now() - %(grace_s)s * interval '1 second')
   AND (w.done_at IS NULL OR w.done_at < now() - interval '1 minute')
   AND (b.cancelling_at IS NOT NULL OR b.populated_lines > 0 OR b.requests_started_at IS NOT NULL)
 ORDER BY random() LIMIT 1;

-- name: sweep  some more of its lines are ended
SELECT fusillade.sweep(%(id)s, %(most)s);

-- name: to_retry  a batch whose failed lines are being run again
SELECT batch_id FROM fusillade.sweeps WHERE retries ORDER BY random() LIMIT 1;

-- name: sweep_retries  some more of its failed lines
SELECT fusillade.sweep_retries(%(id)s, %(most)s);

-- name: to_count  a batch that is over, or was changed by hand
SELECT batch_id FROM fusillade.recounts ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: count  its counters anew; whether they were wrong
SELECT fusillade.recount(%(id)s);
