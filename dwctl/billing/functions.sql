-- What calls hold of balances and caps, and what capped keys have spent. Migrations freeze copies; a test compares. (Balances themselves are changed
-- by the statements that write down calls, analytics/queries.sql, and by grants, queries.sql.)
--
-- Locks: reservations in the order of their ids, then balances in that of their accounts, then spend in that of its keys; whoever writes down calls
-- has the rows of the queue before these. Each statement sees what was committed before it began: what is read after a lock is the latest.

-- How much money there is, roughly: 0 none, 1 below 1 USD, 2 below 10, ... Routing hears when an account comes to another level, and of nothing else.
CREATE OR REPLACE FUNCTION funds_level(balance numeric) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN balance > 0 THEN 1 + width_bucket(balance, '{1,10,100,1000,10000,100000,1000000}'::numeric[]) ELSE 0 END
$$;

-- Since when a cap counts that begins anew every day, week (on Mondays) or month, in UTC; one that never does counts since 1970.
CREATE OR REPLACE FUNCTION spend_window(begins_anew text, at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE begins_anew WHEN 'daily' THEN date_trunc('day', at, 'UTC') WHEN 'weekly' THEN date_trunc('week', at, 'UTC')
                            WHEN 'monthly' THEN date_trunc('month', at, 'UTC') ELSE timestamptz '1970-01-01Z' END
$$;

-- Reservations of calls that have ended, deleted. Their sums are the caller's to take off: first those of balances, then (`count_spent`) those of caps.
CREATE OR REPLACE FUNCTION let_go_credit(ended uuid[]) RETURNS SETOF credit_reservations LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM credit_reservations r WHERE r.request_id = ANY (ended) ORDER BY r.request_id FOR UPDATE;
    RETURN QUERY DELETE FROM credit_reservations r WHERE r.request_id = ANY (ended) RETURNING r.*;
END $$;

-- What keys with a cap have spent more, and hold less. A change has a time (of a charge) or the window of a reservation. Whoever calls has locked
-- the balances of their accounts: caps are read after that, as whoever sets one counts while it has that lock.
CREATE OR REPLACE FUNCTION count_spent(changes spend_change[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    counted int;
BEGIN
    INSERT INTO api_key_spend AS s (api_key_id, window_start, spent, reserved)
    SELECT n.api_key_id, n.start, sum(n.spent), sum(n.let_go)
      FROM (SELECT c.api_key_id, c.spent, c.let_go, coalesce(c.window_start, spend_window(k.spend_limit_interval, c.at)) AS start
              FROM unnest(changes) c JOIN api_keys k ON k.id = c.api_key_id
             WHERE c.window_start IS NOT NULL OR k.spend_limit IS NOT NULL) n
     GROUP BY n.api_key_id, n.start ORDER BY n.api_key_id, n.start
    -- A row holds no less than what its reservations say, so what is let go is never inserted.
    ON CONFLICT (api_key_id, window_start) DO UPDATE SET spent = s.spent + EXCLUDED.spent, reserved = s.reserved - EXCLUDED.reserved;
    GET DIAGNOSTICS counted = ROW_COUNT;
    RETURN counted;
END $$;

-- Hold part of a balance, of what a capped key may spend, or of both, for calls that are about to run: all that a call needs, or nothing. One whose
-- request does not say how much that is (not is_bounded) holds what there is where that is less: so it runs, and nothing else beside it.
--   me      the process that runs them; let_go: calls of its that end without a record, or null
--   wanted  {id, user_id, amount, is_bounded, of_balance, api_key_id (null: it has no cap)}; one that holds something already holds this instead
--   lasts_s for how long, at most
-- Gives for each wanted call, in their order, what refused it (`credit`, `cap`, or null), and how things stood: balance, what of it was reserved,
-- what the key has spent, what of its cap was reserved, its cap, and when that begins anew.
CREATE OR REPLACE FUNCTION hold_credit(me uuid, let_go uuid[], wanted json, lasts_s double precision)
RETURNS TABLE (id uuid, refused_by text, balance numeric, reserved numeric, spent numeric, spend_reserved numeric, spend_limit numeric,
               begins_anew text)
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    calls uuid[] := ARRAY(SELECT w.id FROM json_to_recordset(wanted) w(id uuid));
    gone credit_reservations[];
    users uuid[]; balances numeric[]; held numeric[];
    keys uuid[]; windows timestamptz[]; spents numeric[]; spend_held numeric[];
    capped uuid[]; caps numeric[]; intervals text[]; present timestamptz[];
    t timestamptz := clock_timestamp();
    one record; old credit_reservations;
    amount numeric;
    u int; c int; s int;
BEGIN
    PERFORM FROM credit_reservations r WHERE r.request_id = ANY (let_go || calls) ORDER BY r.request_id FOR UPDATE;
    WITH deleted AS (
        DELETE FROM credit_reservations r
         WHERE r.request_id = ANY (calls) OR (r.request_id = ANY (let_go) AND r.process_id = me)
        RETURNING r
    )
    SELECT array_agg(d.r) INTO gone FROM deleted d;
    SELECT array_agg(l.user_id), array_agg(l.balance), array_agg(l.reserved) INTO users, balances, held
      FROM (SELECT b.user_id, b.balance, b.reserved FROM user_balance_checkpoints b
             WHERE b.user_id = ANY (ARRAY(SELECT w.user_id FROM json_to_recordset(wanted) w(user_id uuid, of_balance boolean) WHERE w.of_balance
                                          UNION SELECT g.user_id FROM unnest(gone) g WHERE g.of_balance))
             ORDER BY b.user_id FOR NO KEY UPDATE) l;
    SELECT array_agg(k.id), array_agg(k.spend_limit), array_agg(k.spend_limit_interval), array_agg(spend_window(k.spend_limit_interval, t))
      INTO capped, caps, intervals, present
      FROM api_keys k
     WHERE k.spend_limit IS NOT NULL AND k.id = ANY (ARRAY(SELECT w.api_key_id FROM json_to_recordset(wanted) w(api_key_id uuid)));
    IF capped IS NOT NULL OR gone IS NOT NULL THEN
        INSERT INTO api_key_spend (api_key_id, window_start)
        SELECT n.key, n.start FROM unnest(capped, present) n(key, start) ORDER BY n.key, n.start
        ON CONFLICT DO NOTHING;
        SELECT array_agg(l.api_key_id), array_agg(l.window_start), array_agg(l.spent), array_agg(l.reserved)
          INTO keys, windows, spents, spend_held
          FROM (SELECT x.* FROM api_key_spend x
                 WHERE (x.api_key_id, x.window_start) IN (SELECT n.key, n.start FROM unnest(capped, present) n(key, start)
                                                          UNION SELECT g.api_key_id, g.window_start FROM unnest(gone) g
                                                          -- What runs since an earlier window may end, and be charged, in this one.
                                                          UNION SELECT o.api_key_id, o.window_start FROM api_key_spend o
                                                                 WHERE o.api_key_id = ANY (capped) AND o.reserved > 0)
                 ORDER BY x.api_key_id, x.window_start FOR NO KEY UPDATE) l;
    END IF;

    FOREACH old IN ARRAY coalesce(gone, '{}') LOOP
        IF old.of_balance THEN
            u := array_position(users, old.user_id);
            held[u] := held[u] - old.amount;
        END IF;
        FOR s IN 1 .. coalesce(cardinality(keys), 0) LOOP
            IF keys[s] = old.api_key_id AND windows[s] = old.window_start THEN
                spend_held[s] := spend_held[s] - old.amount;
            END IF;
        END LOOP;
    END LOOP;

    FOR one IN SELECT w.* FROM json_to_recordset(wanted) w(id uuid, user_id uuid, amount numeric, is_bounded boolean, of_balance boolean, api_key_id uuid) LOOP
        id := one.id;
        refused_by := NULL;
        u := array_position(users, one.user_id);
        balance := coalesce(balances[u], 0);
        reserved := coalesce(held[u], 0);
        c := array_position(capped, one.api_key_id);
        s := NULL;
        spend_reserved := 0;
        FOR k IN 1 .. coalesce(cardinality(keys), 0) LOOP
            IF keys[k] = one.api_key_id THEN
                spend_reserved := spend_reserved + spend_held[k];
                IF windows[k] = present[c] THEN
                    s := k;
                END IF;
            END IF;
        END LOOP;
        spent := spents[s];
        spend_limit := caps[c];
        begins_anew := intervals[c];
        amount := one.amount;
        IF NOT one.is_bounded THEN
            amount := least(amount, CASE WHEN one.of_balance AND balance > reserved THEN balance - reserved END,
                            CASE WHEN spend_limit > spent + spend_reserved THEN spend_limit - spent - spend_reserved END);
        END IF;
        IF one.of_balance AND balance - reserved < amount THEN
            refused_by := 'credit';
        ELSIF spent + spend_reserved + amount > spend_limit THEN
            refused_by := 'cap';
        ELSIF one.of_balance OR s IS NOT NULL THEN
            INSERT INTO credit_reservations (request_id, user_id, amount, of_balance, api_key_id, window_start, process_id, expires_at)
            VALUES (one.id, one.user_id, amount, one.of_balance, keys[s], windows[s], me, t + lasts_s * interval '1 second');
            IF one.of_balance THEN
                held[u] := held[u] + amount;
            END IF;
            IF s IS NOT NULL THEN
                spend_held[s] := spend_held[s] + amount;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;

    UPDATE user_balance_checkpoints b SET reserved = n.held FROM unnest(users, held) n(id, held)
     WHERE b.user_id = n.id AND b.reserved <> n.held;
    UPDATE api_key_spend x SET reserved = n.held FROM unnest(keys, windows, spend_held) n(key, start, held)
     WHERE x.api_key_id = n.key AND x.window_start = n.start AND x.reserved <> n.held;
END $$;

-- What processes hold that are dead, and what nobody has let go for too long. A process that turns out to be alive settles as exactly as if it still
-- held something. Gives how many reservations were let go.
CREATE OR REPLACE FUNCTION free_credit(most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    lost uuid[] := ARRAY(
        SELECT r.request_id FROM credit_reservations r
         WHERE r.expires_at < clock_timestamp()
            OR NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = r.process_id AND d.status <> 'dead')
         ORDER BY r.request_id LIMIT most FOR UPDATE SKIP LOCKED);
    gone credit_reservations[];
BEGIN
    IF lost = '{}' THEN
        RETURN 0;
    END IF;
    SELECT array_agg(g) INTO gone FROM let_go_credit(lost) g;
    PERFORM FROM user_balance_checkpoints b WHERE b.user_id IN (SELECT g.user_id FROM unnest(gone) g) ORDER BY b.user_id FOR NO KEY UPDATE;
    UPDATE user_balance_checkpoints b SET reserved = b.reserved - n.total
      FROM (SELECT g.user_id, sum(g.amount) AS total FROM unnest(gone) g WHERE g.of_balance GROUP BY g.user_id) n
     WHERE b.user_id = n.user_id;
    PERFORM count_spent(array_agg(ROW(g.api_key_id, NULL, g.window_start, 0, g.amount)::spend_change)) FROM unnest(gone) g
     WHERE g.api_key_id IS NOT NULL HAVING count(*) > 0;
    RETURN cardinality(lost);
END $$;

-- A key gets a cap, or one that begins anew at other times: what it has spent by now counts. From now on its account counts what its keys spend;
-- nothing of it is charged meanwhile.
CREATE OR REPLACE FUNCTION count_spend() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := spend_window(NEW.spend_limit_interval, clock_timestamp());
BEGIN
    INSERT INTO user_balance_checkpoints AS b (user_id, counts_spend) VALUES (NEW.user_id, true)
    ON CONFLICT (user_id) DO UPDATE SET counts_spend = true;
    INSERT INTO api_key_spend (api_key_id, window_start) VALUES (NEW.id, start) ON CONFLICT DO NOTHING;
    PERFORM FROM api_key_spend s WHERE s.api_key_id = NEW.id AND s.window_start = start FOR NO KEY UPDATE;
    UPDATE api_key_spend s
       SET spent = (SELECT coalesce(sum(e.amount), 0) FROM credits_transactions e
                     WHERE e.user_id = NEW.user_id AND e.transaction_type = 'usage' AND e.api_key_id = NEW.id AND e.created_at >= start),
           reserved = (SELECT coalesce(sum(r.amount), 0) FROM credit_reservations r WHERE r.api_key_id = NEW.id AND r.window_start = start)
     WHERE s.api_key_id = NEW.id AND s.window_start = start;
    RETURN NULL;
END $$;
