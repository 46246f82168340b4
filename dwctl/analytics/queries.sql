-- The writes of every call. Parameters are one JSON array with an object for each call (its members: `records.py`), because that costs the
-- client a fraction of building forty arrays, and the spool keeps the very same bytes. Bodies are JSON texts inside it: nothing is parsed.
-- Placeholders are PostgreSQL's own ($1), so that psycopg need not take these long texts apart for each group.

-- name: open_calls  calls that are not over: a realtime call that lasts (processing), a request for a worker (pending)
WITH c AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS c(
        id uuid, at timestamptz, file_id uuid, owner text, api_key_id uuid, path text, model text, request_body text, request_size bigint,
        tier text, sla text, expires_at timestamptz, daemon_id uuid, state text, metadata text, repeatable boolean)
), templates AS (
    INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, created_at, updated_at)
    SELECT id, file_id, '', 'POST', path, request_body, model, request_size, at, at FROM c
    ON CONFLICT (id) DO NOTHING
), batches AS (
    INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                   total_requests, requests_started_at, metadata)
    SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at, coalesce(metadata::jsonb, '{}') FROM c
    ON CONFLICT (id) DO NOTHING
), opened AS (
    INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, daemon_id, claimed_at, started_at,
                                    created_at, updated_at)
    SELECT id, id, id, model, state, tier,
           CASE state WHEN 'processing' THEN daemon_id END, CASE state WHEN 'processing' THEN at END,
           CASE state WHEN 'processing' THEN at END, at, at
      FROM c
    ON CONFLICT (id) DO NOTHING
    RETURNING id, state
), lasting AS (
    INSERT INTO fusillade.open_calls (id, daemon_id, repeatable)
    SELECT id, daemon_id, coalesce(repeatable, false) FROM c JOIN opened USING (id) WHERE opened.state = 'processing'
    ON CONFLICT (id) DO NOTHING
), due AS (
    SELECT c.model, c.owner, c.expires_at, c.id FROM c JOIN opened USING (id) WHERE opened.state = 'pending'
), ready AS (
    INSERT INTO fusillade.ready (model, created_by, deadline, id, batch_id)
    SELECT model, owner, expires_at, id, id FROM due
), slots AS (
    INSERT INTO fusillade.model_slots (model)
    SELECT DISTINCT model FROM due WHERE NOT EXISTS (SELECT FROM fusillade.model_slots s WHERE s.model = due.model)
    ON CONFLICT DO NOTHING
), queues AS (
    -- Locked in one order by everybody, and held until the commit, so that a claim cannot drop a line that has just got a member.
    INSERT INTO fusillade.queues AS q (model, created_by, vtime, head_deadline)
    SELECT model, owner, coalesce((SELECT min(vtime) FROM fusillade.queues o WHERE o.model = due.model), 0), min(expires_at)
      FROM due GROUP BY model, owner ORDER BY model, owner
    ON CONFLICT (model, created_by) DO UPDATE SET head_deadline = least(q.head_deadline, EXCLUDED.head_deadline)
), woken AS (
    SELECT pg_notify('fusillade_ready', '') FROM (SELECT FROM due LIMIT 1) anything
)
SELECT (SELECT count(*) FROM opened), (SELECT count(*) FROM woken);

