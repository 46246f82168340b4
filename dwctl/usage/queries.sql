-- Sums: how deltas come into them, and how they are read. Whoever reads takes sums and deltas of one snapshot (a transaction that is
-- REPEATABLE READ where it asks more than once). Times are whole buckets (`spans`).

-- name: lock_folding  one at a time: two would wait for each other's sums
SELECT pg_advisory_xact_lock(hashtextextended('usage folding', 0));

-- name: fold  add some deltas to the sums of every grain that is kept of their time
-- (What comes to `account_rollups` comes to `caller_rollups` by triggers: processes of the release before fold, too.)
WITH taken AS MATERIALIZED (
    DELETE FROM usage_deltas WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_deltas LIMIT %(most)s FOR UPDATE SKIP LOCKED))
    RETURNING *, latency_histogram(duration_ms, calls) AS durations, latency_histogram(ttfb_ms, calls) AS ttfbs
), grained AS MATERIALIZED (
    SELECT g.grain, b.bucket, t.*
      FROM taken t CROSS JOIN rollup_grains g
      CROSS JOIN LATERAL (
           SELECT CASE WHEN g.grain = 0 THEN 'epoch' ELSE date_bin(make_interval(secs => g.grain), t.at, 'epoch') END AS bucket) b
     WHERE b.bucket >= g.since
), accounts AS (
    INSERT INTO account_rollups AS r (user_id, grain, bucket, model, api_key_id, status_code, calls, prompt_tokens, completion_tokens,
        reasoning_tokens, cached_tokens, total_tokens, cost, duration_ms, last_at)
    SELECT user_id, grain, bucket, model, api_key_id, status_code, sum(calls), sum(prompt_tokens), sum(completion_tokens),
           sum(reasoning_tokens), sum(cached_tokens), sum(total_tokens), sum(cost), sum(duration_ms), max(at)
      FROM grained GROUP BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (user_id, grain, bucket, model, api_key_id, status_code) DO UPDATE SET
        calls = r.calls + EXCLUDED.calls, prompt_tokens = r.prompt_tokens + EXCLUDED.prompt_tokens,
        completion_tokens = r.completion_tokens + EXCLUDED.completion_tokens, reasoning_tokens = r.reasoning_tokens + EXCLUDED.reasoning_tokens,
        cached_tokens = r.cached_tokens + EXCLUDED.cached_tokens, total_tokens = r.total_tokens + EXCLUDED.total_tokens,
        cost = r.cost + EXCLUDED.cost, duration_ms = r.duration_ms + EXCLUDED.duration_ms, last_at = greatest(r.last_at, EXCLUDED.last_at)
), models AS (
    INSERT INTO model_rollups AS r (of_all, model, grain, bucket, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens,
        cached_tokens, total_tokens, cost, duration_ms, ttfb_ms, timed, last_at)
    SELECT of_all, CASE WHEN of_all THEN '' ELSE model END, grain, bucket, status_code, sum(calls), sum(prompt_tokens), sum(completion_tokens),
           sum(reasoning_tokens), sum(cached_tokens), sum(total_tokens), sum(cost), sum(duration_ms), coalesce(sum(ttfb_ms), 0),
           coalesce(sum(calls) FILTER (WHERE ttfb_ms IS NOT NULL), 0), max(at)
      FROM grained CROSS JOIN (VALUES (true), (false)) o(of_all) GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (of_all, model, grain, bucket, status_code) DO UPDATE SET
        calls = r.calls + EXCLUDED.calls, prompt_tokens = r.prompt_tokens + EXCLUDED.prompt_tokens,
        completion_tokens = r.completion_tokens + EXCLUDED.completion_tokens, reasoning_tokens = r.reasoning_tokens + EXCLUDED.reasoning_tokens,
        cached_tokens = r.cached_tokens + EXCLUDED.cached_tokens, total_tokens = r.total_tokens + EXCLUDED.total_tokens,
        cost = r.cost + EXCLUDED.cost, duration_ms = r.duration_ms + EXCLUDED.duration_ms, ttfb_ms = r.ttfb_ms + EXCLUDED.ttfb_ms,
        timed = r.timed + EXCLUDED.timed, last_at = greatest(r.last_at, EXCLUDED.last_at)
), latencies AS (
    INSERT INTO latency_histograms AS r (of_all, model, grain, bucket, durations, ttfbs)
    SELECT of_all, CASE WHEN of_all THEN '' ELSE model END, grain, bucket, sum(durations), sum(ttfbs)
      FROM grained CROSS JOIN (VALUES (true), (false)) o(of_all)
     WHERE grain > 0 AND abs(calls) = 1 GROUP BY 1, 2, 3, 4
    ON CONFLICT (of_all, model, grain, bucket) DO UPDATE SET durations = r.durations + EXCLUDED.durations, ttfbs = r.ttfbs + EXCLUDED.ttfbs
)
SELECT count(*) FROM taken;

