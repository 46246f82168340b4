-- What is downloaded, in pages. A page looks at the next `looks` rows behind a place (line and id, exclusive), leaves out the first `skip` of
-- those that are wanted, and makes lines of the next `most` of them, as long as they are not more than `bytes` (one at least). It says: the
-- lines, how many; how many were skipped; how many wanted rows it has left over (so there is more); whether it has looked at all it wanted to
-- look at (else this is the end); the place of the last row that it has dealt with.
-- LATERAL with LIMIT keeps each step on keys, whatever the statistics say of tables that were empty when a plan was made. The length of a body
-- is known without reading it. Rows pass once, in order, through one window: each copy of a page costs more than making its lines. What is left
-- out counts among the bytes too, so a page may take nothing and have skipped something.
-- A body is put into its line by {json ...}, which stands for what the page's manner does (pages.py), and {checks} fails where one is no JSON.

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

-- name: find_batch  a batch with what its results are found and counted by
SELECT b.id, b.created_by, b.populated_lines, b.completed_requests, b.failed_requests, b.canceled_requests,
       coalesce(b.completed_at, b.failed_at, b.cancelled_at, b.expired_at) IS NOT NULL AS is_over,
       (SELECT r.id FROM fusillade.requests r WHERE b.populated_lines > 0 AND r.id >= %(first)s AND r.id <= %(last)s ORDER BY r.id DESC LIMIT 1) AS last_id
  FROM fusillade.batches b
 WHERE b.id = %(id)s AND NOT b.single AND b.deleted_at IS NULL;

-- name: count_results  requests of a batch in some states
SELECT count(*) FROM fusillade.requests r WHERE r.batch_id = %(batch)s AND (%(states)s::text[] IS NULL OR r.state = ANY (%(states)s::text[]));

-- name: page  of one of the kinds below, each of which gives rows (in {order}) and what a line is made of
SELECT string_agg({text}, '') FILTER (WHERE t.is_taken) AS lines, count(*) FILTER (WHERE t.is_taken) AS taken,
       least(max(t.n), %(skip)s::bigint) AS skipped,
       greatest(max(t.n) - %(skip)s::bigint - count(*) FILTER (WHERE t.is_taken), 0) AS left_over,
       count(*) = %(looks)s AS goes_on,
       CASE WHEN max(t.n) - %(skip)s::bigint > count(*) FILTER (WHERE t.is_taken)
            THEN max(t.line) FILTER (WHERE t.is_done) ELSE max(t.line) END AS line,
       CASE WHEN max(t.n) - %(skip)s::bigint > count(*) FILTER (WHERE t.is_taken)
            THEN (array_agg(t.id) FILTER (WHERE t.is_done))[count(*) FILTER (WHERE t.is_done)] ELSE (array_agg(t.id))[count(*)] END AS id{checks}
  FROM (SELECT m.*, m.is_wanted AND m.n > %(skip)s::bigint AND m.n <= %(skip)s::bigint + %(most)s::bigint
                    AND m.until - m.size < %(bytes)s::bigint AS is_taken,
               m.is_wanted AND (m.n <= %(skip)s::bigint OR m.n <= %(skip)s::bigint + %(most)s::bigint AND m.until - m.size < %(bytes)s::bigint) AS is_done
          FROM (SELECT s.*, count(*) FILTER (WHERE s.is_wanted) OVER w AS n, sum(s.size::float8) FILTER (WHERE s.is_wanted) OVER w AS until
                  FROM ({rows}) s WINDOW w AS (ORDER BY {order} ROWS UNBOUNDED PRECEDING)) m) t;

-- name: input_rows  lines as they were uploaded
SELECT t.line_number AS line, t.id, t.custom_id, t.method, t.path, t.body, octet_length(t.body) AS size,
       %(search)s::text IS NULL OR coalesce(t.custom_id ILIKE %(search)s::text, false) AS is_wanted
  FROM fusillade.request_templates t
 WHERE t.file_id = %(file)s AND NOT t.single AND (t.line_number, t.id) > (%(line)s::bigint, %(id)s::uuid)
 ORDER BY t.line_number, t.id LIMIT %(looks)s

-- name: input_text
'{"custom_id":' || coalesce(to_json(t.custom_id)::text, 'null') || ',"method":' || to_json(t.method) || ',"url":' || to_json(t.path)
|| ',"body":' || {json t.body} || E'}\n'

