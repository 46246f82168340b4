-- Reading the request log. {range} is what an index answers, {fits} what is looked at row by row; {order} and {back} are the directions.

-- name: tier  how a call was run: at once, by a worker, or as a line of a batch
CASE WHEN a.request_origin = 'fusillade' THEN 'batch' WHEN a.batch_sla <> '' THEN 'flex' ELSE 'realtime' END

-- name: entry  the columns of an entry
a.id, a.request_id, a.timestamp, a.created_at, a.method, a.uri, a.model, a.status_code, a.error_code, a.finish_reason, a.duration_ms,
a.duration_to_first_byte_ms, a.prompt_tokens, a.completion_tokens, a.reasoning_tokens, a.cached_tokens, a.total_tokens, a.usage_source,
a.response_type, a.user_id, u.email AS user_email, a.api_key_id, k.name AS api_key_name, a.access_source, a.input_price_per_token, a.output_price_per_token,
a.total_cost, a.provider_cost, a.fusillade_batch_id, a.fusillade_request_id, a.custom_id, a.request_origin, a.batch_sla, a.served_by,
a.user_agent, a.trace_id, {tier} AS tier

-- name: boundary  the place of the last of some rows, by an index alone; none: there are fewer
SELECT a.timestamp, a.request_id FROM http_analytics a
 WHERE {range} ORDER BY a.timestamp {order}, a.request_id {order} OFFSET %(scan)s - 1 LIMIT 1;

-- name: fitting  places of those that fit
SELECT a.timestamp, a.request_id FROM http_analytics a
 WHERE {range} AND {fits} ORDER BY a.timestamp {order}, a.request_id {order} LIMIT %(most)s;