-- name: record_calls  calls that are over: tracking row, log row, roll-up, charge and balance, or none of them
WITH c AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS c(
        id uuid, at timestamptz, ended_at timestamptz, track boolean, opened boolean, queued boolean, notify boolean,
        batch_id uuid, file_id uuid, owner text, user_id uuid, api_key_id uuid, path text, model text,
        request_body text, request_size bigint, tier text, sla text, expires_at timestamptz, daemon_id uuid, metadata text,
        state text, response_status int, response_body text, response_size bigint, routed_model text, error text,
        method text, uri text, status_code int, duration_ms bigint, ttfb_ms bigint,
        prompt_tokens bigint, completion_tokens bigint, reasoning_tokens bigint, cached_tokens bigint, total_tokens bigint,
        usage_source text, response_type text, access_source text, input_price numeric, output_price numeric, cost numeric,
        outer_request_id uuid, custom_id text, origin text, request_source text, served_by text, error_code text)
), templates AS (
    INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, created_at, updated_at)
    SELECT id, file_id, '', 'POST', path, request_body, model, request_size, at, at
      FROM c WHERE track AND request_body IS NOT NULL AND batch_id IS NULL
    ON CONFLICT (id) DO NOTHING
), tracked AS (
    -- A row that is there already was opened before: only its owner may finish it, and only while it runs. An owner that turns out to be
    -- alive may take back its own "interrupted".
    INSERT INTO fusillade.requests AS r (id, batch_id, template_id, model, state, service_tier, daemon_id, claimed_at, started_at,
        response_status, response_body, response_size, routed_model, error, completed_at, failed_at, created_at, updated_at)
    SELECT id, id, id, model, state, tier, daemon_id, at, at, response_status, response_body, response_size, routed_model, error,
           CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, at, ended_at
      FROM c
     -- Without its body a record is of a row that was committed before; one that is gone was deleted, and stays deleted.
     -- (A scalar sub-query: the planner would answer EXISTS with a hash of the whole table.)
     WHERE track AND (request_body IS NOT NULL OR (SELECT true FROM fusillade.requests x WHERE x.id = c.id))
    ON CONFLICT (id) DO UPDATE SET
        state = EXCLUDED.state, response_status = EXCLUDED.response_status, response_body = EXCLUDED.response_body,
        response_size = EXCLUDED.response_size, routed_model = EXCLUDED.routed_model, error = EXCLUDED.error,
        completed_at = EXCLUDED.completed_at, failed_at = EXCLUDED.failed_at, updated_at = EXCLUDED.updated_at
     WHERE r.daemon_id = EXCLUDED.daemon_id
       AND (r.state IN ('claimed', 'processing') OR (r.state = 'failed' AND starts_with(r.error, '{"type":"Interrupted"')))
    RETURNING r.id
), batches AS (
    INSERT INTO fusillade.batches AS b (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                   total_requests, requests_started_at, completed_at, failed_at, metadata)
    SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at,
           CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, coalesce(metadata::jsonb, '{}')
      FROM c JOIN tracked USING (id) WHERE batch_id IS NULL
    ON CONFLICT (id) DO UPDATE SET completed_at = EXCLUDED.completed_at, failed_at = EXCLUDED.failed_at
), landed AS (
    DELETE FROM fusillade.inflight i
     WHERE i.id = ANY (ARRAY(SELECT id FROM c WHERE queued)) AND i.daemon_id = (SELECT daemon_id FROM c WHERE c.id = i.id LIMIT 1)
), closed AS (
    DELETE FROM fusillade.open_calls o
     WHERE o.id = ANY (ARRAY(SELECT id FROM c WHERE opened)) AND o.daemon_id = (SELECT daemon_id FROM c WHERE c.id = o.id LIMIT 1)
), cancelled AS (
    -- Cancelled or deleted while it ran: its result is dropped, what it used is billed.
    SELECT c.id FROM c LEFT JOIN fusillade.requests r ON r.id = c.id
     WHERE c.opened AND ((r.state = 'canceled' AND r.daemon_id = c.daemon_id) OR (r.id IS NULL AND c.request_body IS NULL))
), settled AS MATERIALIZED (
    SELECT id FROM tracked UNION ALL SELECT id FROM cancelled UNION ALL SELECT id FROM c WHERE NOT track
), logged AS (
    INSERT INTO http_analytics (request_id, timestamp, method, uri, model, status_code, duration_ms, duration_to_first_byte_ms,
        prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, usage_source, response_type, user_id, api_key_id,
        access_source, input_price_per_token, output_price_per_token, total_cost, fusillade_batch_id, fusillade_request_id, custom_id,
        request_origin, batch_sla, batch_request_source, served_by, error_code)
    SELECT id, at, method, uri, model, status_code, duration_ms, ttfb_ms,
        prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, usage_source, response_type, user_id, api_key_id,
        access_source, input_price, output_price, cost, batch_id, coalesce(outer_request_id, id), custom_id,
        origin, CASE WHEN queued THEN sla ELSE '' END, coalesce(request_source, ''), served_by, error_code
      FROM c JOIN settled USING (id)
    ON CONFLICT DO NOTHING
    RETURNING request_id AS id
), charged AS (
    INSERT INTO credits_transactions (id, user_id, transaction_type, amount, source_id, description, created_at, fusillade_batch_id, api_key_id)
    SELECT id, user_id, 'usage', cost, id::text,
           format('API usage: %s (%s input + %s output tokens)', model, prompt_tokens, completion_tokens), ended_at, batch_id, api_key_id
      FROM c JOIN logged USING (id) WHERE cost > 0 AND user_id IS NOT NULL
    ON CONFLICT (source_id) DO NOTHING
    RETURNING user_id, amount, seq
), balances AS (
    INSERT INTO user_balance_checkpoints AS b (user_id, checkpoint_seq, balance)
    SELECT user_id, max(seq), -sum(amount) FROM charged GROUP BY user_id ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET balance = b.balance + EXCLUDED.balance,
        checkpoint_seq = greatest(b.checkpoint_seq, EXCLUDED.checkpoint_seq), updated_at = now()
    RETURNING user_id, balance
), rolled AS (
    INSERT INTO usage_rollups AS u (bucket, model, user_id, requests, succeeded, prompt_tokens, completion_tokens, duration_ms, cost, last_at)
    SELECT date_bin('10 minutes', at, 'epoch'), coalesce(model, ''), coalesce(user_id, '00000000-0000-0000-0000-000000000000'),
           count(*), count(*) FILTER (WHERE status_code BETWEEN 200 AND 299), sum(prompt_tokens), sum(completion_tokens),
           sum(duration_ms), coalesce(sum(cost), 0), max(at)
      FROM c JOIN logged USING (id) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (bucket, model, user_id) DO UPDATE SET
        requests = u.requests + EXCLUDED.requests, succeeded = u.succeeded + EXCLUDED.succeeded,
        prompt_tokens = u.prompt_tokens + EXCLUDED.prompt_tokens, completion_tokens = u.completion_tokens + EXCLUDED.completion_tokens,
        duration_ms = u.duration_ms + EXCLUDED.duration_ms, cost = u.cost + EXCLUDED.cost, last_at = greatest(u.last_at, EXCLUDED.last_at)
), woken AS (
    SELECT pg_notify('fusillade_done', ids)
      FROM (SELECT string_agg(id::text, ',') AS ids FROM (
                SELECT id, row_number() OVER () / 150 AS page FROM c JOIN tracked USING (id) WHERE c.notify) numbered
             GROUP BY page) pages
)
SELECT user_id FROM balances WHERE balance <= 0
UNION ALL
SELECT NULL FROM woken;

