-- name: claim
-- A claim is the attempt's number: its mail is due again when the lease is over, and then has another one.
UPDATE outgoing_mails m
   SET attempts = m.attempts + 1, due_at = now() + %(lease_s)s * interval '1 second'
 WHERE m.id = (
        SELECT id FROM outgoing_mails
         WHERE due_at <= now() AND expires_at > now()
         ORDER BY due_at, id LIMIT 1
           FOR UPDATE SKIP LOCKED)
RETURNING m.id, m.template, m.recipient, m.reply_to, m.values_sealed, m.attempts;

-- name: done
DELETE FROM outgoing_mails WHERE id = %(id)s AND attempts = %(attempts)s;

-- name: put_off
UPDATE outgoing_mails SET due_at = now() + %(wait_s)s * interval '1 second' WHERE id = %(id)s AND attempts = %(attempts)s;

-- name: give_up
-- Not one that is on its way: the lease of its last attempt must be over.
DELETE FROM outgoing_mails
 WHERE id IN (SELECT id FROM outgoing_mails WHERE expires_at <= now() AND (attempts = 0 OR due_at <= now())
               ORDER BY expires_at, id LIMIT %(most)s FOR UPDATE SKIP LOCKED)
RETURNING id, template, attempts;

-- name: outlook
-- How many wait, and in how many seconds the next one is due.
SELECT count(*), extract(epoch FROM min(due_at) - now())::float8 FROM outgoing_mails;
