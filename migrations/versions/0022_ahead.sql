-- ----- ahead of the claim

-- Requests for the places that a worker's calls are about to leave (docs/decisions/0029): up to wanted[n] of of_models[n], unless more of that is
-- in flight than caps[n] allow (and a quarter: between two calls of another worker both are counted for a moment), by whatever a claim would choose. They
-- stand in `inflight` under no model's name, so they count for no cap.
CREATE OR REPLACE FUNCTION fusillade.claim_ahead(me uuid, of_models text[], wanted int[], caps int[], urgent_s double precision,
                                                 urgency_weight double precision)
RETURNS TABLE (id uuid, model text, escalation text, created_by text, deadline timestamptz,
               batch_id uuid, retry_attempt int, service_tier text, custom_id text, created_at timestamptz,
               api_key_id uuid, completion_window text, batch_created_at timestamptz, path text, body text,
               owner_id uuid, owner_deleted boolean, times_lost smallint)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    place record;
    step int;
    room int;
    got record;
    all_ids uuid[] := '{}';
    all_deadlines timestamptz[] := '{}';
BEGIN
    FOR place IN SELECT w.model, w.wanted, w.cap FROM unnest(of_models, wanted, caps) w(model, wanted, cap) ORDER BY w.model LOOP
        -- Another claim's at this moment: then that one serves it.
        PERFORM FROM fusillade.model_slots m
          WHERE m.model = place.model AND coalesce(m.paused_until <= now(), true) FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND OR (SELECT count(*) FROM fusillade.inflight f WHERE f.model = place.model) > place.cap * 1.25;
        room := place.wanted;
        FOR step IN 1..3 LOOP
            got := fusillade.take(me, place.model, '', CASE step WHEN 2 THEN floor(room * urgency_weight)::int ELSE room END,
                                  CASE step WHEN 1 THEN now() + urgent_s * interval '1 second' ELSE 'infinity' END, step = 2);
            IF got.taken IS NOT NULL THEN
                all_ids := all_ids || got.taken;
                all_deadlines := all_deadlines || got.deadlines;
                room := room - cardinality(got.taken);
            END IF;
            EXIT WHEN room <= 0;
        END LOOP;
    END LOOP;
    RETURN QUERY
    SELECT r.id, r.model, NULL::text, coalesce(b.created_by, ''), greatest('1970-01-01', least('9999-01-01', c.deadline)), r.batch_id, r.retry_attempt, r.service_tier, r.custom_id, r.created_at,
           b.api_key_id, b.completion_window, b.created_at, t.path, t.body, u.id, u.is_deleted, r.times_lost
      FROM unnest(all_ids, all_deadlines) c(id, deadline)
      JOIN fusillade.requests r ON r.id = c.id
      LEFT JOIN fusillade.batches b ON b.id = r.batch_id
      LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
      LEFT JOIN users u ON u.id = coalesce(
            (SELECT k.user_id FROM api_keys k WHERE k.id = b.api_key_id),
            CASE WHEN b.created_by ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN b.created_by::uuid END);
END $$;

-- The calls of these begin, each in the place of one whose end is not written down yet: from now on they count.
CREATE OR REPLACE FUNCTION fusillade.take_places(me uuid, them uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fusillade.inflight i SET model = r.model FROM fusillade.requests r
     WHERE i.id = ANY (them) AND i.daemon_id = me AND r.id = i.id;
END $$;