-- name: output_rows  lines of an output file, in the order in which they ended
SELECT f.position AS line, f.request_id AS id, r.custom_id, r.response_status, r.response_body,
       coalesce(octet_length(r.response_body), 0) AS size,
       r.id IS NOT NULL AND (%(search)s::text IS NULL OR coalesce(r.custom_id ILIKE %(search)s::text, false)) AS is_wanted
  FROM (SELECT f.position, f.request_id FROM fusillade.finished_lines f
         WHERE f.batch_id = %(batch)s AND NOT f.failed AND f.position > %(line)s::bigint AND f.position < %(until)s::bigint
         ORDER BY f.position LIMIT %(looks)s) f
  LEFT JOIN LATERAL (
        SELECT r.id, r.custom_id, r.response_status, r.response_body FROM fusillade.requests r WHERE r.id = f.request_id LIMIT 1) r ON true
 ORDER BY f.position

-- name: output_text  fusillade.output_line, written out
'{"id":"batch_req_' || t.id || '","custom_id":' || coalesce(to_json(t.custom_id)::text, 'null') || ',"response":{"status_code":'
|| coalesce(t.response_status, 200) || ',"request_id":"' || t.id || '","body":' || {json t.response_body} || E'},"error":null}\n'

-- name: error_rows  lines of an error file, in the order in which they ended
SELECT f.position AS line, f.request_id AS id, r.custom_id, r.state, r.error, coalesce(octet_length(r.error), 0) AS size,
       r.id IS NOT NULL AND (%(search)s::text IS NULL OR coalesce(r.custom_id ILIKE %(search)s::text, false)) AS is_wanted
  FROM (SELECT f.position, f.request_id FROM fusillade.finished_lines f
         WHERE f.batch_id = %(batch)s AND f.failed AND f.position > %(line)s::bigint AND f.position < %(until)s::bigint
         ORDER BY f.position LIMIT %(looks)s) f
  LEFT JOIN LATERAL (SELECT r.id, r.custom_id, r.state, r.error FROM fusillade.requests r WHERE r.id = f.request_id LIMIT 1) r ON true
 ORDER BY f.position

-- name: error_text
fusillade.error_line(t.id, t.custom_id, t.state, t.error)

-- name: result_rows  lines of a batch with what they were asked and answered, in the order of its lines
--   What was asked is left out once its file has been deleted. Whether the batch's own has been is asked once a page.
SELECT s.*, t.body, coalesce(octet_length(t.body), 0) + coalesce(octet_length(s.response_body), 0) + coalesce(octet_length(s.error), 0) AS size,
       (%(states)s::text[] IS NULL OR s.state = ANY (%(states)s::text[]))
       AND (%(search)s::text IS NULL OR coalesce(s.custom_id ILIKE %(search)s::text, false)) AS is_wanted
  FROM ({lines}) s
  LEFT JOIN LATERAL (
        SELECT t.body FROM fusillade.request_templates t
         WHERE t.id = s.template_id AND (t.file_id IS NULL
               OR t.file_id = (SELECT f.id FROM fusillade.batches b JOIN fusillade.files f ON f.id = b.file_id WHERE b.id = %(batch)s AND f.deleted_at IS NULL)
               OR EXISTS (SELECT FROM fusillade.files f WHERE f.id = t.file_id AND f.deleted_at IS NULL)) LIMIT 1) t ON true

-- name: result_lines  of a batch that was populated: they stand together in the primary key
SELECT 0::bigint AS line, r.id, r.template_id, r.custom_id, r.model, r.state, r.response_body, r.error
  FROM fusillade.requests r WHERE r.id > %(id)s::uuid AND r.id <= %(last)s::uuid
 ORDER BY r.id LIMIT %(looks)s

-- name: result_by_hand_lines  of one that was made by hand
SELECT coalesce(t.line_number, 0)::bigint AS line, r.id, r.template_id, r.custom_id, r.model, r.state, r.response_body, r.error
  FROM fusillade.requests r LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
 WHERE r.batch_id = %(batch)s AND (coalesce(t.line_number, 0), r.id) > (%(line)s::bigint, %(id)s::uuid)
 ORDER BY 1, 2 LIMIT %(looks)s

-- name: result_text
'{"id":"' || t.id || '","custom_id":' || coalesce(to_json(t.custom_id)::text, 'null') || ',"model":' || to_json(t.model)
|| ',"input_body":' || CASE WHEN t.body IS NULL THEN 'null' ELSE {json t.body} END
|| ',"response_body":' || CASE WHEN t.state = 'completed' THEN {json t.response_body} ELSE 'null' END
|| ',"error":' || CASE WHEN t.state = 'failed' THEN to_json(t.error)::text ELSE 'null' END
|| ',"status":"' || CASE WHEN t.state IN ('claimed', 'processing') THEN 'in_progress' ELSE t.state END || E'"}\n'
