-- All hot SQL of the queue.

-- name: beat  a process is there; the first beat registers it
INSERT INTO fusillade.daemons AS d (id, status, hostname, pid, version, config_snapshot, started_at, last_heartbeat,
                                    requests_processed, requests_failed, requests_in_flight)
VALUES (%(id)s, 'running', %(hostname)s, %(pid)s, %(version)s, %(config)s, now(), now(), %(processed)s, %(failed)s, %(in_flight)s)
ON CONFLICT (id) DO UPDATE SET status = 'running', stopped_at = NULL, last_heartbeat = now(), updated_at = now(),
    requests_processed = EXCLUDED.requests_processed, requests_failed = EXCLUDED.requests_failed,
    requests_in_flight = EXCLUDED.requests_in_flight;

-- name: end_daemon  a process says goodbye
UPDATE fusillade.daemons
   SET status = 'dead', stopped_at = now(), updated_at = now(),
       requests_processed = %(processed)s, requests_failed = %(failed)s, requests_in_flight = %(in_flight)s
 WHERE id = %(id)s;

-- name: find_responses  requests with what they were asked and what they were answered; their owner decides who may see them
SELECT r.id, r.state, r.model, r.service_tier, r.response_status, r.response_body, r.error, r.created_at, r.completed_at, r.failed_at,
       r.canceled_at, r.batch_id, b.created_by, b.completion_window, t.path, t.body AS request_body
  FROM fusillade.requests r
  JOIN fusillade.batches b ON b.id = r.batch_id AND b.deleted_at IS NULL
  LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
 WHERE r.id = ANY (%(ids)s);

-- name: claim  take due requests, fair between accounts, within each model's cap over all workers (migration 0003 says how)
SELECT * FROM fusillade.claim(%(me)s, %(models)s, %(caps)s, %(default_cap)s, %(most)s) ORDER BY deadline, id;

-- name: start  the calls of these requests begin; gives those that are still ours to run
UPDATE fusillade.requests SET state = 'processing', started_at = now(), updated_at = now()
 WHERE id = ANY (%(ids)s) AND state = 'claimed' AND daemon_id = %(me)s
RETURNING id;

-- name: let_go  claimed by us, and not ours any more
DELETE FROM fusillade.inflight WHERE id = ANY (%(ids)s) AND daemon_id = %(me)s;

-- name: retry_later  failed, but a later try may succeed
WITH mine AS (
    UPDATE fusillade.requests SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL,
           retry_attempt = retry_attempt + 1, not_before = now() + %(delay_s)s * interval '1 second', updated_at = now()
     WHERE id = %(id)s AND daemon_id = %(me)s AND state IN ('claimed', 'processing')
    RETURNING id, not_before
), landed AS (
    DELETE FROM fusillade.inflight WHERE id = %(id)s AND daemon_id = %(me)s
)
INSERT INTO fusillade.delayed (not_before, id) SELECT not_before, id FROM mine ON CONFLICT DO NOTHING;

-- name: give_back  claimed by us and not begun (or begun by a process that is gone): anybody may have them now
WITH lost AS (
    DELETE FROM fusillade.inflight WHERE id = ANY (%(ids)s) AND daemon_id = %(owner)s RETURNING id
), freed AS (
    UPDATE fusillade.requests r SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL, updated_at = now()
      FROM lost WHERE r.id = lost.id AND r.daemon_id = %(owner)s AND r.state IN ('claimed', 'processing')
    RETURNING r.id, r.model, r.batch_id
)
SELECT fusillade.make_ready(array_agg(id)) FROM freed HAVING count(*) > 0;

-- name: wake_delayed  what waited for its time is due
WITH due AS (
    DELETE FROM fusillade.delayed d USING (
        SELECT not_before, id FROM fusillade.delayed WHERE not_before <= now() ORDER BY not_before LIMIT 500 FOR UPDATE SKIP LOCKED) s
     WHERE d.not_before = s.not_before AND d.id = s.id
    RETURNING d.id
)
SELECT fusillade.make_ready(array_agg(id)) FROM due HAVING count(*) > 0;

