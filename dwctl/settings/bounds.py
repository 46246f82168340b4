"""Between what each number among the settings must lie. A test fails for one that has no bounds here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, validate

from dwctl.settings.kinds import LONGEST_DAYS, duration_text


@dataclass(frozen=True)
class Within(validate.Validator):
    """Both ends belong to it. `seconds`: written as durations."""

    low: float
    high: float
    seconds: bool = False

    def __call__(self, value: Any) -> Any:
        # NaN lies between nothing.
        if not self.low <= value <= self.high:
            raise ValidationError(f"must be {self.text}")
        return value

    @property
    def text(self) -> str:
        """For people."""
        shown = duration_text if self.seconds else _number
        return f"between {shown(self.low)} and {shown(self.high)}"


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:g}"


def _lasts(low: float, high: float) -> Within:
    return Within(low, high, seconds=True)


_HOUR = 3600.0
_DAY = 24 * _HOUR
_EVER = LONGEST_DAYS * _DAY
_GIB = 1024**3
_MOST = 1_000_000_000

_COUNT = Within(0, _MOST)  # 0 switches a limit off, or means none
_SOME = Within(1, _MOST)
_BYTES = Within(0, 1024 * _GIB)
_DAYS = Within(0, LONGEST_DAYS)
_PERIOD_S = _lasts(0.01, _DAY)
_PATIENCE_S = _lasts(0.01, 7 * _DAY)
_BODY_S = _lasts(1, 7 * _DAY)
_MS = Within(0, _EVER * 1000)
_DAEMON = "background_services.batch_daemon"

BOUNDS: Mapping[str, Within] = {
    "log_strangers_per_minute": _COUNT,
    "reload_interval": _lasts(0.05, _HOUR),
    "credits.initial_credits_for_standard_users": Within(0, 1_000_000),
    "credits.reserve_below": Within(0, 1_000_000),
    "credits.assumed_output_tokens": Within(1, 2**31 - 1),
    "credits.reservation_wait": _lasts(0, _HOUR),
    "credits.reservation_timeout": _lasts(60, 365 * _DAY),
    "database.pool_size": Within(1, 1000),
    "database.pool_overflow": Within(0, 1000),
    "database.pool_timeout": _lasts(0.1, _HOUR),
    # PostgreSQL counts these in milliseconds of 31 bits.
    "database.statement_timeout": _lasts(0.1, _DAY),
    "database.connect_timeout": _lasts(1, _HOUR),
    "auth.native.password.min_length": Within(1, 1024),
    "auth.native.password.max_length": Within(1, 4096),
    "auth.native.password.argon2_memory_kib": Within(8, 4 * 1024 * 1024),
    "auth.native.password.argon2_iterations": Within(1, 1000),
    "auth.native.password.argon2_parallelism": Within(1, 64),
    "auth.native.session.timeout": _lasts(1, 3650 * _DAY),
    "auth.native.session.lifetime": _lasts(1, 3650 * _DAY),
    "auth.native.throttle.sign_ins_per_minute": _SOME,
    "auth.native.throttle.registrations_per_minute": _SOME,
    "auth.native.throttle.failures_per_account_per_minute": _COUNT,
    "auth.native.throttle.failures_per_account_per_hour": _COUNT,
    "auth.native.throttle.resets_per_minute": _COUNT,
    "auth.native.throttle.resets_per_account": _COUNT,
    "auth.native.password_reset_token_duration": _lasts(60, 7 * _DAY),
    "email.port": Within(1, 65535),
    "email.timeout": _lasts(1, 60),
    "organizations.max_per_user": _SOME,
    "organizations.invitation_expiry": _lasts(60, _EVER),
    "organizations.invitations_per_minute": _COUNT,
    "audit.retention_days": _DAYS,
    "auth.security.cors.max_age": Within(0, 365 * _DAY),
    "auth.security.hsts_max_age": Within(0, 10 * 365 * _DAY),
    "limits.requests.max_body_size": _BYTES,
    "limits.requests.max_file_body_size": _BYTES,
    # No sign-in fits into less.
    "limits.requests.max_admin_body_size": Within(1024, _GIB),
    "limits.requests.max_sign_in_body_size": Within(1024, _GIB),
    "limits.requests.max_compression_ratio": Within(0, 1_000_000),
    "limits.requests.stalled_reader_timeout": _BODY_S,
    "limits.requests.head_timeout": _BODY_S,
    "limits.requests.body_grace": _BODY_S,
    "limits.requests.body_min_rate": _COUNT,
    "limits.requests.body_timeout": _BODY_S,
    "limits.files.max_file_size": _BYTES,
    "limits.files.max_requests_per_file": _COUNT,
    "limits.files.max_concurrent_uploads": _COUNT,
    "limits.files.max_waiting_uploads": _COUNT,
    "limits.files.max_upload_wait_secs": Within(0, _DAY),
    "limits.files.body_timeout": _BODY_S,
    "limits.connections.per_peer": _COUNT,
    "limits.connections.awaiting_body": _COUNT,
    "limits.connections.awaiting_body_per_peer": _COUNT,
    "limits.account.realtime": _COUNT,
    "limits.account.background": _COUNT,
    "limits.account.queued": _COUNT,
    "limits.account.buffered_bytes": _BYTES,
    "limits.account.uploads": _COUNT,
    "limits.process.realtime": _COUNT,
    "limits.process.background": _COUNT,
    "limits.process.buffered_bytes": _BYTES,
    "upstream.connect_timeout": _PATIENCE_S,
    "upstream.first_byte_timeout": _PATIENCE_S,
    "upstream.idle_timeout": _PATIENCE_S,
    "upstream.models_timeout": _PATIENCE_S,
    "upstream.validate_timeout": _PATIENCE_S,
    "upstream.max_answer_size": Within(1024, 1024 * _GIB),
    "upstream.max_idle_per_origin": Within(0, 100_000),
    "upstream.usage_grace": _lasts(0, _HOUR),
    "upstream.circuit.failures": _COUNT,
    "upstream.circuit.open_for": _lasts(0.01, _DAY),
    "recorder.open_after": _lasts(0, _HOUR),
    "recorder.progress_interval": _PERIOD_S,
    "recorder.database_wait": _lasts(0.1, _HOUR),
    "recorder.queue_size": _SOME,
    "recorder.queue_bytes": Within(1 << 20, 1024 * _GIB),
    "recorder.group_size": Within(1, 100_000),
    "request_logging.max_body_size": _BYTES,
    "request_logging.sample": Within(0, 1),
    "retention.responses_days": _DAYS,
    "retention.log_days": _DAYS,
    "retention.log_bytes": Within(0, 1 << 60),
    "retention.minutes_days": _DAYS,
    "retention.hours_days": _DAYS,
    "retention.rollups_days": _DAYS,
    "retention.files_days": _DAYS,
    "retention.skipped_files_days": _DAYS,
    "retention.events": _lasts(0, _EVER),
    "responses.keepalive": _lasts(0.1, _HOUR),
    "responses.held_timeout": _lasts(1, 7 * _DAY),
    "responses.held_max_per_owner": _SOME,
    "responses.sweep_interval": _PERIOD_S,
    "responses.events_interval": _lasts(0.001, _HOUR),
    "responses.events_max_size": _BYTES,
    "responses.events_max_waiting": _BYTES,
    "responses.history.max_responses": _SOME,
    "responses.history.max_bytes": Within(1024, 1024 * _GIB),
    "idempotency.keep": _lasts(1, _EVER),
    "daemons.heartbeat": _lasts(0.05, _HOUR),
    "daemons.dead_after": _lasts(0.2, _DAY),
    "otel.timeout": _lasts(0.1, 300),
    "otel.sampler_arg": Within(0, 1),
    "otel.queue_size": Within(1, 1_000_000),
    "snapshot.debounce": _lasts(0, 60),
    "snapshot.key_use_interval": _lasts(0.1, _DAY),
    "support.requests_per_account_per_hour": _COUNT,
    "support.requests_per_hour": _COUNT,
    "snapshot.full_reload_interval": _lasts(0.1, _DAY),
    "batches.default_throughput": Within(1e-6, 1e9),
    "batches.expiry_grace": _lasts(0, _EVER),
    "batches.files.default_expiry_seconds": Within(1, _EVER),
    "batches.files.min_expiry_seconds": Within(1, _EVER),
    "batches.files.max_expiry_seconds": Within(1, _EVER),
    "batches.files.reported_errors": Within(1, 10_000),
    "batches.files.batch_insert_size": Within(1, 1_000_000),
    "batches.files.expired_grace_seconds": Within(0, _EVER),
    "sample_files.requests_per_file": Within(1, 10_000),
    "connections.connect_timeout": _PATIENCE_S,
    "connections.read_timeout": _PATIENCE_S,
    "connections.answer_timeout": _PATIENCE_S,
    "connections.sync.max_objects": _SOME,
    "connections.sync.max_object_size": _BYTES,
    "connections.sync.max_ingests": Within(1, 1000),
    "connections.sync.max_open": _COUNT,
    # Whoever looks without a rest does nothing else.
    "connections.sync.look_interval": _lasts(0.1, _DAY),
    "connections.sync.retry_wait": _lasts(0, _DAY),
    "connections.sync.retry_wait_max": _lasts(0, 7 * _DAY),
    "connections.sync.lease": _lasts(2, _DAY),
    f"{_DAEMON}.claim_batch_size": Within(1, 100_000),
    f"{_DAEMON}.claim_interval_ms": Within(10, _DAY * 1000),
    f"{_DAEMON}.default_model_concurrency": Within(1, 1_000_000),
    f"{_DAEMON}.max_retries": Within(0, 1_000_000),
    f"{_DAEMON}.stop_before_deadline_ms": _MS,
    f"{_DAEMON}.backoff_ms": _MS,
    # Less than 1 would try a server that fails ever faster.
    f"{_DAEMON}.backoff_factor": Within(1, 1000),
    f"{_DAEMON}.max_backoff_ms": _MS,
    f"{_DAEMON}.max_in_flight": Within(1, 1_000_000),
    f"{_DAEMON}.urgent_ms": _MS,
    f"{_DAEMON}.urgency_weight": Within(0, 1),
    f"{_DAEMON}.purge_interval_ms": _MS,
    f"{_DAEMON}.purge_batch_size": Within(1, 1_000_000),
    f"{_DAEMON}.purge_throttle_ms": Within(0, _DAY * 1000),
    "shutdown.grace": _lasts(1, _DAY),
}
