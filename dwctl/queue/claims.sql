-- What waits, and claims, which are leases: the functions of the queue that workers call (functions.sql has the rules that hold here, too).

-- ----- what waits

-- Pending requests, back in line (also those of a batch that other ids name): one place for what `ready` and `queues` hold.
CREATE OR REPLACE FUNCTION fusillade.make_ready(ids uuid[]) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    made int;
BEGIN
    INSERT INTO fusillade.ready (model, created_by, deadline, id, batch_id)
    SELECT r.model, coalesce(b.created_by, ''), coalesce(b.expires_at, now() + interval '24 hours'), r.id, r.batch_id
      FROM fusillade.requests r LEFT JOIN fusillade.batches b ON b.id = r.batch_id
     WHERE r.id = ANY (ids) AND r.state = 'pending'
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS made = ROW_COUNT;
    INSERT INTO fusillade.model_slots (model)
    SELECT DISTINCT r.model FROM fusillade.requests r WHERE r.id = ANY (ids)
       AND NOT EXISTS (SELECT FROM fusillade.model_slots s WHERE s.model = r.model)
     ORDER BY r.model
    ON CONFLICT DO NOTHING;
    INSERT INTO fusillade.queues AS q (model, created_by, vtime, head_deadline)
    SELECT r.model, coalesce(b.created_by, ''),
           coalesce((SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = r.model), 0),
           min(coalesce(b.expires_at, now() + interval '24 hours'))
      FROM fusillade.requests r LEFT JOIN fusillade.batches b ON b.id = r.batch_id
     WHERE r.id = ANY (ids) AND r.state = 'pending'
     GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (model, created_by) DO UPDATE SET head_deadline = least(q.head_deadline, EXCLUDED.head_deadline);
    PERFORM pg_notify('fusillade_ready', '');
    RETURN made;
END $$;

