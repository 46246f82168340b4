-- What is asked of the queue by people. LATERAL with LIMIT keeps a step on keys.

-- name: daemons  processes, newest first; one that does not beat any more is dead, whether it said so or not
SELECT d.id, d.hostname, d.pid, d.version, d.started_at, d.last_heartbeat, d.stopped_at, d.config_snapshot AS config,
       d.requests_processed, d.requests_failed, d.requests_in_flight,
       CASE WHEN d.status = 'running' AND d.last_heartbeat < now() - %(dead_after_s)s * interval '1 second' THEN 'dead' ELSE d.status END AS status
  FROM fusillade.daemons d
 ORDER BY d.started_at DESC, d.id DESC LIMIT 10000;

-- name: pending  what is not over, by model, kind and deadline: of open batches by their own counts, and single requests one by one
--   A batch made by hand may have no counts: its requests are looked at.
WITH open AS MATERIALIZED (
    SELECT b.id, b.expires_at, b.created_at FROM fusillade.batches b
     WHERE NOT b.single AND b.completed_at IS NULL AND b.failed_at IS NULL AND b.cancelled_at IS NULL AND b.expired_at IS NULL
       AND b.cancelling_at IS NULL AND b.deleted_at IS NULL
), pending AS (
    SELECT m.model, 'batch' AS tier, o.expires_at, o.created_at, m.requests - m.completed - m.failed - m.canceled AS requests
      FROM open o JOIN fusillade.batch_models m ON m.batch_id = o.id
     UNION ALL
    SELECT r.model, 'batch', o.expires_at, o.created_at, r.requests
      FROM open o CROSS JOIN LATERAL (
            SELECT r.model, count(*) AS requests FROM fusillade.requests r
             WHERE r.batch_id = o.id AND r.state IN ('pending', 'claimed', 'processing') AND r.template_id IS NOT NULL
               AND r.service_tier IS DISTINCT FROM 'priority'
             GROUP BY r.model) r
     WHERE NOT EXISTS (SELECT FROM fusillade.batch_models m WHERE m.batch_id = o.id)
     UNION ALL
    SELECT s.model, 'flex', b.expires_at, b.created_at, 1
      FROM (SELECT d.id, d.model FROM fusillade.ready d WHERE d.batch_id = d.id
             UNION ALL
            SELECT i.id, i.model FROM fusillade.inflight i
             UNION ALL
            SELECT d.id, r.model FROM fusillade.delayed d
             CROSS JOIN LATERAL (SELECT r.model FROM fusillade.requests r WHERE r.id = d.id LIMIT 1) r) s
     CROSS JOIN LATERAL (
            SELECT b.expires_at, b.created_at FROM fusillade.batches b
             WHERE b.id = s.id AND b.single AND b.cancelling_at IS NULL AND b.deleted_at IS NULL LIMIT 1) b
)
SELECT p.model, p.tier, w.name AS completion_window,
       coalesce(sum(p.requests) FILTER (WHERE p.expires_at <= now() + w.name::interval), 0)::bigint AS requests,
       extract(epoch FROM now() - min(p.created_at))::float8 AS oldest_s
  FROM pending p CROSS JOIN unnest(%(windows)s::text[]) WITH ORDINALITY w(name, place)
 WHERE p.requests > 0
 GROUP BY p.model, p.tier, w.name, w.place
 ORDER BY p.model, p.tier, w.place;

-- name: oldest  of each model the request whose deadline comes first, and since when it waits: heads of lines, not lines
SELECT m.model, extract(epoch FROM now() - head.created_at)::float8 AS age_s
  FROM fusillade.model_slots m
 CROSS JOIN LATERAL (SELECT q.created_by FROM fusillade.queues q WHERE q.model = m.model ORDER BY q.head_deadline LIMIT 1) line
 CROSS JOIN LATERAL (SELECT d.id FROM fusillade.ready d WHERE d.model = m.model AND d.created_by = line.created_by
                      ORDER BY d.deadline, d.id LIMIT 1) first
 CROSS JOIN LATERAL (SELECT r.created_at FROM fusillade.requests r WHERE r.id = first.id LIMIT 1) head;

-- name: flying  what workers run now, by model
SELECT i.model, count(*) AS requests FROM fusillade.inflight i GROUP BY i.model;

-- name: flying_by_tier  the same, apart by tier, without what is held ahead: that runs no more than what waits
SELECT i.model, CASE WHEN s.id IS NULL THEN 'batch' ELSE 'flex' END AS tier, count(*) AS requests
  FROM fusillade.inflight i
  LEFT JOIN LATERAL (SELECT b.id FROM fusillade.batches b WHERE b.id = i.id AND b.single LIMIT 1) s ON true
 WHERE i.model <> ''
 GROUP BY 1, 2;

