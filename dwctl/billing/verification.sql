-- What must hold of money, each as a statement that gives what does not: (subject, expected, found). All of them see one moment. `repair_...` sets
-- right what the check of that name has found of one subject, in a transaction that has locked the account (`lock_...`) first.

-- name: balance  every balance is the signed sum of its account's entries
SELECT user_id::text AS subject, coalesce(l.total, 0) AS expected, coalesce(b.balance, 0) AS found
  FROM (SELECT user_id, sum(CASE WHEN transaction_type IN ('purchase', 'admin_grant') THEN amount ELSE -amount END) AS total
          FROM credits_transactions GROUP BY user_id) l
  FULL JOIN user_balance_checkpoints b USING (user_id)
 WHERE coalesce(l.total, 0) <> coalesce(b.balance, 0);

-- name: reserved  what is reserved of a balance is the sum of the account's reservations
SELECT user_id::text AS subject, coalesce(r.total, 0) AS expected, coalesce(b.reserved, 0) AS found
  FROM (SELECT user_id, sum(amount) AS total FROM credit_reservations WHERE of_balance GROUP BY user_id) r
  FULL JOIN (SELECT user_id, reserved FROM user_balance_checkpoints WHERE reserved <> 0) b USING (user_id)
 WHERE coalesce(r.total, 0) <> coalesce(b.reserved, 0);

-- name: lock_account  nothing of it is charged or held meanwhile
INSERT INTO user_balance_checkpoints (user_id) VALUES (%(subject)s::uuid)
ON CONFLICT (user_id) DO UPDATE SET reserved = user_balance_checkpoints.reserved;

-- name: repair_account  balance and reserved, summed up anew
UPDATE user_balance_checkpoints b
   SET balance = (SELECT coalesce(sum(CASE WHEN e.transaction_type IN ('purchase', 'admin_grant') THEN e.amount ELSE -e.amount END), 0)
                    FROM credits_transactions e WHERE e.user_id = b.user_id),
       reserved = (SELECT coalesce(sum(r.amount), 0) FROM credit_reservations r WHERE r.user_id = b.user_id AND r.of_balance),
       updated_at = now()
 WHERE b.user_id = %(subject)s::uuid;

-- name: spend  what a capped key has spent in the present window is the sum of its entries
SELECT k.id::text AS subject, coalesce(e.total, 0) AS expected, coalesce(s.spent, 0) AS found
  FROM api_keys k
  CROSS JOIN LATERAL (SELECT spend_window(k.spend_limit_interval, clock_timestamp()) AS start) w
  LEFT JOIN api_key_spend s ON s.api_key_id = k.id AND s.window_start = w.start
  CROSS JOIN LATERAL (SELECT sum(t.amount) AS total FROM credits_transactions t
                       WHERE t.user_id = k.user_id AND t.transaction_type = 'usage' AND t.api_key_id = k.id AND t.created_at >= w.start) e
 WHERE k.spend_limit IS NOT NULL AND coalesce(e.total, 0) <> coalesce(s.spent, 0);

-- name: spend_reserved  what is reserved of caps is the sum of their reservations
SELECT coalesce(r.api_key_id, s.api_key_id)::text AS subject, coalesce(r.total, 0) AS expected, coalesce(s.reserved, 0) AS found
  FROM (SELECT api_key_id, window_start, sum(amount) AS total FROM credit_reservations WHERE api_key_id IS NOT NULL GROUP BY 1, 2) r
  FULL JOIN (SELECT api_key_id, window_start, reserved FROM api_key_spend WHERE reserved <> 0) s USING (api_key_id, window_start)
 WHERE coalesce(r.total, 0) <> coalesce(s.reserved, 0);

-- name: lock_account_of_key  and have it count, should it not
INSERT INTO user_balance_checkpoints (user_id, counts_spend)
SELECT user_id, spend_limit IS NOT NULL FROM api_keys WHERE id = %(subject)s::uuid
ON CONFLICT (user_id) DO UPDATE SET counts_spend = user_balance_checkpoints.counts_spend OR EXCLUDED.counts_spend;