-- name: adopt  some sums of the release before become deltas; the statement of migration 0029
WITH u AS MATERIALIZED (
    DELETE FROM usage_rollups WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_rollups LIMIT %(most)s FOR UPDATE SKIP LOCKED)) RETURNING *
)
INSERT INTO usage_deltas (at, model, user_id, api_key_id, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens,
                          cached_tokens, total_tokens, cost, duration_ms)
SELECT least(greatest(u.last_at, u.bucket), u.bucket + interval '9 minutes 59.999999 seconds'), u.model, u.user_id,
       '00000000-0000-0000-0000-000000000000', s.status_code, s.calls,
       CASE WHEN s.main THEN u.prompt_tokens ELSE 0 END, CASE WHEN s.main THEN u.completion_tokens ELSE 0 END, 0, 0,
       CASE WHEN s.main THEN u.prompt_tokens + u.completion_tokens ELSE 0 END, CASE WHEN s.main THEN u.cost ELSE 0 END,
       CASE WHEN s.main THEN u.duration_ms ELSE 0 END
  FROM u CROSS JOIN LATERAL (VALUES (200, u.succeeded, true), (0, u.requests - u.succeeded, u.succeeded = 0)) s(status_code, calls, main)
 WHERE s.calls > 0;

-- name: adopt_latencies  some rows by slot of the release before become part of histograms
WITH taken AS MATERIALIZED (
    DELETE FROM latency_rollups WHERE ctid = ANY (ARRAY(SELECT ctid FROM latency_rollups ORDER BY grain, bucket LIMIT %(most)s FOR UPDATE SKIP LOCKED)) RETURNING *
), carried AS (
    INSERT INTO latency_histograms AS r (of_all, model, grain, bucket, durations, ttfbs)
    SELECT of_all, model, grain, bucket, coalesce(sum(slot_histogram(slot, calls)) FILTER (WHERE measure = 'duration'), 0),
           coalesce(sum(slot_histogram(slot, calls)) FILTER (WHERE measure = 'ttfb'), 0)
      FROM taken GROUP BY 1, 2, 3, 4
    ON CONFLICT (of_all, model, grain, bucket) DO UPDATE SET durations = r.durations + EXCLUDED.durations, ttfbs = r.ttfbs + EXCLUDED.ttfbs
)
SELECT count(*) FROM taken;

-- name: backlog  deltas that wait, and since when the oldest call is not added
SELECT count(*), extract(epoch FROM now() - min(at))::float8 FROM usage_deltas;

-- name: keep  from when on a grain is kept by its retention; never earlier than it was
UPDATE rollup_grains SET since = date_bin('1 day', now() - make_interval(days => %(days)s), 'epoch')
 WHERE grain = %(grain)s AND since < date_bin('1 day', now() - make_interval(days => %(days)s), 'epoch');

