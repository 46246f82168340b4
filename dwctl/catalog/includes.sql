-- What lists of models show beside them: one statement each for all models of a page.

-- name: groups_of_models  which groups may use each model, the earliest grant first; and those groups, each once, with what is shown of them
WITH granted AS MATERIALIZED (
    SELECT id, deployment_id, group_id, granted_at FROM deployment_groups WHERE deployment_id = ANY (%(ids)s::uuid[])
)
SELECT deployment_id AS model, array_agg(group_id::text ORDER BY granted_at, id) AS granted, NULL AS id, NULL AS name, NULL AS description,
       NULL AS created_by, NULL::timestamptz AS created_at, NULL::timestamptz AS updated_at, NULL AS source
  FROM granted GROUP BY deployment_id
UNION ALL
SELECT NULL, NULL, id::text, name, description, created_by::text, created_at, updated_at, source FROM groups
 WHERE id IN (SELECT group_id FROM granted);

-- name: rules_of_models  traffic rules by purpose; one that redirects to a deleted model is none any more
SELECT r.deployed_model_id, r.api_key_purpose, r.action, t.alias
  FROM model_traffic_rules r
  LEFT JOIN deployed_models t ON t.id = r.redirect_target_id AND NOT t.deleted
 WHERE r.deployed_model_id = ANY (%(ids)s::uuid[]) AND (r.action = 'deny' OR t.alias IS NOT NULL)
 ORDER BY r.api_key_purpose;

-- name: components_of_models  components in the order of priority, with what is shown of their models; a deleted model is none
SELECT c.composite_model_id, c.weight, c.enabled, c.sort_order, c.created_at, e.id::text AS endpoint_id, e.name,
       m.id::text, m.alias, m.model_name, m.description, m.type, m.status, m.trusted, m.open_responses_adapter
  FROM deployed_model_components c
  JOIN deployed_models m ON m.id = c.deployed_model_id AND NOT m.deleted
  LEFT JOIN inference_endpoints e ON e.id = m.hosted_on
 WHERE c.composite_model_id = ANY (%(ids)s)
 ORDER BY c.sort_order, c.weight DESC, c.created_at, c.id;

-- name: endpoints  endpoints, with what is shown of them
SELECT id, name, description, url, api_key_sealed, model_filter, auth_header_name, auth_header_prefix, created_by::text, created_at, updated_at,
       connect_timeout_seconds, first_byte_timeout_seconds, idle_timeout_seconds, total_timeout_seconds
  FROM inference_endpoints
 WHERE id = ANY (%(ids)s::uuid[]);
