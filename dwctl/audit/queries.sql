-- name: note  an entry of what no trigger sees; its organisation is the related account, where that is one
INSERT INTO audit_log (action, actor_id, actor_name, through, api_key_id, address, request_id, method, route,
                       resource_type, resource_id, related_id, organization_id, after)
SELECT %(resource)s || '.' || %(verb)s, (a.actor ->> 'id')::uuid, a.actor ->> 'name', a.actor ->> 'through', (a.actor ->> 'api_key')::uuid,
       a.actor ->> 'address', (a.actor ->> 'request')::uuid, a.actor ->> 'method', a.actor ->> 'route',
       %(resource)s, %(id)s, %(related)s, (SELECT id FROM users WHERE id::text = %(related)s AND user_type = 'organization'), %(after)s
  FROM (SELECT %(actor)s::jsonb AS actor) a;
