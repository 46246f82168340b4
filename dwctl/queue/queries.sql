-- All hot SQL of the queue.

-- name: beat  a process is there; the first beat registers it
INSERT INTO fusillade.daemons AS d (id, status, hostname, pid, version, config_snapshot, started_at, last_heartbeat,
                                    requests_processed, requests_failed, requests_in_flight)
VALUES (%(id)s, 'running', %(hostname)s, %(pid)s, %(version)s, %(config)s, now(), now(), %(processed)s, %(failed)s, %(in_flight)s)
ON CONFLICT (id) DO UPDATE SET status = 'running', stopped_at = NULL, last_heartbeat = now(), updated_at = now(),
    requests_processed = EXCLUDED.requests_processed, requests_failed = EXCLUDED.requests_failed,
    requests_in_flight = EXCLUDED.requests_in_flight;

-- name: end_daemon  a process says goodbye
UPDATE fusillade.daemons
   SET status = 'dead', stopped_at = now(), updated_at = now(),
       requests_processed = %(processed)s, requests_failed = %(failed)s, requests_in_flight = %(in_flight)s
 WHERE id = %(id)s;

-- name: find_response  a request with what it was asked and what it was answered; its owner decides who may see it
SELECT r.id, r.state, r.model, r.service_tier, r.response_status, r.response_body, r.error, r.created_at, r.completed_at, r.failed_at,
       r.canceled_at, r.batch_id, b.created_by, b.completion_window, t.path, t.body AS request_body
  FROM fusillade.requests r
  JOIN fusillade.batches b ON b.id = r.batch_id AND b.deleted_at IS NULL
  LEFT JOIN fusillade.request_templates t ON t.id = r.template_id
 WHERE r.id = %(id)s;
