-- name: make_reset_token
-- The person is the one whom the same e-mail and a password would sign in (users.with_email). Locked, so that whoever takes their password
-- away either sees the token or was here before.
WITH person AS (
    SELECT id, email, coalesce(nullif(display_name, ''), username) AS name
      FROM users
     WHERE lower(email) = lower(%(email)s) AND user_type = 'individual' AND NOT is_deleted AND password_hash IS NOT NULL
       AND id <> '00000000-0000-0000-0000-000000000000'
     ORDER BY email <> %(email)s, created_at, id
     LIMIT 1
       FOR SHARE
), made AS (
    INSERT INTO password_reset_tokens (user_id, token_hash, expires_at)
    SELECT id, %(token_hash)s, now() + %(valid_for_s)s * interval '1 second' FROM person
    RETURNING id
)
SELECT made.id, person.email, person.name FROM made, person;
