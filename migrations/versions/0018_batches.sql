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
