-- All hot SQL of the queue. What writes requests and what belongs to them is in functions.sql; here it is called.

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
       r.canceled_at, r.batch_id, b.created_by, b.completion_window, t.path, t.body AS request_body,
       coalesce(b.id = r.id AND b.metadata ? 'unkept', false) AS is_unkept
  FROM fusillade.requests r
  JOIN fusillade.batches b ON b.id = r.batch_id AND b.deleted_at IS NULL
  LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
 WHERE r.id = ANY (%(ids)s);

-- name: chain  a response and those that it continues, newest first, while they are one owner's and within bounds
--   Each single request says in its batch which one it continues (ai/bookkeeping.py), so no body is read to find the way. LIMIT keeps each
--   step on keys. Bodies beyond the bounds are not read.
WITH RECURSIVE chain AS (
    SELECT 1 AS link, s.* FROM (
        SELECT r.id, r.template_id, CASE WHEN b.id = r.id THEN (b.metadata->>'continues')::uuid END AS before,
               coalesce(octet_length(r.response_body), 0)::bigint + coalesce(octet_length(t.body), 0) AS bytes
          FROM fusillade.requests r
          JOIN fusillade.batches b ON b.id = r.batch_id AND b.deleted_at IS NULL AND b.created_by = %(owner)s
          LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
         WHERE r.id = %(id)s AND NOT coalesce(b.id = r.id AND b.metadata ? 'unkept', false)) s
    UNION ALL
    SELECT c.link + 1, s.id, s.template_id, s.before, c.bytes + s.bytes
      FROM chain c, LATERAL (
        SELECT r.id, r.template_id, CASE WHEN b.id = r.id THEN (b.metadata->>'continues')::uuid END AS before,
               coalesce(octet_length(r.response_body), 0)::bigint + coalesce(octet_length(t.body), 0) AS bytes
          FROM fusillade.requests r
          JOIN fusillade.batches b ON b.id = r.batch_id AND b.deleted_at IS NULL AND b.created_by = %(owner)s
          LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
         WHERE r.id = c.before LIMIT 1) s
     WHERE c.link < %(most_links)s AND c.bytes <= %(most_bytes)s
)
SELECT r.id, r.state, r.model, r.service_tier, r.response_status, r.error, r.created_at, r.completed_at, c.bytes,
       CASE WHEN c.bytes <= %(most_bytes)s THEN r.response_body END AS response_body,
       CASE WHEN c.bytes <= %(most_bytes)s THEN t.body END AS request_body
  FROM chain c JOIN fusillade.requests r ON r.id = c.id LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
 ORDER BY c.link;

-- name: responses_with_items  what one owner's responses hold, bounded in bytes; what was put in only where it is asked for
WITH found AS (
    SELECT r.id, r.template_id, r.state, r.model, r.service_tier, r.response_status, r.response_body, r.error, r.created_at, r.completed_at,
           t.body, r.id = ANY (%(of_input)s::uuid[]) AS with_input,
           sum(coalesce(octet_length(r.response_body), 0)::bigint
               + CASE WHEN r.id = ANY (%(of_input)s::uuid[]) THEN coalesce(octet_length(t.body), 0) ELSE 0 END) OVER () AS bytes
      FROM fusillade.requests r
      JOIN fusillade.batches b ON b.id = r.batch_id AND b.deleted_at IS NULL AND b.created_by = %(owner)s
      LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
     WHERE r.id = ANY (%(ids)s::uuid[]) AND NOT coalesce(b.id = r.id AND b.metadata ? 'unkept', false)
)
SELECT id, state, model, service_tier, response_status, error, created_at, completed_at, bytes,
       CASE WHEN bytes <= %(most_bytes)s THEN response_body END AS response_body,
       CASE WHEN bytes <= %(most_bytes)s AND with_input THEN body END AS request_body
  FROM found;

-- name: claim  take due requests, which run from now on: urgent first, fair between accounts, within each model's cap over all workers
SELECT * FROM fusillade.claim(%(me)s, %(most)s, %(capped)s, %(caps)s, %(default_cap)s, %(urgent_s)s, %(urgency_weight)s,
                              %(escalating)s, %(escalations)s, %(thresholds_s)s, %(ended)s::uuid[], %(following)s::uuid[]) ORDER BY deadline, id;

-- name: claim_ahead  take requests for the places that calls of these models are about to leave
SELECT * FROM fusillade.claim_ahead(%(me)s, %(models)s, %(wanted)s, %(caps)s, %(urgent_s)s, %(urgency_weight)s) ORDER BY deadline, id;