-- name: outcomes  what became of requests that somebody waits for
SELECT id, state FROM fusillade.requests
 WHERE id = ANY (%(ids)s) AND state IN ('completed', 'failed', 'canceled');

-- name: over_or_gone  of requests that somebody waits for, those that are over or not there any more (a scalar sub-query, so by their keys)
SELECT w.id FROM unnest(%(ids)s::uuid[]) w(id)
 WHERE (SELECT r.state IN ('completed', 'failed', 'canceled') FROM fusillade.requests r WHERE r.id = w.id) IS DISTINCT FROM false;

-- name: cancel  stop a request wherever it is; nothing happens to one that is over
WITH target AS (
    SELECT r.id, r.state, r.model, b.created_by, b.expires_at
      FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.batch_id
     WHERE r.id = %(id)s AND b.created_by = ANY (%(owners)s) AND b.deleted_at IS NULL
       FOR UPDATE OF r
), stopped AS (
    UPDATE fusillade.requests r SET state = 'canceled', canceled_at = now(), updated_at = now()
      FROM target t WHERE r.id = t.id AND t.state IN ('pending', 'claimed', 'processing')
    RETURNING r.id, r.daemon_id
), unready AS (
    -- A claim takes the two rows the other way round: it is not waited for, and finds by the state that it comes too late.
    DELETE FROM fusillade.ready WHERE ctid = ANY (ARRAY(
        SELECT y.ctid FROM target t JOIN fusillade.ready y
            ON y.model = t.model AND y.created_by = t.created_by AND y.deadline = t.expires_at AND y.id = t.id
           FOR UPDATE OF y SKIP LOCKED))
), undelayed AS (
    DELETE FROM fusillade.delayed d USING target t WHERE t.state = 'pending' AND d.id = t.id
), batch AS (
    UPDATE fusillade.batches b SET cancelling_at = now(), cancelled_at = now() FROM stopped s WHERE b.id = s.id
), told AS (
    SELECT pg_notify('fusillade_cancel', id::text), pg_notify('fusillade_done', id::text) FROM stopped
)
SELECT t.id, (SELECT count(*) FROM told) FROM target t;

-- name: delete_response  a single request with all its rows; what it cost stays in the log and the ledger
WITH target AS (
    SELECT r.id, r.template_id FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.batch_id
     WHERE r.id = %(id)s AND b.created_by = ANY (%(owners)s) AND b.deleted_at IS NULL AND r.batch_id = r.id
), requests AS (
    DELETE FROM fusillade.requests r USING target t WHERE r.id = t.id RETURNING r.id
), templates AS (
    DELETE FROM fusillade.request_templates x USING target t WHERE x.id = t.template_id AND x.id = t.id
), batches AS (
    DELETE FROM fusillade.batches b USING target t WHERE b.id = t.id
), told AS (
    SELECT pg_notify('fusillade_cancel', id::text), pg_notify('fusillade_done', id::text) FROM requests
)
SELECT id, (SELECT count(*) FROM told) FROM requests;

-- name: observe  the watch of bury_the_dead: since when has the database been there without a gap?
UPDATE fusillade.duties
   SET observed_since = CASE WHEN last_ran_at IS NULL OR last_ran_at < now() - %(gap_s)s * interval '1 second'
                             THEN now() ELSE observed_since END
 WHERE name = %(name)s
RETURNING observed_since <= now() - %(dead_after_s)s * interval '1 second' AS long_enough;

-- name: declare_dead  processes that could have beaten for a whole threshold and did not
UPDATE fusillade.daemons SET status = 'dead', stopped_at = now(), updated_at = now()
 WHERE status = 'running' AND last_heartbeat < now() - %(dead_after_s)s * interval '1 second'
RETURNING id;

-- name: left_by_the_dead  leases whose owner is gone
SELECT i.daemon_id, array_agg(i.id) AS ids
  FROM (SELECT id, daemon_id FROM fusillade.inflight f
         WHERE NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = f.daemon_id AND d.status <> 'dead')
         LIMIT 1000) i
 GROUP BY i.daemon_id;

