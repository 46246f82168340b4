-- Calls of one account by one key on any model with any status: who called is told from a thirtieth of the sums by model.
CREATE TABLE caller_rollups (
    user_id uuid NOT NULL,
    grain integer NOT NULL,
    bucket timestamptz NOT NULL,
    api_key_id uuid NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    total_tokens bigint NOT NULL,
    cost numeric(30, 15) NOT NULL,
    duration_ms bigint NOT NULL,
    CONSTRAINT caller_rollups_grain_check CHECK (grain IN (60, 3600, 86400))
) WITH (fillfactor = 70);

-- Whoever folds writes `account_rollups`, processes of the release before, too; what that changes comes here in the same transaction.
-- (Sums that are deleted as too old are none: they are deleted here as well, by their age.)
CREATE FUNCTION add_to_callers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO caller_rollups AS r (user_id, grain, bucket, api_key_id, calls, errors, prompt_tokens, completion_tokens, reasoning_tokens,
        cached_tokens, total_tokens, cost, duration_ms)
    SELECT user_id, grain, bucket, api_key_id, sum(calls), coalesce(sum(calls) FILTER (WHERE status_code NOT BETWEEN 200 AND 299), 0),
           sum(prompt_tokens), sum(completion_tokens), sum(reasoning_tokens), sum(cached_tokens), sum(total_tokens), sum(cost), sum(duration_ms)
      FROM added WHERE grain > 0 GROUP BY 1, 2, 3, 4
    ON CONFLICT (user_id, grain, bucket, api_key_id) DO UPDATE SET
        calls = r.calls + EXCLUDED.calls, errors = r.errors + EXCLUDED.errors, prompt_tokens = r.prompt_tokens + EXCLUDED.prompt_tokens,
        completion_tokens = r.completion_tokens + EXCLUDED.completion_tokens, reasoning_tokens = r.reasoning_tokens + EXCLUDED.reasoning_tokens,
        cached_tokens = r.cached_tokens + EXCLUDED.cached_tokens, total_tokens = r.total_tokens + EXCLUDED.total_tokens,
        cost = r.cost + EXCLUDED.cost, duration_ms = r.duration_ms + EXCLUDED.duration_ms;
    RETURN NULL;
END $$;

CREATE FUNCTION change_callers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO caller_rollups AS r (user_id, grain, bucket, api_key_id, calls, errors, prompt_tokens, completion_tokens, reasoning_tokens,
        cached_tokens, total_tokens, cost, duration_ms)
    SELECT user_id, grain, bucket, api_key_id, sum(sign * calls), coalesce(sum(sign * calls) FILTER (WHERE status_code NOT BETWEEN 200 AND 299), 0),
           sum(sign * prompt_tokens), sum(sign * completion_tokens), sum(sign * reasoning_tokens), sum(sign * cached_tokens),
           sum(sign * total_tokens), sum(sign * cost), sum(sign * duration_ms)
      FROM (SELECT 1 AS sign, * FROM added UNION ALL SELECT -1, * FROM gone) s WHERE grain > 0 GROUP BY 1, 2, 3, 4
    ON CONFLICT (user_id, grain, bucket, api_key_id) DO UPDATE SET
        calls = r.calls + EXCLUDED.calls, errors = r.errors + EXCLUDED.errors, prompt_tokens = r.prompt_tokens + EXCLUDED.prompt_tokens,
        completion_tokens = r.completion_tokens + EXCLUDED.completion_tokens, reasoning_tokens = r.reasoning_tokens + EXCLUDED.reasoning_tokens,
        cached_tokens = r.cached_tokens + EXCLUDED.cached_tokens, total_tokens = r.total_tokens + EXCLUDED.total_tokens,
        cost = r.cost + EXCLUDED.cost, duration_ms = r.duration_ms + EXCLUDED.duration_ms;
    RETURN NULL;
END $$;

-- Who folds waits from here to the end; calls and readers do not.
CREATE TRIGGER callers_added AFTER INSERT ON account_rollups REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION add_to_callers();
CREATE TRIGGER callers_changed AFTER UPDATE ON account_rollups REFERENCING OLD TABLE AS gone NEW TABLE AS added FOR EACH STATEMENT
    EXECUTE FUNCTION change_callers();

INSERT INTO caller_rollups (user_id, grain, bucket, api_key_id, calls, errors, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens,
    total_tokens, cost, duration_ms)
SELECT user_id, grain, bucket, api_key_id, sum(calls), coalesce(sum(calls) FILTER (WHERE status_code NOT BETWEEN 200 AND 299), 0),
       sum(prompt_tokens), sum(completion_tokens), sum(reasoning_tokens), sum(cached_tokens), sum(total_tokens), sum(cost), sum(duration_ms)
  FROM account_rollups WHERE grain > 0 GROUP BY 1, 2, 3, 4 ORDER BY 3;
ALTER TABLE caller_rollups ADD CONSTRAINT caller_rollups_pkey PRIMARY KEY (user_id, grain, bucket, api_key_id);
CREATE INDEX caller_rollups_grain_idx ON caller_rollups (grain, bucket);
CREATE INDEX caller_rollups_key_idx ON caller_rollups (api_key_id, grain, bucket);
ANALYZE caller_rollups;