-- name: take_places  requests that were held ahead begin
SELECT fusillade.take_places(%(me)s, %(ids)s);

-- name: pause_for_credit  nothing of one account's queue is claimed for a while, or until it has so much credit
SELECT fusillade.pause_for_credit(%(model)s, %(owner)s, %(wait_s)s, %(needs)s::numeric);

-- name: pause_model  nothing of a model is claimed for a while, by anybody
SELECT fusillade.pause_model(%(model)s, %(wait_s)s, %(reason)s);

-- name: end_pauses_of_the_funded  accounts that have credit again are not paused for want of it
SELECT fusillade.end_pauses_of_the_funded();

-- name: next_pause_end  in how many seconds the next pause ends, if that is soon (one that has ended is noticed by the next claim)
SELECT extract(epoch FROM least((SELECT min(paused_until) FROM fusillade.queues WHERE paused_until < now() + interval '1 hour'),
                                (SELECT min(paused_until) FROM fusillade.model_slots
                                  WHERE paused_until > now() AND paused_until < now() + interval '1 hour')) - now())::float;

-- name: body  of a request what is to be sent
SELECT t.body FROM fusillade.requests r JOIN fusillade.request_templates t ON t.id = r.template_id WHERE r.id = %(id)s;

-- name: retry_later  failed, but later tries may succeed (rows in one order, as everywhere)
SELECT fusillade.retry_later(%(me)s, g.id, g.delay_s)
  FROM (SELECT * FROM unnest(%(ids)s::uuid[], %(delays_s)s::float8[]) n(id, delay_s) ORDER BY id) g;

-- name: give_back  leases returned: due at once, put off, or over
SELECT fusillade.give_back(%(owner)s, %(ids)s, %(waits_s)s);

-- name: wake_delayed  what waited for its time is due
SELECT fusillade.wake_delayed(500);

-- name: stopped_batches  of these batches, those whose lines nobody wants any more
SELECT id FROM fusillade.batches WHERE id = ANY (%(ids)s) AND (cancelling_at IS NOT NULL OR deleted_at IS NOT NULL);

-- name: traces  of these single requests, the traces of the calls that queued them (ai/bookkeeping.py)
SELECT id, metadata->>'trace' FROM fusillade.batches WHERE id = ANY (%(ids)s) AND single AND metadata ? 'trace';

-- name: outcomes  what became of requests that somebody waits for
SELECT id, state FROM fusillade.requests
 WHERE id = ANY (%(ids)s) AND state IN ('completed', 'failed', 'canceled');

-- name: over_or_gone  of requests that somebody waits for, those that are over or not there any more (a scalar sub-query, so by their keys)
SELECT w.id FROM unnest(%(ids)s::uuid[]) w(id)
 WHERE (SELECT r.state IN ('completed', 'failed', 'canceled') FROM fusillade.requests r WHERE r.id = w.id) IS DISTINCT FROM false;

-- name: cancel  stop a request wherever it is; nothing happens to one that is over
SELECT * FROM fusillade.cancel(%(id)s, %(owners)s);

-- name: delete_response  a single request with all its rows; what it cost stays in the log and the ledger
SELECT * FROM fusillade.delete_response(%(id)s, %(owners)s);

-- name: delete_single_requests  some of an owner's that are over, in the order of their ids: the last one that was looked at (null: none was left), and how many
WITH ended AS (
    SELECT r.id FROM fusillade.batches b JOIN fusillade.requests r ON r.id = b.id AND r.batch_id = b.id
     WHERE b.created_by = %(owner)s AND b.id > %(after)s AND b.deleted_at IS NULL AND r.state IN ('completed', 'failed', 'canceled')
     ORDER BY b.id LIMIT %(most)s
)
SELECT (SELECT id FROM ended ORDER BY id DESC LIMIT 1) AS last, count(d.id) AS deleted
  FROM ended e CROSS JOIN LATERAL fusillade.delete_response(e.id, ARRAY[%(owner)s]) AS d(id);

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

-- name: interrupt_calls  realtime calls whose process is gone end, or get one more try by a worker
SELECT fusillade.interrupt_calls(200, %(wait_s)s);

-- name: forget_daemons  processes that ended days ago
DELETE FROM fusillade.daemons d
 WHERE status = 'dead' AND stopped_at < now() - interval '3 days'
   AND NOT EXISTS (SELECT FROM fusillade.inflight i WHERE i.daemon_id = d.id)
   AND NOT EXISTS (SELECT FROM fusillade.open_calls o WHERE o.daemon_id = d.id);