-- name: interrupt_calls  realtime calls whose process is gone: their caller is gone too, so they end, and are never run again;
--   those in the background of which nothing was shown get one more try by a worker
WITH lost AS (
    DELETE FROM fusillade.open_calls o
     WHERE o.id IN (SELECT id FROM fusillade.open_calls f
                     WHERE NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = f.daemon_id AND d.status <> 'dead')
                     LIMIT 1000 FOR UPDATE SKIP LOCKED)
    RETURNING o.id, o.daemon_id, o.repeatable
), again AS (
    UPDATE fusillade.requests r SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL,
           retry_attempt = retry_attempt + 1, updated_at = now()
      FROM lost WHERE r.id = lost.id AND r.daemon_id = lost.daemon_id AND r.state = 'processing' AND lost.repeatable
    RETURNING r.id
), ended AS (
    UPDATE fusillade.requests r SET state = 'failed', failed_at = now(), updated_at = now(),
           error = '{"type":"Interrupted","details":{"error":"The process that ran this request ended before it was done."}}'
      FROM lost WHERE r.id = lost.id AND r.daemon_id = lost.daemon_id AND r.state = 'processing' AND NOT lost.repeatable
    RETURNING r.id
), batches AS (
    UPDATE fusillade.batches b SET failed_at = now() FROM ended e WHERE b.id = e.id
), ready AS (
    SELECT fusillade.make_ready(array_agg(id)) FROM again HAVING count(*) > 0
), told AS (
    SELECT pg_notify('fusillade_done', id::text) FROM ended
)
SELECT (SELECT count(*) FROM ended), (SELECT count(*) FROM again), (SELECT count(*) FROM ready), (SELECT count(*) FROM told);

-- name: forget_daemons  processes that ended days ago
DELETE FROM fusillade.daemons d
 WHERE status = 'dead' AND stopped_at < now() - interval '3 days'
   AND NOT EXISTS (SELECT FROM fusillade.inflight i WHERE i.daemon_id = d.id)
   AND NOT EXISTS (SELECT FROM fusillade.open_calls o WHERE o.daemon_id = d.id);

-- name: purge_responses  single requests that are over and older than the retention; time-ordered ids make it a walk along the key
WITH old AS (
    SELECT r.id FROM fusillade.requests r
     WHERE r.id < %(before)s AND r.batch_id = r.id AND r.state IN ('completed', 'failed', 'canceled') AND r.created_at < %(cutoff)s
     ORDER BY r.id LIMIT %(most)s FOR UPDATE SKIP LOCKED
), requests AS (
    DELETE FROM fusillade.requests r USING old WHERE r.id = old.id
), templates AS (
    DELETE FROM fusillade.request_templates t USING old WHERE t.id = old.id
), batches AS (
    DELETE FROM fusillade.batches b USING old WHERE b.id = old.id
)
SELECT count(*) FROM old;

-- name: queue_depth  what waits and what runs, by model
SELECT model, count(*) FILTER (WHERE waits) AS waiting, count(*) FILTER (WHERE NOT waits) AS running
  FROM (SELECT model, true AS waits FROM fusillade.ready UNION ALL SELECT model, false FROM fusillade.inflight) q
 GROUP BY model;

-- name: workers_alive  worker processes that beat
SELECT count(*) FROM fusillade.daemons
 WHERE status = 'running' AND config_snapshot->>'type' = 'worker' AND last_heartbeat > now() - %(dead_after_s)s * interval '1 second';

-- name: plan_duty  a duty's row, made once
INSERT INTO fusillade.duties (name) VALUES (%(name)s) ON CONFLICT DO NOTHING;

-- name: take_duty  the duty, if it is due and nobody else has it
SELECT name FROM fusillade.duties WHERE name = %(name)s AND due_at <= now() FOR UPDATE SKIP LOCKED;

-- name: put_duty_back  until when it may rest
UPDATE fusillade.duties SET due_at = now() + %(rest_s)s * interval '1 second', last_ran_at = now() WHERE name = %(name)s;
