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
           coalesce((SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = r.model AND o.paused_until IS NULL),
                    (SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = r.model), 0),
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

-- How a claim goes (docs/decisions/0027, 0051). All of it is volatile PL/pgSQL under READ COMMITTED: each statement inside has a snapshot of its own,
-- so what is in flight is counted after the model's row is locked. That is what makes the cap exact.
--   claim        visits models, those with an urgent request first, then whoever was served the longest time ago; each is locked by one claim
--                at a time. No claim waits for another's, unless it would come back empty-handed because of it.
--   claim_model  the room that a locked model has, and what goes there: first what is urgent, then by deadline as far as `urgency_weight` says,
--                then the least served accounts
--   take         so many from the heads of some accounts' queues, an equal share of each: out of `ready`, into `inflight`, marked in `requests`
-- What is paused is in no index that a claim reads. Plans are made once by each connection, perhaps when the tables were empty: the settings (of
-- `claim`, which calls the others) keep them on keys, and what is taken from `ready` is deleted by row address, since any other join would walk the
-- whole queue for each of its heads. Of a hundred requests most stand beside others of their batch: ids that are looked for together, in an array,
-- find their neighbours on the same page.
-- A claim serves 20 accounts of a model, or so many that each has five of what there is room for; the next claim serves the next ones. An account
-- costs it as much as a request does. Only what those lack goes to all the others at once.

-- Up to `most` of one model's requests that are due by `horizon`, counted in flight as `counted_as`; that model's row must be locked.
-- by_deadline: in the order of their deadlines, from the queues whose heads are due first; else from those that were served least, an equal
-- share of each. of_queues: from so many of them at most. swept: how many entries were found that cannot be run (their batch is cancelled or
-- deleted, or they were changed by hand); they are out of the way now.
CREATE OR REPLACE FUNCTION fusillade.take(me uuid, of_model text, counted_as text, most int, horizon timestamptz, by_deadline boolean,
                                          of_queues int, OUT taken fusillade.requests[], OUT swept int)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    owners text[];
    heads timestamptz[];
    share int;
    larger int;
    chosen tid[];
    gone uuid[];
    whose text[];
    of_batches uuid[];
    stopped uuid[];
    counts jsonb;
    dead record;
    more int;