-- name: purge  some sums of a grain from before it is kept
WITH b AS (SELECT grain, since FROM rollup_grains WHERE grain = %(grain)s), accounts AS (
    DELETE FROM account_rollups WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM account_rollups r, b WHERE r.grain = b.grain AND r.bucket < b.since LIMIT %(most)s)) RETURNING 1
), callers AS (
    DELETE FROM caller_rollups WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM caller_rollups r, b WHERE r.grain = b.grain AND r.bucket < b.since LIMIT %(most)s)) RETURNING 1
), models AS (
    DELETE FROM model_rollups WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM model_rollups r, b WHERE r.grain = b.grain AND r.bucket < b.since LIMIT %(most)s)) RETURNING 1
), latencies AS (
    DELETE FROM latency_histograms WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM latency_histograms r, b WHERE r.grain = b.grain AND r.bucket < b.since LIMIT %(most)s)) RETURNING 1
)
SELECT greatest((SELECT count(*) FROM accounts), (SELECT count(*) FROM callers), (SELECT count(*) FROM models), (SELECT count(*) FROM latencies));

-- name: kept  since when each grain is kept
SELECT grain, since FROM rollup_grains;

-- name: opening  the same, and for this transaction: a range that comes from another table looks wide to the planner, which would rather read all sums
WITH by_index AS MATERIALIZED (
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
           set_config('enable_sort', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)
)
SELECT grain, since FROM rollup_grains CROSS JOIN by_index;

-- name: aggregate  calls of a time, of one model or of all, by point of a series, by status, and all of them
WITH rows AS (
    SELECT r.bucket AS at, r.status_code, r.calls, r.prompt_tokens, r.completion_tokens, r.reasoning_tokens, r.cached_tokens, r.cost,
           r.duration_ms, r.ttfb_ms, r.timed
      FROM unnest(%(grains)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) s(grain, since, until)
      JOIN model_rollups r ON r.of_all = %(of_all)s AND r.model = %(model)s
                          AND r.grain = s.grain AND r.bucket >= s.since AND r.bucket < s.until
    UNION ALL
    SELECT d.at, d.status_code, d.calls, d.prompt_tokens, d.completion_tokens, d.reasoning_tokens, d.cached_tokens, d.cost, d.duration_ms,
           coalesce(d.ttfb_ms, 0), CASE WHEN d.ttfb_ms IS NULL THEN 0 ELSE d.calls END
      FROM usage_deltas d WHERE d.at >= %(since)s AND d.at < %(until)s AND (%(of_all)s OR d.model = %(model)s)
)
SELECT date_bin(make_interval(mins => %(minutes)s), at, '2001-01-01Z') AS point, status_code, sum(calls)::bigint AS calls,
       coalesce(sum(calls) FILTER (WHERE status_code NOT BETWEEN 200 AND 299), 0)::bigint AS errors,
       sum(prompt_tokens)::bigint AS input_tokens, sum(completion_tokens)::bigint AS output_tokens,
       sum(reasoning_tokens)::bigint AS reasoning_tokens, sum(cached_tokens)::bigint AS cached_tokens,
       sum(cost) AS cost, sum(duration_ms)::bigint AS duration_ms, sum(ttfb_ms)::bigint AS ttfb_ms, sum(timed)::bigint AS timed
  FROM rows
 GROUP BY GROUPING SETS ((1), (2), ())
HAVING sum(calls) <> 0;

-- name: by_model  calls of a time by model, the most called first
-- (Grain and time are compared as rows, so that the index over them is taken: PostgreSQL 18 would rather skip from model to model.)
SELECT model, sum(calls)::bigint AS calls, coalesce(sum(calls) FILTER (WHERE status_code NOT BETWEEN 200 AND 299), 0)::bigint AS errors,
       sum(prompt_tokens)::bigint AS input_tokens, sum(completion_tokens)::bigint AS output_tokens, sum(cost) AS cost,
       sum(duration_ms)::bigint AS duration_ms
  FROM (SELECT r.model, r.status_code, r.calls, r.prompt_tokens, r.completion_tokens, r.cost, r.duration_ms
          FROM unnest(%(grains)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) s(grain, since, until)
          JOIN model_rollups r ON r.model <> '' AND (r.grain, r.bucket) >= (s.grain, s.since) AND (r.grain, r.bucket) < (s.grain, s.until)
        UNION ALL
        SELECT d.model, d.status_code, d.calls, d.prompt_tokens, d.completion_tokens, d.cost, d.duration_ms
          FROM usage_deltas d WHERE d.model <> '' AND d.at >= %(since)s AND d.at < %(until)s) rows
 GROUP BY model HAVING sum(calls) <> 0
 ORDER BY calls DESC, model;

