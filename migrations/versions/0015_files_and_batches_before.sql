CREATE OR REPLACE FUNCTION fusillade.open_calls(given json) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    due uuid[];
BEGIN
    WITH c AS MATERIALIZED (
        SELECT * FROM json_to_recordset(given) AS c(
            id uuid, at timestamptz, file_id uuid, owner text, api_key_id uuid, path text, model text, request_body text,
            request_size bigint, tier text, sla text, expires_at timestamptz, daemon_id uuid, state text, metadata text,
            repeatable boolean, last_words text)
    ), templates AS (
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, at, at FROM c
        ON CONFLICT (id) DO NOTHING
    ), batches AS (
        INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, metadata)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at, coalesce(metadata::jsonb, '{}') FROM c
        ON CONFLICT (id) DO NOTHING
    ), opened AS (
        INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, daemon_id, claimed_at, started_at,
                                        created_at, updated_at)
        SELECT id, id, id, model, state, tier,
               CASE state WHEN 'processing' THEN daemon_id END, CASE state WHEN 'processing' THEN at END,
               CASE state WHEN 'processing' THEN at END, at, at
          FROM c ORDER BY id
        ON CONFLICT (id) DO NOTHING
        RETURNING id, state
    ), lasting AS (
        INSERT INTO fusillade.open_calls (id, daemon_id, repeatable, last_words)
        SELECT id, daemon_id, coalesce(repeatable, false), last_words FROM c JOIN opened USING (id) WHERE opened.state = 'processing'
        ON CONFLICT (id) DO NOTHING
    )
    SELECT array_agg(id) INTO due FROM opened WHERE state = 'pending';
    IF due IS NOT NULL THEN
        PERFORM fusillade.make_ready(due);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION fusillade.end_calls(given json, born_final boolean) RETURNS TABLE (id uuid, retaken boolean)
