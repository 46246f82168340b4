-- All that writes limit_states, and limit_holds with them. Migrations freeze copies; a test compares.

-- Give back and take, in one go. Nothing is done where a state is missing (`ensure_states` makes it): then no row comes back; else the first has
-- number 0, and says nothing.
--   subjects  whose limits are touched, in the order of their names: {name, rate, burst, capacity, per_minute}; absent: no such limit
--   given     holds that end, or null: {number, i (position in subjects, from 1), used (LLM tokens)}
--   wanted    calls, or null: {number, i (positions, in the order in which limits are named), tokens (an estimate)}; each gets all or nothing
--   dead_after_s  a process that has not beaten for so long holds nothing; null: only those that are known to be dead
-- Gives for each wanted call: refused_by (0: taken; else 10 * position in its i + 1 calls a second, 2 at once, 3 LLM tokens), when it can
-- pass (seconds), and what is left in the buckets of each of its subjects.
CREATE OR REPLACE FUNCTION exchange_limits(me uuid, subjects json, given json, wanted json, dead_after_s double precision)
RETURNS TABLE (number bigint, refused_by int, wait_s double precision, calls_left double precision[], tokens_left double precision[])
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    names text[];
    rates float8[]; bursts float8[]; capacities int[]; minutes float8[];
    calls float8[]; tokens float8[]; held int[];
    since timestamptz[]; looked timestamptz[];
    t timestamptz;
    passed float8; need float8;
    places int;
    one record;
    k int; j int;
