-- The writes of every call. Parameters are one JSON array with an object for each call (its members: `records.py`), because that costs the
-- client a fraction of building forty arrays, and the spool keeps the very same bytes. Bodies are JSON texts inside it: nothing is parsed.
-- Placeholders are PostgreSQL's own ($1), so that psycopg need not take these long texts apart for each group.
-- The rows of the queue are written by its own functions (queue/functions.sql), inside the same statement.

-- name: open_calls  calls that are not over: a realtime call that lasts (processing), a request for a worker (pending)
SELECT fusillade.open_calls($1::json);

-- name: record_calls  calls that are over: tracking row, log row, delta of the sums, charge and balance, or none of them
WITH c AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS c(
        id uuid, reserved boolean, at timestamptz, ended_at timestamptz, queued boolean, batch_id uuid, user_id uuid, api_key_id uuid, model text, sla text,
        method text, uri text, status_code int, duration_ms bigint, ttfb_ms bigint,
        prompt_tokens bigint, completion_tokens bigint, reasoning_tokens bigint, cached_tokens bigint, total_tokens bigint,
        usage_source text, response_type text, access_source text, input_price numeric, output_price numeric, cost numeric,
        outer_request_id uuid, custom_id text, origin text, request_source text, served_by text, error_code text, attempts jsonb,
        cached_input_price numeric, reasoning_price numeric, tariff_id uuid, provider_cost numeric, finish_reason text, user_agent text,
        trace_id text, bodies text, request_headers text, response_headers text, logged_request text, logged_response text,
        unlogged boolean)
), locked AS MATERIALIZED (
    -- Against whoever deletes one at this moment: the function looks again, and what is gone then stays gone.
    SELECT r.id FROM fusillade.requests r WHERE r.id = ANY (ARRAY(SELECT id FROM c)) ORDER BY r.id FOR NO KEY UPDATE
), settled AS MATERIALIZED (
    -- (Not before they are locked: so the number of them is part of what it is called with.)
    SELECT s.id, s.retaken, s.line_of, s.retried
      FROM (SELECT count(*) AS rows FROM locked) l CROSS JOIN LATERAL fusillade.end_calls($1::json, l.rows < 0) s
), taken_back AS MATERIALIZED (
    -- An owner that turns out to be alive takes back its own "interrupted", in the log too.
    SELECT c.id AS call, old.*
      FROM settled s JOIN c ON c.id = s.id, take_back_interruption(c.id, c.at) old
     WHERE s.retaken
), logged AS (
    INSERT INTO http_analytics (request_id, timestamp, method, uri, model, status_code, duration_ms, duration_to_first_byte_ms,
        prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, usage_source, response_type, user_id, api_key_id,
        access_source, input_price_per_token, output_price_per_token, total_cost, fusillade_batch_id, fusillade_request_id, custom_id,
        request_origin, batch_sla, batch_request_source, served_by, error_code, attempts, cached_input_price_per_token,
        reasoning_price_per_token, tariff_id, provider_cost, finish_reason, user_agent, trace_id, bodies, request_headers, response_headers,
        request_body, response_body)
    SELECT c.id, at, method, uri, model, status_code, c.duration_ms, ttfb_ms,
        c.prompt_tokens, c.completion_tokens, reasoning_tokens, cached_tokens, total_tokens, usage_source, response_type, user_id, api_key_id,
        access_source, input_price, output_price, cost, batch_id, coalesce(outer_request_id, c.id), custom_id,
        CASE WHEN s.line_of IS NULL THEN origin ELSE 'fusillade' END, CASE WHEN queued THEN sla ELSE '' END,
        coalesce(c.request_source, b.request_source, ''), served_by, error_code, attempts, cached_input_price, reasoning_price, tariff_id,
        provider_cost, finish_reason, user_agent, trace_id, bodies, request_headers, response_headers, logged_request, logged_response
      FROM c JOIN settled s USING (id) LEFT JOIN (SELECT call FROM taken_back) t ON t.call = c.id
      LEFT JOIN LATERAL (SELECT metadata->>'request_source' AS request_source FROM fusillade.batches WHERE id = s.line_of) b ON true
     WHERE unlogged IS NULL
     ORDER BY c.id
    ON CONFLICT DO NOTHING
    RETURNING request_id AS id
), charged AS (
    INSERT INTO credits_transactions (id, user_id, transaction_type, amount, source_id, description, created_at, fusillade_batch_id, api_key_id)
    -- A line that its owner had run again was called, and is charged, each time.
    SELECT CASE WHEN retried > 0 THEN gen_random_uuid() ELSE id END, user_id, 'usage', cost,
           id::text || CASE WHEN retried > 0 THEN '#' || retried ELSE '' END,
           format('API usage: %s (%s input + %s output tokens)', model, prompt_tokens, completion_tokens), ended_at, batch_id, api_key_id
      FROM c JOIN logged USING (id) JOIN settled USING (id) WHERE cost > 0 AND user_id IS NOT NULL
    ON CONFLICT (source_id) DO NOTHING
    RETURNING user_id, amount, seq, api_key_id, created_at
), gone AS MATERIALIZED (
    SELECT g.* FROM (SELECT array_agg(id) AS ids FROM c WHERE reserved) r, let_go_credit(r.ids) g WHERE r.ids IS NOT NULL
), balances AS (
    -- A row holds no less than what its reservations say, so what is let go is never inserted.
    INSERT INTO user_balance_checkpoints AS b (user_id, checkpoint_seq, balance, reserved)
    SELECT user_id, max(seq), -sum(amount), sum(let_go)
      FROM (SELECT user_id, seq, amount, 0 AS let_go FROM charged
            UNION ALL SELECT user_id, 0, 0, amount FROM gone WHERE of_balance) changes
     GROUP BY user_id ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET balance = b.balance + EXCLUDED.balance, reserved = b.reserved - EXCLUDED.reserved,
        checkpoint_seq = greatest(b.checkpoint_seq, EXCLUDED.checkpoint_seq), updated_at = now()
    RETURNING user_id, balance, counts_spend
), spent AS MATERIALIZED (
    -- What capped keys have spent and hold; after the balances. Most accounts have no such key, and the function is not called.
    SELECT count_spent(array_agg(change)) AS keys
      FROM (SELECT ROW(api_key_id, created_at, NULL, amount, 0)::spend_change AS change
              FROM charged
             WHERE user_id = ANY (ARRAY(SELECT user_id FROM balances WHERE counts_spend)) AND api_key_id IS NOT NULL
            UNION ALL SELECT ROW(api_key_id, NULL, window_start, 0, amount)::spend_change FROM gone WHERE api_key_id IS NOT NULL) changes
    HAVING count(*) > 0
), counted AS (
    -- Lines of batches that ended with this; last, because nothing else of a batch can be ended while its row is locked.
    SELECT fusillade.count_ended(array_agg(s.id)) AS lines
      FROM settled s CROSS JOIN (SELECT count(*) FROM balances) before WHERE s.line_of IS NOT NULL HAVING count(*) > 0
), used AS (
    -- Tokens and times of calls that succeeded, and all that was charged.
    INSERT INTO batch_usage AS u (batch_id, requests, prompt_tokens, completion_tokens, reasoning_tokens, total_tokens, duration_ms, ttfb_ms,
                                  timed, cost, cached_tokens)
    SELECT batch_id, count(*) FILTER (WHERE fine), coalesce(sum(prompt_tokens) FILTER (WHERE fine), 0),
           coalesce(sum(completion_tokens) FILTER (WHERE fine), 0), coalesce(sum(reasoning_tokens) FILTER (WHERE fine), 0),
           coalesce(sum(total_tokens) FILTER (WHERE fine), 0), coalesce(sum(duration_ms) FILTER (WHERE fine), 0),
           coalesce(sum(ttfb_ms) FILTER (WHERE fine), 0), count(ttfb_ms) FILTER (WHERE fine), coalesce(sum(cost), 0),
           coalesce(sum(cached_tokens) FILTER (WHERE fine), 0)
      FROM (SELECT *, status_code BETWEEN 200 AND 299 AS fine FROM c JOIN logged USING (id)) l
     WHERE batch_id IS NOT NULL GROUP BY batch_id ORDER BY batch_id
    ON CONFLICT (batch_id) DO UPDATE SET
        requests = u.requests + EXCLUDED.requests, prompt_tokens = u.prompt_tokens + EXCLUDED.prompt_tokens,
        completion_tokens = u.completion_tokens + EXCLUDED.completion_tokens, reasoning_tokens = u.reasoning_tokens + EXCLUDED.reasoning_tokens,
        total_tokens = u.total_tokens + EXCLUDED.total_tokens, duration_ms = u.duration_ms + EXCLUDED.duration_ms,
        ttfb_ms = u.ttfb_ms + EXCLUDED.ttfb_ms, timed = u.timed + EXCLUDED.timed, cost = u.cost + EXCLUDED.cost,
        cached_tokens = u.cached_tokens + EXCLUDED.cached_tokens
), rolled AS (
    INSERT INTO usage_deltas (at, model, user_id, api_key_id, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens,
        cached_tokens, total_tokens, cost, duration_ms, ttfb_ms)
    -- Names that no model has are anybody's invention: one sum for all of them. (The nil id: nobody, and no key.)
    SELECT at, CASE WHEN error_code = 'model_not_found' THEN '' ELSE coalesce(model, '') END,
           coalesce(user_id, '00000000-0000-0000-0000-000000000000'), coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'),
           status_code, 1, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, coalesce(cost, 0), duration_ms, ttfb_ms
      FROM c JOIN logged USING (id)
    UNION ALL
    SELECT b.timestamp, CASE WHEN b.error_code = 'model_not_found' THEN '' ELSE coalesce(b.model, '') END,
           coalesce(b.user_id, '00000000-0000-0000-0000-000000000000'), coalesce(b.api_key_id, '00000000-0000-0000-0000-000000000000'),
           b.status_code, -1, -b.prompt_tokens, -b.completion_tokens, -b.reasoning_tokens, -b.cached_tokens, -b.total_tokens,
           -coalesce(b.total_cost, 0), -b.duration_ms, -b.duration_to_first_byte_ms
      FROM taken_back b
)
-- (counted and spent have nothing to give here, but must be read to be run.)
SELECT user_id FROM balances WHERE balance <= 0 UNION ALL SELECT NULL FROM counted WHERE lines < 0 UNION ALL SELECT NULL FROM spent WHERE keys < 0;

