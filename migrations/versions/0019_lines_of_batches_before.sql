CREATE OR REPLACE FUNCTION fusillade.count_ended(them uuid[]) RETURNS int LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    touched uuid[] := ARRAY(SELECT DISTINCT r.batch_id FROM fusillade.requests r WHERE r.id = ANY (them) AND r.batch_id <> r.id);
    stopped uuid[];
BEGIN
    IF touched = '{}' THEN
        RETURN 0;
    END IF;
    stopped := ARRAY(SELECT l.id FROM (SELECT b.id, b.cancelling_at FROM fusillade.batches b
                                        WHERE b.id = ANY (touched) ORDER BY b.id FOR NO KEY UPDATE) l WHERE l.cancelling_at IS NOT NULL);
    IF stopped <> '{}' THEN
        UPDATE fusillade.requests r
           SET state = 'canceled', canceled_at = now(), updated_at = now(), completed_at = NULL, failed_at = NULL,
               response_status = NULL, response_body = NULL, response_size = 0, error = NULL
         WHERE r.id = ANY (them) AND r.batch_id = ANY (stopped) AND r.state IN ('completed', 'failed');
    END IF;
    WITH ended AS MATERIALIZED (
        SELECT r.id, r.batch_id, r.model, r.state, r.state <> 'completed' AS is_error, fusillade.line_bytes(r) AS bytes,
               row_number() OVER (PARTITION BY r.batch_id, r.state <> 'completed' ORDER BY r.updated_at, r.id) - 1 AS place
          FROM fusillade.requests r
         WHERE r.id = ANY (them) AND r.batch_id <> r.id AND r.state IN ('completed', 'failed', 'canceled')
    ), sums AS MATERIALIZED (
        SELECT batch_id, count(*) FILTER (WHERE state = 'completed') AS completed, count(*) FILTER (WHERE state = 'failed') AS failed,
               count(*) FILTER (WHERE state = 'canceled') AS canceled, count(*) FILTER (WHERE is_error) AS errors,
               coalesce(sum(bytes) FILTER (WHERE NOT is_error), 0) AS output_bytes, coalesce(sum(bytes) FILTER (WHERE is_error), 0) AS error_bytes
          FROM ended GROUP BY batch_id
    ), counted AS (
        UPDATE fusillade.batches b
           SET completed_requests = b.completed_requests + s.completed, failed_requests = b.failed_requests + s.failed,
               canceled_requests = b.canceled_requests + s.canceled, output_lines = b.output_lines + s.completed,
               error_lines = b.error_lines + s.errors, output_bytes = b.output_bytes + s.output_bytes,
               error_bytes = b.error_bytes + s.error_bytes
          FROM sums s WHERE b.id = s.batch_id
        RETURNING b.id, b.output_lines - s.completed AS outputs, b.error_lines - s.errors AS errors
    ), placed AS (
        INSERT INTO fusillade.finished_lines (batch_id, failed, position, request_id)
        SELECT e.batch_id, e.is_error, e.place + CASE WHEN e.is_error THEN c.errors ELSE c.outputs END, e.id
          FROM ended e JOIN counted c ON c.id = e.batch_id
    )
    UPDATE fusillade.batch_models m
       SET completed = m.completed + s.completed, failed = m.failed + s.failed, canceled = m.canceled + s.canceled
      FROM (SELECT batch_id, model, count(*) FILTER (WHERE state = 'completed') AS completed,
                   count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'canceled') AS canceled
              FROM ended GROUP BY batch_id, model) s
     WHERE m.batch_id = s.batch_id AND m.model = s.model;
    PERFORM fusillade.settle(touched);
    RETURN cardinality(touched);
END $$;