-- name: latencies  how many calls of a time took how long, at each point of a series and in all
SELECT date_bin(make_interval(mins => %(minutes)s), at, '2001-01-01Z') AS point, sum(durations)::text AS durations, sum(ttfbs)::text AS ttfbs
  FROM (SELECT r.bucket AS at, r.durations, r.ttfbs
          FROM unnest(%(grains)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) s(grain, since, until)
          JOIN latencies r ON r.of_all = %(of_all)s AND r.model = %(model)s
                          AND r.grain = s.grain AND r.bucket >= s.since AND r.bucket < s.until
        UNION ALL
        SELECT d.at, latency_histogram(d.duration_ms, d.calls), latency_histogram(d.ttfb_ms, d.calls)
          FROM usage_deltas d WHERE d.at >= %(since)s AND d.at < %(until)s AND (%(of_all)s OR d.model = %(model)s)) l
 GROUP BY GROUPING SETS ((1), ());

-- name: by_user  calls on one model in a time by the account that made them
SELECT r.user_id, u.email AS user_email, r.calls::bigint AS calls, r.total_tokens::bigint AS total_tokens, r.input_tokens::bigint AS input_tokens,
       r.output_tokens::bigint AS output_tokens, r.cost, r.last_at
  FROM (SELECT user_id, sum(calls) AS calls, sum(total_tokens) AS total_tokens, sum(prompt_tokens) AS input_tokens,
               sum(completion_tokens) AS output_tokens, sum(cost) AS cost, max(last_at) AS last_at
          FROM (SELECT r.user_id, r.calls, r.total_tokens, r.prompt_tokens, r.completion_tokens, r.cost, r.last_at
                  FROM unnest(%(grains)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) s(grain, since, until)
                  JOIN account_rollups r ON r.model = %(model)s AND r.grain = s.grain AND r.bucket >= s.since AND r.bucket < s.until
                UNION ALL
                SELECT d.user_id, d.calls, d.total_tokens, d.prompt_tokens, d.completion_tokens, d.cost, d.at
                  FROM usage_deltas d WHERE d.model = %(model)s AND d.at >= %(since)s AND d.at < %(until)s) rows
         WHERE user_id <> '00000000-0000-0000-0000-000000000000'
         GROUP BY user_id HAVING sum(calls) <> 0) r
  LEFT JOIN users u ON u.id = r.user_id
 ORDER BY r.calls DESC, r.user_id;

-- name: of_accounts  what succeeded of some accounts' calls in a time by model, all of it or that of some keys; with the current realtime tariff
WITH used AS (
    SELECT model, sum(calls)::bigint AS calls, sum(prompt_tokens)::bigint AS input_tokens, sum(completion_tokens)::bigint AS output_tokens,
           sum(reasoning_tokens)::bigint AS reasoning_tokens, sum(cached_tokens)::bigint AS cached_tokens, sum(cost) AS cost
      FROM (SELECT r.model, r.calls, r.prompt_tokens, r.completion_tokens, r.reasoning_tokens, r.cached_tokens, r.cost
              FROM unnest(%(grains)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) s(grain, since, until)
              JOIN account_rollups r ON r.user_id = ANY (%(accounts)s) AND r.grain = s.grain AND r.bucket >= s.since AND r.bucket < s.until
                                    AND r.status_code BETWEEN 200 AND 299 AND r.model <> '' AND {of_keys}
            UNION ALL
            SELECT r.model, r.calls, r.prompt_tokens, r.completion_tokens, r.reasoning_tokens, r.cached_tokens, r.cost
              FROM usage_deltas r
             WHERE r.user_id = ANY (%(accounts)s) AND r.at >= %(since)s AND r.at < %(until)s
               AND r.status_code BETWEEN 200 AND 299 AND r.model <> '' AND {of_keys}) rows
     GROUP BY model HAVING sum(calls) <> 0
)
SELECT u.*, t.*
  FROM used u
  LEFT JOIN LATERAL (
       SELECT t.input_price_per_token AS input_price, t.output_price_per_token AS output_price,
              t.cached_input_price_per_token AS cached_input_price, t.reasoning_price_per_token AS reasoning_price
         FROM deployed_models m JOIN model_tariffs t ON t.deployed_model_id = m.id
        WHERE m.alias = u.model AND NOT m.deleted AND t.api_key_purpose = 'realtime'
          AND t.valid_from <= now() AND (t.valid_until IS NULL OR t.valid_until > now())
        ORDER BY t.valid_from DESC LIMIT 1) t ON true
 ORDER BY u.calls DESC, u.model;

