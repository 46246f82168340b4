-- Synchronisations and their objects, as workers take them, change them and give them back. Locks: connections, then entries, then syncs.

-- name: take_listing  a synchronisation whose objects are to be listed, for one worker
WITH due AS (
    SELECT s.id
      FROM sync_operations s JOIN connections c ON c.id = s.connection_id
     WHERE s.status IN ('pending', 'listing') AND s.due_at <= now() AND (s.claimed_until IS NULL OR s.claimed_until < now())
       AND c.deleted_at IS NULL
     ORDER BY s.created_at, s.id LIMIT 1
       FOR UPDATE OF s SKIP LOCKED
)
UPDATE sync_operations s
   SET status = 'listing', claim = gen_random_uuid(), claimed_until = now() + %(lease_s)s * interval '1 second',
       started_at = coalesce(s.started_at, now()), updated_at = now()
  FROM due, connections c
 WHERE s.id = due.id AND c.id = s.connection_id
RETURNING s.id, s.claim, s.connection_id, s.file_keys, s.force, s.listed_to, s.attempts, c.provider, c.config_sealed;

-- name: hold_connection  one page of a connection's objects at a time, so that two synchronisations see each other's
SELECT FROM connections WHERE id = %(connection_id)s AND deleted_at IS NULL FOR NO KEY UPDATE;

-- name: add_entries  a page of objects; what was taken in before is skipped, unless it is wanted again
WITH listed AS (
    SELECT * FROM unnest(%(keys)s::text[], %(modified)s::timestamptz[], %(sizes)s::bigint[], %(etags)s::text[], %(errors)s::text[])
               AS l (key, modified, size, etag, error)
), added AS (
    INSERT INTO sync_entries (sync_id, connection_id, external_key, external_last_modified, external_size_bytes, external_etag, status, error)
    SELECT %(sync_id)s, %(connection_id)s, l.key, l.modified, l.size, l.etag,
           CASE WHEN l.error IS NOT NULL THEN 'failed'
                WHEN NOT %(force)s AND EXISTS (
                    SELECT FROM sync_entries e
                     WHERE e.connection_id = %(connection_id)s AND e.external_key = l.key AND e.external_last_modified = l.modified
                       AND e.status NOT IN ('skipped', 'deleted')) THEN 'skipped'
                ELSE 'pending' END,
           l.error
      FROM listed l
        ON CONFLICT (sync_id, external_key) DO NOTHING
    RETURNING status
), counted AS (
    SELECT count(*) AS found, count(*) FILTER (WHERE status = 'skipped') AS skipped, count(*) FILTER (WHERE status = 'failed') AS failed
      FROM added
)
UPDATE sync_operations s
   SET files_found = s.files_found + counted.found, files_skipped = s.files_skipped + counted.skipped,
       files_failed = s.files_failed + counted.failed, listed_to = %(listed_to)s, attempts = 0, error = NULL, updated_at = now()
  FROM counted
 WHERE s.id = %(sync_id)s AND s.claim = %(claim)s AND s.status = 'listing'
RETURNING s.files_found;

-- name: end_listing  all is found: its objects are read from now on
UPDATE sync_operations
   SET claim = NULL, claimed_until = NULL, updated_at = now(),
       status = CASE WHEN files_found > files_skipped + files_failed THEN 'ingesting'
                     WHEN files_failed > 0 AND files_failed = files_found THEN 'failed'
                     ELSE 'completed' END,
       completed_at = CASE WHEN files_found > files_skipped + files_failed THEN NULL ELSE now() END
 WHERE id = %(sync_id)s AND claim = %(claim)s AND status = 'listing';

-- name: fail_sync  a synchronisation that cannot be carried out
UPDATE sync_operations
   SET status = 'failed', error = %(error)s, claim = NULL, claimed_until = NULL, completed_at = now(), updated_at = now()
 WHERE id = %(sync_id)s AND claim = %(claim)s AND status = 'listing'
RETURNING id;

-- name: drop_entries  what was found of a synchronisation that is not carried out
DELETE FROM sync_entries WHERE sync_id = %(sync_id)s;

-- name: put_listing_off  try again later
UPDATE sync_operations
   SET error = %(error)s, attempts = attempts + 1, due_at = now() + %(wait_s)s * interval '1 second', claim = NULL, claimed_until = NULL,
       updated_at = now()
 WHERE id = %(sync_id)s AND claim = %(claim)s AND status = 'listing';

