-- What the routing snapshot is made of. Every statement takes ids (null: all of them), so that a reload reads only what changed.

-- name: snapshot_keys  API keys that let somebody in: not deleted, nor their owner or creator. The order of the columns is that of `key_rows.Row`
--   They are read in binary form: a real as text and on as double, so that 0.1 stays 0.1; ids as bytes, which are a third of what a UUID takes.
SELECT k.secret_hash, uuid_send(k.id), uuid_send(k.user_id), uuid_send(k.created_by), k.purpose, (o.is_admin OR EXISTS (
           SELECT FROM user_roles r WHERE r.user_id = o.id AND r.role = 'PLATFORMMANAGER')) AS sees_providers,
       extract(epoch FROM k.expires_at)::float8 AS expires_at,
       k.requests_per_second::text::float8 AS requests_per_second, k.burst_size, k.capacity, k.tokens_per_minute
  FROM api_keys k
  JOIN users o ON o.id = k.user_id AND NOT o.is_deleted
  JOIN users c ON c.id = k.created_by AND NOT c.is_deleted
 WHERE NOT k.is_deleted AND k.secret_hash IS NOT NULL
   AND (%(ids)s::uuid[] IS NULL OR k.id = ANY (%(ids)s));

-- name: snapshot_retired_secrets  earlier secrets of keys that were rotated, with the end of each
SELECT uuid_send(api_key_id), secret_hash, extract(epoch FROM expires_at)::float8
  FROM retired_api_key_secrets
 WHERE %(ids)s::uuid[] IS NULL OR api_key_id = ANY (%(ids)s)
 ORDER BY secret_hash;

-- name: snapshot_key_ids_of_users  the keys that a change of these users may open or close
SELECT id FROM api_keys WHERE user_id = ANY (%(ids)s) OR created_by = ANY (%(ids)s);

-- name: snapshot_key_by_hash  one key that the snapshot does not know (yet), as in `snapshot_keys`
SELECT k.secret_hash, uuid_send(k.id), uuid_send(k.user_id), uuid_send(k.created_by), k.purpose, (o.is_admin OR EXISTS (
           SELECT FROM user_roles r WHERE r.user_id = o.id AND r.role = 'PLATFORMMANAGER')) AS sees_providers,
       extract(epoch FROM k.expires_at)::float8 AS expires_at,
       k.requests_per_second::text::float8 AS requests_per_second, k.burst_size, k.capacity, k.tokens_per_minute
  FROM api_keys k
  JOIN users o ON o.id = k.user_id AND NOT o.is_deleted
  JOIN users c ON c.id = k.created_by AND NOT c.is_deleted
 WHERE NOT k.is_deleted AND k.id = coalesce(
           (SELECT id FROM api_keys WHERE secret_hash = %(hash)s),
           (SELECT api_key_id FROM retired_api_key_secrets WHERE secret_hash = %(hash)s));

-- name: snapshot_groups  the groups of each account, without Everyone (which has no rows)
SELECT user_id, array_agg(group_id) AS groups
  FROM user_groups
 WHERE %(ids)s::uuid[] IS NULL OR user_id = ANY (%(ids)s)
 GROUP BY user_id;

-- name: snapshot_capped  API keys with a limit on what they may spend
SELECT id FROM api_keys WHERE spend_limit IS NOT NULL;

-- name: snapshot_funded  accounts with money on them, and roughly how much (billing/levels.py)
SELECT user_id, funds_level(balance) FROM user_balance_checkpoints
 WHERE balance > 0 AND (%(ids)s::uuid[] IS NULL OR user_id = ANY (%(ids)s));

-- name: snapshot_keeping  accounts and keys of whose calls not the same is kept as of all others
SELECT id, zero_data_retention, log_sample FROM users
 WHERE (zero_data_retention OR log_sample IS NOT NULL) AND (%(ids)s::uuid[] IS NULL OR id = ANY (%(ids)s))
UNION ALL
SELECT id, zero_data_retention, log_sample FROM api_keys
 WHERE (zero_data_retention OR log_sample IS NOT NULL) AND (%(ids)s::uuid[] IS NULL OR id = ANY (%(ids)s));