-- name: batches_of_accounts  batches of some accounts that were made in a time and had calls that succeeded, and how many those were
SELECT count(*) AS made, coalesce(sum(u.requests), 0)::bigint AS requests
  FROM fusillade.batches b JOIN batch_usage u ON u.batch_id = b.id
 WHERE b.created_by = ANY (%(owners)s) AND NOT b.single AND b.deleted_at IS NULL AND u.requests > 0
   AND b.created_at >= %(since)s AND b.created_at < %(until)s AND {of_keys};

-- name: keys_made_by  the keys of some accounts that one person has made, deleted ones too
SELECT id FROM api_keys WHERE user_id = ANY (%(accounts)s) AND created_by = %(person)s;

-- name: owner_of_key  the account that has a key, a deleted one too
SELECT user_id FROM api_keys WHERE id = %(key)s;

-- name: shared_with  those of some organisations that one person is a member of
SELECT organization_id FROM user_organizations WHERE organization_id = ANY (%(organizations)s) AND user_id = %(person)s AND status = 'active';

-- name: of_models  calls of all time on some models, and those of the last of time by the steps that had any
SELECT a.model, a.calls, a.input_tokens, a.output_tokens, a.duration_ms, a.last_at, l.steps, l.step_calls
  FROM (SELECT model, sum(calls)::bigint AS calls, sum(prompt_tokens)::bigint AS input_tokens, sum(completion_tokens)::bigint AS output_tokens,
               sum(duration_ms)::bigint AS duration_ms, max(last_at) AS last_at
          FROM (SELECT model, calls, prompt_tokens, completion_tokens, duration_ms, last_at FROM model_rollups
                 WHERE of_all = false AND model = ANY (%(models)s) AND grain = 0
                UNION ALL
                SELECT model, calls, prompt_tokens, completion_tokens, duration_ms, at FROM usage_deltas WHERE model = ANY (%(models)s)) rows
         GROUP BY model HAVING sum(calls) <> 0) a
  LEFT JOIN (
        SELECT model, array_agg(step) AS steps, array_agg(calls) AS step_calls
          FROM (SELECT model, floor(extract(epoch FROM at - %(since)s) / %(step_s)s)::int AS step, sum(calls)::bigint AS calls
                  FROM (SELECT model, bucket AS at, calls FROM model_rollups
                         WHERE of_all = false AND model = ANY (%(models)s) AND grain = 60 AND bucket >= %(since)s AND bucket < %(until)s
                        UNION ALL
                        SELECT model, at, calls FROM usage_deltas WHERE model = ANY (%(models)s) AND at >= %(since)s AND at < %(until)s) rows
                 GROUP BY 1, 2) steps
         GROUP BY model) l ON l.model = a.model;