-- name: take_ingest  an object to read, for one worker; synchronisations take turns
WITH turn AS (
    SELECT s.id
      FROM sync_operations s JOIN connections c ON c.id = s.connection_id
     WHERE s.status = 'ingesting' AND c.deleted_at IS NULL
       AND EXISTS (SELECT FROM sync_entries e
                    WHERE e.sync_id = s.id AND e.status IN ('pending', 'ingesting') AND e.due_at <= now()
                      AND (e.claimed_until IS NULL OR e.claimed_until < now()))
     ORDER BY s.served_at NULLS FIRST, s.created_at, s.id LIMIT 1
), due AS (
    SELECT e.id
      FROM sync_entries e
     WHERE e.sync_id = (SELECT turn.id FROM turn)  -- no join, so that the index gives the order: a sort would read all objects that are left
       AND e.status IN ('pending', 'ingesting') AND e.due_at <= now() AND (e.claimed_until IS NULL OR e.claimed_until < now())
     ORDER BY e.due_at LIMIT 1
       FOR UPDATE OF e SKIP LOCKED
)
UPDATE sync_entries e
   SET status = 'ingesting', claim = gen_random_uuid(), claimed_until = now() + %(lease_s)s * interval '1 second', updated_at = now()
  FROM due, sync_operations s, connections c
 WHERE e.id = due.id AND s.id = e.sync_id AND c.id = e.connection_id
RETURNING e.id, e.claim, e.sync_id, e.connection_id, e.external_key, e.external_last_modified, e.external_size_bytes, e.external_etag, e.file_id,
          e.attempts, s.endpoint, s.api_key_id, c.owner_id, c.provider, c.config_sealed;

-- name: serve  a synchronisation has had its turn
UPDATE sync_operations SET served_at = clock_timestamp() WHERE id = %(sync_id)s;

-- name: announce_file  the id that an object's file will have, written down before there is one
UPDATE sync_entries e SET file_id = %(file_id)s, updated_at = now()
 WHERE e.id = %(id)s AND e.claim = %(claim)s AND e.status = 'ingesting'
   AND EXISTS (SELECT FROM connections c WHERE c.id = e.connection_id AND c.deleted_at IS NULL)
RETURNING id;

-- name: known_file  how many requests a file has that was announced
SELECT coalesce((SELECT sum(m.requests) FROM fusillade.file_models m WHERE m.file_id = f.id), 0)::bigint
  FROM fusillade.files f WHERE f.id = %(file_id)s AND f.deleted_at IS NULL;

-- name: ingested  an object is a file
UPDATE sync_entries
   SET status = 'ingested', template_count = %(requests)s, invalid_lines = %(invalid_lines)s, line_errors = %(line_errors)s,
       error = NULL, attempts = 0, due_at = now(), claim = NULL, claimed_until = NULL, updated_at = now()
 WHERE id = %(id)s AND claim = %(claim)s AND status = 'ingesting'
RETURNING sync_id;

-- name: put_entry_off  try again later; its state says at what
UPDATE sync_entries
   SET error = %(error)s, attempts = attempts + 1, due_at = now() + %(wait_s)s * interval '1 second', claim = NULL, claimed_until = NULL,
       updated_at = now()
 WHERE id = %(id)s AND claim = %(claim)s;

-- name: fail_entry  an object that cannot be taken in
UPDATE sync_entries
   SET status = 'failed', error = %(error)s, invalid_lines = coalesce(%(invalid_lines)s, invalid_lines),
       line_errors = coalesce(%(line_errors)s, line_errors), claim = NULL, claimed_until = NULL, updated_at = now()
 WHERE id = %(id)s AND claim = %(claim)s AND status IN ('ingesting', 'activating')
RETURNING sync_id;

-- name: take_activation  a file to run as a batch, for one worker, with the batch's id, written down before there is one
WITH due AS (
    SELECT e.id
      FROM sync_entries e JOIN connections c ON c.id = e.connection_id
     WHERE e.status IN ('ingested', 'activating') AND e.due_at <= now() AND (e.claimed_until IS NULL OR e.claimed_until < now())
       AND c.deleted_at IS NULL
     ORDER BY e.due_at LIMIT 1
       FOR UPDATE OF e SKIP LOCKED
)
UPDATE sync_entries e
   SET status = 'activating', claim = gen_random_uuid(), claimed_until = now() + %(lease_s)s * interval '1 second',
       batch_id = coalesce(e.batch_id, %(batch_id)s), updated_at = now()
  FROM due, sync_operations s, connections c
 WHERE e.id = due.id AND s.id = e.sync_id AND c.id = e.connection_id
