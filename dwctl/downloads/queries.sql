-- What is downloaded, in pages. Each page statement looks at the next `looks` rows behind a place (line and id, exclusive), leaves out the first
-- `skip` of those that are wanted, and makes lines of the next `most` of them, as long as they are not more than `bytes` (one at least).
-- A page says: the lines, how many; how many were skipped; how many wanted rows it has left over (so there is more); whether it has looked at
-- all it wanted to look at (else this is the end); the place of the last row that it has dealt with.
-- LATERAL with LIMIT keeps each step on keys, whatever the statistics say of tables that were empty when a plan was made. Lengths of bodies are
-- known without reading them.

-- name: find_file  a file, the batch whose output or errors it is, and how long it is now
SELECT f.id, f.purpose, f.uploaded_by, f.name,
       b.id AS batch_id, coalesce(b.completed_at, b.failed_at, b.cancelled_at, b.expired_at) IS NOT NULL AS is_over,
       CASE f.purpose WHEN 'batch_error' THEN b.error_lines ELSE b.output_lines END AS lines
  FROM fusillade.files f
  LEFT JOIN LATERAL (
        SELECT * FROM fusillade.batches o WHERE f.purpose = 'batch_output' AND o.output_file_id = f.id
         UNION ALL
        SELECT * FROM fusillade.batches e WHERE f.purpose = 'batch_error' AND e.error_file_id = f.id
         LIMIT 1) b ON true
 WHERE f.id = %(id)s AND NOT f.single AND f.deleted_at IS NULL;

-- name: lines_of_file  how many lines a file has by its upload, and the last of them
SELECT (SELECT sum(m.requests) FROM fusillade.file_models m WHERE m.file_id = %(file)s)::bigint AS lines,
       (SELECT t.line_number FROM fusillade.request_templates t
         WHERE t.file_id = %(file)s AND NOT t.single ORDER BY t.line_number DESC LIMIT 1) AS last_line;

-- name: input_page  lines as they were uploaded
WITH slice AS MATERIALIZED (
    SELECT t.line_number AS line, t.id, t.custom_id, t.method, t.path, t.body
      FROM fusillade.request_templates t
     WHERE t.file_id = %(file)s AND NOT t.single AND (t.line_number, t.id) > (%(line)s::bigint, %(id)s::uuid)
     ORDER BY t.line_number, t.id LIMIT %(looks)s
), wanted AS MATERIALIZED (
    SELECT s.*, row_number() OVER (ORDER BY s.line, s.id) AS n FROM slice s
     WHERE %(search)s::text IS NULL OR s.custom_id ILIKE %(search)s::text
), measured AS MATERIALIZED (
    SELECT w.*, sum(octet_length(w.body)::bigint) OVER (ORDER BY w.n) - octet_length(w.body) AS before
      FROM wanted w WHERE w.n > %(skip)s::bigint AND w.n <= %(skip)s::bigint + %(most)s::bigint
), taken AS MATERIALIZED (
    SELECT * FROM measured WHERE before < %(bytes)s
), counted AS (
    SELECT (SELECT count(*) FROM slice) AS looked, (SELECT count(*) FROM wanted) AS wanted, (SELECT count(*) FROM taken) AS taken
), stop AS (
    SELECT line, id FROM taken WHERE (SELECT wanted - %(skip)s::bigint > taken FROM counted)
     UNION ALL
    SELECT line, id FROM slice WHERE (SELECT wanted - %(skip)s::bigint <= taken FROM counted)
     ORDER BY line DESC, id DESC LIMIT 1
)
SELECT (SELECT convert_to(string_agg(
            '{"custom_id":' || coalesce(to_json(t.custom_id)::text, 'null') || ',"method":' || to_json(t.method) || ',"url":' || to_json(t.path)
            || ',"body":' || fusillade.one_line(t.body) || E'}\n', '' ORDER BY t.n), 'UTF8') FROM taken t) AS lines,
       c.taken, least(c.wanted, %(skip)s::bigint) AS skipped, greatest(c.wanted - %(skip)s::bigint - c.taken, 0) AS left_over,
       c.looked = %(looks)s AS goes_on, stop.line, stop.id
  FROM counted c LEFT JOIN stop ON true;

