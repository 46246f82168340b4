"""Settings of the Rust product that mean nothing here, each with the reason. They are accepted with a warning."""

from __future__ import annotations

from collections.abc import Mapping

_LOOPBACK = "the worker runs requests in its own process, there is no loopback over HTTP"
_NO_LEADER = "there is no leader: duties are claimed row by row, any worker may run any of them"

OBSOLETE: Mapping[str, str] = {
    "batches.reservation_ttl_secs": "a batch counts from the moment it is admitted, nothing is reserved before",
    "host": "gunicorn binds to $PORT",
    "port": "gunicorn binds to $PORT",
    "background_services.leader_election": _NO_LEADER,
    "background_services.task_workers": "jobs are duties of the worker process",
    "background_services.sync_workers": "see connections.sync.max_ingests",
    "background_services.notifications": "nobody is notified of the end of a batch",
    "background_services.onwards_sync": "see snapshot.*",
    "background_services.pool_metrics": "pools are measured when the metrics page is read",
    "background_services.batch_daemon.enabled": "start as many worker processes as are wanted",
    "background_services.batch_daemon.claim_timeout_ms": "claims are leases that their owner renews",
    "background_services.batch_daemon.processing_timeout_ms": "claims are leases that their owner renews",
    "background_services.batch_daemon.batch_metadata_fields": _LOOPBACK,
    "background_services.batch_daemon.status_log_interval_ms": "see the worker's metrics page",
    "background_services.batch_daemon.timeout_ms": "see upstream.first_byte_timeout and upstream.idle_timeout",
    "background_services.batch_daemon.first_chunk_timeout_ms": "see upstream.first_byte_timeout",
    "background_services.batch_daemon.chunk_timeout_ms": "see upstream.idle_timeout",
    "background_services.batch_daemon.body_timeout_ms": "see upstream.idle_timeout",
    "background_services.batch_daemon.inject_deadline_priority": "queued requests are sent as they came, no deadline is written into them",
    "background_services.batch_daemon.streamable_endpoints": "a queued request is streamed where its caller asks for a stream",
    "database.type": "no DATABASE_URL means an embedded PostgreSQL (dwctl up)",
    "database.data_dir": "see dwctl up --data-dir",
    "database.persistent": "dwctl up keeps its data",
    "database.replica_url": "everything is read from the one database",
    "database.replica_pool": "everything is read from the one database",
    "database_replica_url": "everything is read from the one database",
    "slow_statement_threshold_ms": "see log_min_duration_statement of PostgreSQL",
    "payment": "nothing is charged by card: credits are granted",
    "background_services.probe_scheduler": "models are not probed; see upstream.circuit",
    "background_services.usage_refresh": "sums of usage are written with each call",
    "responses.max_response_step_depth": "tools are not run here",
    "responses.max_response_iterations": "tools are not run here",
    "cache": "see snapshot.*",
    "image_normalizer": "images are sent on as they came",
    "keystore": "see secret_key and secret_key_previous",
    "credits.first_payment_match_up_to": "nothing is charged by card: credits are granted",
    "credits.verification_credits": "accounts are not verified by payment",
    "auth.rate_limits": "accounts have no rate of their own; see limits.account.* and the limits of API keys",
    "database.pool": "see database.pool_size and database.pool_overflow",
    "database.fusillade": "one database holds every schema",
    "database.outlet": "one database holds every schema",
    "database.underway_pool": "jobs are duties of the worker process",
    "auth.security.jwt_expiry": "login sessions are rows: see auth.native.session.timeout",
    "batches.files.upload_buffer_size": "a body is read as fast as its lines are checked",
    "batches.files.download_buffer_size": "lines are read as fast as they are taken",
    "analytics": "see recorder.*",
}