-- name: ensure_files  the container that the single requests of one owner share for a day
INSERT INTO fusillade.files (id, name, purpose, uploaded_by)
SELECT id, 'single_request', 'batch', owner FROM json_to_recordset($1::json) AS f(id uuid, owner text)
ON CONFLICT (id) DO NOTHING;

-- name: make_partitions_for  log partitions for the days of late records
SELECT make_log_partitions(day, 1)
  FROM (SELECT DISTINCT (at AT TIME ZONE 'UTC')::date AS day FROM json_to_recordset($1::json) AS c(at timestamptz)) days
 WHERE day BETWEEN current_date - 3660 AND current_date + 366;

-- name: give_up  requests whose record the database does not take: nothing may stay in progress, and nobody wait, because of that
WITH ended AS (
    UPDATE fusillade.requests SET state = 'failed', failed_at = now(), updated_at = now(),
           error = '{"type":"NotRecorded","details":{"error":"The result could not be written down."}}'
     WHERE id = $1::uuid AND daemon_id = $2::uuid AND state IN ('claimed', 'processing')
    RETURNING id
), batches AS (
    UPDATE fusillade.batches b SET failed_at = now() FROM ended e WHERE b.id = e.id
), landed AS (
    DELETE FROM fusillade.inflight i USING ended e WHERE i.id = e.id
), closed AS (
    DELETE FROM fusillade.open_calls o USING ended e WHERE o.id = e.id
)
SELECT pg_notify('fusillade_done', id::text) FROM ended;

-- name: withdraw  requests whose commit was not heard of, and whose callers were told that nothing was accepted
WITH withdrawn AS (
    UPDATE fusillade.requests r SET state = 'canceled', canceled_at = now(), updated_at = now()
     WHERE id = ANY ($1::uuid[])
       AND (state = 'pending' OR (state = 'processing' AND EXISTS (SELECT FROM fusillade.open_calls o WHERE o.id = r.id)))
    RETURNING id, model, batch_id
), closed AS (
    DELETE FROM fusillade.open_calls o USING withdrawn w WHERE o.id = w.id
)
DELETE FROM fusillade.ready WHERE ctid = ANY (ARRAY(
    SELECT y.ctid FROM withdrawn w JOIN fusillade.batches b ON b.id = w.batch_id
      JOIN fusillade.ready y ON y.model = w.model AND y.created_by = b.created_by AND y.deadline = b.expires_at AND y.id = w.id
       FOR UPDATE OF y SKIP LOCKED));
