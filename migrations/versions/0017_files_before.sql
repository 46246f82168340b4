-- Functions of dwctl/queue/functions.sql as they were before this migration.

CREATE OR REPLACE FUNCTION fusillade.ensure_files(given json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.files (id, name, purpose, uploaded_by)
    SELECT id, 'single_request', 'batch', owner FROM json_to_recordset(given) AS f(id uuid, owner text) ORDER BY id
    ON CONFLICT (id) DO NOTHING;
END $$;

CREATE OR REPLACE FUNCTION fusillade.purge_files(days int, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    purged int;
BEGIN
    DELETE FROM fusillade.files d WHERE d.ctid = ANY (ARRAY(
        SELECT f.ctid FROM fusillade.files f
         WHERE f.name = 'single_request' AND f.created_at < now() - days * interval '1 day'
           AND NOT EXISTS (SELECT FROM fusillade.batches b WHERE b.file_id = f.id)
         LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END $$;