-- name: finished_page  lines of an output or error file, in the order in which they ended
WITH slice AS MATERIALIZED (
    SELECT f.position AS line, r.id, r.custom_id, r.state, r.response_status, r.response_body, r.error
      FROM (SELECT f.position, f.request_id FROM fusillade.finished_lines f
             WHERE f.batch_id = %(batch)s AND f.failed = %(failed)s AND f.position > %(line)s::bigint AND f.position < %(until)s
             ORDER BY f.position LIMIT %(looks)s) f
      LEFT JOIN LATERAL (SELECT * FROM fusillade.requests r WHERE r.id = f.request_id LIMIT 1) r ON true
), wanted AS MATERIALIZED (
    SELECT s.*, row_number() OVER (ORDER BY s.line) AS n,
           coalesce(octet_length(CASE WHEN %(failed)s THEN s.error ELSE s.response_body END), 0)::bigint AS size
      FROM slice s WHERE s.id IS NOT NULL AND (%(search)s::text IS NULL OR s.custom_id ILIKE %(search)s::text)
), measured AS MATERIALIZED (
    SELECT w.*, sum(w.size) OVER (ORDER BY w.n) - w.size AS before
      FROM wanted w WHERE w.n > %(skip)s::bigint AND w.n <= %(skip)s::bigint + %(most)s::bigint
), taken AS MATERIALIZED (
    SELECT * FROM measured WHERE before < %(bytes)s
), counted AS (
    SELECT (SELECT count(*) FROM slice) AS looked, (SELECT count(*) FROM wanted) AS wanted, (SELECT count(*) FROM taken) AS taken
), stop AS (
    SELECT line FROM taken WHERE (SELECT wanted - %(skip)s::bigint > taken FROM counted)
     UNION ALL
    SELECT line FROM slice WHERE (SELECT wanted - %(skip)s::bigint <= taken FROM counted)
     ORDER BY line DESC LIMIT 1
)
SELECT (SELECT convert_to(string_agg(CASE WHEN %(failed)s THEN fusillade.error_line(t.id, t.custom_id, t.state, t.error)
                                          ELSE fusillade.output_line(t.id, t.custom_id, t.response_status, t.response_body) END,
                                     '' ORDER BY t.n), 'UTF8') FROM taken t) AS lines,
       c.taken, least(c.wanted, %(skip)s::bigint) AS skipped, greatest(c.wanted - %(skip)s::bigint - c.taken, 0) AS left_over,
       c.looked = %(looks)s AS goes_on, stop.line, NULL::uuid AS id
  FROM counted c LEFT JOIN stop ON true;

-- name: find_batch  a batch with what its results are found and counted by
SELECT b.id, b.created_by, b.populated_lines, b.completed_requests, b.failed_requests, b.canceled_requests,
       coalesce(b.completed_at, b.failed_at, b.cancelled_at, b.expired_at) IS NOT NULL AS is_over,
       (SELECT r.id FROM fusillade.requests r WHERE b.populated_lines > 0 AND r.id >= %(first)s AND r.id <= %(last)s ORDER BY r.id DESC LIMIT 1) AS last_id
  FROM fusillade.batches b
 WHERE b.id = %(id)s AND b.deleted_at IS NULL;

-- name: count_results  requests of a batch in some states
SELECT count(*) FROM fusillade.requests r WHERE r.batch_id = %(batch)s AND (%(states)s::text[] IS NULL OR r.state = ANY (%(states)s::text[]));