BEGIN
    swept := 0;
    IF by_deadline THEN
        SELECT array_agg(c.created_by), array_agg(c.head_deadline) INTO owners, heads
          FROM (SELECT q.created_by, q.head_deadline FROM fusillade.queues q
                 WHERE q.model = of_model AND q.paused_until IS NULL AND q.head_deadline <= horizon
                 ORDER BY q.head_deadline LIMIT least(most, of_queues) FOR UPDATE SKIP LOCKED) c;
    ELSE
        SELECT array_agg(c.created_by), array_agg(c.head_deadline) INTO owners, heads
          FROM (SELECT q.created_by, q.head_deadline FROM fusillade.queues q
                 WHERE q.model = of_model AND q.paused_until IS NULL AND q.head_deadline <= horizon
                 ORDER BY q.vtime LIMIT least(most, of_queues) FOR UPDATE SKIP LOCKED) c;
    END IF;
    IF owners IS NULL THEN
        RETURN;
    END IF;
    share := most / cardinality(owners);
    larger := mod(most, cardinality(owners));
    -- No head is before what its queue says, so what was deleted there, and not yet vacuumed, is not walked again.
    IF by_deadline THEN
        chosen := ARRAY(
            SELECT d.ctid FROM fusillade.ready d WHERE d.ctid = ANY (ARRAY(
                SELECT h.ctid FROM unnest(owners, heads) c(owner, head), LATERAL (
                    SELECT r.ctid, r.deadline, r.id FROM fusillade.ready r
                     WHERE r.model = of_model AND r.created_by = c.owner AND r.deadline >= c.head AND r.deadline <= horizon
                     ORDER BY r.deadline, r.id LIMIT most) h
                 ORDER BY h.deadline, h.id LIMIT most)) FOR UPDATE SKIP LOCKED);
    ELSE
        chosen := ARRAY(
            SELECT h.ctid FROM unnest(owners, heads) WITH ORDINALITY c(owner, head, place), LATERAL (
                SELECT r.ctid FROM fusillade.ready r
                 WHERE r.model = of_model AND r.created_by = c.owner AND r.deadline >= c.head AND r.deadline <= horizon
                 ORDER BY r.deadline, r.id LIMIT share + (c.place <= larger)::int FOR UPDATE SKIP LOCKED) h);
    END IF;
    WITH gone AS (
        DELETE FROM fusillade.ready d WHERE d.ctid = ANY (chosen) RETURNING d.id, d.created_by, d.batch_id
    )
    SELECT array_agg(g.id), array_agg(g.created_by), array_agg(DISTINCT g.batch_id) INTO gone, whose, of_batches FROM gone g;
    stopped := ARRAY(SELECT b.id FROM fusillade.batches b
                      WHERE b.id = ANY (of_batches) AND (b.cancelling_at IS NOT NULL OR b.deleted_at IS NOT NULL));
    WITH marked AS (
        -- The state is checked again: a row changed by hand may have left its entry in ready behind.
        UPDATE fusillade.requests r SET state = 'processing', daemon_id = me, claimed_at = now(), started_at = now(), updated_at = now()
         WHERE r.id = ANY (gone) AND r.state = 'pending' AND coalesce(r.batch_id <> ALL (stopped), true)
        RETURNING r AS line, r.id, whose[array_position(gone, r.id)] AS created_by
    ), flying AS (
        INSERT INTO fusillade.inflight (id, model, created_by, daemon_id)
        SELECT m.id, counted_as, m.created_by, me FROM marked m
    )
    SELECT (SELECT array_agg(m.line) FROM marked m),
           (SELECT jsonb_object_agg(n.created_by, n.n) FROM (SELECT m.created_by, count(*) AS n FROM marked m GROUP BY m.created_by) n)
      INTO taken, counts;
    IF cardinality(gone) > coalesce(cardinality(taken), 0) THEN
        swept := cardinality(gone) - coalesce(cardinality(taken), 0);
        -- Of a batch that is not to be run there may be any number behind: its requests stand together. Some are taken out of the way.
        FOR dead IN
            SELECT r.batch_id, b.created_by, b.expires_at, max(r.id::text)::uuid AS last
              FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.batch_id
             WHERE r.id = ANY (gone) AND r.id <> ALL (ARRAY(SELECT t.id FROM unnest(taken) t)) AND r.id <> r.batch_id
               AND (b.cancelling_at IS NOT NULL OR b.deleted_at IS NOT NULL)
             GROUP BY r.batch_id, b.created_by, b.expires_at
        LOOP
            EXIT WHEN swept >= 500;
            DELETE FROM fusillade.ready d WHERE d.ctid = ANY (ARRAY(
                SELECT r.ctid FROM fusillade.ready r
                 WHERE r.model = of_model AND r.created_by = dead.created_by AND r.deadline = dead.expires_at AND r.id > dead.last
                   AND r.id <= overlay(dead.last::text PLACING 'ffffffff' FROM 29)::uuid AND r.batch_id = dead.batch_id
                 ORDER BY r.id LIMIT 500 FOR UPDATE SKIP LOCKED));
            GET DIAGNOSTICS more = ROW_COUNT;
            swept := swept + more;
        END LOOP;
    END IF;
    WITH rest AS MATERIALIZED (
        SELECT c.owner, coalesce((counts->>c.owner)::int, 0) AS n, coalesce(
                   (SELECT r.deadline FROM fusillade.ready r WHERE r.model = of_model AND r.created_by = c.owner AND r.deadline >= c.head
                     ORDER BY r.deadline, r.id LIMIT 1),
                   (SELECT r.deadline FROM fusillade.ready r WHERE r.model = of_model AND r.created_by = c.owner
                     ORDER BY r.deadline, r.id LIMIT 1)) AS head
          FROM unnest(owners, heads) c(owner, head)
    ), emptied AS (
        -- At once: an empty queue that stands first would cost the next claim its turn.
        DELETE FROM fusillade.queues q USING rest WHERE q.model = of_model AND q.created_by = rest.owner AND rest.head IS NULL
    )
    UPDATE fusillade.queues q SET vtime = q.vtime + rest.n, head_deadline = rest.head
      FROM rest WHERE q.model = of_model AND q.created_by = rest.owner AND rest.head IS NOT NULL;
END $$;

