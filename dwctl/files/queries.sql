-- Statements of the files room. What writes files stands in queue/batches.sql; here it is called.

-- name: expire_files  files past their time, some at a time
SELECT fusillade.expire_files(%(grace_s)s, %(most)s);

-- name: purge_templates  lines of deleted files, some at a time
SELECT fusillade.purge_templates(%(most)s);

-- name: purge_requests  requests of deleted batches, some at a time
SELECT fusillade.purge_requests(%(wait_s)s, %(most)s);

-- name: purge_uploads  lines of uploads that were given up, some at a time
SELECT fusillade.purge_uploads(%(silent_s)s, %(most)s);

-- name: count_file  what an upload has counted already, for a file that was written by hand
SELECT fusillade.count_file(%(file)s);

-- name: estimate  what a file asks of each model, with the model's tariffs and what its answers were like lately
--   Lately: the hundred newest hours that have an answer; the log itself has no index by model. Both ends of the walk are given with the model,
--   because for an equal sign the planner may walk all models by time.
SELECT f.model, f.requests, f.bytes, m.id IS NOT NULL AS known, m.type, h.completion_tokens, h.calls,
       (SELECT json_agg(json_build_object('id', t.id, 'input', t.input_price_per_token::text, 'output', t.output_price_per_token::text,
                                          'cached_input', t.cached_input_price_per_token::text, 'reasoning', t.reasoning_price_per_token::text,
                                          'purpose', t.api_key_purpose, 'window', t.completion_window,
                                          'valid_from', t.valid_from, 'valid_until', t.valid_until))
          FROM model_tariffs t
         WHERE t.deployed_model_id = m.id AND t.valid_from <= now() AND (t.valid_until IS NULL OR t.valid_until > now())) AS tariffs
  FROM (SELECT model, sum(requests)::bigint AS requests, sum(bytes)::bigint AS bytes
          FROM fusillade.file_models WHERE file_id = %(file)s GROUP BY model) f
  LEFT JOIN deployed_models m ON m.alias = f.model AND NOT m.deleted
  LEFT JOIN LATERAL (
       SELECT sum(s.completion_tokens)::bigint AS completion_tokens, sum(s.calls)::bigint AS calls
         FROM (SELECT u.completion_tokens, u.calls FROM model_rollups u
                WHERE u.of_all = false AND (u.model, u.grain, u.bucket) >= (f.model, 3600, '-infinity') AND (u.model, u.grain, u.bucket) <= (f.model, 3600, 'infinity')
                  AND u.status_code BETWEEN 200 AND 299 AND u.calls > 0
                ORDER BY u.model DESC, u.grain DESC, u.bucket DESC LIMIT 100) s) h ON true
 ORDER BY f.model;

-- name: usable_models  the models that an account may use by its groups, with what checks of requests must know of them
WITH usable AS (
    SELECT m.id, m.alias, m.type, m.is_composite, coalesce(m.open_responses_adapter, true) AS adapter, m.refuse_unrunnable_tools
      FROM deployed_models m
     WHERE NOT m.deleted AND m.status = 'active' AND EXISTS (
               SELECT FROM deployment_groups g
                WHERE g.deployment_id = m.id
                  AND (g.group_id = '00000000-0000-0000-0000-000000000000'
                       OR g.group_id IN (SELECT u.group_id FROM user_groups u WHERE u.user_id = %(owner)s)))
)
SELECT u.alias, u.type, u.refuse_unrunnable_tools,
       CASE WHEN NOT u.is_composite THEN ARRAY[u.adapter]
            ELSE (SELECT array_agg(DISTINCT coalesce(m.open_responses_adapter, true))
                    FROM deployed_model_components c JOIN deployed_models m ON m.id = c.deployed_model_id
                   WHERE c.composite_model_id = u.id AND c.enabled AND NOT m.deleted AND m.status = 'active') END AS adapted,
       u.adapter
  FROM usable u;

-- name: copy_lines  some lines of a file that is being uploaded (text format; see `storing`)
COPY fusillade.request_templates (id, line_number, custom_id, path, model, body_byte_size, method, file_id, endpoint, body) FROM STDIN;

-- name: stored_ids  the custom ids of some lines of a file, in their order
SELECT line_number, custom_id FROM fusillade.request_templates
 WHERE file_id = %(file)s AND NOT single AND line_number >= %(first)s
 ORDER BY line_number LIMIT %(most)s;

-- name: take_newcomers  people who wait for sample files, some at a time, and whether they could do anything with them
WITH taken AS (
    DELETE FROM newcomers WHERE user_id IN (SELECT user_id FROM newcomers ORDER BY created_at LIMIT %(most)s FOR UPDATE SKIP LOCKED)
    RETURNING user_id, api_key_id
)
SELECT t.user_id, t.api_key_id FROM taken t JOIN users u ON u.id = t.user_id AND NOT u.is_deleted
 WHERE u.is_admin OR EXISTS (SELECT FROM user_roles r WHERE r.user_id = u.id AND r.role IN ('BATCHAPIUSER', 'PLATFORMMANAGER'));

-- name: sampled_models  the first model of each kind that an account may use
SELECT min(m.alias) FILTER (WHERE m.type = 'CHAT') AS chat, min(m.alias) FILTER (WHERE m.type = 'EMBEDDINGS') AS embeddings,
       min(m.alias) FILTER (WHERE m.type = 'CHAT' AND 'vision' = ANY (m.capabilities)) AS vision
  FROM deployed_models m WHERE m.alias = ANY (%(usable)s) AND NOT m.deleted;