-- name: record_born_final  the same for calls none of which was opened before, or is waited for: nearly every group
--   The JSON is read once; what follows the log row follows from what was really inserted there. The charge's time is the call's end.
WITH c AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS c(
        id uuid, reserved boolean, at timestamptz, ended_at timestamptz, track boolean, opened boolean, queued boolean, notify boolean, batch_id uuid,
        file_id uuid, owner text, user_id uuid, api_key_id uuid, path text, model text, request_body text, request_size bigint, tier text,
        sla text, expires_at timestamptz, daemon_id uuid, metadata text, state text, response_status int, response_body text,
        response_size bigint, routed_model text, error text, method text, uri text, status_code int, duration_ms bigint, ttfb_ms bigint,
        prompt_tokens bigint, completion_tokens bigint, reasoning_tokens bigint, cached_tokens bigint, total_tokens bigint,
        usage_source text, response_type text, access_source text, input_price numeric, output_price numeric, cost numeric,
        outer_request_id uuid, custom_id text, origin text, request_source text, served_by text, error_code text, attempts jsonb,
        cached_input_price numeric, reasoning_price numeric, tariff_id uuid, provider_cost numeric, finish_reason text, user_agent text,
        trace_id text, bodies text, request_headers text, response_headers text, logged_request text, logged_response text,
        unlogged boolean)
), added AS MATERIALIZED (
    SELECT fusillade.add_ended(array_agg(ROW(id, at, ended_at, file_id, owner, api_key_id, path, model, request_body, request_size, tier,
        sla, expires_at, daemon_id, metadata, state, response_status, response_body, response_size, routed_model, error
        )::fusillade.born_final)) AS done
      FROM c WHERE track
), logged AS (
    -- (added has nothing to give here, but must be read to be run, also for calls that are not logged: hence one condition on both.)
    INSERT INTO http_analytics (request_id, timestamp, method, uri, model, status_code, duration_ms, duration_to_first_byte_ms,
        prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, usage_source, response_type, user_id, api_key_id,
        access_source, input_price_per_token, output_price_per_token, total_cost, fusillade_batch_id, fusillade_request_id, custom_id,
        request_origin, batch_request_source, served_by, error_code, attempts, cached_input_price_per_token, reasoning_price_per_token, tariff_id,
        provider_cost, finish_reason, user_agent, trace_id, bodies, request_headers, response_headers, request_body, response_body)
    SELECT id, at, method, uri, model, status_code, duration_ms, ttfb_ms,
        prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, usage_source, response_type, user_id, api_key_id,
        access_source, input_price, output_price, cost, batch_id, coalesce(outer_request_id, id), custom_id,
        origin, coalesce(request_source, ''), served_by, error_code, attempts, cached_input_price, reasoning_price, tariff_id,
        provider_cost, finish_reason, user_agent, trace_id, bodies, request_headers, response_headers, logged_request, logged_response
      FROM c, added WHERE CASE WHEN done = 1 THEN unlogged IS NULL END
    ON CONFLICT DO NOTHING
    RETURNING request_id, timestamp, model, user_id, api_key_id, status_code, error_code, prompt_tokens, completion_tokens,
        reasoning_tokens, cached_tokens, total_tokens, duration_ms, duration_to_first_byte_ms, total_cost, fusillade_batch_id
), charged AS (
    INSERT INTO credits_transactions (id, user_id, transaction_type, amount, source_id, description, created_at, fusillade_batch_id, api_key_id)
    SELECT request_id, user_id, 'usage', total_cost, request_id::text,
           format('API usage: %s (%s input + %s output tokens)', model, prompt_tokens, completion_tokens),
           timestamp + duration_ms * interval '1 millisecond', fusillade_batch_id, api_key_id
      FROM logged WHERE total_cost > 0 AND user_id IS NOT NULL
    ON CONFLICT (source_id) DO NOTHING
    RETURNING user_id, amount, seq, api_key_id, created_at
), gone AS MATERIALIZED (
    SELECT g.* FROM (SELECT array_agg(id) AS ids FROM c WHERE reserved) r, let_go_credit(r.ids) g WHERE r.ids IS NOT NULL
), balances AS (
    -- A row holds no less than what its reservations say, so what is let go is never inserted.
    INSERT INTO user_balance_checkpoints AS b (user_id, checkpoint_seq, balance, reserved)
    SELECT user_id, max(seq), -sum(amount), sum(let_go)
      FROM (SELECT user_id, seq, amount, 0 AS let_go FROM charged
            UNION ALL SELECT user_id, 0, 0, amount FROM gone WHERE of_balance) changes
     GROUP BY user_id ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET balance = b.balance + EXCLUDED.balance, reserved = b.reserved - EXCLUDED.reserved,
        checkpoint_seq = greatest(b.checkpoint_seq, EXCLUDED.checkpoint_seq), updated_at = now()
    RETURNING user_id, balance, counts_spend
), spent AS MATERIALIZED (
    -- What capped keys have spent and hold; after the balances. Most accounts have no such key, and the function is not called.
    SELECT count_spent(array_agg(change)) AS keys
      FROM (SELECT ROW(api_key_id, created_at, NULL, amount, 0)::spend_change AS change
              FROM charged
             WHERE user_id = ANY (ARRAY(SELECT user_id FROM balances WHERE counts_spend)) AND api_key_id IS NOT NULL
            UNION ALL SELECT ROW(api_key_id, NULL, window_start, 0, amount)::spend_change FROM gone WHERE api_key_id IS NOT NULL) changes
    HAVING count(*) > 0
), rolled AS (
    INSERT INTO usage_deltas (at, model, user_id, api_key_id, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens,
        cached_tokens, total_tokens, cost, duration_ms, ttfb_ms)
    SELECT timestamp, CASE WHEN error_code = 'model_not_found' THEN '' ELSE coalesce(model, '') END,
           coalesce(user_id, '00000000-0000-0000-0000-000000000000'), coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'),
           status_code, 1, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, coalesce(total_cost, 0),
           duration_ms, duration_to_first_byte_ms
      FROM logged
)
SELECT user_id FROM balances WHERE balance <= 0 UNION ALL SELECT NULL FROM spent WHERE keys < 0;

