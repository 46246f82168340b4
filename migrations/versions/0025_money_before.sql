-- As migration 0015 made it.
CREATE OR REPLACE FUNCTION fusillade.end_pauses_of_the_funded() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    ended int;
BEGIN
    UPDATE fusillade.queues q SET paused_until = now()
     WHERE q.ctid = ANY (ARRAY(
        SELECT p.ctid FROM fusillade.queues p JOIN user_balance_checkpoints b ON b.user_id::text = p.created_by AND b.balance > 0
         WHERE p.paused_until > now() AND p.pause_reason = 'no_credit'
           FOR UPDATE OF p SKIP LOCKED));
    GET DIAGNOSTICS ended = ROW_COUNT;
    IF ended > 0 THEN
        PERFORM pg_notify('fusillade_ready', '');
    END IF;
    RETURN ended;
END $$;