-- How many of a model's places are taken. A call that has ended in this worker (ended[n]) counts until that is written down, and following[n],
-- which runs in its place, counts already: where both do, they are one. One statement, so that neither is missed.
CREATE OR REPLACE FUNCTION fusillade.places_taken(me uuid, of_model text, ended uuid[], following uuid[]) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (SELECT count(*) FROM fusillade.inflight f WHERE f.model = of_model)
         - (SELECT count(*) FROM unnest(ended, following) p(before, after)
              CROSS JOIN LATERAL (SELECT FROM fusillade.inflight f WHERE f.id = p.before AND f.model = of_model AND f.daemon_id = me OFFSET 0) b
              CROSS JOIN LATERAL (SELECT FROM fusillade.inflight f WHERE f.id = p.after AND f.model = of_model OFFSET 0) a)
$$;

-- Up to `most` of one model, within `cap` for what is in flight of it, or, near their deadline, of the model to which they escalate. Both rows
-- must be locked. urgent: NULL where nothing is. relieved: one of the two may have calls in the place of such as have ended (`places_taken`).
-- swept: as in `take`, so there may be more behind.
CREATE OR REPLACE FUNCTION fusillade.claim_model(me uuid, of_model text, cap int, escalation text, escalation_cap int, escalates timestamptz,
                                                 most int, urgent timestamptz, urgency_weight double precision, ended uuid[], following uuid[],
                                                 relieved boolean,
                                                 OUT taken fusillade.requests[], OUT escalated int, OUT swept int)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    step int := CASE WHEN escalation IS NOT NULL THEN 1 WHEN urgent IS NOT NULL THEN 2 WHEN urgency_weight > 0 THEN 3 ELSE 4 END;
    tries int := 0;
    useful boolean;
    room int;
    got record;
BEGIN
    swept := 0;
    taken := '{}';
    escalated := 0;
    -- 1 what escalates, 2 what is urgent, 3 by deadline, 4 by fairness; each again while it yields, for what some queues lack others may have.
    WHILE step <= 4 AND cardinality(taken) < most LOOP
        IF tries = 0 THEN
            room := least(most - cardinality(taken),
                          CASE WHEN step = 1 AND relieved THEN escalation_cap - fusillade.places_taken(me, escalation, ended, following)
                               WHEN step = 1 THEN escalation_cap - (SELECT count(*) FROM fusillade.inflight f WHERE f.model = escalation)
                               WHEN relieved THEN cap - fusillade.places_taken(me, of_model, ended, following)
                               ELSE cap - (SELECT count(*) FROM fusillade.inflight f WHERE f.model = of_model) END);
            IF step = 3 THEN
                room := floor(room * urgency_weight);
            END IF;
        END IF;
        IF room > 0 AND (step <> 2 OR urgent IS NOT NULL) THEN
            got := fusillade.take(me, of_model, CASE step WHEN 1 THEN escalation ELSE of_model END, room,
                                  CASE step WHEN 1 THEN escalates WHEN 2 THEN urgent ELSE 'infinity' END, step = 3,
                                  CASE WHEN step = 3 THEN 8 WHEN tries = 0 THEN greatest(20, room / 5) ELSE room END);
            IF got.taken IS NOT NULL THEN
                taken := taken || got.taken;
                escalated := CASE step WHEN 1 THEN cardinality(taken) ELSE escalated END;
                room := room - cardinality(got.taken);
            END IF;
            swept := swept + got.swept;
            useful := got.taken IS NOT NULL OR got.swept > 0 OR tries = 0;
            tries := tries + 1;
        END IF;
        IF room <= 0 OR tries = 0 OR tries >= 4 OR NOT useful THEN
            step := step + 1;
            tries := 0;
        END IF;
    END LOOP;
END $$;

-- What running these takes. escalations[n]: the model that serves the nth, where that is not its own.
CREATE OR REPLACE FUNCTION fusillade.taken(lines fusillade.requests[], escalations text[])
RETURNS TABLE (id uuid, model text, escalation text, created_by text, deadline timestamptz,
               batch_id uuid, retry_attempt int, service_tier text, custom_id text, created_at timestamptz,
               api_key_id uuid, completion_window text, batch_created_at timestamptz, path text, body text, body_size int,
               owner_id uuid, owner_deleted boolean, times_lost smallint)
