-- Another attempt is to take the place of this one (of the same call, by its Idempotency-Key): whether it still stands as that one has seen it
-- (null: it was not there). From then on nobody takes its "interrupted" back.
CREATE OR REPLACE FUNCTION fusillade.take_over(one uuid, seen text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    present text;
BEGIN
    SELECT r.state INTO present FROM fusillade.requests r WHERE r.id = one FOR UPDATE;
    IF present IS DISTINCT FROM seen THEN
        RETURN false;
    END IF;
    IF present = 'failed' THEN
        UPDATE fusillade.requests SET daemon_id = NULL, updated_at = now() WHERE id = one;
    END IF;
    RETURN true;
END $$;