LANGUAGE plpgsql ROWS 16 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH c AS MATERIALIZED (
        SELECT * FROM json_to_recordset(given) AS c(
            id uuid, at timestamptz, ended_at timestamptz, track boolean,
            batch_id uuid, file_id uuid, owner text, api_key_id uuid, path text, model text,
            request_body text, request_size bigint, tier text, sla text, expires_at timestamptz, daemon_id uuid, metadata text,
            state text, response_status int, response_body text, response_size bigint, routed_model text, error text)
    ), interrupted AS MATERIALIZED (
        SELECT x.id FROM fusillade.requests x WHERE NOT born_final AND x.id = ANY (ARRAY(SELECT c.id FROM c)) AND x.state = 'failed'
    ), templates AS (
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, at, at
          FROM c WHERE track AND request_body IS NOT NULL AND batch_id IS NULL ORDER BY id
        ON CONFLICT (id) DO NOTHING
    ), tracked AS (
        -- A row that is there already was opened before: only its owner may finish it, and only while it runs. An owner that turns out to
        -- be alive may take back its own "interrupted".
        INSERT INTO fusillade.requests AS r (id, batch_id, template_id, model, state, service_tier, daemon_id, claimed_at, started_at,
            response_status, response_body, response_size, routed_model, error, completed_at, failed_at, created_at, updated_at)
        SELECT id, id, id, model, state, tier, daemon_id, at, at, response_status, response_body, response_size, routed_model, error,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, at, ended_at
          FROM c
         -- Without its body a record is of a row that was committed before; one that is gone was deleted, and stays deleted.
         -- (A scalar sub-query: the planner would answer EXISTS with a hash of the whole table.)
         WHERE track AND (request_body IS NOT NULL OR (SELECT true FROM fusillade.requests x WHERE x.id = c.id))
         ORDER BY id
        ON CONFLICT (id) DO UPDATE SET
            state = EXCLUDED.state, response_status = EXCLUDED.response_status, response_body = EXCLUDED.response_body,
            response_size = EXCLUDED.response_size, routed_model = EXCLUDED.routed_model, error = EXCLUDED.error,
            completed_at = EXCLUDED.completed_at, failed_at = EXCLUDED.failed_at, updated_at = EXCLUDED.updated_at
         WHERE r.daemon_id = EXCLUDED.daemon_id
           AND (r.state IN ('claimed', 'processing') OR (r.state = 'failed' AND starts_with(r.error, '{"type":"Interrupted"')))
        RETURNING r.id
    ), batches AS (
        INSERT INTO fusillade.batches AS b (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, completed_at, failed_at, metadata)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, coalesce(metadata::jsonb, '{}')
          FROM c JOIN tracked USING (id) WHERE batch_id IS NULL
        ON CONFLICT (id) DO UPDATE SET completed_at = EXCLUDED.completed_at, failed_at = EXCLUDED.failed_at
    )
    SELECT t.id, t.id IN (SELECT i.id FROM interrupted i) FROM tracked t UNION ALL SELECT c.id, false FROM c WHERE NOT track;
    IF born_final THEN
        RETURN;
    END IF;
    RETURN QUERY WITH c AS MATERIALIZED (
        SELECT * FROM json_to_recordset(given) AS c(
            id uuid, opened boolean, queued boolean, notify boolean, request_body text, daemon_id uuid, state text)
    ), landed AS (
        DELETE FROM fusillade.inflight i
         WHERE i.id = ANY (ARRAY(SELECT id FROM c WHERE queued)) AND i.daemon_id = (SELECT daemon_id FROM c WHERE c.id = i.id LIMIT 1)
    ), closed AS (
        DELETE FROM fusillade.open_calls o
         WHERE o.id = ANY (ARRAY(SELECT id FROM c WHERE opened)) AND o.daemon_id = (SELECT daemon_id FROM c WHERE c.id = o.id LIMIT 1)
    ), now_there AS MATERIALIZED (
        SELECT c.id, c.opened AND ((r.state = 'canceled' AND r.daemon_id = c.daemon_id) OR (r.id IS NULL AND c.request_body IS NULL)) AS dropped,
               c.notify AND r.daemon_id = c.daemon_id AND r.state = c.state AS ended
          FROM c LEFT JOIN fusillade.requests r ON r.id = c.id
    ), woken AS MATERIALIZED (
        SELECT count(pg_notify('fusillade_done', ids)) AS pages
          FROM (SELECT string_agg(id::text, ',') AS ids
                  FROM (SELECT id, row_number() OVER () / 150 AS page FROM now_there WHERE ended) numbered
                 GROUP BY page) pages
    )
    -- Cancelled or deleted while it ran: its result is dropped, what it used is billed. (woken gives nothing here, but must be read to be run.)
    SELECT n.id, false FROM now_there n, woken WHERE dropped AND pages >= 0;
END $$;

CREATE OR REPLACE FUNCTION fusillade.add_ended(given fusillade.born_final[]) RETURNS int LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    WITH c AS MATERIALIZED (
        SELECT * FROM unnest(given)
    ), templates AS (
        INSERT INTO fusillade.request_templates (id, file_id, endpoint, method, path, body, model, body_byte_size, created_at, updated_at)
        SELECT id, file_id, '', 'POST', path, request_body, model, request_size, at, at FROM c
        ON CONFLICT (id) DO NOTHING
    ), batches AS (
        INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, created_at, expires_at,
                                       total_requests, requests_started_at, completed_at, failed_at, metadata)
        SELECT id, file_id, path, sla, owner, api_key_id, at, expires_at, 1, at,
               CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, coalesce(metadata::jsonb, '{}')
          FROM c
        ON CONFLICT (id) DO NOTHING
    )
    INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, daemon_id, claimed_at, started_at,
        response_status, response_body, response_size, routed_model, error, completed_at, failed_at, created_at, updated_at)
    SELECT id, id, id, model, state, tier, daemon_id, at, at, response_status, response_body, response_size, routed_model, error,
           CASE state WHEN 'completed' THEN ended_at END, CASE state WHEN 'failed' THEN ended_at END, at, ended_at
      FROM c
    ON CONFLICT (id) DO NOTHING;
    RETURN 1;
END $$;