LANGUAGE sql STABLE AS $$
    -- (A deadline that somebody wrote as "never" is one that every client library can read.)
    SELECT r.id, r.model, escalations[r.ordinality], coalesce(b.created_by, ''),
           greatest('1970-01-01', least('9999-01-01', coalesce(b.expires_at, now() + interval '24 hours'))),
           r.batch_id, r.retry_attempt, r.service_tier, r.custom_id, r.created_at, b.api_key_id, b.completion_window, b.created_at, t.path,
           CASE WHEN octet_length(t.body) <= 262144 THEN t.body END, octet_length(t.body), u.id, u.is_deleted, r.times_lost
      FROM unnest(lines) WITH ORDINALITY r
      LEFT JOIN fusillade.batches b ON b.id = r.batch_id
      LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
      -- The account that it runs as: the owner of the key that the batch names, else who made the batch.
      LEFT JOIN users u ON u.id = coalesce(
            (SELECT k.user_id FROM api_keys k WHERE k.id = b.api_key_id),
            CASE WHEN b.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN b.created_by::uuid END)
$$;

-- Up to `most` due requests for a worker, which runs them from now on. caps: how many may be in flight of models, over all workers, where that is
-- not default_cap; ended and following: as in `places_taken`. Requests of escalating[n] that are due within thresholds_s[n] go to escalations[n] as
-- long as that has room.
CREATE OR REPLACE FUNCTION fusillade.claim(me uuid, most int, capped text[], caps int[], default_cap int,
                                           urgent_s double precision, urgency_weight double precision,
                                           escalating text[], escalations text[], thresholds_s double precision[],
                                           ended uuid[] DEFAULT '{}', following uuid[] DEFAULT '{}')
RETURNS TABLE (id uuid, model text, escalation text, created_by text, deadline timestamptz,
               batch_id uuid, retry_attempt int, service_tier text, custom_id text, created_at timestamptz,
               api_key_id uuid, completion_window text, batch_created_at timestamptz, path text, body text, body_size int,
               owner_id uuid, owner_deleted boolean, times_lost smallint)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    urgent timestamptz := now() + urgent_s * interval '1 second';
    relieved text[] := ARRAY(SELECT DISTINCT f.model FROM fusillade.inflight f WHERE f.id = ANY (following));
    candidate record;
    place int;
    cap int;
    escalation text;
    escalation_cap int;
    mine text[];
    busy text;
    got record;
    locked int := 0;
    swept int := 0;
    lock_timeout text := current_setting('lock_timeout');
    urgent_models text[];
    lines fusillade.requests[] := '{}';
    all_escalations text[] := '{}';