-- name: calls_of_models  calls on some models in a time, with those of its end from a minute on, and how many took how long
WITH spans AS (
    SELECT * FROM unnest(%(grains)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) s(grain, since, until)
), summed AS (
    SELECT model, coalesce(sum(calls) FILTER (WHERE at >= %(since)s), 0)::bigint AS calls,
           coalesce(sum(calls) FILTER (WHERE at >= %(since)s AND failed), 0)::bigint AS errors,
           coalesce(sum(calls) FILTER (WHERE at >= %(since)s AND refused), 0)::bigint AS refused,
           coalesce(sum(cost) FILTER (WHERE at >= %(since)s), 0) AS cost, coalesce(sum(calls) FILTER (WHERE at >= %(late)s), 0)::bigint AS late_calls,
           coalesce(sum(calls) FILTER (WHERE at >= %(late)s AND failed), 0)::bigint AS late_errors,
           coalesce(sum(calls) FILTER (WHERE at >= %(late)s AND refused), 0)::bigint AS late_refused
      FROM (SELECT r.model, r.bucket AS at, r.status_code NOT BETWEEN 200 AND 299 AS failed, r.status_code BETWEEN 400 AND 499 AS refused,
                   r.calls, r.cost
              FROM spans s JOIN model_rollups r ON r.of_all = false AND r.model = ANY (%(models)s) AND r.grain = s.grain
                                               AND r.bucket >= s.since AND r.bucket < s.until
            UNION ALL
            SELECT d.model, d.at, d.status_code NOT BETWEEN 200 AND 299, d.status_code BETWEEN 400 AND 499, d.calls, d.cost FROM usage_deltas d
             WHERE d.model = ANY (%(models)s) AND d.at >= %(begins)s AND d.at < %(until)s) rows
     GROUP BY model
), timed AS (
    SELECT model, sum(durations)::text AS durations
      FROM (SELECT r.model, r.durations
              FROM spans s JOIN latencies r ON r.of_all = false AND r.model = ANY (%(models)s) AND r.grain = s.grain
                                           AND r.bucket >= greatest(s.since, %(since)s) AND r.bucket < s.until
            UNION ALL
            SELECT d.model, latency_histogram(d.duration_ms, d.calls) FROM usage_deltas d
             WHERE d.model = ANY (%(models)s) AND d.at >= %(since)s AND d.at < %(until)s) times
     GROUP BY model
)
SELECT s.*, coalesce(t.durations, '0') AS durations FROM summed s LEFT JOIN timed t ON t.model = s.model;

-- name: export  calls of a time by point of time, and by some of model, account, key and status; behind one of them
SELECT {keys}, sum(calls)::bigint AS requests, coalesce(sum(calls) FILTER (WHERE status_code NOT BETWEEN 200 AND 299), 0)::bigint AS errors,
       sum(prompt_tokens)::bigint AS input_tokens, sum(completion_tokens)::bigint AS output_tokens,
       sum(reasoning_tokens)::bigint AS reasoning_tokens, sum(cached_tokens)::bigint AS cached_tokens, sum(total_tokens)::bigint AS total_tokens,
       sum(cost) AS cost, round(sum(duration_ms) / sum(calls), 3)::float8 AS avg_latency_ms
  FROM (SELECT date_bin(make_interval(mins => %(minutes)s), at, %(origin)s) AS timestamp, rows.*
          FROM (SELECT r.bucket AS at, {columns}
                  FROM unnest(%(grains)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) s(grain, since, until)
                  JOIN {sums} r ON r.grain = s.grain AND r.bucket >= s.since AND r.bucket < s.until AND {of_sums} AND {only}
                UNION ALL
                SELECT r.at, {columns} FROM usage_deltas r WHERE r.at >= %(since)s AND r.at < %(until)s AND {only}) rows) points
 WHERE {behind}
 GROUP BY {keys} HAVING sum(calls) <> 0
 ORDER BY {keys}
 LIMIT %(most)s;

-- name: next_day  the first day with calls from one on
SELECT least((SELECT r.bucket FROM model_rollups r WHERE r.of_all AND r.model = '' AND r.grain = 86400 AND r.bucket >= %(since)s ORDER BY r.bucket LIMIT 1),
             (SELECT date_bin('1 day', min(d.at), 'epoch') FROM usage_deltas d WHERE d.at >= %(since)s));

