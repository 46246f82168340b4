-- Questions that readiness asks of the database.

-- name: readiness  the revision of the tables, how many workers have shown life lately, and whether today's calls have a place in the log
SELECT (SELECT version_num FROM alembic_version) AS revision,
       (SELECT count(*) FROM fusillade.daemons
         WHERE status = 'running' AND config_snapshot ->> 'type' IS DISTINCT FROM 'onwards'
           AND last_heartbeat > now() - make_interval(secs => %(dead_after_s)s)) AS workers,
       to_regclass('http_analytics_p' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NOT NULL AS has_partition;