BEGIN
    PERFORM fusillade.end_pauses();
    -- (Where more than a thousand queues are urgent, those decide whose heads are due first.)
    urgent_models := ARRAY(SELECT DISTINCT u.model FROM (
        SELECT q.model FROM fusillade.queues q WHERE q.paused_until IS NULL AND q.head_deadline < urgent ORDER BY q.head_deadline LIMIT 1000) u);
    FOR attempt IN 1..2 LOOP
        -- The second only where there was work, all of it another claim's for this moment: then that one is waited for, shortly and with no
        -- lock of a model of ours.
        EXIT WHEN attempt = 2 AND (locked > 0 OR busy IS NULL);
        FOR candidate IN
            -- (Sorted before their heads are looked for, which is done only until a claim has enough.)
            SELECT m.model, h.head, m.paused FROM (
                SELECT s.model, s.served, s.model = ANY (urgent_models) AS is_urgent, coalesce(s.paused_until > now(), false) AS paused
                  FROM fusillade.model_slots s WHERE attempt = 1 OR s.model = busy ORDER BY is_urgent DESC, s.served) m
             CROSS JOIN LATERAL (SELECT q.head_deadline AS head FROM fusillade.queues q
                                  WHERE q.model = m.model AND q.paused_until IS NULL ORDER BY q.head_deadline LIMIT 1) h
             ORDER BY m.is_urgent DESC, m.served
        LOOP
            EXIT WHEN cardinality(lines) >= most OR locked >= 32;
            cap := CASE WHEN candidate.paused THEN 0 ELSE coalesce(caps[array_position(capped, candidate.model)], default_cap) END;
            escalation := NULL;
            escalation_cap := 0;
            place := array_position(escalating, candidate.model);
            IF place IS NOT NULL AND candidate.head < now() + thresholds_s[place] * interval '1 second' THEN
                escalation := escalations[place];
                escalation_cap := coalesce(caps[array_position(capped, escalation)], default_cap);
                INSERT INTO fusillade.model_slots (model) SELECT escalation
                 WHERE NOT EXISTS (SELECT FROM fusillade.model_slots m WHERE m.model = escalation)
                ON CONFLICT DO NOTHING;
            END IF;
            -- Not yet the counts that decide, but models that are full must not stand in the way of others.
            IF cap <= 0 OR (candidate.model <> ALL (relieved)
                            AND (SELECT count(*) FROM fusillade.inflight f WHERE f.model = candidate.model) >= cap) THEN
                CONTINUE WHEN escalation IS NULL OR (escalation <> ALL (relieved)
                                                     AND (SELECT count(*) FROM fusillade.inflight f WHERE f.model = escalation) >= escalation_cap);
            END IF;
            IF attempt = 1 THEN
                mine := ARRAY(SELECT m.model FROM fusillade.model_slots m WHERE m.model IN (candidate.model, escalation)
                                 FOR UPDATE SKIP LOCKED);
            ELSE
                BEGIN
                    PERFORM set_config('lock_timeout', '100ms', true);
                    mine := ARRAY(SELECT m.model FROM fusillade.model_slots m WHERE m.model IN (candidate.model, escalation)
                                   ORDER BY m.model FOR UPDATE);
                    PERFORM set_config('lock_timeout', lock_timeout, true);
                EXCEPTION WHEN lock_not_available THEN
                    EXIT;
                END;
            END IF;
            IF cardinality(mine) < (CASE WHEN escalation IS NULL THEN 1 ELSE 2 END) THEN
                busy := coalesce(busy, candidate.model);
                CONTINUE;
            END IF;
            locked := locked + 1;
            IF escalation IS NOT NULL THEN
                escalation_cap := CASE WHEN EXISTS (SELECT FROM fusillade.model_slots m WHERE m.model = escalation AND m.paused_until > now())
                                       THEN 0 ELSE escalation_cap END;
            END IF;
            got := fusillade.claim_model(me, candidate.model, cap, escalation, escalation_cap, now() + thresholds_s[place] * interval '1 second',
                                         most - cardinality(lines), CASE WHEN candidate.head < urgent THEN urgent END, urgency_weight,
                                         ended, following,
                                         candidate.model = ANY (relieved) OR coalesce(escalation = ANY (relieved), false));
            swept := swept + got.swept;
            IF got.taken <> '{}' THEN
                lines := lines || got.taken;
                all_escalations := all_escalations || array_fill(escalation, ARRAY[got.escalated])
                                || array_fill(NULL::text, ARRAY[cardinality(got.taken) - got.escalated]);
                UPDATE fusillade.model_slots m SET served = extract(epoch FROM clock_timestamp()) * 1000000 WHERE m.model = candidate.model;
            END IF;
        END LOOP;
    END LOOP;
    IF swept > 0 THEN
        PERFORM pg_notify('fusillade_ready', '');
    END IF;
    RETURN QUERY SELECT * FROM fusillade.taken(lines, all_escalations);
END $$;

-- ----- ahead of the claim

-- Requests for the places that a worker's calls are about to leave (docs/decisions/0029): up to wanted[n] of of_models[n], unless more of that is
-- in flight than caps[n] allow (and a quarter: between two calls of another worker both are counted for a moment), by whatever a claim would choose. They
-- stand in `inflight` under no model's name, so they count for no cap.
CREATE OR REPLACE FUNCTION fusillade.claim_ahead(me uuid, of_models text[], wanted int[], caps int[], urgent_s double precision,
                                                 urgency_weight double precision)
RETURNS TABLE (id uuid, model text, escalation text, created_by text, deadline timestamptz,
               batch_id uuid, retry_attempt int, service_tier text, custom_id text, created_at timestamptz,
               api_key_id uuid, completion_window text, batch_created_at timestamptz, path text, body text, body_size int,
               owner_id uuid, owner_deleted boolean, times_lost smallint)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    place record;
    step int;
    room int;
    got record;
    lines fusillade.requests[] := '{}';