-- name: repair_key  what it has spent in the present window, and what is reserved in any, summed up anew
WITH present AS (
    SELECT k.id, k.user_id, spend_window(k.spend_limit_interval, clock_timestamp()) AS start FROM api_keys k
     WHERE k.id = %(subject)s::uuid AND k.spend_limit IS NOT NULL
), counted AS (
    SELECT p.id, p.start, coalesce(sum(t.amount), 0) AS spent
      FROM present p LEFT JOIN credits_transactions t
        ON t.user_id = p.user_id AND t.transaction_type = 'usage' AND t.api_key_id = p.id AND t.created_at >= p.start
     GROUP BY p.id, p.start
), held AS (
    SELECT s.window_start, coalesce(sum(r.amount), 0) AS reserved
      FROM (SELECT window_start FROM api_key_spend WHERE api_key_id = %(subject)s::uuid UNION SELECT start FROM present) s
      LEFT JOIN credit_reservations r ON r.api_key_id = %(subject)s::uuid AND r.window_start = s.window_start
     GROUP BY s.window_start
)
INSERT INTO api_key_spend AS s (api_key_id, window_start, spent, reserved)
SELECT %(subject)s::uuid, h.window_start, coalesce(c.spent, 0), h.reserved FROM held h LEFT JOIN counted c ON c.start = h.window_start
ON CONFLICT (api_key_id, window_start) DO UPDATE SET reserved = EXCLUDED.reserved,
    spent = CASE WHEN EXISTS (SELECT FROM counted c WHERE c.start = EXCLUDED.window_start) THEN EXCLUDED.spent ELSE s.spent END;

-- name: charge  what a call was charged is what its log says it cost; calls of days that are not in the log any more are not looked at
WITH oldest AS (
    SELECT min(to_date(right(c.relname, 8), 'YYYYMMDD'))::timestamp AT TIME ZONE 'UTC' AS day
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'http_analytics'::regclass AND c.relname ~ '_p\d{8}$'
), charged AS (
    -- A line that its owner had run again is charged each time.
    SELECT split_part(source_id, '#', 1)::uuid AS id, sum(amount) AS total, min(fusillade_batch_id::text)::uuid AS batch_id
      FROM credits_transactions WHERE transaction_type = 'usage' AND source_id ~ '^[0-9a-f-]{36}(#[0-9]+)?$' GROUP BY 1
), logged AS (
    SELECT request_id AS id, sum(total_cost) AS total FROM http_analytics WHERE total_cost > 0 AND user_id IS NOT NULL GROUP BY request_id
)
SELECT x.id::text AS subject, coalesce(x.cost, 0) AS expected, coalesce(x.charge, 0) AS found
  FROM (SELECT id, l.total AS cost, c.total AS charge, c.batch_id FROM logged l FULL JOIN charged c USING (id)) x
  LEFT JOIN fusillade.batches b ON b.id = x.batch_id
 WHERE coalesce(x.cost, 0) <> coalesce(x.charge, 0)
   -- An id has the time at which its call came; a line's call counts as coming with its batch.
   AND (x.cost IS NOT NULL
        OR coalesce(b.created_at, to_timestamp(('x' || translate(left(x.id::text, 13), '-', ''))::bit(48)::bigint / 1000.0))
           >= (SELECT day FROM oldest));

-- name: batch_cost  what a batch has cost is the sum of its entries
SELECT batch_id::text AS subject, coalesce(e.total, 0) AS expected, coalesce(u.cost, 0) AS found
  FROM (SELECT fusillade_batch_id AS batch_id, sum(amount) AS total FROM credits_transactions
         WHERE transaction_type = 'usage' AND fusillade_batch_id IS NOT NULL GROUP BY 1) e
  FULL JOIN (SELECT batch_id, cost FROM batch_usage WHERE cost <> 0) u USING (batch_id)
 WHERE coalesce(e.total, 0) <> coalesce(u.cost, 0);

-- name: lock_batch
SELECT FROM batch_usage WHERE batch_id = %(subject)s::uuid FOR UPDATE;

-- name: repair_batch
UPDATE batch_usage SET cost = (SELECT coalesce(sum(amount), 0) FROM credits_transactions
                                WHERE transaction_type = 'usage' AND fusillade_batch_id = %(subject)s::uuid)
 WHERE batch_id = %(subject)s::uuid;

-- name: price  what a call cost is what its tokens come to at its prices; the system itself pays nothing
WITH parts AS (
    SELECT request_id, total_cost, prompt_tokens, completion_tokens, input_price_per_token AS input, output_price_per_token AS output,
           coalesce(cached_input_price_per_token, input_price_per_token) AS cached_input, least(cached_tokens, prompt_tokens) AS cached,
           coalesce(reasoning_price_per_token, output_price_per_token) AS reasoning, least(reasoning_tokens, completion_tokens) AS reasoned
      FROM http_analytics
     WHERE total_cost IS NOT NULL AND input_price_per_token IS NOT NULL AND user_id <> '00000000-0000-0000-0000-000000000000'
), priced AS (
    -- (What no column holds is charged as the most that one does.)
    SELECT request_id, total_cost, least((prompt_tokens - cached) * input + cached * cached_input
                                         + (completion_tokens - reasoned) * output + reasoned * reasoning, 999999999.999999999999999) AS cost
      FROM parts
)
SELECT request_id::text AS subject, cost AS expected, total_cost AS found FROM priced WHERE total_cost <> cost;