-- name: many_wait  whether more requests wait than are listed one by one
SELECT count(*) > %(few)s AS many FROM (SELECT FROM fusillade.ready UNION ALL SELECT FROM fusillade.delayed LIMIT %(few)s + 1) w;

-- name: among  of the requests that are being run (or, with `waiting`, that wait), those that match, most advanced and newest first
SELECT r.id, count(*) OVER () AS matching, r.state = 'processing' AS processing
  FROM (SELECT i.id FROM fusillade.inflight i WHERE NOT %(waiting)s UNION
        SELECT o.id FROM fusillade.open_calls o WHERE NOT %(waiting)s UNION
        SELECT d.id FROM fusillade.ready d WHERE %(waiting)s UNION
        SELECT l.id FROM fusillade.delayed l WHERE %(waiting)s) a
 CROSS JOIN LATERAL (SELECT * FROM fusillade.requests r WHERE r.id = a.id LIMIT 1) r
 CROSS JOIN LATERAL (SELECT * FROM fusillade.batches b WHERE b.id = r.batch_id LIMIT 1) b
 WHERE {filters}
 ORDER BY r.state = 'processing' DESC, r.id DESC OFFSET %(skip)s LIMIT %(limit)s;

-- name: walk  requests that match, newest first: their ids are ordered by time
SELECT r.id
  FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.batch_id
 WHERE {filters}
 ORDER BY r.id DESC OFFSET %(skip)s LIMIT %(limit)s;

-- name: search  the same by way of an account's batches: where the way along the key is long because little on it matches
--   Requests of a batch that was populated stand together in the key; the others are found by their batch.
WITH mine AS MATERIALIZED (
    SELECT b.id, b.populated_lines > 0 AS is_populated FROM fusillade.batches b WHERE {of_batches}
)
SELECT r.id
  FROM mine m CROSS JOIN LATERAL (
        (SELECT r.id FROM fusillade.requests r
          WHERE m.is_populated AND r.id >= fusillade.line_id(m.id, 0) AND r.id <= fusillade.line_id(m.id, 4294967295) AND {of_requests}
          ORDER BY r.id DESC LIMIT %(skip)s + %(limit)s)
         UNION ALL
        (SELECT r.id FROM fusillade.requests r WHERE NOT m.is_populated AND r.batch_id = m.id AND {of_requests}
          ORDER BY r.id DESC LIMIT %(skip)s + %(limit)s)) r
 ORDER BY r.id DESC OFFSET %(skip)s LIMIT %(limit)s;

-- name: count_matching
SELECT count(*) FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.batch_id WHERE {filters};

