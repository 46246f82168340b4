-- The writes of the ledger that are no usage (those stand in analytics/queries.sql), and what is held for calls.

-- name: grant  one entry together with its balance; no row where the source is used already or the account unknown
WITH entry AS (
    INSERT INTO credits_transactions (user_id, transaction_type, amount, source_id, description, created_by)
    SELECT u.id, %(transaction_type)s::text, %(amount)s::numeric, %(source_id)s::text, %(description)s::text, %(granted_by)s::uuid
      FROM users u
     WHERE u.id = %(user_id)s::uuid AND NOT u.is_deleted AND NOT u.is_internal
    ON CONFLICT (source_id) DO NOTHING
    RETURNING id, user_id, seq, CASE WHEN transaction_type IN ('purchase', 'admin_grant') THEN amount ELSE -amount END AS signed
), changed AS (
    INSERT INTO user_balance_checkpoints AS b (user_id, checkpoint_seq, balance)
    SELECT user_id, seq, signed FROM entry
    ON CONFLICT (user_id) DO UPDATE SET balance = b.balance + EXCLUDED.balance,
        checkpoint_seq = greatest(b.checkpoint_seq, EXCLUDED.checkpoint_seq), updated_at = now()
)
SELECT id FROM entry;

-- name: balance  of one account
SELECT balance FROM user_balance_checkpoints WHERE user_id = %(user_id)s;

-- name: find_source  the entry that used a source first; seen by a statement of its own, because it may have just been committed
SELECT id FROM credits_transactions WHERE source_id = %(source_id)s;

-- name: tariffs_in_force  of some models (what `Tariff.is_active` says), by purpose, window and name
SELECT deployed_model_id, id::text, name, input_price_per_token, output_price_per_token, cached_input_price_per_token, reasoning_price_per_token,
       api_key_purpose, completion_window, valid_from, valid_until
  FROM model_tariffs
 WHERE deployed_model_id = ANY (%(ids)s) AND valid_from <= statement_timestamp() AND (valid_until IS NULL OR valid_until > statement_timestamp())
 ORDER BY api_key_purpose NULLS LAST, completion_window NULLS LAST, name, id;

-- name: call_origins  where single calls came from, by the request ids that their entries carry; the times keep it to a few log partitions
SELECT request_id, request_origin, batch_sla FROM http_analytics
 WHERE request_id = ANY (%(ids)s::uuid[]) AND timestamp BETWEEN %(since)s AND %(until)s;

-- name: hold_credit  let go, and hold, for a group of calls (functions.sql)
SELECT * FROM hold_credit(%(me)s, %(let_go)s::uuid[], %(wanted)s::json, %(lasts_s)s);

-- name: free_credit  what dead processes hold, and what nobody has let go
SELECT free_credit(%(most)s);

-- name: purge_spend  what keys have spent in windows that nobody asks for any more
DELETE FROM api_key_spend WHERE (api_key_id, window_start) IN (
    SELECT api_key_id, window_start FROM api_key_spend
     WHERE reserved = 0 AND window_start > '1970-01-01Z' AND window_start < now() - interval '400 days' LIMIT %(most)s FOR UPDATE SKIP LOCKED);
