-- What every call adds to the sums, until a duty has added it: a heap without an index, because each call writes here. `calls` is 1, -1 for
-- one that is taken back, and more for sums that were kept in another way before.
CREATE TABLE usage_deltas (
    at timestamptz NOT NULL,
    model text NOT NULL,
    user_id uuid NOT NULL,
    api_key_id uuid NOT NULL,
    status_code integer NOT NULL,
    calls bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    total_tokens bigint NOT NULL,
    cost numeric(24, 15) NOT NULL,
    duration_ms bigint NOT NULL,
    ttfb_ms bigint,
    CONSTRAINT usage_deltas_calls_check CHECK (calls <> 0),
    -- What no index takes would keep everything behind it from being added.
    CONSTRAINT usage_deltas_model_check CHECK (octet_length(model) <= 2048)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0);

-- Since when the sums of a grain (seconds; 0: of all time) are kept.
CREATE TABLE rollup_grains (
    grain integer NOT NULL,
    since timestamptz NOT NULL,
    CONSTRAINT rollup_grains_pkey PRIMARY KEY (grain),
    CONSTRAINT rollup_grains_grain_check CHECK (grain IN (0, 60, 3600, 86400)),
    CONSTRAINT rollup_grains_since_check CHECK (since = date_bin('1 day', since, 'epoch'))
);
INSERT INTO rollup_grains (grain, since) SELECT grain, 'epoch' FROM unnest('{0, 60, 3600, 86400}'::int[]) grain;

CREATE TABLE account_rollups (
    user_id uuid NOT NULL,
    grain integer NOT NULL,
    bucket timestamptz NOT NULL,
    model text NOT NULL,
    api_key_id uuid NOT NULL,
    status_code integer NOT NULL,
    calls bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    total_tokens bigint NOT NULL,
    cost numeric(30, 15) NOT NULL,
    duration_ms bigint NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT account_rollups_pkey PRIMARY KEY (user_id, grain, bucket, model, api_key_id, status_code),
    CONSTRAINT account_rollups_grain_check CHECK (grain IN (0, 60, 3600, 86400))
) WITH (fillfactor = 70);
CREATE INDEX account_rollups_model_idx ON account_rollups (model, grain, bucket);
CREATE INDEX account_rollups_grain_idx ON account_rollups (grain, bucket);

-- Of each model, and once more of all of them together: a series of those needs no model.
CREATE TABLE model_rollups (
    of_all boolean NOT NULL,
    model text NOT NULL,
    grain integer NOT NULL,
    bucket timestamptz NOT NULL,
    status_code integer NOT NULL,
    calls bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    total_tokens bigint NOT NULL,
    cost numeric(30, 15) NOT NULL,
    duration_ms bigint NOT NULL,
    ttfb_ms bigint NOT NULL,
    timed bigint NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT model_rollups_pkey PRIMARY KEY (of_all, model, grain, bucket, status_code),
    CONSTRAINT model_rollups_grain_check CHECK (grain IN (0, 60, 3600, 86400)),
    CONSTRAINT model_rollups_of_all_check CHECK (NOT of_all OR model = '')
) WITH (fillfactor = 70);
CREATE INDEX model_rollups_grain_idx ON model_rollups (grain, bucket);

-- How many calls took how long: of each model, and of all of them.
CREATE TABLE latency_rollups (
    of_all boolean NOT NULL,
    model text NOT NULL,
    grain integer NOT NULL,
    bucket timestamptz NOT NULL,
    measure text NOT NULL,
    slot smallint NOT NULL,
    calls bigint NOT NULL,
    CONSTRAINT latency_rollups_pkey PRIMARY KEY (of_all, model, grain, bucket, measure, slot),
    CONSTRAINT latency_rollups_grain_check CHECK (grain IN (60, 3600, 86400)),
    CONSTRAINT latency_rollups_measure_check CHECK (measure IN ('duration', 'ttfb')),
    CONSTRAINT latency_rollups_of_all_check CHECK (NOT of_all OR model = '')
) WITH (fillfactor = 70);
CREATE INDEX latency_rollups_grain_idx ON latency_rollups (grain, bucket);

-- The slot of a time in milliseconds: slot n holds what is above 1.1^(n-1) and not above 1.1^n.
CREATE FUNCTION latency_slot(ms bigint) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN ms <= 1 THEN 0 ELSE ceil(ln(ms::float8) / ln(1.1::float8)) END::smallint
$$;

-- An owner that turns out to be alive takes back the "interrupted" that was recorded for it; nothing of it stays counted.
DROP FUNCTION take_back_interruption(uuid, timestamptz);
CREATE FUNCTION take_back_interruption(call uuid, arrived timestamptz) RETURNS SETOF http_analytics LANGUAGE sql VOLATILE AS $$
    DELETE FROM http_analytics h
     WHERE h.request_id = call AND h.timestamp = arrived AND h.error_code = 'interrupted' AND coalesce(h.total_cost, 0) = 0
    RETURNING h.*
$$;

-- Sums by ten minutes become deltas. (Processes of the release before go on making some: `adopt` of a duty.) What failed has an unknown status, 0.
LOCK TABLE usage_rollups IN EXCLUSIVE MODE;
INSERT INTO usage_deltas (at, model, user_id, api_key_id, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens,
                          cached_tokens, total_tokens, cost, duration_ms)
SELECT least(greatest(u.last_at, u.bucket), u.bucket + interval '9 minutes 59.999999 seconds'), u.model, u.user_id,
       '00000000-0000-0000-0000-000000000000', s.status_code, s.calls,
       CASE WHEN s.main THEN u.prompt_tokens ELSE 0 END, CASE WHEN s.main THEN u.completion_tokens ELSE 0 END, 0, 0,
       CASE WHEN s.main THEN u.prompt_tokens + u.completion_tokens ELSE 0 END, CASE WHEN s.main THEN u.cost ELSE 0 END,
       CASE WHEN s.main THEN u.duration_ms ELSE 0 END
  FROM usage_rollups u
  CROSS JOIN LATERAL (VALUES (200, u.succeeded, true), (0, u.requests - u.succeeded, u.succeeded = 0)) s(status_code, calls, main)
 WHERE s.calls > 0;
TRUNCATE usage_rollups;
