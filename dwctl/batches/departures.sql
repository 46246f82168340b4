-- What becomes of the work of accounts that were deleted (departures.py).

-- name: cancel_batches  the account's batches that are not over
SELECT fusillade.cancel_batch(b.id)
  FROM (SELECT id FROM fusillade.batches
         WHERE created_by = %(owner)s AND NOT single AND deleted_at IS NULL AND cancelling_at IS NULL
           AND completed_at IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL
         ORDER BY id) b;

-- name: next  an account that has left and whose turn it is, and whether nothing of it can be on its way any more
SELECT account_id, left_at < now() - interval '5 minutes'
  FROM leavers WHERE looked_at IS NULL OR looked_at < now() - interval '5 seconds'
 ORDER BY looked_at NULLS FIRST LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: cancel_requests  its single requests that wait or run, some of them; in one order, as everybody locks them
SELECT fusillade.cancel(w.id, ARRAY[%(owner)s])
  FROM (SELECT id FROM (
            SELECT y.id FROM fusillade.queues q JOIN fusillade.ready y USING (model, created_by)
             WHERE q.created_by = %(owner)s AND y.batch_id = y.id
            UNION
            SELECT f.id FROM fusillade.inflight f JOIN fusillade.requests r ON r.id = f.id
             WHERE f.created_by = %(owner)s AND r.batch_id = r.id AND r.state IN ('claimed', 'processing')) them
         LIMIT %(most)s) w
 ORDER BY w.id;

-- name: look_again
UPDATE leavers SET looked_at = now() WHERE account_id = %(id)s;

-- name: forget
DELETE FROM leavers WHERE account_id = %(id)s;