-- name: shown  requests as they are listed, with what they used and cost (the log's key: the id, and when it arrived)
SELECT r.id, r.batch_id, r.model, r.state AS status, r.created_at, r.completed_at, r.failed_at, r.service_tier,
       CASE WHEN r.state = 'completed' THEN r.response_status END AS response_status,
       CASE WHEN r.state = 'completed' THEN (extract(epoch FROM r.completed_at - r.started_at) * 1000)::float8 END AS duration_ms,
       -- 0 for a call that used none, null where none is logged yet
       CASE WHEN a.request_id IS NOT NULL THEN coalesce(a.prompt_tokens, 0) END AS prompt_tokens,
       CASE WHEN a.request_id IS NOT NULL THEN coalesce(a.completion_tokens, 0) END AS completion_tokens,
       CASE WHEN a.request_id IS NOT NULL THEN coalesce(a.reasoning_tokens, 0) END AS reasoning_tokens,
       CASE WHEN a.request_id IS NOT NULL THEN coalesce(a.total_tokens, 0) END AS total_tokens, a.total_cost::float8 AS total_cost,
       u.email AS created_by_email, b.created_by AS batch_created_by, b.completion_window,
       -- What is not kept is there until its caller has the answer, and for nobody else.
       CASE WHEN %(bodies)s THEN CASE WHEN is_unkept THEN '' ELSE coalesce(t.body, '') END END AS body,
       CASE WHEN %(bodies)s AND r.state = 'completed' AND NOT is_unkept THEN r.response_body END AS response_body,
       CASE WHEN %(bodies)s AND r.state = 'failed' AND NOT is_unkept THEN r.error END AS error
  FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY w(id, place)
  JOIN fusillade.requests r ON r.id = w.id
  JOIN fusillade.batches b ON b.id = r.batch_id AND b.deleted_at IS NULL
  CROSS JOIN LATERAL (SELECT coalesce(b.id = r.id AND b.metadata ? 'unkept', false) AS is_unkept) k
  LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
  LEFT JOIN users u ON u.id = CASE WHEN b.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN b.created_by::uuid END
  LEFT JOIN LATERAL (
        SELECT * FROM http_analytics a
         WHERE a.request_id = r.id AND a.timestamp = ANY (ARRAY[r.created_at, b.created_at]) LIMIT 1) a ON true
 ORDER BY w.place;

-- name: progress  a batch's counts, what of it runs, and how long the last of its lines took to end
SELECT b.id, b.created_by, b.created_at, b.expires_at, b.total_requests, b.populated_lines, b.completed_requests, b.failed_requests,
       b.canceled_requests, b.cancelling_at IS NOT NULL AS is_cancelling,
       coalesce(b.completed_at, b.failed_at, b.cancelled_at, b.expired_at) IS NOT NULL AS is_over, b.requests_started_at IS NOT NULL AS has_started,
       (SELECT count(*) FROM fusillade.inflight i CROSS JOIN LATERAL (
            SELECT FROM fusillade.requests r WHERE r.id = i.id AND r.batch_id = b.id LIMIT 1) r) AS running,
       extract(epoch FROM now())::float8 AS now, extract(epoch FROM b.expires_at)::float8 AS deadline,
       r.lines AS recent, r.seconds,
       EXISTS (SELECT FROM fusillade.daemons d WHERE d.status = 'running' AND d.config_snapshot->>'type' = 'worker'
                  AND d.last_heartbeat > now() - %(dead_after_s)s * interval '1 second') AS has_worker
  FROM fusillade.batches b
  LEFT JOIN LATERAL (
        SELECT b.output_lines - f.position AS lines, extract(epoch FROM now() - r.completed_at)::float8 AS seconds
          FROM fusillade.finished_lines f JOIN fusillade.requests r ON r.id = f.request_id
         WHERE f.batch_id = b.id AND NOT f.failed AND f.position >= greatest(b.output_lines - 1000, 0)
         ORDER BY f.position LIMIT 1) r ON true
 WHERE b.id = %(id)s AND b.deleted_at IS NULL AND NOT b.single;

-- name: progress_of_models  what of a batch is left at each model, what must be done before it there, and what holds it up
WITH mine AS MATERIALIZED (
    SELECT m.model, m.requests, m.requests - m.completed - m.failed - m.canceled AS remaining, b.id, b.expires_at, b.created_by
      FROM fusillade.batches b JOIN fusillade.batch_models m ON m.batch_id = b.id WHERE b.id = %(id)s
), earlier AS MATERIALIZED (
    SELECT m.model, sum(m.requests - m.completed - m.failed - m.canceled) AS requests
      FROM fusillade.batches o JOIN fusillade.batch_models m ON m.batch_id = o.id
     WHERE NOT o.single AND o.completed_at IS NULL AND o.failed_at IS NULL AND o.cancelled_at IS NULL AND o.expired_at IS NULL
       AND o.cancelling_at IS NULL AND o.deleted_at IS NULL
       AND (o.expires_at, o.id) < (SELECT expires_at, id FROM mine LIMIT 1) AND m.model IN (SELECT model FROM mine)
     GROUP BY m.model
)
SELECT m.model, m.requests, m.remaining, coalesce(e.requests, 0)::bigint AS ahead,
       (SELECT count(*) FROM fusillade.inflight i WHERE i.model = m.model) AS in_flight,
       CASE WHEN q.paused_until > now() THEN coalesce(q.pause_reason, 'paused') END AS queue_paused,
       CASE WHEN s.paused_until > now() THEN coalesce(s.pause_reason, 'paused') END AS model_paused,
       extract(epoch FROM greatest(CASE WHEN q.paused_until > now() THEN q.paused_until END, CASE WHEN s.paused_until > now() THEN s.paused_until END))::float8 AS paused_until,
       d.id IS NULL AS is_unknown, least(coalesce(d.batch_capacity, %(default_cap)s), d.capacity) AS cap
  FROM mine m
  LEFT JOIN deployed_models d ON d.alias = m.model AND NOT d.deleted
  LEFT JOIN earlier e ON e.model = m.model
  LEFT JOIN fusillade.queues q ON q.model = m.model AND q.created_by = m.created_by
  LEFT JOIN fusillade.model_slots s ON s.model = m.model
 ORDER BY m.remaining DESC, m.model LIMIT 1000;

-- name: heads  of each model the requests that are next in its accounts' lines, those that wait longest first: heads of lines, not lines
SELECT r.id, r.batch_id, r.batch_id = r.id AS is_single, m.model, r.created_at, first.deadline, u.email AS owner_email, r.retry_attempt
  FROM fusillade.model_slots m
 CROSS JOIN LATERAL (SELECT q.created_by FROM fusillade.queues q WHERE q.model = m.model ORDER BY q.head_deadline LIMIT 5) line
 CROSS JOIN LATERAL (SELECT d.id, d.deadline FROM fusillade.ready d WHERE d.model = m.model AND d.created_by = line.created_by
                      ORDER BY d.deadline, d.id LIMIT 3) first
 CROSS JOIN LATERAL (SELECT * FROM fusillade.requests r WHERE r.id = first.id LIMIT 1) r
  LEFT JOIN users u ON u.id = CASE WHEN line.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN line.created_by::uuid END
 ORDER BY r.created_at, r.id LIMIT 20;

-- name: pauses  what nobody claims for now, and why: models first, then accounts' lines
(SELECT s.model, NULL AS owner_email, s.pause_reason AS reason, s.paused_until
   FROM fusillade.model_slots s WHERE s.paused_until > now() ORDER BY s.model LIMIT 100)
 UNION ALL
(SELECT q.model, coalesce(u.email, q.created_by), q.pause_reason, q.paused_until
   FROM fusillade.queues q LEFT JOIN users u ON u.id = CASE WHEN q.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN q.created_by::uuid END
  WHERE q.paused_until > now() ORDER BY q.paused_until LIMIT 100);

-- name: rates  of batches that are not over, soonest first: what is left, and how long the last of their lines took to end
SELECT greatest(b.total_requests - b.completed_requests - b.failed_requests - b.canceled_requests, 0) AS remaining, r.lines, r.seconds
  FROM (SELECT b.* FROM fusillade.batches b
         WHERE NOT b.single AND b.completed_at IS NULL AND b.failed_at IS NULL AND b.cancelled_at IS NULL AND b.expired_at IS NULL
           AND b.cancelling_at IS NULL AND b.deleted_at IS NULL
         ORDER BY b.expires_at LIMIT 200) b
 CROSS JOIN LATERAL (
        SELECT b.output_lines - f.position AS lines, extract(epoch FROM now() - r.completed_at)::float8 AS seconds
          FROM fusillade.finished_lines f JOIN fusillade.requests r ON r.id = f.request_id
         WHERE f.batch_id = b.id AND NOT f.failed AND f.position >= greatest(b.output_lines - 1000, 0)
         ORDER BY f.position LIMIT 1) r;

-- name: owner_of  whose a batch is
SELECT b.created_by, b.populated_lines > 0 AS is_populated FROM fusillade.batches b WHERE b.id = %(id)s AND NOT b.single AND b.deleted_at IS NULL;

-- name: lines  requests of a batch in the order of its lines, without bodies
--   Those of a batch that was populated stand together in the key; the others are found by their batch.
SELECT r.id, r.custom_id, r.model, r.state AS status, r.created_at, r.started_at, coalesce(r.completed_at, r.failed_at, r.canceled_at) AS ended_at,
       r.response_status, r.retry_attempt, r.retried, f.code AS error_code, left(f.message, 300) AS error
  FROM ((SELECT r.* FROM fusillade.requests r
          WHERE %(is_populated)s AND r.id > %(after)s AND r.id >= fusillade.line_id(%(id)s, 0) AND r.id <= fusillade.line_id(%(id)s, 4294967295)
            AND (%(states)s::text[] IS NULL OR r.state = ANY (%(states)s))
          ORDER BY r.id LIMIT %(limit)s)
         UNION ALL
        (SELECT r.* FROM fusillade.requests r
          WHERE NOT %(is_populated)s AND r.batch_id = %(id)s AND r.id > %(after)s AND (%(states)s::text[] IS NULL OR r.state = ANY (%(states)s))
          ORDER BY r.id LIMIT %(limit)s)) r
  LEFT JOIN LATERAL fusillade.read_failure(r.error) f ON r.state = 'failed'
 ORDER BY r.id;

-- name: failures  what the last failed lines of a batch say, grouped, with some of each
WITH last AS MATERIALIZED (
    SELECT l.request_id FROM fusillade.finished_lines l
     WHERE l.batch_id = %(id)s AND l.failed ORDER BY l.position DESC LIMIT %(most)s
)
SELECT f.code, left(f.message, 300) AS message, f.status, count(*) AS requests,
       (array_agg(r.id ORDER BY r.id))[:3] AS ids, (array_agg(r.custom_id ORDER BY r.id))[:3] AS custom_ids,
       (SELECT count(*) FROM last) AS looked_at
  FROM last l
 CROSS JOIN LATERAL (SELECT r.id, r.custom_id, r.error FROM fusillade.requests r WHERE r.id = l.request_id AND r.state = 'failed' LIMIT 1) r
 CROSS JOIN LATERAL fusillade.read_failure(r.error) f
 GROUP BY 1, 2, 3 ORDER BY requests DESC, 1, 2 LIMIT 20;

-- name: open_batches  how many batches of each account are not over
SELECT b.created_by, count(*) FROM fusillade.batches b
 WHERE NOT b.single AND b.deleted_at IS NULL AND b.completed_at IS NULL AND b.failed_at IS NULL AND b.cancelling_at IS NULL
   AND b.cancelled_at IS NULL AND b.expired_at IS NULL
 GROUP BY b.created_by;