-- name: purge_responses  single requests that are over and older than the retention
SELECT fusillade.purge_responses(%(days)s, %(most)s);

-- name: forget_unkept  single requests that were not to be kept, and that nobody came for
SELECT fusillade.forget_unkept(%(most)s);

-- name: purge_files  days' containers of single requests that nothing refers to
SELECT fusillade.purge_files(%(days)s, %(most)s);

-- name: expire  single requests whose deadline has passed while they waited
SELECT fusillade.expire(%(most)s);

-- name: queued_of  how many single requests of an account wait for a worker (an index-only walk; one that is put off for a moment is not counted)
SELECT count(*) FROM fusillade.ready WHERE created_by = %(owner)s AND batch_id = id;

-- name: take_unrecorded  requests that the queue itself has ended, whose record is still to be written, with what is known of them
WITH oldest AS (
    SELECT id FROM fusillade.unrecorded ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM fusillade.unrecorded u USING oldest o WHERE u.id = o.id RETURNING u.id, u.error_code, u.last_words, u.ended_at
)
SELECT x.id, x.error_code, x.last_words, x.ended_at, coalesce(b.created_at, r.created_at) AS arrived_at, r.model, r.service_tier,
       r.custom_id, r.batch_id, b.created_by, b.api_key_id, b.completion_window, coalesce(t.path, b.endpoint) AS path,
       coalesce(b.id = r.id AND b.metadata ? 'unkept', false) AS is_unkept,
       -- A line that its owner has had run again meanwhile: this was an earlier run (see retry_lines).
       CASE WHEN coalesce(r.completed_at, r.failed_at, r.canceled_at, 'infinity') > x.ended_at THEN r.retried ELSE 0 END AS runs_since
  FROM taken x
  LEFT JOIN fusillade.requests r ON r.id = x.id
  LEFT JOIN fusillade.batches b ON b.id = r.batch_id
  LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
 ORDER BY x.id;

-- name: plan_duty  a duty's row, made once
INSERT INTO fusillade.duties (name) VALUES (%(name)s) ON CONFLICT DO NOTHING;

-- name: take_duty  the duty, if it is due (or there is word of something to do) and nobody else has it
SELECT name FROM fusillade.duties WHERE name = %(name)s AND (due_at <= now() OR %(woken)s) FOR UPDATE SKIP LOCKED;

-- name: put_duty_back  until when it may rest
UPDATE fusillade.duties SET due_at = now() + %(rest_s)s * interval '1 second', last_ran_at = now() WHERE name = %(name)s;

-- name: keep_events  chunks of events, and word of them; gives the requests whose events we may keep
SELECT * FROM fusillade.keep_events(%(me)s, %(ids)s::uuid[], %(firsts)s, %(lasts)s, %(texts)b);

-- name: kept_events  what is kept of one stream from behind a number on, some chunks at a time
SELECT first_sequence, last_sequence, events FROM fusillade.response_chunks
 WHERE request_id = %(id)s
   AND first_sequence >= coalesce((SELECT c.first_sequence FROM fusillade.response_chunks c
                                    WHERE c.request_id = %(id)s AND c.first_sequence <= %(after)s + 1
                                    ORDER BY c.first_sequence DESC LIMIT 1), 0)
   AND last_sequence > %(after)s
 ORDER BY first_sequence LIMIT %(most)s;

-- name: new_events  what has been kept of streams since they were looked at
SELECT f.id, c.first_sequence, c.last_sequence, c.events
  FROM unnest(%(ids)s::uuid[], %(afters)s::int[]) f(id, after),
       LATERAL (SELECT * FROM fusillade.response_chunks r WHERE r.request_id = f.id AND r.first_sequence > f.after
                 ORDER BY r.first_sequence LIMIT %(most)s) c
 ORDER BY f.id, c.first_sequence;

-- name: ends_of_events  the number of the last event that is kept of streams, -1 where there is none
SELECT f.id, coalesce((SELECT c.last_sequence FROM fusillade.response_chunks c WHERE c.request_id = f.id
                        ORDER BY c.first_sequence DESC LIMIT 1), -1)
  FROM unnest(%(ids)s::uuid[]) f(id);

-- name: purge_events  events of requests that have been over for long
SELECT fusillade.purge_events(%(age_s)s, %(most)s);
