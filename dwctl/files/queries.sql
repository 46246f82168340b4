-- name: usable_models  the models that an account may use by its groups, with what checks of requests must know of them
WITH usable AS (
    SELECT m.id, m.alias, m.type, m.is_composite, coalesce(m.open_responses_adapter, true) AS adapter, m.refuse_unrunnable_tools
      FROM deployed_models m
     WHERE NOT m.deleted AND m.status = 'active' AND EXISTS (
               SELECT FROM deployment_groups g
                WHERE g.deployment_id = m.id
                  AND (g.group_id = '00000000-0000-0000-0000-000000000000'
                       OR g.group_id IN (SELECT u.group_id FROM user_groups u WHERE u.user_id = %(owner)s)))
)
SELECT u.alias, u.type, u.refuse_unrunnable_tools,
       CASE WHEN NOT u.is_composite THEN ARRAY[u.adapter]
            ELSE (SELECT array_agg(DISTINCT coalesce(m.open_responses_adapter, true))
                    FROM deployed_model_components c JOIN deployed_models m ON m.id = c.deployed_model_id
                   WHERE c.composite_model_id = u.id AND c.enabled AND NOT m.deleted AND m.status = 'active') END AS adapted,
       u.adapter
  FROM usable u;

-- name: copy_lines  some lines of a file that is being uploaded (text format; see `storing`)
COPY fusillade.request_templates (id, line_number, custom_id, path, model, body, body_byte_size, method, file_id, endpoint) FROM STDIN;

-- name: stored_ids  the custom ids of some lines of a file, in their order
SELECT line_number, custom_id FROM fusillade.request_templates
 WHERE file_id = %(file)s AND NOT single AND line_number >= %(first)s
 ORDER BY line_number LIMIT %(most)s;
