-- name: probe  whether the database is there
SELECT 1;

-- name: exchange  give back and take, for a group of calls (functions.sql)
SELECT number, refused_by, wait_s, calls_left, tokens_left
  FROM exchange_limits(%(me)s, %(subjects)s, %(given)s, %(wanted)s, %(dead_after_s)s);

-- name: ensure_states  of what is limited for the first time, in one order, so that two processes do not wait for each other
INSERT INTO limit_states (subject) SELECT s FROM unnest(%(subjects)s::text[]) s ORDER BY s COLLATE "C" ON CONFLICT DO NOTHING;

-- name: free_limits_of_the_dead  places held by processes that are dead
SELECT free_limits_of_the_dead(%(most)s);

-- name: purge_states  of what has not been used for a while, and is as full as one that was never used
DELETE FROM limit_states
 WHERE subject IN (SELECT subject FROM limit_states
                    WHERE held = 0 AND full_at < clock_timestamp() AND at < clock_timestamp() - interval '10 minutes'
                      AND NOT EXISTS (SELECT FROM limit_holds h WHERE h.subject = limit_states.subject)
                    LIMIT %(most)s FOR UPDATE SKIP LOCKED);
