-- Functions of dwctl/queue/claims.sql as they were when this migration was made.

DROP FUNCTION fusillade.take(uuid, text, text, int, timestamptz, boolean);

DROP FUNCTION fusillade.claim_model(uuid, text, int, text, int, timestamptz, int, timestamptz, double precision, uuid[], uuid[], boolean);

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