-- name: breakdown  calls of a time by {of}: the first few each, those behind them together, and all; at each point all, and the first fewer;
--   and of some whole times (`wholes`) all, each call once
-- (Whole days tell who is first. Finer sums, as points need them, are read of those alone. OFFSET 0 has the sums looked up span by span.)
WITH {before}summed AS (
    SELECT {of} AS of, sum(calls) AS calls, sum(errors) AS errors, sum(prompt_tokens) AS input_tokens, sum(completion_tokens) AS output_tokens,
           sum(reasoning_tokens) AS reasoning_tokens, sum(cached_tokens) AS cached_tokens, sum(total_tokens) AS total_tokens, sum(cost) AS cost,
           sum(duration_ms) AS duration_ms
      FROM (SELECT told, sum(calls) AS calls, sum(errors) AS errors, {summed}
              FROM (SELECT {told} AS told, r.calls, {errors} AS errors, {columns}
                      FROM unnest(%(grains)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) s(grain, since, until)
                     CROSS JOIN LATERAL (SELECT * FROM {sums} r WHERE {within} AND {only} OFFSET 0) r {in_sums}
                    UNION ALL
                    SELECT {told}, r.calls, {errors_of_deltas}, {columns} FROM usage_deltas r {in_sums}
                     WHERE r.at >= %(since)s AND r.at < %(until)s AND {only_deltas}) rows
             GROUP BY told) r
      {joined}
     GROUP BY {of} HAVING sum(calls) <> 0
), placed AS MATERIALIZED (
    SELECT *, least(row_number() OVER (ORDER BY {order} DESC, calls DESC, of), %(most)s + 1)::int AS place FROM summed
), first AS MATERIALIZED (
    SELECT ARRAY(SELECT of FROM placed WHERE place <= %(lines)s ORDER BY place) AS ones
), grouped AS (
    SELECT place, min(of::text) AS first, sum(calls)::bigint AS calls, sum(errors)::bigint AS errors,
           sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens, sum(reasoning_tokens)::bigint AS reasoning_tokens,
           sum(cached_tokens)::bigint AS cached_tokens, sum(total_tokens)::bigint AS total_tokens, sum(cost) AS cost,
           sum(duration_ms)::bigint AS duration_ms
      FROM placed GROUP BY GROUPING SETS ((place), ())
), points AS (
    SELECT 0 AS line, p.point, sum(p.value) AS value, sum(p.errors)::bigint AS errors
      FROM (SELECT width_bucket(at, %(edges)s::timestamptz[]) - 1 AS point, moves, sum(value) AS value, sum(errors) AS errors
              FROM (SELECT r.bucket + s.middle AS at, s.moves, r.{order} AS value, {errors_of_all} AS errors
                      FROM {point_spans}
                     CROSS JOIN LATERAL (SELECT * FROM {sums_of_all} r WHERE {within_all} AND {only_all} OFFSET 0) r
                    UNION ALL
                    SELECT r.at, 0, r.{order}, {errors_of_deltas} FROM usage_deltas r WHERE r.at >= %(since)s AND r.at < %(until)s AND {only_deltas}) rows
             GROUP BY 1, 2) r
     CROSS JOIN LATERAL (VALUES (point, value, errors), (point + nullif(moves, 0), -value, -errors)) p(point, value, errors)
     WHERE p.point IS NOT NULL GROUP BY p.point
    UNION ALL
    SELECT {line}, p.point, sum(p.value), 0
      FROM (SELECT told, width_bucket(at, %(edges)s::timestamptz[]) - 1 AS point, moves, sum(value) AS value
              FROM (SELECT {told} AS told, r.bucket + s.middle AS at, s.moves, r.{order} AS value
                      FROM {point_spans}
                     CROSS JOIN LATERAL (SELECT * FROM {sums} r WHERE {within_lines} AND {only} AND {of_lines} OFFSET 0) r {in_sums}
                    UNION ALL
                    SELECT {told}, r.at, 0, r.{order} FROM usage_deltas r {in_sums}
                     WHERE r.at >= %(since)s AND r.at < %(until)s AND {only_deltas} AND {of_lines}) rows
             GROUP BY 1, 2, 3) r
     CROSS JOIN LATERAL (VALUES (point, value), (point + nullif(moves, 0), -value)) p(point, value)
      {joined}
     WHERE p.point IS NOT NULL GROUP BY 1, 2
)
SELECT g.*, CASE WHEN place <= %(most)s THEN first END AS id, {title} AS name, NULL::int AS whole, NULL::int AS line, NULL::int[] AS at,
       NULL::numeric[] AS values, NULL::bigint[] AS failed
  FROM grouped g {named}
 WHERE g.calls IS NOT NULL
