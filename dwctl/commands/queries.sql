-- What commands ask of the log.

-- name: latest_calls  the newest calls; request ids are ordered by time, so the log's own key gives them
SELECT a.request_id, a.timestamp, a.created_at, a.status_code, a.uri, a.model, a.prompt_tokens, a.completion_tokens, a.total_tokens,
       a.total_cost, a.duration_ms, a.error_code, u.email
  FROM http_analytics a LEFT JOIN users u ON u.id = a.user_id
 WHERE a.timestamp > now() - interval '7 days'
 ORDER BY a.request_id DESC
 LIMIT %(limit)s;

-- name: calls_since  calls that arrived after one id and were written down after one moment
SELECT a.request_id, a.timestamp, a.created_at, a.status_code, a.uri, a.model, a.prompt_tokens, a.completion_tokens, a.total_tokens,
       a.total_cost, a.duration_ms, a.error_code, u.email
  FROM http_analytics a LEFT JOIN users u ON u.id = a.user_id
 WHERE a.timestamp > now() - interval '2 days' AND a.request_id > %(oldest)s AND a.created_at > %(since)s
 ORDER BY a.created_at, a.request_id;

-- name: moment
SELECT now();