RETURNING e.id, e.claim, e.sync_id, e.connection_id, e.external_key, e.file_id, e.batch_id, e.attempts,
          s.endpoint, s.completion_window, s.any_window, s.api_key_id, s.created_by, c.name AS connection_name, c.owner_id;

-- name: activated  a file is run as a batch
UPDATE sync_entries e
   SET status = 'activated', error = NULL, claim = NULL, claimed_until = NULL, updated_at = now()
 WHERE e.id = %(id)s AND e.claim = %(claim)s AND e.status = 'activating'
   AND EXISTS (SELECT FROM connections c WHERE c.id = e.connection_id AND c.deleted_at IS NULL)
RETURNING sync_id;

-- name: count_entry  what became of an object; with the last one its synchronisation is over
UPDATE sync_operations
   SET files_ingested = files_ingested + %(ingested)s, files_failed = files_failed + %(failed)s,
       batches_created = batches_created + %(activated)s, updated_at = now(),
       status = CASE WHEN status <> 'ingesting'
                       OR files_found > files_skipped + files_failed + %(failed)s + batches_created + %(activated)s THEN status
                     WHEN files_failed + %(failed)s = files_found THEN 'failed'
                     ELSE 'completed' END,
       completed_at = CASE WHEN status <> 'ingesting'
                             OR files_found > files_skipped + files_failed + %(failed)s + batches_created + %(activated)s THEN completed_at
                           ELSE now() END
 WHERE id = %(sync_id)s;

-- name: renew_entries  a worker goes on with what it has; gives what it still has
UPDATE sync_entries e SET claimed_until = now() + %(lease_s)s * interval '1 second'
 WHERE e.claim = ANY(%(claims)s) AND EXISTS (SELECT FROM connections c WHERE c.id = e.connection_id AND c.deleted_at IS NULL)
RETURNING e.claim;

-- name: renew_listings  the same for synchronisations
UPDATE sync_operations s SET claimed_until = now() + %(lease_s)s * interval '1 second'
 WHERE s.claim = ANY(%(claims)s) AND s.status = 'listing'
   AND EXISTS (SELECT FROM connections c WHERE c.id = s.connection_id AND c.deleted_at IS NULL)
RETURNING s.claim;

-- name: release_entries  a worker ends: another one may go on
UPDATE sync_entries SET claim = NULL, claimed_until = NULL WHERE claim = ANY(%(claims)s);

-- name: release_listings  the same for synchronisations
UPDATE sync_operations SET claim = NULL, claimed_until = NULL WHERE claim = ANY(%(claims)s);

-- name: delete_of_deleted  connections of accounts that are gone
UPDATE connections c SET deleted_at = now(), updated_at = now(), config_sealed = NULL
 WHERE c.deleted_at IS NULL AND EXISTS (SELECT FROM users u WHERE u.id = c.owner_id AND u.is_deleted);

-- name: delete_entries  some objects of synchronisations of deleted connections
UPDATE sync_entries SET status = 'deleted', claim = NULL, claimed_until = NULL, updated_at = now()
 WHERE id = ANY(ARRAY(
           SELECT e.id
             FROM connections c JOIN sync_operations s ON s.connection_id = c.id JOIN sync_entries e ON e.sync_id = s.id
            WHERE c.deleted_at IS NOT NULL AND s.status <> 'deleted' AND e.status <> 'deleted'
            LIMIT %(most)s));

-- name: delete_syncs  synchronisations of deleted connections whose objects are all marked
UPDATE sync_operations s SET status = 'deleted', claim = NULL, claimed_until = NULL, updated_at = now()
  FROM connections c
 WHERE c.id = s.connection_id AND c.deleted_at IS NOT NULL AND s.status <> 'deleted'
   AND NOT EXISTS (SELECT FROM sync_entries e WHERE e.sync_id = s.id AND e.status <> 'deleted');

-- name: forget_skipped  some objects that were skipped long ago; what was taken in is kept, so that it is not taken in again
DELETE FROM sync_entries
 WHERE id = ANY(ARRAY(
           SELECT e.id
             FROM sync_operations s JOIN sync_entries e ON e.sync_id = s.id
            WHERE s.status IN ('completed', 'failed', 'deleted') AND s.completed_at < now() - %(days)s * interval '1 day'
              AND e.status IN ('skipped', 'deleted')
            LIMIT %(most)s));