-- name: results_page  lines of a batch with what they were asked and answered, in the order of its lines
--   The requests of a batch that was populated stand together in the primary key, in the order of their lines; those made by hand are found
--   by their batch. What was asked is left out once its file has been deleted.
WITH slice AS MATERIALIZED (
    (SELECT 0::bigint AS line, r.id, r.template_id, r.custom_id, r.model, r.state, r.response_body, r.error
       FROM fusillade.requests r
      WHERE %(is_populated)s AND r.id > %(id)s::uuid AND r.id <= %(last)s::uuid
      ORDER BY r.id LIMIT %(looks)s)
     UNION ALL
    (SELECT coalesce(t.line_number, 0)::bigint, r.id, r.template_id, r.custom_id, r.model, r.state, r.response_body, r.error
       FROM fusillade.requests r LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
      WHERE NOT %(is_populated)s AND r.batch_id = %(batch)s AND (coalesce(t.line_number, 0), r.id) > (%(line)s::bigint, %(id)s::uuid)
      ORDER BY 1, 2 LIMIT %(looks)s)
), wanted AS MATERIALIZED (
    SELECT s.*, t.body, row_number() OVER (ORDER BY s.line, s.id) AS n,
           (coalesce(octet_length(t.body), 0) + coalesce(octet_length(s.response_body), 0) + coalesce(octet_length(s.error), 0))::bigint AS size
      FROM slice s
      LEFT JOIN LATERAL (
            SELECT t.body FROM fusillade.request_templates t
             WHERE t.id = s.template_id AND (t.file_id IS NULL OR EXISTS (
                   SELECT FROM fusillade.files f WHERE f.id = t.file_id AND f.deleted_at IS NULL)) LIMIT 1) t ON true
     WHERE (%(states)s::text[] IS NULL OR s.state = ANY (%(states)s::text[])) AND (%(search)s::text IS NULL OR s.custom_id ILIKE %(search)s::text)
), measured AS MATERIALIZED (
    SELECT w.*, sum(w.size) OVER (ORDER BY w.n) - w.size AS before
      FROM wanted w WHERE w.n > %(skip)s::bigint AND w.n <= %(skip)s::bigint + %(most)s::bigint
), taken AS MATERIALIZED (
    SELECT * FROM measured WHERE before < %(bytes)s
), counted AS (
    SELECT (SELECT count(*) FROM slice) AS looked, (SELECT count(*) FROM wanted) AS wanted, (SELECT count(*) FROM taken) AS taken
), stop AS (
    SELECT line, id FROM taken WHERE (SELECT wanted - %(skip)s::bigint > taken FROM counted)
     UNION ALL
    SELECT line, id FROM slice WHERE (SELECT wanted - %(skip)s::bigint <= taken FROM counted)
     ORDER BY line DESC, id DESC LIMIT 1
)
SELECT (SELECT convert_to(string_agg(
            '{"id":"' || t.id || '","custom_id":' || coalesce(to_json(t.custom_id)::text, 'null') || ',"model":' || to_json(t.model)
            || ',"input_body":' || CASE WHEN t.body IS NULL THEN 'null' ELSE fusillade.one_line(t.body) END
            || ',"response_body":' || CASE WHEN t.state = 'completed' THEN fusillade.one_line(t.response_body) ELSE 'null' END
            || ',"error":' || CASE WHEN t.state = 'failed' THEN to_json(t.error)::text ELSE 'null' END
            || ',"status":"' || CASE WHEN t.state IN ('claimed', 'processing') THEN 'in_progress' ELSE t.state END || E'"}\n',
            '' ORDER BY t.n), 'UTF8') FROM taken t) AS lines,
       c.taken, least(c.wanted, %(skip)s::bigint) AS skipped, greatest(c.wanted - %(skip)s::bigint - c.taken, 0) AS left_over,
       c.looked = %(looks)s AS goes_on, stop.line, stop.id
  FROM counted c LEFT JOIN stop ON true;