-- name: ensure_files  the containers that the single requests of one owner share for a day
SELECT fusillade.ensure_files($1::json);

-- name: keep_progress  what is to be recorded of calls if this process dies
SELECT fusillade.keep_last_words($1::json);

-- name: make_partitions_for  log partitions for the days of late records
SELECT make_log_partitions(day, 1)
  FROM (SELECT DISTINCT (at AT TIME ZONE 'UTC')::date AS day FROM json_to_recordset($1::json) AS c(at timestamptz)) days
 WHERE day BETWEEN current_date - 3660 AND current_date + 366;

-- name: give_up  a request whose record the database does not take
SELECT fusillade.give_up($1::uuid, $2::uuid);

-- name: withdraw  requests whose commit was not heard of, and whose callers were told that nothing was accepted; gives those that somebody has locked, which are left
-- (One row of two columns: in a join, whose order is the planner's, nothing would be withdrawn where nothing is left.)
WITH free AS MATERIALIZED (
    SELECT id FROM fusillade.requests WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED
)
SELECT fusillade.withdraw(ARRAY(SELECT id FROM free)),
       ARRAY(SELECT r.id FROM fusillade.requests r WHERE r.id = ANY ($1::uuid[]) AND r.id NOT IN (SELECT id FROM free)) AS locked;

-- name: told_of_call  what the caller of one call may be told of it; the times keep it to a partition or two
SELECT total_cost AS cost, served_by AS endpoint, attempts -> -1 ->> 'model' AS model
  FROM http_analytics WHERE request_id = %(id)s AND timestamp BETWEEN %(since)s AND %(until)s;

-- name: days_of_log  the partitions of the request log with their days and sizes, the oldest first
SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') AS day, pg_total_relation_size(c.oid) AS bytes
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'http_analytics'::regclass AND c.relname ~ '^http_analytics_p[0-9]{8}$' ORDER BY c.relname;

-- name: days_that_left  a day that was taken out of the request log and is to be deleted
SELECT relname FROM pg_class
 WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'http_analytics'::regclass) AND relname ~ '^http_analytics_left_[0-9]{8}$'
   AND relkind = 'r' LIMIT 1;

-- name: keeping  what is kept of the calls of these accounts and keys, where that is not as for all others
SELECT id, zero_data_retention, log_sample FROM users WHERE id = ANY ($1::uuid[]) AND (zero_data_retention OR log_sample IS NOT NULL)
UNION ALL
SELECT id, zero_data_retention, log_sample FROM api_keys WHERE id = ANY ($1::uuid[]) AND (zero_data_retention OR log_sample IS NOT NULL);

-- name: forget_details  what the request log itself shows of an account's calls of a day
UPDATE http_analytics SET request_headers = NULL, response_headers = NULL, request_body = NULL, response_body = NULL
 WHERE user_id = $1 AND timestamp >= $2::date::timestamp AT TIME ZONE 'UTC' AND timestamp < ($2::date + 1)::timestamp AT TIME ZONE 'UTC'
   AND coalesce(request_headers, response_headers, request_body, response_body) IS NOT NULL;
