-- What commands ask beside their rooms.

-- name: is_cancelled_now  whether this very transaction has stopped the batch
SELECT true FROM fusillade.batches WHERE id = %(id)s AND cancelling_at = now();
