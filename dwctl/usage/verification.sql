-- What must hold of the sums, each as a statement that gives what does not: (subject, expected, found). All of them see one moment.

-- name: usage  what an account's days add up to, deltas with it, is what the log has of them; days that are not in the log any more are not looked at
WITH oldest AS (
    SELECT greatest(min(to_date(right(c.relname, 8), 'YYYYMMDD'))::timestamp AT TIME ZONE 'UTC', (SELECT since FROM rollup_grains WHERE grain = 86400)) AS day
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'http_analytics'::regclass AND c.relname ~ '_p\d{8}$'
), summed AS (
    SELECT user_id, day, sum(calls) AS calls, sum(tokens) AS tokens, sum(cost) AS cost, sum(duration_ms) AS duration_ms
      FROM (SELECT user_id, bucket AS day, calls, prompt_tokens + completion_tokens AS tokens, cost, duration_ms FROM account_rollups WHERE grain = 86400
            UNION ALL
            SELECT user_id, date_bin('1 day', at, 'epoch'), calls, prompt_tokens + completion_tokens, cost, duration_ms FROM usage_deltas) s
     WHERE day >= (SELECT o.day FROM oldest o) GROUP BY 1, 2
), logged AS (
    SELECT coalesce(user_id, '00000000-0000-0000-0000-000000000000') AS user_id, date_bin('1 day', timestamp, 'epoch') AS day, count(*) AS calls,
           sum(prompt_tokens + completion_tokens) AS tokens, sum(coalesce(total_cost, 0)) AS cost, sum(duration_ms) AS duration_ms
      FROM http_analytics WHERE timestamp >= (SELECT o.day FROM oldest o) GROUP BY 1, 2
)
SELECT user_id || ' ' || (day AT TIME ZONE 'UTC')::date || ' ' || what AS subject, expected, found
  FROM (SELECT user_id, day, v.what, coalesce(v.expected, 0) AS expected, coalesce(v.found, 0) AS found
          FROM logged l FULL JOIN summed s USING (user_id, day)
          CROSS JOIN LATERAL (VALUES ('calls', l.calls::numeric, s.calls::numeric), ('tokens', l.tokens, s.tokens), ('cost', l.cost, s.cost),
                                     ('duration_ms', l.duration_ms, s.duration_ms)) v(what, expected, found)) x
 WHERE expected <> found;

-- name: usage_models  sums by account and by model are of the same calls
SELECT a.grain || ' ' || (a.bucket AT TIME ZONE 'UTC') || ' ' || a.model || ' ' || a.status_code AS subject, a.calls AS expected, a.found
  FROM (SELECT grain, bucket, model, status_code, sum(calls)::numeric AS calls, sum(of_models)::numeric AS found, sum(cost) AS cost, sum(tokens) AS tokens
          FROM (SELECT grain, bucket, model, status_code, calls, 0 AS of_models, cost, total_tokens AS tokens FROM account_rollups
                UNION ALL
                SELECT grain, bucket, model, status_code, 0, calls, -cost, -total_tokens FROM model_rollups WHERE NOT of_all) s
         GROUP BY 1, 2, 3, 4) a
 WHERE a.calls <> a.found OR a.cost <> 0 OR a.tokens <> 0;

-- name: usage_callers  sums by account and key are those of its models
SELECT grain || ' ' || (bucket AT TIME ZONE 'UTC') || ' ' || user_id || ' ' || api_key_id AS subject, sum(calls)::numeric AS expected,
       sum(of_callers)::numeric AS found
  FROM (SELECT grain, bucket, user_id, api_key_id, calls, 0 AS of_callers, cost, total_tokens AS tokens, duration_ms FROM account_rollups WHERE grain > 0
        UNION ALL
        SELECT grain, bucket, user_id, api_key_id, 0, calls, -cost, -total_tokens, -duration_ms FROM caller_rollups) s
       JOIN rollup_grains g USING (grain)
 WHERE bucket >= g.since
 GROUP BY grain, bucket, user_id, api_key_id
HAVING sum(calls) <> sum(of_callers) OR sum(cost) <> 0 OR sum(tokens) <> 0 OR sum(duration_ms) <> 0;

-- name: usage_grains  hours are the sum of their minutes, days that of their hours, and all time that of all days, where all of them are kept
SELECT c.grain || ' ' || (c.bucket AT TIME ZONE 'UTC') || ' ' || c.model AS subject, c.calls AS expected, c.finer AS found
  FROM (SELECT grain, bucket, model, sum(calls)::numeric AS calls, sum(finer)::numeric AS finer, sum(cost) AS cost
          FROM (SELECT r.grain, r.bucket, r.model, r.calls, 0 AS finer, r.cost
                  FROM model_rollups r
                  JOIN rollup_grains f ON f.grain = CASE r.grain WHEN 0 THEN 86400 WHEN 86400 THEN 3600 WHEN 3600 THEN 60 END
                                      AND f.since <= r.bucket
                 WHERE NOT r.of_all
                UNION ALL
                SELECT o.grain, CASE WHEN o.grain = 0 THEN 'epoch' ELSE date_bin(make_interval(secs => o.grain), r.bucket, 'epoch') END, r.model, 0, r.calls, -r.cost
                  FROM model_rollups r
                  JOIN rollup_grains f ON f.grain = r.grain AND f.since <= r.bucket
                  JOIN rollup_grains o ON o.grain = CASE r.grain WHEN 60 THEN 3600 WHEN 3600 THEN 86400 WHEN 86400 THEN 0 END
                                      AND (o.grain > 0 OR f.since = 'epoch')
                 WHERE NOT r.of_all) s
         GROUP BY 1, 2, 3) c
 WHERE c.calls <> c.finer OR c.cost <> 0;

-- name: usage_of_all  sums of all models together are those of each model
SELECT grain || ' ' || (bucket AT TIME ZONE 'UTC') || ' ' || status_code AS subject, coalesce(sum(calls) FILTER (WHERE NOT of_all), 0)::numeric AS expected,
       coalesce(sum(calls) FILTER (WHERE of_all), 0)::numeric AS found
  FROM model_rollups GROUP BY grain, bucket, status_code
HAVING sum(CASE WHEN of_all THEN calls ELSE -calls END) <> 0 OR sum(CASE WHEN of_all THEN cost ELSE -cost END) <> 0
    OR sum(CASE WHEN of_all THEN total_tokens ELSE -total_tokens END) <> 0 OR sum(CASE WHEN of_all THEN duration_ms ELSE -duration_ms END) <> 0;

-- name: usage_latencies  times of all calls together are those of each model
SELECT grain || ' ' || (bucket AT TIME ZONE 'UTC') || ' ' || measure AS subject,
       histogram_calls(coalesce(sum(histogram) FILTER (WHERE NOT of_all), 0)) AS expected,
       histogram_calls(coalesce(sum(histogram) FILTER (WHERE of_all), 0)) AS found
  FROM latencies CROSS JOIN LATERAL (VALUES ('duration', durations), ('ttfb', ttfbs)) m(measure, histogram)
 GROUP BY grain, bucket, measure
HAVING sum(CASE WHEN of_all THEN histogram ELSE -histogram END) <> 0;