-- What waited for its time is due.
CREATE OR REPLACE FUNCTION fusillade.wake_delayed(most int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    due uuid[];
BEGIN
    WITH gone AS (
        DELETE FROM fusillade.delayed d USING (
            SELECT not_before, id FROM fusillade.delayed WHERE not_before <= now() ORDER BY not_before LIMIT most FOR UPDATE SKIP LOCKED) s
         WHERE d.not_before = s.not_before AND d.id = s.id
        RETURNING d.id
    )
    SELECT array_agg(id) INTO due FROM gone;
    IF due IS NOT NULL THEN
        PERFORM fusillade.make_ready(due);
    END IF;
END $$;

-- Single requests whose deadline has passed while they waited: they end, and somebody must record it. (Nothing waits in `delayed` past its
-- deadline, so all of them are in `ready`.) Lines without a head are removed, or a duty would look at them again and again.
CREATE OR REPLACE FUNCTION fusillade.expire(most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    line record;
    gone uuid[];
    head timestamptz;
    ended int := 0;
BEGIN
    FOR line IN
        SELECT q.model, q.created_by FROM fusillade.queues q
         WHERE q.head_deadline < now() ORDER BY q.model, q.created_by LIMIT most FOR UPDATE SKIP LOCKED
    LOOP
        EXIT WHEN ended >= most;
        WITH late AS (
            DELETE FROM fusillade.ready d WHERE d.ctid = ANY (ARRAY(
                SELECT r.ctid FROM fusillade.ready r
                 WHERE r.model = line.model AND r.created_by = line.created_by AND r.deadline < now() AND r.batch_id = r.id
                 ORDER BY r.deadline, r.id LIMIT most - ended FOR UPDATE SKIP LOCKED))
            RETURNING d.id
        )
        SELECT array_agg(id) INTO gone FROM late;
        IF gone IS NOT NULL THEN
            WITH over AS (
                UPDATE fusillade.requests r SET state = 'failed', failed_at = now(), updated_at = now(),
                       error = '{"type":"DeadlinePassed","details":{"error":"No worker could run the request before its deadline."}}'
                 WHERE r.id = ANY (gone) AND r.state = 'pending'
                RETURNING r.id
            ), batches AS (
                UPDATE fusillade.batches b SET failed_at = now() FROM over o WHERE b.id = o.id
            ), told AS MATERIALIZED (
                SELECT count(pg_notify('fusillade_done', id::text)) AS n FROM over
            ), unrecorded AS (
                INSERT INTO fusillade.unrecorded (id, error_code) SELECT id, 'deadline_passed' FROM over, told
                ON CONFLICT DO NOTHING
            )
            SELECT ended + n INTO ended FROM told;
        END IF;
        head := (SELECT r.deadline FROM fusillade.ready r WHERE r.model = line.model AND r.created_by = line.created_by
                  ORDER BY r.deadline, r.id LIMIT 1);
        IF head IS NULL THEN
            DELETE FROM fusillade.queues q WHERE q.model = line.model AND q.created_by = line.created_by;
        ELSE
            UPDATE fusillade.queues q SET head_deadline = head WHERE q.model = line.model AND q.created_by = line.created_by;
        END IF;
    END LOOP;
    RETURN ended;
END $$;

-- ----- claims, which are leases

-- Volatile PL/pgSQL under READ COMMITTED: each statement inside has a snapshot of its own, so what is in flight is counted after the
-- model's row is locked. That is what makes the cap exact. Steps:
--   1 lock the longest-unserved models that seem to have room, skipping those that another claim has
--   2 room of each: its cap less what is in flight
--   3 its lines: those whose deadline is near first, then the least served; no line gets more than its share of the room
--   4 take the heads of each line, move them from ready to inflight, mark them in requests, and return all that running them takes
-- Plans are kept by each connection, and may have been made when the tables were empty: the settings keep them on keys, and what is
-- taken from `ready` is deleted by row address, since any other join would walk the whole line for each of its heads.
CREATE OR REPLACE FUNCTION fusillade.claim(me uuid, only_models text[], caps int[], default_cap int, most int)
RETURNS TABLE (id uuid, model text, created_by text, deadline timestamptz,
               batch_id uuid, retry_attempt int, service_tier text, custom_id text, created_at timestamptz,
               api_key_id uuid, completion_window text, batch_created_at timestamptz, path text, body text,
               owner_id uuid, owner_deleted boolean, times_lost smallint)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    slot record;
    line record;
    head timestamptz;
    room int;
    taken int;
    share int;
    lines int;
    left_over int := most;
BEGIN
    FOR slot IN
        SELECT m.model FROM fusillade.model_slots m
         WHERE EXISTS (SELECT FROM fusillade.queues q WHERE q.model = m.model)
           -- Not yet the count that decides, but models that are full must not stand in the way of others.
           AND (SELECT count(*) FROM fusillade.inflight f WHERE f.model = m.model)
               < coalesce(caps[array_position(only_models, m.model)], default_cap)
         ORDER BY m.served
         LIMIT 32
           FOR UPDATE OF m SKIP LOCKED
    LOOP
        EXIT WHEN left_over <= 0;
        room := least(left_over, coalesce(caps[array_position(only_models, slot.model)], default_cap)
                                 - (SELECT count(*) FROM fusillade.inflight f WHERE f.model = slot.model));
        CONTINUE WHEN room <= 0;
        lines := least(room, (SELECT count(*) FROM fusillade.queues q WHERE q.model = slot.model)::int);
        FOR line IN
            SELECT q.created_by, q.vtime FROM fusillade.queues q
             WHERE q.model = slot.model
             ORDER BY (q.head_deadline < now() + interval '5 minutes') DESC, q.vtime
             LIMIT greatest(lines, 1)
               FOR UPDATE SKIP LOCKED
        LOOP
            EXIT WHEN room <= 0;
            share := greatest(1, ceil(room::numeric / greatest(lines, 1))::int);
            lines := lines - 1;
            RETURN QUERY WITH gone AS (
                DELETE FROM fusillade.ready d
                 WHERE d.ctid = ANY (ARRAY(
                    SELECT r.ctid FROM fusillade.ready r
                     WHERE r.model = slot.model AND r.created_by = line.created_by
                     ORDER BY r.deadline, r.id LIMIT share FOR UPDATE SKIP LOCKED))
                RETURNING d.id, d.deadline
            ), marked AS (
                -- The state is checked again: a row changed by hand may have left its entry in ready behind.
                UPDATE fusillade.requests q SET state = 'claimed', daemon_id = me, claimed_at = now(), updated_at = now()
                  FROM gone g
                 WHERE q.id = g.id AND q.state = 'pending'
                   AND NOT EXISTS (SELECT FROM fusillade.batches b WHERE b.id = q.batch_id
                                      AND (b.cancelling_at IS NOT NULL OR b.deleted_at IS NOT NULL))
                RETURNING q.id, g.deadline, q.batch_id, q.retry_attempt, q.service_tier, q.custom_id, q.created_at, q.template_id, q.times_lost
            ), flying AS (
                INSERT INTO fusillade.inflight (id, model, created_by, daemon_id)
                SELECT m.id, slot.model, line.created_by, me FROM marked m
            )
            SELECT m.id, slot.model, line.created_by, m.deadline, m.batch_id, m.retry_attempt, m.service_tier, m.custom_id, m.created_at,
                   b.api_key_id, b.completion_window, b.created_at, t.path, t.body, u.id, u.is_deleted, m.times_lost
              FROM marked m
              LEFT JOIN fusillade.batches b ON b.id = m.batch_id
              LEFT JOIN fusillade.request_templates t ON t.id = m.template_id
              -- The account that it runs as: the owner of the key that the batch names, else who made the batch.
              LEFT JOIN users u ON u.id = coalesce(
                    (SELECT k.user_id FROM api_keys k WHERE k.id = b.api_key_id),
                    CASE WHEN b.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN b.created_by::uuid END);
            GET DIAGNOSTICS taken = ROW_COUNT;
            head := (SELECT r.deadline FROM fusillade.ready r WHERE r.model = slot.model AND r.created_by = line.created_by
                      ORDER BY r.deadline, r.id LIMIT 1);
            IF head IS NULL THEN
                -- At once: an empty line that stands first would cost the next claim its turn.
                DELETE FROM fusillade.queues q WHERE q.model = slot.model AND q.created_by = line.created_by;
            ELSE
                UPDATE fusillade.queues q SET vtime = q.vtime + taken, head_deadline = head
                 WHERE q.model = slot.model AND q.created_by = line.created_by;
            END IF;
            room := room - taken;
            left_over := left_over - taken;
            UPDATE fusillade.model_slots m SET served = m.served + taken WHERE m.model = slot.model AND taken > 0;
        END LOOP;
    END LOOP;
END $$;

-- The calls of these requests begin; gives those that are still ours to run.
CREATE OR REPLACE FUNCTION fusillade.start(me uuid, them uuid[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    UPDATE fusillade.requests r SET state = 'processing', started_at = now(), updated_at = now()
     WHERE r.id = ANY (them) AND r.state = 'claimed' AND r.daemon_id = me
    RETURNING r.id;
    -- Claimed by us, and not ours any more: cancelled meanwhile.
    DELETE FROM fusillade.inflight i WHERE i.id = ANY (them) AND i.daemon_id = me
       AND NOT EXISTS (SELECT FROM fusillade.requests r WHERE r.id = i.id AND r.state = 'processing' AND r.daemon_id = me);
END $$;

-- Failed, but a later try may succeed. It waits no longer than until its deadline, when `expire` ends it. A line of a batch that is over by
-- then, or cancelled, ends.
CREATE OR REPLACE FUNCTION fusillade.retry_later(me uuid, one uuid, delay_s double precision) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH mine AS (
        UPDATE fusillade.requests r SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL,
               retry_attempt = retry_attempt + 1, not_before = now() + delay_s * interval '1 second', updated_at = now()
         WHERE r.id = one AND r.daemon_id = me AND r.state IN ('claimed', 'processing')
        RETURNING r.id, r.batch_id, r.not_before
    )
    INSERT INTO fusillade.delayed (not_before, id)
    SELECT least(m.not_before, greatest(b.expires_at, now())), m.id FROM mine m LEFT JOIN fusillade.batches b ON b.id = m.batch_id
    ON CONFLICT DO NOTHING;
    DELETE FROM fusillade.inflight WHERE id = one AND daemon_id = me;
    PERFORM fusillade.end_returned(ARRAY[one]);
END $$;

-- Of requests that somebody has just returned: lines that ended with that are counted, and those end that nobody wants any more. Their batches
-- are locked against `cancel_batch`, so that either sees the other.
CREATE OR REPLACE FUNCTION fusillade.end_returned(them uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lines uuid[] := ARRAY(SELECT r.id FROM fusillade.requests r WHERE r.id = ANY (them) AND r.batch_id <> r.id);
    one record;
BEGIN
    IF lines = '{}' THEN
        RETURN;
    END IF;
    PERFORM FROM fusillade.batches b
      WHERE b.id IN (SELECT r.batch_id FROM fusillade.requests r WHERE r.id = ANY (lines)) ORDER BY b.id FOR NO KEY UPDATE;
    PERFORM fusillade.count_ended(ARRAY(
        SELECT r.id FROM fusillade.requests r WHERE r.id = ANY (lines) AND r.state = 'failed' AND r.failed_at = now()));
    FOR one IN
        SELECT b.id, b.cancelling_at IS NULL AS expired, array_agg(r.id) AS them
          FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.batch_id
         WHERE r.id = ANY (lines) AND r.state = 'pending'
           AND (b.cancelling_at IS NOT NULL OR EXISTS (SELECT FROM fusillade.sweeps w WHERE w.batch_id = b.id AND NOT w.retries))
         GROUP BY b.id ORDER BY b.id
    LOOP
        PERFORM fusillade.end_lines(one.id, one.them, one.expired);
    END LOOP;
END $$;

-- Leases returned. waits_s: how long a request waits after its first, second ... loss; one more loss than it has entries ends it. NULL: nothing
-- was lost, the owner has not begun or has stopped in good order. A realtime request (run again because its web process died) is not run a
-- third time, and one whose output was shown to somebody not a second time. A row that ends here must be recorded by somebody: it goes to
-- `unrecorded`. Gives how many ended.
CREATE OR REPLACE FUNCTION fusillade.give_back(me uuid, them uuid[], waits_s double precision[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    due uuid[];
    ended int;
BEGIN
    -- Before their leases: an owner that turns out to be alive, and ends them, takes the two in this order.
    PERFORM FROM fusillade.requests r WHERE r.id = ANY (them) ORDER BY r.id FOR UPDATE;
    WITH lost AS (
        DELETE FROM fusillade.inflight i WHERE i.id = ANY (them) AND i.daemon_id = me RETURNING i.id, i.last_words
    ), seen AS MATERIALIZED (
        SELECT l.id, EXISTS (SELECT FROM fusillade.response_chunks c WHERE c.request_id = l.id) AS was_shown FROM lost l
    ), judged AS MATERIALIZED (
        SELECT r.id, r.batch_id, s.was_shown, s.was_shown OR (waits_s IS NOT NULL
               AND r.times_lost + 1 > CASE r.service_tier WHEN 'priority' THEN 1 ELSE cardinality(waits_s) END) AS is_last
          FROM seen s JOIN fusillade.requests r ON r.id = s.id
         WHERE r.daemon_id = me AND r.state IN ('claimed', 'processing')
    ), over AS (
        UPDATE fusillade.requests r SET state = 'failed', failed_at = now(), updated_at = now(), times_lost = r.times_lost + 1,
               error = CASE WHEN j.was_shown
                    THEN '{"type":"Interrupted","details":{"error":"The process that ran this request ended before it was done."}}'
                    ELSE '{"type":"WorkerLost","details":{"error":"The workers that ran this request ended before it was done, each time."}}' END
          FROM judged j WHERE r.id = j.id AND j.is_last
        RETURNING r.id, j.was_shown
    ), batches AS (
        UPDATE fusillade.batches b SET failed_at = now() FROM over o WHERE b.id = o.id
    ), told AS MATERIALIZED (
        SELECT count(pg_notify('fusillade_done', id::text)) AS n FROM over
    ), unrecorded AS (
        -- Also what one has used that was cancelled meanwhile.
        INSERT INTO fusillade.unrecorded (id, error_code, last_words)
        SELECT l.id, CASE WHEN o.was_shown IS FALSE THEN 'worker_lost' ELSE 'interrupted' END, l.last_words
          FROM lost l LEFT JOIN over o ON o.id = l.id
         WHERE o.id IS NOT NULL OR (l.last_words IS NOT NULL AND l.id NOT IN (SELECT j.id FROM judged j))
        ON CONFLICT DO NOTHING
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
    PERFORM fusillade.end_returned(them);
    IF due IS NOT NULL THEN
        PERFORM fusillade.make_ready(due);
    END IF;
    RETURN ended;
END $$;