BEGIN
    SELECT array_agg(s.name), array_agg(s.rate), array_agg(s.burst), array_agg(s.capacity), array_agg(s.per_minute)
      INTO names, rates, bursts, capacities, minutes
      FROM json_to_recordset(subjects) s(name text, rate float8, burst float8, capacity int, per_minute float8);
    -- In the order of their names: two exchanges never wait for each other.
    SELECT array_agg(l.calls), array_agg(l.tokens), array_agg(l.held), array_agg(l.at), array_agg(l.looked_at)
      INTO calls, tokens, held, since, looked
      FROM (SELECT * FROM limit_states s WHERE s.subject = ANY (names) ORDER BY s.subject FOR UPDATE) l;
    IF cardinality(held) IS DISTINCT FROM cardinality(names) THEN
        RETURN;
    END IF;
    number := 0;
    RETURN NEXT;
    -- After the locks: time has passed since this statement began.
    t := clock_timestamp();
    FOR k IN 1 .. cardinality(names) LOOP
        passed := greatest(0, extract(epoch FROM t - since[k]));
        calls[k] := CASE WHEN rates[k] > 0 THEN least(bursts[k], coalesce(calls[k], bursts[k]) + passed * rates[k]) END;
        tokens[k] := CASE WHEN minutes[k] > 0 THEN least(minutes[k], coalesce(tokens[k], minutes[k]) + passed * minutes[k] / 60) END;
    END LOOP;

    -- What had been taken on an estimate is settled by what was used. A hold that is not there any more was given back already.
    IF given IS NOT NULL THEN
        FOR one IN SELECT * FROM json_to_recordset(given) g(number bigint, i int, used float8) LOOP
            k := one.i;
            DELETE FROM limit_holds h
             WHERE h.subject = names[k] AND h.owner = me AND h.number = one.number
            RETURNING h.slots, h.tokens INTO places, need;
            CONTINUE WHEN NOT FOUND;
            held[k] := greatest(0, held[k] - places);
            tokens[k] := least(minutes[k], tokens[k] + need - one.used);
        END LOOP;
    END IF;

    FOR one IN SELECT * FROM json_to_recordset(coalesce(wanted, '[]')) w(number bigint, i int[], tokens float8) LOOP
        refused_by := 0;
        wait_s := 0;
        FOR j IN 1 .. cardinality(one.i) LOOP
            k := one.i[j];
            -- The least difference: sums of fractions are not exact.
            IF calls[k] < 1 - 1e-9 THEN
                refused_by := CASE refused_by WHEN 0 THEN 10 * j + 1 ELSE refused_by END;
                wait_s := greatest(wait_s, (1 - calls[k]) / rates[k]);
            END IF;
        END LOOP;
        FOR j IN 1 .. cardinality(one.i) LOOP
            k := one.i[j];
            IF held[k] >= capacities[k] AND looked[k] < t - interval '1 second' THEN
                looked[k] := t;
                WITH gone AS (
                    DELETE FROM limit_holds h
                     WHERE h.subject = names[k] AND h.owner <> me
                       AND NOT EXISTS (SELECT FROM fusillade.daemons d
                                        WHERE d.id = h.owner AND d.status <> 'dead'
                                          AND (dead_after_s IS NULL OR d.last_heartbeat > t - dead_after_s * interval '1 second'))
                    RETURNING h.slots
                )
                SELECT coalesce(sum(g.slots), 0) INTO places FROM gone g;
                held[k] := greatest(0, held[k] - places);
            END IF;
            IF held[k] >= capacities[k] THEN
                refused_by := CASE refused_by WHEN 0 THEN 10 * j + 2 ELSE refused_by END;
            END IF;
        END LOOP;
        FOR j IN 1 .. cardinality(one.i) LOOP
            k := one.i[j];
            -- What is estimated above the whole bucket passes when that is full, and empties it.
            need := least(one.tokens, minutes[k]);
            IF tokens[k] < need - 1e-6 THEN
                refused_by := CASE refused_by WHEN 0 THEN 10 * j + 3 ELSE refused_by END;
                wait_s := greatest(wait_s, (need - tokens[k]) * 60 / minutes[k]);
            END IF;
        END LOOP;
        calls_left := '{}';
        tokens_left := '{}';
        FOREACH k IN ARRAY one.i LOOP
            IF refused_by = 0 THEN
                calls[k] := calls[k] - 1;
                need := coalesce(least(one.tokens, minutes[k]), 0);
                tokens[k] := tokens[k] - need;
                IF capacities[k] > 0 OR minutes[k] > 0 THEN
                    places := CASE WHEN capacities[k] > 0 THEN 1 ELSE 0 END;
                    held[k] := held[k] + places;
                    INSERT INTO limit_holds (subject, owner, number, slots, tokens)
                    VALUES (names[k], me, one.number, places, need);
                END IF;
            END IF;
            calls_left := calls_left || calls[k];
            tokens_left := tokens_left || tokens[k];
        END LOOP;
        number := one.number;
        RETURN NEXT;
    END LOOP;

    FOR k IN 1 .. cardinality(names) LOOP
        UPDATE limit_states s
           SET calls = calls[k], tokens = tokens[k], held = held[k], at = t, looked_at = looked[k],
               full_at = t + interval '1 second' * least(1e9, greatest(coalesce((bursts[k] - calls[k]) / rates[k], 0),
                                                                      coalesce((minutes[k] - tokens[k]) * 60 / minutes[k], 0)))
         WHERE s.subject = names[k];
    END LOOP;
END $$;

-- What the dead held: how many places are free again. A process that beats again after that has lost them.
CREATE OR REPLACE FUNCTION free_limits_of_the_dead(most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    freed int := 0;
    one record;
    places int;
BEGIN
    FOR one IN
        SELECT s.subject FROM limit_states s
         WHERE s.subject IN (SELECT h.subject FROM limit_holds h
                              WHERE NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = h.owner AND d.status <> 'dead')
                              LIMIT most)
         ORDER BY s.subject FOR UPDATE
    LOOP
        WITH gone AS (
            DELETE FROM limit_holds h
             WHERE h.subject = one.subject
               AND NOT EXISTS (SELECT FROM fusillade.daemons d WHERE d.id = h.owner AND d.status <> 'dead')
            RETURNING h.slots
        )
        SELECT coalesce(sum(g.slots), 0) INTO places FROM gone g;
        UPDATE limit_states s SET held = greatest(0, s.held - places) WHERE s.subject = one.subject;
        freed := freed + places;
    END LOOP;
    RETURN freed;
END $$;
