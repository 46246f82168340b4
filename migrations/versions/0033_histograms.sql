-- How many calls took how long is one number: the digits at 10^(12 n) are those of slot n, of which a million million calls fit into one. So
-- PostgreSQL adds histograms as it adds numbers, and stores none of the zeros at either end.
CREATE TABLE latency_histograms (
    of_all boolean NOT NULL,
    model text NOT NULL,
    grain integer NOT NULL,
    bucket timestamptz NOT NULL,
    durations numeric NOT NULL,
    ttfbs numeric NOT NULL,
    CONSTRAINT latency_histograms_pkey PRIMARY KEY (of_all, model, grain, bucket),
    CONSTRAINT latency_histograms_grain_check CHECK (grain IN (60, 3600, 86400)),
    CONSTRAINT latency_histograms_of_all_check CHECK (NOT of_all OR model = '')
) WITH (fillfactor = 70);
CREATE INDEX latency_histograms_grain_idx ON latency_histograms (grain, bucket);

CREATE FUNCTION slot_histogram(slot smallint, calls bigint) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT calls * ('1e' || (12 * slot)::text)::numeric
$$;

-- What a delta adds. Several calls at once come without the time of each; one that is taken back has times of the opposite sign.
CREATE FUNCTION latency_histogram(ms bigint, calls bigint) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN ms IS NULL OR abs(calls) <> 1 THEN 0 ELSE slot_histogram(latency_slot(abs(ms)), calls) END
$$;

-- Each digit of base 10^12 counts once in the rest by 10^12 - 1: that is how many calls there are in all slots.
CREATE FUNCTION histogram_calls(histogram numeric) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT histogram % 999999999999
$$;

-- With what was kept as a row for each slot before, until a duty has carried it over.
CREATE VIEW latencies AS
SELECT of_all, model, grain, bucket, durations, ttfbs FROM latency_histograms
UNION ALL
SELECT of_all, model, grain, bucket, CASE measure WHEN 'duration' THEN slot_histogram(slot, calls) ELSE 0 END,
       CASE measure WHEN 'ttfb' THEN slot_histogram(slot, calls) ELSE 0 END
  FROM latency_rollups;
