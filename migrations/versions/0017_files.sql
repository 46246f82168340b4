-- Functions of dwctl/queue/functions.sql and batches.sql, frozen.

CREATE OR REPLACE FUNCTION fusillade.ensure_files(given json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.files (id, name, purpose, uploaded_by, single)
    SELECT id, 'single_request', 'batch', owner, true FROM json_to_recordset(given) AS f(id uuid, owner text) ORDER BY id
    ON CONFLICT (id) DO NOTHING;
END $$;

CREATE OR REPLACE FUNCTION fusillade.purge_files(days int, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    purged int;
BEGIN
    DELETE FROM fusillade.files d WHERE d.ctid = ANY (ARRAY(
        SELECT f.ctid FROM fusillade.files f
         WHERE f.single AND f.created_at < now() - days * interval '1 day'
           AND NOT EXISTS (SELECT FROM fusillade.batches b WHERE b.file_id = f.id)
         LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END $$;

-- ----- files: what is deleted, what expires, what is purged

-- A file that its owner wants no more. The batches that are running it are cancelled; those that are over keep their results and the file's id.
-- An output or error file is taken from its batch. False: there is no such file (any more).
CREATE OR REPLACE FUNCTION fusillade.delete_file(one uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    running uuid;
BEGIN
    UPDATE fusillade.files SET status = 'deleted', deleted_at = now(), updated_at = now() WHERE id = one AND NOT single AND deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR running IN SELECT b.id FROM fusillade.batches b WHERE b.file_id = one AND NOT b.single AND b.deleted_at IS NULL ORDER BY b.id LOOP
        PERFORM fusillade.cancel_batch(running);
    END LOOP;
    UPDATE fusillade.batches SET output_file_id = NULL WHERE output_file_id = one;
    UPDATE fusillade.batches SET error_file_id = NULL WHERE error_file_id = one;
    RETURN true;
END $$;

-- Somebody has seen that it is past its time.
CREATE OR REPLACE FUNCTION fusillade.expire_file(one uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.files SET status = 'expired', updated_at = now()
     WHERE id = one AND NOT single AND status = 'processed' AND expires_at <= now();
END $$;

-- Files past their time expire; after a grace they are deleted, unless a batch that is not over still needs their lines. Gives how many changed.
CREATE OR REPLACE FUNCTION fusillade.expire_files(grace_s double precision, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    late uuid[];
    gone uuid[];
BEGIN
    late := ARRAY(
        SELECT f.id FROM fusillade.files f
         WHERE NOT f.single AND f.deleted_at IS NULL AND f.expires_at <= now() AND f.status = 'processed'
         ORDER BY f.expires_at LIMIT most FOR UPDATE SKIP LOCKED);
    UPDATE fusillade.files SET status = 'expired', updated_at = now() WHERE id = ANY (late);
    gone := ARRAY(
        SELECT f.id FROM fusillade.files f
         WHERE NOT f.single AND f.deleted_at IS NULL AND f.expires_at <= now() - grace_s * interval '1 second'
           AND NOT EXISTS (SELECT FROM fusillade.batches b
                            WHERE b.file_id = f.id AND NOT b.single AND b.completed_at IS NULL AND b.failed_at IS NULL
                              AND b.cancelled_at IS NULL AND b.expired_at IS NULL)
         ORDER BY f.expires_at LIMIT most FOR UPDATE OF f SKIP LOCKED);
    UPDATE fusillade.files SET status = 'deleted', deleted_at = now(), updated_at = now() WHERE id = ANY (gone);
    RETURN cardinality(late) + cardinality(gone);
END $$;

-- Lines of one deleted file, some at a time. Gives how many went; null where no file has any left.
CREATE OR REPLACE FUNCTION fusillade.purge_templates(most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    target uuid;
    purged int;
BEGIN
    SELECT f.id INTO target FROM fusillade.files f
     WHERE NOT f.single AND f.deleted_at IS NOT NULL AND f.purged_at IS NULL ORDER BY f.deleted_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- By row address: told the file as well, the planner may walk all its lines for each of them.
    DELETE FROM fusillade.request_templates WHERE ctid = ANY (ARRAY(
        SELECT t.ctid FROM fusillade.request_templates t WHERE t.file_id = target AND NOT t.single
         ORDER BY t.line_number LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS purged = ROW_COUNT;
    IF purged = 0 AND NOT EXISTS (SELECT FROM fusillade.request_templates t WHERE t.file_id = target AND NOT t.single) THEN
        DELETE FROM fusillade.file_models WHERE file_id = target;
        UPDATE fusillade.files SET purged_at = now() WHERE id = target;
    END IF;
    RETURN purged;
END $$;

-- Requests of one deleted batch that is over, some at a time, once it has been deleted for so long; its output and error files go with the last.
-- What they cost stays in the log and the ledger. Gives how many went; null where no batch has any left.
CREATE OR REPLACE FUNCTION fusillade.purge_requests(wait_s double precision, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    target record;
    purged int;
BEGIN
    SELECT b.id, b.output_file_id, b.error_file_id INTO target FROM fusillade.batches b
     WHERE NOT b.single AND b.deleted_at <= now() - wait_s * interval '1 second' AND b.purged_at IS NULL
       AND (b.completed_at IS NOT NULL OR b.failed_at IS NOT NULL OR b.cancelled_at IS NOT NULL OR b.expired_at IS NOT NULL)
     ORDER BY b.deleted_at LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM fusillade.requests WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM fusillade.requests r
         -- What still runs is ended by its owner first.
         WHERE r.batch_id = target.id AND r.state NOT IN ('claimed', 'processing')
         LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS purged = ROW_COUNT;
    DELETE FROM fusillade.finished_lines WHERE ctid = ANY (ARRAY(
        SELECT l.ctid FROM fusillade.finished_lines l WHERE l.batch_id = target.id ORDER BY l.failed, l.position LIMIT most));
    IF purged = 0 AND NOT FOUND AND NOT EXISTS (SELECT FROM fusillade.requests r WHERE r.batch_id = target.id) THEN
        PERFORM FROM fusillade.files f WHERE f.id IN (target.output_file_id, target.error_file_id) ORDER BY f.id FOR UPDATE;
        UPDATE fusillade.files SET status = 'deleted', deleted_at = now(), purged_at = now(), updated_at = now()
         WHERE id IN (target.output_file_id, target.error_file_id) AND deleted_at IS NULL;
        DELETE FROM fusillade.batch_models WHERE batch_id = target.id;
        UPDATE fusillade.batches SET purged_at = now(), output_file_id = NULL, error_file_id = NULL WHERE id = target.id;
    END IF;
    RETURN purged;
END $$;
