-- Functions of dwctl/queue/functions.sql as they were before this migration.

CREATE OR REPLACE FUNCTION fusillade.keep_last_words(given json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM fusillade.open_calls o WHERE o.id = ANY (ARRAY(SELECT (w->>'id')::uuid FROM json_array_elements(given) w))
      ORDER BY o.id FOR UPDATE;
    UPDATE fusillade.open_calls o SET last_words = c.words
      FROM (SELECT (w->>'id')::uuid AS id, (w->>'daemon_id')::uuid AS daemon_id, w::text AS words
              FROM json_array_elements(given) w) c
     WHERE o.id = c.id AND o.daemon_id = c.daemon_id;
END $$;

CREATE OR REPLACE FUNCTION fusillade.give_back(me uuid, them uuid[], waits_s double precision[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    due uuid[];
    ended int;
BEGIN
    -- Before their leases: an owner that turns out to be alive, and ends them, takes the two in this order.
    PERFORM FROM fusillade.requests r WHERE r.id = ANY (them) ORDER BY r.id FOR UPDATE;
    WITH lost AS (
        DELETE FROM fusillade.inflight i WHERE i.id = ANY (them) AND i.daemon_id = me RETURNING i.id
    ), judged AS MATERIALIZED (
        SELECT r.id, r.batch_id, waits_s IS NOT NULL
               AND r.times_lost + 1 > CASE r.service_tier WHEN 'priority' THEN 1 ELSE cardinality(waits_s) END AS is_last
          FROM lost JOIN fusillade.requests r ON r.id = lost.id
         WHERE r.daemon_id = me AND r.state IN ('claimed', 'processing')
    ), over AS (
        UPDATE fusillade.requests r SET state = 'failed', failed_at = now(), updated_at = now(), times_lost = r.times_lost + 1,
               error = '{"type":"WorkerLost","details":{"error":"The workers that ran this request ended before it was done, each time."}}'
          FROM judged j WHERE r.id = j.id AND j.is_last
        RETURNING r.id
    ), batches AS (
        UPDATE fusillade.batches b SET failed_at = now() FROM over o WHERE b.id = o.id
    ), told AS MATERIALIZED (
        SELECT count(pg_notify('fusillade_done', id::text)) AS n FROM over
    ), unrecorded AS (
        INSERT INTO fusillade.unrecorded (id, error_code) SELECT id, 'worker_lost' FROM over ON CONFLICT DO NOTHING
    ), freed AS (
        UPDATE fusillade.requests r SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL, updated_at = now(),
               times_lost = r.times_lost + CASE WHEN waits_s IS NULL THEN 0 ELSE 1 END,
               not_before = now() + waits_s[r.times_lost + 1] * interval '1 second'
          FROM judged j WHERE r.id = j.id AND NOT j.is_last
        RETURNING r.id, r.batch_id, r.not_before
    ), put_off AS (
        INSERT INTO fusillade.delayed (not_before, id)
        SELECT least(f.not_before, greatest(b.expires_at, now())), f.id
          FROM freed f LEFT JOIN fusillade.batches b ON b.id = f.batch_id WHERE f.not_before IS NOT NULL
        ON CONFLICT DO NOTHING
    )
    SELECT (SELECT array_agg(id) FROM freed WHERE not_before IS NULL), (SELECT n FROM told) INTO due, ended;
    IF due IS NOT NULL THEN
        PERFORM fusillade.make_ready(due);
    END IF;
    RETURN ended;
END $$;

CREATE OR REPLACE FUNCTION fusillade.interrupt_calls(most int, wait_s double precision) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    ownerless uuid[];
    ended int;
BEGIN
    ownerless := ARRAY(
        SELECT f.id FROM fusillade.open_calls f
         WHERE NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = f.daemon_id AND d.status <> 'dead')
         ORDER BY f.id LIMIT most);
    -- Before the rows of open_calls, as everybody. One that somebody has is being ended, and there is another round; one that is not there was
    -- deleted while it ran.
    ownerless := ARRAY(SELECT r.id FROM fusillade.requests r WHERE r.id = ANY (ownerless) ORDER BY r.id FOR UPDATE SKIP LOCKED)
        || ARRAY(SELECT f.id FROM unnest(ownerless) f(id) WHERE NOT EXISTS (SELECT FROM fusillade.requests r WHERE r.id = f.id));
    PERFORM FROM fusillade.open_calls o WHERE o.id = ANY (ownerless) ORDER BY o.id FOR UPDATE;
    WITH lost AS (
        DELETE FROM fusillade.open_calls o
         WHERE o.id = ANY (ownerless)
           AND NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = o.daemon_id AND d.status <> 'dead')
        RETURNING o.id, o.daemon_id, o.repeatable, o.last_words
    ), again AS (
        UPDATE fusillade.requests r SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL,
               times_lost = r.times_lost + 1, not_before = now() + wait_s * interval '1 second', updated_at = now()
          FROM lost l
         WHERE r.id = l.id AND r.daemon_id = l.daemon_id AND r.state = 'processing' AND l.repeatable AND r.times_lost = 0
        RETURNING r.id, r.batch_id, r.not_before
    ), put_off AS (
        INSERT INTO fusillade.delayed (not_before, id)
        SELECT least(a.not_before, greatest(b.expires_at, now())), a.id
          FROM again a LEFT JOIN fusillade.batches b ON b.id = a.batch_id
        ON CONFLICT DO NOTHING
    ), over AS (
        UPDATE fusillade.requests r SET state = 'failed', failed_at = now(), updated_at = now(),
               error = '{"type":"Interrupted","details":{"error":"The process that ran this request ended before it was done."}}'
          FROM lost l
         WHERE r.id = l.id AND r.daemon_id = l.daemon_id AND r.state = 'processing' AND NOT (l.repeatable AND r.times_lost = 0)
        RETURNING r.id
    ), batches AS (
        UPDATE fusillade.batches b SET failed_at = now() FROM over o WHERE b.id = o.id
    ), unrecorded AS (
        INSERT INTO fusillade.unrecorded (id, error_code, last_words)
        SELECT l.id, 'interrupted', l.last_words FROM lost l WHERE NOT EXISTS (SELECT FROM again a WHERE a.id = l.id)
        ON CONFLICT DO NOTHING
    ), told AS MATERIALIZED (
        SELECT count(pg_notify('fusillade_done', id::text)) AS n FROM over
    )
    SELECT n INTO ended FROM told;
    RETURN ended;
END $$;

CREATE OR REPLACE FUNCTION fusillade.delete_response(one uuid, owners text[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    template uuid;
BEGIN
    DELETE FROM fusillade.requests r USING fusillade.batches b
     WHERE r.id = one AND r.batch_id = r.id AND b.id = r.batch_id AND b.created_by = ANY (owners) AND b.deleted_at IS NULL
    RETURNING r.template_id INTO template;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM fusillade.request_templates WHERE id = one AND id = template;
    DELETE FROM fusillade.batches WHERE id = one;
    PERFORM pg_notify('fusillade_cancel', one::text), pg_notify('fusillade_done', one::text);
    RETURN NEXT one;
END $$;

CREATE OR REPLACE FUNCTION fusillade.forget_unkept(most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    gone uuid[];
BEGIN
    gone := ARRAY(
        SELECT r.id FROM fusillade.batches b JOIN fusillade.requests r ON r.id = b.id AND r.batch_id = b.id
         WHERE b.metadata ? 'unkept' AND coalesce(r.completed_at, r.failed_at, r.canceled_at) < now() - interval '1 minute'
         ORDER BY r.id LIMIT most FOR UPDATE OF r SKIP LOCKED);
    DELETE FROM fusillade.requests WHERE id = ANY (gone);
    DELETE FROM fusillade.request_templates WHERE id = ANY (gone);
    DELETE FROM fusillade.batches WHERE id = ANY (gone);
    RETURN cardinality(gone);
END $$;