-- name: search  of some rows along an index those that have words in what the log shows of bodies, until so many bytes are read (of one row at
--   least); and then the place of the last one that was looked at, if there may be more behind it
WITH scanned AS MATERIALIZED (
    SELECT a.timestamp, a.request_id, a.bodies IS NULL AND {fits} AS fits, a.request_body, a.response_body,
           row_number() OVER (ORDER BY a.timestamp {order}, a.request_id {order}) AS n
      FROM http_analytics a WHERE {range} ORDER BY a.timestamp {order}, a.request_id {order} LIMIT %(scan)s
), sized AS MATERIALIZED (
    SELECT s.n, r.template_id,
           sum(CASE WHEN s.fits THEN coalesce(octet_length(s.request_body), 0) + coalesce(octet_length(s.response_body), 0)
                                     + coalesce(t.body_byte_size, 0) + coalesce(r.response_size, 0) ELSE 0 END)
               OVER (ORDER BY s.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
      FROM scanned s
      LEFT JOIN fusillade.requests r ON s.fits AND r.id = s.request_id
      LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
), examined AS MATERIALIZED (
    SELECT s.*, z.template_id FROM scanned s JOIN sized z USING (n) WHERE coalesce(z.bytes_before, 0) < %(bytes)s
), reached AS MATERIALIZED (
    SELECT max(n) AS n, max(n) < (SELECT count(*) FROM scanned) OR max(n) = %(scan)s AS goes_on FROM examined
)
(SELECT e.timestamp, e.request_id, true
   FROM examined e
   LEFT JOIN fusillade.requests r ON r.id = e.request_id
   LEFT JOIN fusillade.request_templates t ON t.id = e.template_id
  WHERE e.fits AND (coalesce(e.request_body, left(t.body, %(shown)s)) ILIKE ANY (%(words)s)
                    OR coalesce(e.response_body, left(r.response_body, %(shown)s)) ILIKE ANY (%(words)s))
  ORDER BY e.n LIMIT %(most)s)
UNION ALL
SELECT e.timestamp, e.request_id, false FROM examined e JOIN reached USING (n) WHERE reached.goes_on;

-- name: entries  calls by their places, in that order, if they fit
SELECT {entry}
  FROM unnest(%(ids)s::uuid[], %(times)s::timestamptz[]) WITH ORDINALITY w(id, at, place)
  CROSS JOIN LATERAL (
        -- (OFFSET: each by its key, whatever the planner thinks of all of them together.)
        SELECT * FROM http_analytics
         WHERE request_id = w.id AND timestamp = w.at AND timestamp BETWEEN %(first)s AND %(last)s OFFSET 0) a
  LEFT JOIN users u ON u.id = a.user_id
  LEFT JOIN api_keys k ON k.id = a.api_key_id
 WHERE {fits}
 ORDER BY w.place;

-- name: detail  one call; of a line that was run again, the run that counts (the others were moved aside, a moment later)
SELECT {entry}, a.batch_request_source, a.cached_input_price_per_token, a.reasoning_price_per_token, a.tariff_id, a.attempts, a.bodies,
       a.request_headers, a.response_headers,
       CASE WHEN a.bodies IS NULL THEN coalesce(a.request_body, left(t.body, %(shown)s)) END AS request_body,
       CASE WHEN a.bodies IS NULL THEN coalesce(a.response_body, left(r.response_body, %(shown)s)) END AS response_body,
       CASE WHEN a.bodies IS NULL THEN coalesce(octet_length(a.request_body), t.body_byte_size) END AS request_body_size,
       CASE WHEN a.bodies IS NULL THEN coalesce(octet_length(a.response_body), octet_length(r.response_body)) END AS response_body_size,
       r.id AS queue_id, r.state, r.service_tier, r.created_at AS queued_at, r.claimed_at, r.started_at, r.retry_attempt, r.times_lost,
       r.retried, CASE WHEN a.bodies IS NULL THEN r.error END AS error, r.daemon_id, d.hostname, d.pid, coalesce(r.completed_at, r.failed_at, r.canceled_at) AS ended_at,
       r.routed_model, b.expires_at AS due_at, f.name AS tariff_name, f.api_key_purpose AS tariff_purpose, f.completion_window AS tariff_window,
       f.valid_from AS tariff_valid_from, c.id AS transaction_id, c.amount AS charged, c.created_at AS charged_at
  FROM http_analytics a
  LEFT JOIN users u ON u.id = a.user_id
  LEFT JOIN api_keys k ON k.id = a.api_key_id
  LEFT JOIN fusillade.requests r ON r.id = a.request_id
  LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
  LEFT JOIN fusillade.daemons d ON d.id = r.daemon_id
  LEFT JOIN fusillade.batches b ON b.id = r.batch_id
  LEFT JOIN model_tariffs f ON f.id = a.tariff_id
  -- A line that its owner had run again was charged each time (`record_calls`).
  LEFT JOIN credits_transactions c ON c.source_id = a.request_id::text || CASE WHEN r.retried > 0 THEN '#' || r.retried ELSE '' END
 WHERE a.request_id = %(id)s AND {range}
 ORDER BY a.timestamp LIMIT 1;

-- name: standing  a call that is not over, or not in the log yet: its row, and what stands before it at its model
--   `ahead` counts at most so many (`counted`), from the heads of the lines that are due before it: each step is on keys.
SELECT r.id AS request_id, r.model, r.state, r.service_tier, r.custom_id, nullif(r.batch_id, r.id) AS batch_id, r.created_at, r.claimed_at,
       r.started_at, r.retry_attempt, r.times_lost, coalesce(r.completed_at, r.failed_at, r.canceled_at) AS ended_at,
       CASE WHEN r.not_before > now() THEN r.not_before END AS not_before, b.completion_window, b.expires_at AS due_at,
       b.cancelling_at IS NOT NULL AS is_cancelling, u.id AS user_id, u.email AS user_email, k.id AS api_key_id, k.name AS api_key_name, t.path AS uri,
       d.id AS daemon_id, d.hostname, d.pid,
       (SELECT count(*) FROM (
            SELECT FROM fusillade.queues q CROSS JOIN LATERAL (
                SELECT FROM fusillade.ready w
                 WHERE w.model = q.model AND w.created_by = q.created_by AND (w.deadline, w.id) < (b.expires_at, r.id) LIMIT %(counted)s) before
             WHERE r.state = 'pending' AND q.model = r.model AND q.head_deadline <= b.expires_at LIMIT %(counted)s) waiting) AS ahead,
       (SELECT count(*) FROM fusillade.inflight i WHERE i.model = r.model) AS running,
       least(coalesce(m.batch_capacity, %(default_cap)s), m.capacity) AS concurrency, m.id IS NULL AS is_unknown,
       CASE WHEN q.paused_until > now() THEN coalesce(q.pause_reason, 'paused') END AS queue_paused,
       CASE WHEN s.paused_until > now() THEN coalesce(s.pause_reason, 'paused') END AS model_paused,
       greatest(CASE WHEN q.paused_until > now() THEN q.paused_until END, CASE WHEN s.paused_until > now() THEN s.paused_until END) AS paused_until,
       EXISTS (SELECT FROM fusillade.daemons w WHERE w.status = 'running' AND w.config_snapshot->>'type' = 'worker'
                  AND w.last_heartbeat > now() - %(dead_after_s)s * interval '1 second') AS has_worker
  FROM fusillade.requests r
  JOIN fusillade.batches b ON b.id = r.batch_id AND b.deleted_at IS NULL
  LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
  LEFT JOIN users u ON u.id = CASE WHEN b.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN b.created_by::uuid END
  LEFT JOIN api_keys k ON k.id = b.api_key_id
  LEFT JOIN fusillade.daemons d ON d.id = r.daemon_id
  LEFT JOIN deployed_models m ON m.alias = r.model AND NOT m.deleted
  LEFT JOIN fusillade.queues q ON q.model = r.model AND q.created_by = b.created_by
  LEFT JOIN fusillade.model_slots s ON s.model = r.model
 WHERE r.id = %(id)s AND (%(owner)s::text IS NULL OR b.created_by = %(owner)s);

-- name: batch_began  when the lines of a batch arrived
SELECT created_at FROM fusillade.batches WHERE id = %(id)s;

-- name: owner_of_key  whose calls a key's are
SELECT user_id FROM api_keys WHERE id = %(id)s;

-- name: horizon  a moment before which nothing can be written down any more: whatever began before it is over
SELECT greatest(least(clock_timestamp(), min(xact_start)), clock_timestamp() - %(patience_s)s * interval '1 second') - interval '1 second'
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';

-- name: written  calls (an owner's, or everybody's) written down since a moment, behind a place among them; queued ones may have arrived days before
SELECT timestamp, request_id, created_at, id, user_id FROM http_analytics
 WHERE (%(owner)s::uuid IS NULL OR user_id = %(owner)s) AND created_at >= %(at)s AND (created_at, id) > (%(at)s, %(id)s) AND timestamp >= %(first)s AND timestamp < %(last)s
 ORDER BY created_at, id LIMIT %(most)s;