UNION ALL
SELECT NULL, NULL, sum(calls)::bigint, sum(errors)::bigint, sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint, sum(reasoning_tokens)::bigint,
       sum(cached_tokens)::bigint, sum(total_tokens)::bigint, sum(cost), sum(duration_ms)::bigint, NULL, NULL, whole, NULL, NULL, NULL, NULL
  FROM (SELECT s.whole, r.calls, {errors_of_all} AS errors, {columns}
          FROM unnest(%(wholes)s::int[], %(whole_grains)s::int[], %(whole_starts)s::timestamptz[], %(whole_ends)s::timestamptz[]) s(whole, grain, since, until)
         CROSS JOIN LATERAL (SELECT * FROM {sums_of_all} r WHERE {within_all} AND {only_all} OFFSET 0) r
        UNION ALL
        SELECT s.whole, r.calls, {errors_of_deltas}, {columns}
          FROM unnest(%(wholes)s::int[], %(whole_starts)s::timestamptz[], %(whole_ends)s::timestamptz[]) s(whole, since, until)
         CROSS JOIN LATERAL (SELECT * FROM usage_deltas r WHERE r.at >= s.since AND r.at < s.until AND {only_deltas} OFFSET 0) r) rows
 GROUP BY whole
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, line, array_agg(point), array_agg(value), array_agg(errors)
  FROM points GROUP BY line
 ORDER BY place, line;

-- name: point_spans  a part of `breakdown`: which sums are read for its points, and how they count (spans.Piece)
unnest(%(point_grains)s::int[], %(point_starts)s::timestamptz[], %(point_ends)s::timestamptz[], %(point_middles)s::interval[], %(point_moves)s::int[])
    s(grain, since, until, middle, moves)

-- name: memberships  a part of `breakdown` by group: accounts by the set of groups that they are in, of which there are few
memberships AS MATERIALIZED (
    SELECT user_id, groups, dense_rank() OVER (ORDER BY groups)::int AS kind
      FROM (SELECT user_id, array_agg(group_id ORDER BY group_id) AS groups FROM user_groups GROUP BY user_id) g
), kinds AS MATERIALIZED (
    SELECT DISTINCT kind, unnest(groups) AS group_id FROM memberships
),

-- name: join_by_hash  for the next statement, in which sums are bounded by OFFSET 0
SELECT set_config('enable_hashjoin', %(on)s, true);

-- name: times_by_model  how many calls of a time took how long, of some models each and of all models
SELECT of_all, model, sum(durations)::text AS durations, sum(ttfbs)::text AS ttfbs
  FROM (SELECT r.of_all, r.model, r.durations, r.ttfbs
          FROM unnest(%(grains)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) s(grain, since, until)
         CROSS JOIN (SELECT true AS of_all, '' AS model UNION ALL SELECT false, unnest(%(models)s::text[])) m
          JOIN latencies r ON r.of_all = m.of_all AND r.model = m.model
                          AND r.grain = s.grain AND r.bucket >= s.since AND r.bucket < s.until
        UNION ALL
        SELECT o.of_all, CASE WHEN o.of_all THEN '' ELSE d.model END, latency_histogram(d.duration_ms, d.calls), latency_histogram(d.ttfb_ms, d.calls)
          FROM usage_deltas d CROSS JOIN (VALUES (true), (false)) o(of_all)
         WHERE d.at >= %(since)s AND d.at < %(until)s AND (o.of_all OR d.model = ANY (%(models)s))) l
 GROUP BY of_all, model;
