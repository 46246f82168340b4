-- Files and batches of many requests: the functions of the queue that write them (functions.sql has the rules that hold here, too).

-- ----- uploads: a file's lines are stored while they come, and nobody sees them before the file has its row

-- An upload begins. Its lines go to request_templates by COPY, some at a time, each time in a transaction of its own.
CREATE OR REPLACE FUNCTION fusillade.begin_upload(given uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.uploads (file_id) VALUES (given);
END $$;

-- Called first in each of those transactions. False: it was given up, by whoever took its process for dead; nothing may be added.
CREATE OR REPLACE FUNCTION fusillade.continue_upload(given uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.uploads SET touched_at = now() WHERE file_id = given AND NOT abandoned;
    RETURN FOUND;
END $$;

-- All lines are there: the file appears, with its counts by model. Gives when it was made and when it expires; null for one that was given up.
CREATE OR REPLACE FUNCTION fusillade.finish_upload(given json, models json, OUT made_at timestamptz, OUT ends_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM fusillade.uploads WHERE file_id = (given ->> 'id')::uuid AND NOT abandoned;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO fusillade.files (id, name, purpose, size_bytes, size_finalized, uploaded_by, api_key_id, source_connection_id,
                                 source_external_key, expires_at)
    SELECT id, name, 'batch', size_bytes, true, owner, api_key_id, source_connection_id, source_external_key,
           now() + expires_after_s * interval '1 second'
      FROM json_to_record(given) AS f(id uuid, name text, size_bytes bigint, owner text, api_key_id uuid, source_connection_id uuid,
                                      source_external_key text, expires_after_s bigint)
    RETURNING created_at, expires_at INTO made_at, ends_at;
    INSERT INTO fusillade.file_models (file_id, model, path, requests, bytes)
    SELECT (given ->> 'id')::uuid, model, path, requests, bytes
      FROM json_to_recordset(models) AS m(model text, path text, requests bigint, bytes bigint);
END $$;

-- It is not to be: what it has stored is purged.
CREATE OR REPLACE FUNCTION fusillade.abandon_upload(given uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.uploads SET abandoned = true WHERE file_id = given;
END $$;

-- Purges up to `most` lines of uploads that were given up, or were not heard of for so long. Gives how many there were, forgotten uploads included.
CREATE OR REPLACE FUNCTION fusillade.purge_uploads(silent_s double precision, most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    given_up uuid;
    purged integer;
BEGIN
    UPDATE fusillade.uploads SET abandoned = true
     WHERE NOT abandoned AND touched_at < now() - silent_s * interval '1 second';
    SELECT file_id INTO given_up FROM fusillade.uploads WHERE abandoned ORDER BY touched_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM fusillade.request_templates
     WHERE id IN (SELECT id FROM fusillade.request_templates WHERE file_id = given_up AND NOT single ORDER BY line_number LIMIT most);
    GET DIAGNOSTICS purged = ROW_COUNT;
    IF purged < most THEN
        DELETE FROM fusillade.uploads WHERE file_id = given_up;
        RETURN purged + 1;
    END IF;
    RETURN purged;
END $$;

-- ----- batches are made

-- A batch of a file's lines, with its output and error files and what of it goes to each model; how many lines it has. Again with the same id:
-- nothing, and null. The caller has the file locked, and counted.
CREATE OR REPLACE FUNCTION fusillade.create_batch(
    batch_id uuid, input_file uuid, batch_endpoint text, batch_window text, window_s double precision, owner text, key_id uuid,
    pairs jsonb, output_file uuid, error_file uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
    lines bigint;
BEGIN
    SELECT coalesce(sum(requests), 0) INTO lines FROM fusillade.file_models m WHERE m.file_id = input_file;
    INSERT INTO fusillade.batches (id, file_id, endpoint, completion_window, created_by, api_key_id, metadata, created_at, expires_at,
                                   total_requests, output_file_id, error_file_id)
    VALUES (batch_id, input_file, batch_endpoint, batch_window, owner, key_id, pairs, at, at + window_s * interval '1 second',
            lines, output_file, error_file)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO fusillade.files (id, name, purpose, uploaded_by, api_key_id, created_at, updated_at)
    VALUES (output_file, 'batch-' || batch_id || '-output.jsonl', 'batch_output', owner, key_id, at, at),
           (error_file, 'batch-' || batch_id || '-error.jsonl', 'batch_error', owner, key_id, at, at);
    INSERT INTO fusillade.batch_models (batch_id, model, requests)
    SELECT create_batch.batch_id, model, sum(requests) FROM fusillade.file_models m WHERE m.file_id = input_file GROUP BY model;
    PERFORM pg_notify('fusillade_batches', batch_id::text);
    RETURN lines;
END $$;

-- What a file's upload has counted already, for one that was written by hand: its lines by model and path.
CREATE OR REPLACE FUNCTION fusillade.count_file(counted uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM fusillade.file_models m WHERE m.file_id = counted) THEN
        INSERT INTO fusillade.file_models (file_id, model, path, requests, bytes)
        SELECT counted, model, path, count(*), sum(body_byte_size)
          FROM fusillade.request_templates t WHERE t.file_id = counted AND NOT single GROUP BY model, path
        ON CONFLICT DO NOTHING;
    END IF;
END $$;

-- ----- lines: what is downloaded of a batch, and what the length of its files is counted by

-- A stored body as JSON in one line. Outside of its strings JSON has line ends only as white space, so a space takes their place and nothing
-- grows; what is no JSON becomes a JSON string. (PostgreSQL 15 has no IS JSON; asking in this way costs a nanosecond a byte.)
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

-- A line of an output file.
CREATE OR REPLACE FUNCTION fusillade.output_line(id uuid, custom_id text, status int, body text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT '{"id":"batch_req_' || id || '","custom_id":' || coalesce(to_json(custom_id)::text, 'null') || ',"response":{"status_code":'
        || coalesce(status, 200) || ',"request_id":"' || id || '","body":' || fusillade.one_line(body) || '},"error":null}' || E'\n'
$$;

-- The message in the shapes that inference servers use for errors.
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

-- What a stored failure says: as protocols/failures.py reads it (a test compares the two), with the body that came with a status.
CREATE OR REPLACE FUNCTION fusillade.read_failure(error text, OUT code text, OUT message text, OUT status int, OUT body text)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    given json;
    details json;
    kind text;
    said text[];
BEGIN
    code := 'server_error';
    message := 'The request failed.';
    IF error IS NULL OR error !~ '\S' THEN
        RETURN;
    END IF;
    BEGIN
        given := error::json;
        IF json_typeof(given) = 'object' AND json_typeof(given->'type') = 'string' THEN
            kind := given->>'type';
            details := CASE WHEN json_typeof(given->'details') = 'object' THEN given->'details' ELSE '{}' END;
        END IF;
    EXCEPTION WHEN data_exception OR statement_too_complex THEN
        given := NULL;
    END;
    said := regexp_match(error, '^Upstream returned (\d{3})(?:: (.*))?$');
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
        RETURN;
    ELSIF said IS NOT NULL THEN
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

-- A line of an error file. A line that was cancelled, or that nobody ran in time, says what OpenAI's files say.
CREATE OR REPLACE FUNCTION fusillade.error_line(id uuid, custom_id text, state text, error text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    failure record;
BEGIN
    IF state = 'canceled' THEN
        error := '{"type":"Cancelled"}';
    END IF;
    failure := fusillade.read_failure(error);
    IF failure.code IN ('cancelled', 'batch_cancelled') THEN
        failure.code := 'batch_cancelled';
        failure.message := 'The batch was cancelled before the request was completed.';
    ELSIF failure.code IN ('deadline_passed', 'batch_expired') THEN
        failure.code := 'batch_expired';
        failure.message := 'The batch''s completion window ended before the request was run.';
    END IF;
    RETURN '{"id":"batch_req_' || id || '","custom_id":' || coalesce(to_json(custom_id)::text, 'null') || ',"response":'
        || CASE WHEN failure.status IS NULL THEN 'null' ELSE
            '{"status_code":' || failure.status || ',"request_id":"' || id || '","body":' || fusillade.one_line(failure.body) || '}' END
        || ',"error":{"code":' || to_json(failure.code) || ',"message":' || to_json(failure.message) || '}}' || E'\n';
END $$;
