-- The writes of the ledger that are no usage (those stand in analytics/queries.sql), and its check.

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

-- name: find_source  the entry that used a source first; seen by a statement of its own, because it may have just been committed
SELECT id FROM credits_transactions WHERE source_id = %(source_id)s;

-- name: reconcile  accounts whose balance is not the signed sum of their entries; one statement, so one moment
SELECT user_id, coalesce(l.total, 0) AS ledger, coalesce(b.balance, 0) AS balance
  FROM (SELECT user_id, sum(CASE WHEN transaction_type IN ('purchase', 'admin_grant') THEN amount ELSE -amount END) AS total
          FROM credits_transactions GROUP BY user_id) l
  FULL JOIN user_balance_checkpoints b USING (user_id)
 WHERE coalesce(l.total, 0) <> coalesce(b.balance, 0)
 ORDER BY user_id;

-- name: call_origins  where single calls came from, by the request ids that their entries carry; the times keep it to a few log partitions
SELECT request_id, request_origin, batch_sla FROM http_analytics
 WHERE request_id = ANY (%(ids)s::uuid[]) AND timestamp BETWEEN %(since)s AND %(until)s;
