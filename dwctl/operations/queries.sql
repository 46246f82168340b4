-- Questions that readiness asks of the database.

-- name: readiness  the revision of the tables, and how many workers have shown life lately
SELECT (SELECT version_num FROM alembic_version) AS revision,
       (SELECT count(*) FROM fusillade.daemons
         WHERE status = 'running' AND config_snapshot ->> 'type' IS DISTINCT FROM 'onwards'
           AND last_heartbeat > now() - make_interval(secs => %(dead_after_s)s)) AS workers;