-- name: snapshot_models  living, active models with their endpoint, grants, tariffs, rules and components; composite ones last
SELECT m.id, m.alias, m.model_name, m.type, m.created_at, m.is_composite, m.trusted, m.sanitize_responses,
       coalesce(m.open_responses_adapter, true) AS adapter, m.forward_service_tier,
       m.requests_per_second, m.burst_size, m.capacity, m.tokens_per_minute, m.batch_capacity,
       m.lb_strategy, m.fallback_enabled, m.fallback_on_rate_limit, m.fallback_on_status, m.fallback_with_replacement,
       m.fallback_max_attempts, m.refuse_unrunnable_tools, m.metadata,
       m.downstream_pricing_mode, m.downstream_input_price_per_token, m.downstream_output_price_per_token,
       e.id AS endpoint_id, e.name AS endpoint_name, e.url, e.api_key_sealed, e.auth_header_name, e.auth_header_prefix,
       e.connect_timeout_seconds, e.first_byte_timeout_seconds, e.idle_timeout_seconds, e.total_timeout_seconds,
       (SELECT array_agg(g.group_id) FROM deployment_groups g WHERE g.deployment_id = m.id) AS groups,
       (SELECT json_agg(json_build_object(
                   'id', t.id, 'input', t.input_price_per_token::text, 'output', t.output_price_per_token::text,
                   'cached_input', t.cached_input_price_per_token::text, 'reasoning', t.reasoning_price_per_token::text,
                   'purpose', t.api_key_purpose, 'window', t.completion_window,
                   'valid_from', t.valid_from, 'valid_until', t.valid_until) ORDER BY t.valid_from)
          FROM model_tariffs t
         -- Batches run, and are run again, at the price of the day on which they were made: for as long as their files are kept.
         WHERE t.deployed_model_id = m.id AND (t.valid_until IS NULL OR t.valid_until > now() - interval '70 days')) AS tariffs,
       (SELECT json_object_agg(r.api_key_purpose, json_build_object('action', r.action, 'target', x.alias))
          FROM model_traffic_rules r LEFT JOIN deployed_models x ON x.id = r.redirect_target_id AND NOT x.deleted
         WHERE r.deployed_model_id = m.id) AS rules,
       (SELECT json_agg(json_build_object('id', c.deployed_model_id, 'weight', c.weight, 'sort_order', c.sort_order)
                        ORDER BY c.sort_order, c.weight DESC, c.created_at, c.id)
          FROM deployed_model_components c
         WHERE c.composite_model_id = m.id AND c.enabled) AS components
  FROM deployed_models m
  LEFT JOIN inference_endpoints e ON e.id = m.hosted_on
 WHERE NOT m.deleted AND m.status = 'active'
   AND (%(ids)s::uuid[] IS NULL OR m.id = ANY (%(ids)s))
 ORDER BY m.is_composite;

-- name: snapshot_models_of_endpoints  the models that a change of these endpoints concerns
SELECT id FROM deployed_models WHERE hosted_on = ANY (%(ids)s);

-- name: snapshot_models_redirecting  the models whose rules lead to these
SELECT deployed_model_id AS id FROM model_traffic_rules WHERE redirect_target_id = ANY (%(ids)s);

-- name: snapshot_composites_of  the composite models that these are components of
SELECT composite_model_id AS id FROM deployed_model_components WHERE deployed_model_id = ANY (%(ids)s);

-- name: snapshot_mark  what this transaction sees, for the next reading; lost: the log of changes cannot say what is new since `seen`
SELECT pg_current_snapshot()::text AS seen, now() AS at,
       %(seen)s::text IS NULL
           -- Older changes are purged after an hour.
           OR %(at)s::timestamptz < now() - interval '30 minutes'
           -- Transactions were numbered further than they are now: another server, or one that was set back.
           OR pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax(%(seen)s::pg_snapshot) AS lost;

-- name: snapshot_changes  rows changed by transactions that `seen` did not see, by table (null: too many to name)
SELECT table_name,
       CASE WHEN count(*) <= %(most)s AND count(row_id) = count(*) THEN array_agg(DISTINCT row_id) END AS ids,
       extract(epoch FROM clock_timestamp() - min(at))::float8 AS age_s
  FROM routing_changes
 WHERE xid >= pg_snapshot_xmin(%(seen)s::pg_snapshot)::text::bigint
   AND NOT pg_visible_in_snapshot(xid::text::xid8, %(seen)s::pg_snapshot)
 GROUP BY table_name;

-- name: snapshot_counts  how many of each a snapshot must have
SELECT (SELECT count(*) FROM api_keys k
          JOIN users o ON o.id = k.user_id AND NOT o.is_deleted
          JOIN users c ON c.id = k.created_by AND NOT c.is_deleted
         WHERE NOT k.is_deleted AND k.secret_hash IS NOT NULL)
     + (SELECT count(*) FROM retired_api_key_secrets r
          JOIN api_keys k ON k.id = r.api_key_id AND NOT k.is_deleted AND k.secret_hash IS NOT NULL
          JOIN users o ON o.id = k.user_id AND NOT o.is_deleted
          JOIN users c ON c.id = k.created_by AND NOT c.is_deleted) AS keys,
       (SELECT count(DISTINCT user_id) FROM user_groups) AS groups,
       (SELECT count(*) FROM user_balance_checkpoints WHERE balance > 0) AS funded,
       (SELECT count(*) FROM users WHERE zero_data_retention OR log_sample IS NOT NULL)
     + (SELECT count(*) FROM api_keys WHERE zero_data_retention OR log_sample IS NOT NULL) AS keeping,
       (SELECT count(*) FROM deployed_models WHERE NOT deleted AND status = 'active') AS models;

-- name: forget_changes  the log of changes has done its work after an hour (see snapshot_mark)
DELETE FROM routing_changes WHERE id IN (
    SELECT id FROM routing_changes WHERE at < now() - interval '1 hour' ORDER BY at LIMIT %(most)s FOR UPDATE SKIP LOCKED);

-- name: note_key_use  these keys are in use; exact to five minutes, as elsewhere (identity/authentication.py)
UPDATE api_keys SET last_used = now() WHERE id IN (
    SELECT id FROM api_keys WHERE id = ANY (%(ids)s) AND (last_used IS NULL OR last_used < now() - interval '5 minutes')
     ORDER BY id FOR NO KEY UPDATE SKIP LOCKED);

-- name: group_names  for the metrics page, which knows groups by their ids
SELECT id, name FROM groups ORDER BY id LIMIT 10000;

-- name: model_throughputs  what operators expect of models, where they have said it
SELECT id, throughput::float8 FROM deployed_models WHERE NOT deleted AND throughput IS NOT NULL;
