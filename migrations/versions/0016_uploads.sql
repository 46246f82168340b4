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
