CREATE OR REPLACE FUNCTION fusillade.one_line(given text) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    parsed json;
BEGIN
    parsed := given::json;
    IF strpos(given, E'\n') > 0 OR strpos(given, E'\r') > 0 THEN
        RETURN translate(given, E'\n\r', '  ');
    END IF;
    RETURN coalesce(given, 'null');
EXCEPTION WHEN data_exception OR statement_too_complex THEN
    RETURN to_json(given)::text;
END $$;

CREATE OR REPLACE FUNCTION fusillade.output_line(id uuid, custom_id text, status int, body text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"batch_req_' || id || '","custom_id":' || coalesce(to_json(custom_id)::text, 'null') || ',"response":{"status_code":'
        || coalesce(status, 200) || ',"request_id":"' || id || '","body":' || fusillade.one_line(body) || E'},"error":null}\n'
$$;

CREATE OR REPLACE FUNCTION fusillade.message_in(given json) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    name text;
    said json;
BEGIN
    IF json_typeof(given) IS DISTINCT FROM 'object' THEN
        RETURN NULL;
    END IF;
    FOREACH name IN ARRAY ARRAY['error', 'message', 'detail'] LOOP
        said := given->name;
        IF json_typeof(said) = 'object' THEN
            said := said->'message';
        END IF;
        IF json_typeof(said) = 'string' AND (said #>> '{}') ~ '\S' THEN
            RETURN said #>> '{}';
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION fusillade.read_failure(error text, OUT code text, OUT message text, OUT status int, OUT body text)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    given json;
    member record;
    details json;
    kind text;
    said text[];
    stored_code text;
    stored_message text;
BEGIN
    code := 'server_error';
    message := 'The request failed.';
    IF error IS NULL OR error !~ '\S' THEN
        RETURN;
    END IF;
    BEGIN
        given := error::json;
        IF json_typeof(given) = 'object' THEN
            -- All at once: each look at a member reads the whole text.
            SELECT * INTO member FROM json_to_record(given) AS t(type json, details json, code json, message json);
            IF json_typeof(member.type) = 'string' THEN
                kind := member.type #>> '{}';
                details := CASE WHEN json_typeof(member.details) = 'object' THEN member.details ELSE '{}' END;
                stored_code := CASE WHEN json_typeof(member.code) = 'string' THEN member.code #>> '{}' END;
                stored_message := CASE WHEN json_typeof(member.message) = 'string' THEN member.message #>> '{}' END;
            END IF;
        END IF;
    EXCEPTION WHEN data_exception OR statement_too_complex THEN
        given := NULL;
    END;
    IF kind IN ('RetriableHttpStatus', 'NonRetriableHttpStatus') THEN
        status := CASE WHEN details->>'status' ~ '^\d{3}$' THEN (details->>'status')::int ELSE 500 END;
        BEGIN
            body := details->>'body';
        EXCEPTION WHEN data_exception THEN
            -- A character that no text can hold (\u0000): as it is spelled.
            body := (details->'body')::text;
        END;
    ELSIF kind IS NOT NULL THEN
        SELECT t.code, t.message INTO code, message FROM (VALUES
            ('NetworkError', 'network_error', 'The upstream provider could not be reached.'),
            ('Timeout', 'timeout', 'The upstream provider took too long to answer.'),
            ('StreamBroken', 'stream_broken', coalesce(fusillade.message_in(details), 'The upstream provider broke off its answer.')),
            ('RequestBuilderError', 'request_error', 'The request could not be sent to the upstream provider.'),
            ('InternalError', 'internal_error', 'The gateway failed while it ran the request.'),
            ('Cancelled', 'cancelled', 'The request was cancelled.'),
            ('ClientDisconnected', 'client_disconnected', 'The client left before the answer was complete.'),
            ('TaskTerminated', 'interrupted', 'The request was interrupted before it was done.'),
            ('Interrupted', 'interrupted', 'The process that ran the request ended before it was done.'),
            ('WorkerLost', 'worker_lost', 'The processes that ran the request died, more often than is tried again.'),
            ('DeadlinePassed', 'deadline_passed', 'The request''s completion window ended before it was run.'),
            ('NotRecorded', 'not_recorded', 'The answer could not be recorded.'),
            ('BatchTerminated', 'batch_terminated', 'The batch ended before the request was run.')
        ) AS t(tag, code, message) WHERE t.tag = kind;
        IF NOT FOUND THEN
            code := lower(regexp_replace(kind, '([a-z0-9])([A-Z])', '\1_\2', 'g'));
            message := coalesce(fusillade.message_in(details), 'The request failed.');
        END IF;
        -- Whoever ended the request knew more than its tag says.
        IF stored_code <> '' AND stored_message <> '' THEN
            code := stored_code;
            message := stored_message;
        END IF;
        RETURN;
    ELSIF starts_with(error, 'Upstream returned ') AND error ~ '^Upstream returned \d{3}(: .*)?$' THEN
        said := regexp_match(error, '^Upstream returned (\d{3})(?:: (.*))?$');
        status := said[1]::int;
        body := said[2];
    ELSE
        message := coalesce(fusillade.message_in(given), error);
        RETURN;
    END IF;
    code := 'http_' || status;
    BEGIN
        message := coalesce(fusillade.message_in(body::json), btrim(body, E' \t\n\r\f\v'));
    EXCEPTION WHEN data_exception OR statement_too_complex THEN
        message := btrim(body, E' \t\n\r\f\v');
    END;
    IF coalesce(message, '') = '' OR left(message, 1) IN ('{', '[', '<') THEN
        message := 'The upstream provider answered with status ' || status || '.';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION fusillade.error_line(id uuid, custom_id text, state text, error text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    failure record;
BEGIN
    IF state = 'canceled' THEN
        error := '{"type":"Cancelled"}';
    END IF;
    failure := fusillade.read_failure(error);
    IF failure.code = 'cancelled' THEN
        failure.code := 'batch_cancelled';
        failure.message := 'The batch was cancelled before the request was completed.';
    ELSIF failure.code = 'deadline_passed' THEN
        failure.code := 'batch_expired';
        failure.message := 'The batch''s completion window ended before the request was run.';
    END IF;
    RETURN '{"id":"batch_req_' || id || '","custom_id":' || coalesce(to_json(custom_id)::text, 'null') || ',"response":'
        || CASE WHEN failure.status IS NULL THEN 'null' ELSE
            '{"status_code":' || failure.status || ',"request_id":"' || id || '","body":' || fusillade.one_line(failure.body) || '}' END
        || ',"error":{"code":' || to_json(failure.code) || ',"message":' || to_json(failure.message) || '}}' || E'\n';
END $$;

CREATE OR REPLACE FUNCTION fusillade.line_bytes(line fusillade.requests) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT octet_length(CASE line.state WHEN 'completed'
        THEN fusillade.output_line(line.id, line.custom_id, line.response_status, line.response_body)
        ELSE fusillade.error_line(line.id, line.custom_id, line.state, line.error) END)::bigint
$$;