BEGIN
    FOR place IN SELECT w.model, w.wanted, w.cap FROM unnest(of_models, wanted, caps) w(model, wanted, cap) ORDER BY w.model LOOP
        -- Another claim's at this moment: then that one serves it.
        PERFORM FROM fusillade.model_slots m
          WHERE m.model = place.model AND coalesce(m.paused_until <= now(), true) FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND OR (SELECT count(*) FROM fusillade.inflight f WHERE f.model = place.model) > place.cap * 1.25;
        room := place.wanted;
        FOR step IN 1..4 LOOP
            got := fusillade.take(me, place.model, '', CASE step WHEN 2 THEN floor(room * urgency_weight)::int ELSE room END,
                                  CASE step WHEN 1 THEN now() + urgent_s * interval '1 second' ELSE 'infinity' END, step = 2,
                                  CASE step WHEN 2 THEN 8 WHEN 4 THEN room ELSE greatest(20, room / 5) END);
            IF got.taken IS NOT NULL THEN
                lines := lines || got.taken;
                room := room - cardinality(got.taken);
            END IF;
            EXIT WHEN room <= 0;
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT * FROM fusillade.taken(lines, '{}');
END $$;

-- The calls of these begin, each in the place of one whose end is not written down yet: from now on they count.
CREATE OR REPLACE FUNCTION fusillade.take_places(me uuid, them uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.inflight i SET model = r.model FROM fusillade.requests r
     WHERE i.id = ANY (them) AND i.daemon_id = me AND r.id = i.id;
END $$;

-- ----- pauses: nothing of a queue, or of a model, is claimed for a while

-- One account's queue at a model. The later end wins. (A queue that is empty keeps its pause: what comes back to it must find it.)
CREATE OR REPLACE FUNCTION fusillade.pause_queue(of_model text, owner text, wait_s double precision, reason text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.queues AS q (model, created_by, vtime, head_deadline, paused_until, pause_reason)
    VALUES (of_model, owner, coalesce((SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = of_model), 0), now() + interval '24 hours',
            now() + wait_s * interval '1 second', reason)
    ON CONFLICT (model, created_by) DO UPDATE SET paused_until = EXCLUDED.paused_until, pause_reason = EXCLUDED.pause_reason
     WHERE q.paused_until IS NULL OR q.paused_until < EXCLUDED.paused_until;
END $$;

-- A model, for everybody. The later end wins.
CREATE OR REPLACE FUNCTION fusillade.pause_model(of_model text, wait_s double precision, reason text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fusillade.model_slots AS m (model, paused_until, pause_reason)
    VALUES (of_model, now() + wait_s * interval '1 second', reason)
    ON CONFLICT (model) DO UPDATE SET paused_until = EXCLUDED.paused_until, pause_reason = EXCLUDED.pause_reason
     WHERE m.paused_until IS NULL OR m.paused_until < EXCLUDED.paused_until;
END $$;

-- Queues whose pause has ended are there again; nobody catches up on what was not asked for meanwhile.
CREATE OR REPLACE FUNCTION fusillade.end_pauses() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    ended int;
BEGIN
    UPDATE fusillade.queues q SET paused_until = NULL, pause_reason = NULL,
           vtime = greatest(q.vtime, (SELECT min(o.vtime) FROM fusillade.queues o WHERE o.model = q.model AND o.paused_until IS NULL))
     WHERE q.ctid = ANY (ARRAY(
        SELECT p.ctid FROM fusillade.queues p WHERE p.paused_until <= now() ORDER BY p.paused_until LIMIT 1000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

-- The same because the account cannot pay `amount`, which is what one of its requests may cost.
CREATE OR REPLACE FUNCTION fusillade.pause_for_credit(of_model text, owner text, wait_s double precision, amount numeric) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM fusillade.pause_queue(of_model, owner, wait_s, 'no_credit');
    UPDATE fusillade.queues q SET needs = amount WHERE q.model = of_model AND q.created_by = owner AND q.pause_reason = 'no_credit';
END $$;

-- Queues that were paused because their account had no credit, or not enough, and has what they need now. Gives how many.
CREATE OR REPLACE FUNCTION fusillade.end_pauses_of_the_funded() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    ended int;
BEGIN
    UPDATE fusillade.queues q SET paused_until = now()
     WHERE q.ctid = ANY (ARRAY(
        SELECT p.ctid FROM fusillade.queues p
          JOIN user_balance_checkpoints b ON b.user_id::text = p.created_by AND b.balance - b.reserved > 0 AND b.balance - b.reserved >= coalesce(p.needs, 0)
         WHERE p.paused_until > now() AND p.pause_reason = 'no_credit'
           FOR UPDATE OF p SKIP LOCKED));
    GET DIAGNOSTICS ended = ROW_COUNT;
    IF ended > 0 THEN
        PERFORM pg_notify('fusillade_ready', '');
    END IF;
    RETURN ended;
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
