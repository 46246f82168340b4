"""Settings: their names, defaults, units and checks. The only reader of the environment and of the YAML file.

Sources, later wins: the defaults below, the YAML file (`DWCTL_CONFIG`, else `config.yaml`; it need not exist), `DWCTL_*` variables
(`__` nests: `DWCTL_AUTH__NATIVE__ENABLED=false`; `..._FILE` reads the value from a file), `DATABASE_URL`.
Values from the environment stay text until the type of their setting is known, so an all-digit secret stays a secret.
An unknown or bad setting stops the start with its name (ConfigError). Settings of the Rust product that mean nothing here are
accepted with a warning that says why (`OBSOLETE`).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from decimal import Decimal
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

import yaml
from marshmallow import RAISE, Schema, ValidationError, fields, validate

log = logging.getLogger(__name__)

_LONGEST_DAYS = 36_500
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}")
# What a caller may never send to an inference server under our credential: what proves who somebody is or picks whose account it is, what is
# about one connection, the body's framing or a part of it, where the call came from or goes to, and what the gateway says itself.
_NEVER_FORWARDED = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "host",
        "content-type",
        "content-length",
        "content-encoding",
        "content-range",
        "range",
        "if-range",
        "accept-encoding",
        "via",
        "forwarded",
        "origin",
        "referer",
        "date",
        "max-forwards",
        "idempotency-key",
        "model-override",
        "traceparent",
        "tracestate",
        "openai-organization",
        "openai-project",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
        "x-original-url",
        "x-original-uri",
        "x-original-host",
        "x-rewrite-url",
        "x-host",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-request-id",
    ]
)
_NEVER_FORWARDED_PARTS = re.compile(
    r"^(?:x-forwarded|x-fusillade-|x-onwards-|x-doubleword-|x-dwctl-|sec-|if-|proxy-|x-envoy-|x-amz)"
    r"|authori[sz]|authent|x-auth\b|token|cookie|secret|password|credential|signature|api-?key|subscription-key|access-key"
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")


class ConfigError(Exception):
    """A setting is unknown or has a bad value; the text names it."""


def seconds_of(text: str) -> float:
    """Seconds of a human duration: `24h`, `1h 30m`, `250ms`, or a bare number of seconds. ValueError otherwise."""
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        parts = _PART.findall(text)
        if not parts or _PART.sub("", text):
            raise ValueError(f"not a duration: {text!r}") from None
        return sum(float(n) * _UNITS[unit] for n, unit in parts)


def window_seconds(text: str) -> float:
    """Seconds of a completion window: a human duration with its units, longer than nothing and not above a hundred years. ValueError otherwise."""
    seconds = seconds_of(text)
    if text.strip()[-1:].isdigit() or not 0 < seconds <= _LONGEST_DAYS * 86400:
        raise ValueError(f"not a completion window: {text!r}")
    return seconds


class _DurationField(fields.Field[float]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        try:
            seconds = seconds_of(str(value))
        except ValueError as error:
            raise ValidationError(str(error)) from error
        if not 0 <= seconds < math.inf:
            raise ValidationError("must be finite and not negative")
        return seconds


class _ListField(fields.Field[tuple[str, ...]]):
    """A YAML list, or in the environment a comma-separated text or a JSON array."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> tuple[str, ...]:
        if isinstance(value, str):
            value = _listed(value)
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise ValidationError("must be a list of texts")
        return tuple(part for part in value if part)


def _listed(text: str) -> Any:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",")]
    try:
        return json.loads(text)
    except ValueError:
        return None


class _IntListField(_ListField):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, list):
            value = [str(part) for part in value]
        try:
            return tuple(int(part) for part in super()._deserialize(value, attr, data))
        except ValueError as error:
            raise ValidationError("must be a list of whole numbers") from error


class _NetworkListField(_ListField):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return tuple(
                ip_network(part, strict=False) for part in super()._deserialize(value, attr, data)
            )
        except ValueError as error:
            raise ValidationError(f"must be a list of networks: {error}") from error


Networks = tuple[IPv4Network | IPv6Network, ...]
"""Written as a list of addresses (`10.1.2.3`) and networks (`10.0.0.0/8`)."""

Duration = Annotated[float, _DurationField]
"""Seconds; written as `30s`, `24h` or a number of seconds."""


class _FactorsField(fields.Field[Mapping[str, float]]):
    """A YAML mapping, or in the environment a JSON object or one variable for each name."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> Mapping[str, float]:
        try:
            given = json.loads(value) if isinstance(value, str) else value
            found = {str(name): float(factor) for name, factor in given.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValidationError(f"must be numbers by name: {error}") from error
        if not all(0 <= factor < math.inf for factor in found.values()):
            raise ValidationError("must be finite and not negative")
        return types.MappingProxyType(found)


Factors = Annotated[Mapping[str, float], _FactorsField]
"""Numbers by name."""


@dataclass(frozen=True)
class Escalation:
    """What is due within the threshold is served by that model in place of its own."""

    escalation_model: str
    escalation_threshold_seconds: float = 900.0


class _EscalationsField(fields.Field[Mapping[str, Escalation]]):
    """A YAML mapping, or in the environment a JSON object or one variable for each member."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> Mapping[str, Escalation]:
        try:
            given = json.loads(value) if isinstance(value, str) else value
            found = {str(model): self._read(model, one) for model, one in given.items()}
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValidationError(
                f"must be escalation_model and escalation_threshold_seconds by model: {error}"
            ) from error
        return found

    def _read(self, model: str, given: Mapping[str, Any]) -> Escalation:
        unknown = set(given) - {"escalation_model", "escalation_threshold_seconds"}
        if unknown:
            raise ValueError(f"{model}: unknown member {sorted(unknown)[0]}")
        threshold_s = float(given.get("escalation_threshold_seconds", 900))
        if not 0 <= threshold_s < math.inf:
            raise ValueError(f"{model}: the threshold must be finite and not negative")
        to = given["escalation_model"]
        if not isinstance(to, str) or not to or to == model:
            raise ValueError(f"{model}: escalation_model must name another model")
        return Escalation(to, threshold_s)


Escalations = Annotated[Mapping[str, Escalation], _EscalationsField]
"""Escalations by model."""


@dataclass(frozen=True)
class Database:
    """Where PostgreSQL is, and how many connections one process may hold."""

    url: str | None = None
    direct_url: str | None = None
    pool_size: int = 3
    pool_overflow: int = 2
    pool_timeout: Duration = 10.0
    statement_timeout: Duration = 60.0
    connect_timeout: Duration = 5.0
    prepared_statements: bool = True


@dataclass(frozen=True)
class Password:
    min_length: int = 8
    max_length: int = 64
    argon2_memory_kib: int = 19456
    argon2_iterations: int = 2
    argon2_parallelism: int = 1


@dataclass(frozen=True)
class Session:
    timeout: Duration = 86400.0
    lifetime: Duration = 604800.0
    cookie_name: str = "dwctl_session"
    cookie_secure: bool = True
    cookie_same_site: str = "strict"
    cookie_domain: str | None = None


@dataclass(frozen=True)
class Throttle:
    """How often one address may try, and how many wrong passwords for one account come from one address, within a minute.

    failures_per_account_per_hour: from wherever; beyond them each address has one try a minute for that account.
    resets_per_account: mails that somebody may have sent to one account, from wherever, as long as the first of them is valid.
    """

    sign_ins_per_minute: int = 30
    registrations_per_minute: int = 20
    failures_per_account_per_minute: int = 10
    failures_per_account_per_hour: int = 40
    resets_per_minute: int = 10
    resets_per_account: int = 5


@dataclass(frozen=True)
class NativeAuth:
    enabled: bool = True
    allow_registration: bool = False
    password_reset_token_duration: Duration = 1800.0
    password: Password = field(default_factory=Password)
    session: Session = field(default_factory=Session)
    throttle: Throttle = field(default_factory=Throttle)


@dataclass(frozen=True)
class ProxyHeaderAuth:
    enabled: bool = False
    header_name: str = "x-doubleword-user"
    email_header_name: str = "x-doubleword-email"
    groups_field_name: str = "x-doubleword-user-groups"
    provider_field_name: str = "x-doubleword-sso-provider"
    import_idp_groups: bool = False
    blacklisted_sso_groups: tuple[str, ...] = ()
    auto_create_users: bool = True
    auto_create_organizations: bool = True
    link_registered: str = "take_over"
    trusted_proxies: Networks | None = None


@dataclass(frozen=True)
class Cors:
    allowed_origins: tuple[str, ...] = ()
    allow_credentials: bool = True
    max_age: int = 3600
    exposed_headers: tuple[str, ...] = ("location",)


@dataclass(frozen=True)
class SecurityHeaders:
    """What browsers are told with every answer of a page or of the management routes; an empty text sends no such header."""

    frame_options: str = "DENY"
    referrer_policy: str = "strict-origin-when-cross-origin"
    permissions_policy: str = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    content_security_policy: str = "default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True)
class Security:
    """`hsts_max_age` in seconds; 0 sends no such header. `allowed_hosts` empty: any."""

    cors: Cors = field(default_factory=Cors)
    headers: SecurityHeaders = field(default_factory=SecurityHeaders)
    allowed_hosts: tuple[str, ...] = ()
    hsts_max_age: int = 0


@dataclass(frozen=True)
class Auth:
    native: NativeAuth = field(default_factory=NativeAuth)
    proxy_header: ProxyHeaderAuth = field(default_factory=ProxyHeaderAuth)
    security: Security = field(default_factory=Security)
    default_user_roles: tuple[str, ...] = ("StandardUser",)


@dataclass(frozen=True)
class RequestLimits:
    """Largest bodies in bytes: of inference (`max_body_size`; 0 switches the limit off), where files are handed on, of admin routes, of sign-in and whatever else is open to all.

    max_compression_ratio: how many times larger than what was sent a decoded body above 1 MiB may be; 0 switches the limit off.
    stalled_reader_timeout: how long a caller may take nothing of an answer before its connection is closed.
    head_timeout: how long a request's head may take, from its first byte. body_grace: how long a body may take at least; each
    `body_min_rate` bytes of it (0: no lowest rate) extend that by a second, up to `body_timeout` for the whole of it.
    """

    max_body_size: int = 10 * 1024 * 1024
    max_file_body_size: int = 50 * 1024 * 1024
    max_admin_body_size: int = 2 * 1024 * 1024
    max_sign_in_body_size: int = 16 * 1024
    max_compression_ratio: int = 200
    stalled_reader_timeout: Duration = 60.0
    head_timeout: Duration = 20.0
    body_grace: Duration = 20.0
    body_min_rate: int = 4096
    body_timeout: Duration = 600.0


@dataclass(frozen=True)
class ConnectionLimits:
    """What one process has open at once; 0 switches a limit off. Peers in `trusted_proxies` have no limit of their own.

    per_peer: connections of one address (IPv6: of one /64). awaiting_body: requests whose body has not come in full; beyond that, the
    one that waits longest is refused. awaiting_body_per_peer: of one address.
    """

    per_peer: int = 2000
    awaiting_body: int = 2000
    awaiting_body_per_peer: int = 200


@dataclass(frozen=True)
class AccountLimits:
    """What one account may hold at once; 0 switches a limit off. In one web process each, but for `queued`: over all of them.

    realtime, background: calls. queued: single requests that wait for a worker. buffered_bytes: bodies of its calls in memory. uploads: of
    files, each of which may have a line of max_body_size in memory.
    """

    realtime: int = 2000
    background: int = 500
    queued: int = 10_000
    buffered_bytes: int = 64 * 1024 * 1024
    uploads: int = 20


@dataclass(frozen=True)
class ProcessLimits:
    """What one web process holds at once, of all accounts together; 0 switches a limit off."""

    realtime: int = 8000
    background: int = 2000
    buffered_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True)
class FileLimits:
    """What is taken as a file of requests; 0 switches a limit off. max_file_size in bytes, after unpacking.

    max_concurrent_uploads, max_waiting_uploads: in one process. max_upload_wait_secs: 0 does not wait. body_timeout: for the whole of an
    upload, in place of limits.requests.body_timeout.
    """

    max_file_size: int = 100 * 1024 * 1024
    max_requests_per_file: int = 0
    max_concurrent_uploads: int = 0
    max_waiting_uploads: int = 20
    max_upload_wait_secs: int = 60
    body_timeout: Duration = 3600.0


@dataclass(frozen=True)
class Limits:
    requests: RequestLimits = field(default_factory=RequestLimits)
    files: FileLimits = field(default_factory=FileLimits)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    account: AccountLimits = field(default_factory=AccountLimits)
    process: ProcessLimits = field(default_factory=ProcessLimits)


@dataclass(frozen=True)
class Onwards:
    """show_served_by: whose answers name the endpoint that served them. operators: keys of owners who may read endpoints."""

    strict_mode: bool = False
    show_served_by: str = "operators"


@dataclass(frozen=True)
class Circuit:
    """After so many `failures` in a row (0: never) a target is left out by models that have another, for `open_for`; then one call tries it."""

    failures: int = 5
    open_for: Duration = 30.0


@dataclass(frozen=True)
class Upstream:
    """Time-outs of calls to inference servers, and the largest answer (in one piece or streamed) that is taken in (bytes).

    usage_grace: how long a stream is read on for its usage when the model has ended and the caller is gone.
    models_timeout, validate_timeout: for reading an endpoint's list of models, and for trying an endpoint out.
    passed_headers: names of callers' headers that go upstream beside those that always do, in lower case.
    """

    connect_timeout: Duration = 10.0
    first_byte_timeout: Duration = 600.0
    idle_timeout: Duration = 300.0
    models_timeout: Duration = 30.0
    validate_timeout: Duration = 10.0
    max_answer_size: int = 64 * 1024 * 1024
    max_idle_per_origin: int = 100
    on_disconnect: str = "cancel"
    usage_grace: Duration = 5.0
    passed_headers: tuple[str, ...] = ()
    circuit: Circuit = field(default_factory=Circuit)

    def __post_init__(self) -> None:
        names = tuple(name.lower() for name in self.passed_headers)
        object.__setattr__(self, "passed_headers", names)


@dataclass(frozen=True)
class Outbound:
    """Which addresses are called for what: `public`, `private` (private networks and this machine, too) or `any` (link-local and metadata, too)."""

    endpoints: str = "private"
    webhooks: str = "public"
    images: str = "public"
    sources: str = "public"
    tools: str = "private"
    use_environment_proxies: bool = False


@dataclass(frozen=True)
class Recorder:
    """How calls are written down.

    open_after: a blocking call that lasts longer gets its tracking row before it is answered.
    progress_interval: how often a stream leaves word of what it has delivered, for the case that its process dies.
    database_wait: how long a caller waits for its record before the record goes to the spool; longer for one of many megabytes.
    queue_size, queue_bytes: how many records wait, and how large they are together, before calls are made to wait or refused.
    """

    open_after: Duration = 1.0
    progress_interval: Duration = 5.0
    database_wait: Duration = 1.0
    queue_size: int = 10_000
    queue_bytes: int = 128 * 1024 * 1024
    group_size: int = 256
    spool_dir: str | None = None


@dataclass(frozen=True)
class Retention:
    """Days (0 keeps for ever); `events`: how long the events of a stream are kept after its end."""

    responses_days: int = 30
    log_days: int = 90
    rollups_days: int = 400
    files_days: int = 60
    skipped_files_days: int = 30
    events: Duration = 3600.0


@dataclass(frozen=True)
class Audit:
    """`retention_days`: how long entries of the audit log are kept (0: for ever)."""

    retention_days: int = 400


@dataclass(frozen=True)
class History:
    """How far a conversation is read back, for `previous_response_id` and for items that are only named."""

    max_responses: int = 1000
    max_bytes: int = 32 * 1024 * 1024


@dataclass(frozen=True)
class Responses:
    """Held and background calls. `keepalive` comes before routers in front cut a silent connection (30 s on Heroku)."""

    keepalive: Duration = 20.0
    held_timeout: Duration = 3600.0
    held_max_per_owner: int = 1000
    sweep_interval: Duration = 1.0
    events_interval: Duration = 0.05
    events_max_size: int = 16 * 1024 * 1024
    events_max_waiting: int = 64 * 1024 * 1024
    history: History = field(default_factory=History)


@dataclass(frozen=True)
class Idempotency:
    """`keep`: how long an Idempotency-Key stands for its request."""

    keep: Duration = 86400.0


@dataclass(frozen=True)
class Organizations:
    """`max_per_user`: of how many one person can be a member. `invitation_expiry`: how long the link in an invitation's mail works.

    invitations_per_minute: mails of invitation that one address can have sent; 0: no limit.
    """

    max_per_user: int = 3
    invitation_expiry: Duration = 604800.0
    invitations_per_minute: int = 20


@dataclass(frozen=True)
class Daemons:
    """Life signs of processes: how often, and how long without one until a process counts as dead."""

    heartbeat: Duration = 5.0
    dead_after: Duration = 30.0


@dataclass(frozen=True)
class Snapshot:
    """The in-process copy of keys, access and models."""

    debounce: Duration = 0.05
    full_reload_interval: Duration = 60.0
    key_use_interval: Duration = 30.0


@dataclass(frozen=True)
class AsyncRequests:
    enabled: bool = True
    completion_window: str = "1h"


@dataclass(frozen=True)
class BatchFiles:
    """Files of requests. Expiry in seconds from an upload on, where it names none, and the bounds of what it may name.

    reported_errors: how many bad lines one refusal names. batch_insert_size: lines that are stored at once.
    expired_grace_seconds: how long an expired file is still shown and kept before it is deleted.
    """

    default_expiry_seconds: int = 30 * 86400
    min_expiry_seconds: int = 3600
    max_expiry_seconds: int = 30 * 86400
    reported_errors: int = 20
    batch_insert_size: int = 5000
    expired_grace_seconds: int = 7 * 86400


BATCH_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
"""What a line of a batch can be for."""


@dataclass(frozen=True)
class Batches:
    """`expiry_grace`: how long lines of a batch may still be begun after its deadline."""

    enabled: bool = True
    allowed_completion_windows: tuple[str, ...] = ("24h", "1h")
    allowed_url_paths: tuple[str, ...] = BATCH_PATHS
    window_relaxation_factors: Factors = field(default_factory=dict)
    default_throughput: float = 100.0
    async_requests: AsyncRequests = field(default_factory=AsyncRequests)
    expiry_grace: Duration = 0.0
    files: BatchFiles = field(default_factory=BatchFiles)


@dataclass(frozen=True)
class Sync:
    """How files of connected sources become batches.

    max_objects: of one synchronisation. max_object_size: bytes, unpacked; 0 switches the limit off. max_ingests: files that one worker reads at
    once. max_open: synchronisations of one account that have not ended. retry_wait: before the first retry, doubled up to retry_wait_max.
    lease: after so long without a sign of its worker, another one goes on with a file.
    """

    default_completion_window: str = "24h"
    default_endpoint: str = "/v1/chat/completions"
    max_objects: int = 100_000
    max_object_size: int = 2 * 1024 * 1024 * 1024
    max_ingests: int = 4
    max_open: int = 20
    look_interval: Duration = 5.0
    retry_wait: Duration = 5.0
    retry_wait_max: Duration = 300.0
    lease: Duration = 60.0


@dataclass(frozen=True)
class SourceConnections:
    """Connections to external sources of files. encryption_key: what their credentials are encrypted with; without it, secret_key.

    connect_timeout, read_timeout: of one call to a source; answer_timeout: of one in which a caller waits.
    """

    encryption_key: str | None = None
    encryption_key_previous: tuple[str, ...] = ()
    connect_timeout: Duration = 10.0
    read_timeout: Duration = 60.0
    answer_timeout: Duration = 20.0
    sync: Sync = field(default_factory=Sync)


@dataclass(frozen=True)
class SampleFiles:
    """Files of examples that people find when they have registered."""

    enabled: bool = True
    requests_per_file: int = 100


@dataclass(frozen=True)
class BatchDaemon:
    """The worker. `_ms` names and defaults are those of the Rust product."""

    claim_batch_size: int = 100
    claim_interval_ms: int = 1000
    default_model_concurrency: int = 10
    max_retries: int | None = 1000
    stop_before_deadline_ms: int | None = 0
    backoff_ms: int = 1000
    backoff_factor: float = 2.0
    max_backoff_ms: int = 10_000
    max_in_flight: int = 1000
    urgent_ms: int = 300_000
    urgency_weight: float = 0.0
    model_escalations: Escalations = field(default_factory=dict)
    purge_interval_ms: int = 600_000
    purge_batch_size: int = 1000
    purge_throttle_ms: int = 100
    retried_statuses: tuple[int, ...] = (5, 404, 408, 429, 499)


@dataclass(frozen=True)
class BackgroundServices:
    batch_daemon: BatchDaemon = field(default_factory=BatchDaemon)


@dataclass(frozen=True)
class Credits:
    initial_credits_for_standard_users: Decimal = Decimal(0)


@dataclass(frozen=True)
class Support:
    """How often people may ask for help by mail; 0 switches a limit off."""

    requests_per_account_per_hour: int = 5
    requests_per_hour: int = 100


@dataclass(frozen=True)
class Metadata:
    title: str = "dwctl"
    region: str | None = None
    organization: str | None = None
    docs_url: str = ""
    docs_jsonl_url: str = ""
    ai_api_base_url: str | None = None


@dataclass(frozen=True)
class Email:
    """How mails leave. type: `file` writes each into the folder `path`, `smtp` hands it to the server `host`.

    use_tls: STARTTLS, which the server must offer then; on port 465 from the first byte. timeout: of one step of the conversation;
    a whole one may take four times as long.
    """

    type: str = "file"
    path: str = "./emails"
    host: str | None = None
    port: int = 587
    username: str | None = None
    password: str | None = None
    use_tls: bool = True
    timeout: Duration = 15.0
    from_email: str = "noreply@example.com"
    from_name: str = "Control Layer"
    reply_to: str | None = None
    templates_dir: str | None = None


@dataclass(frozen=True)
class DefaultModel:
    """A model of a source that is there from the first start on."""

    name: str
    add_to_everyone_group: bool = False


class _ObjectsField(fields.Field[tuple[Any, ...]]):
    """A YAML list of mappings, or in the environment a JSON array of objects."""

    of: type

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            value = _listed(value) if value.strip() else []
        if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
            raise ValidationError("must be a list of mappings")
        return tuple(_schema(self.of, "").load(part) for part in value)


class _DefaultModelsField(_ObjectsField):
    of = DefaultModel


@dataclass(frozen=True)
class ModelSource:
    """An endpoint that the release command makes once. `sync_interval` is taken and means nothing: lists are read when somebody asks."""

    name: str
    url: str
    api_key: str | None = None
    sync_interval: Duration = 10.0
    default_models: Annotated[tuple[DefaultModel, ...], _DefaultModelsField] = ()


class _ModelSourcesField(_ObjectsField):
    of = ModelSource


ModelSources = Annotated[tuple[ModelSource, ...], _ModelSourcesField]
"""Endpoints with `name`, `url`, `api_key`, and `default_models` (each `name`, `add_to_everyone_group`)."""


@dataclass(frozen=True)
class Shutdown:
    """`grace`: from SIGTERM until everything must have been drained (Heroku kills after 30 s)."""

    grace: Duration = 25.0


@dataclass(frozen=True)
class Settings:
    """All settings of one process; made once, passed down."""

    admin_email: str = "admin@example.com"
    admin_password: str | None = None
    secret_key: str | None = None
    secret_key_previous: tuple[str, ...] = ()
    dashboard_url: str = "http://localhost:3001"
    onboarding_url: str | None = None
    support_email: str | None = None
    model_sources: ModelSources = ()
    enable_metrics: bool = True
    metrics_token: str | None = None
    trusted_proxies: Networks = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    forwarded_headers: tuple[str, ...] = ("x-forwarded-for", "x-forwarded-proto")
    log_level: str = "info"
    log_format: str = "text"
    log_strangers_per_minute: int = 10
    database: Database = field(default_factory=Database)
    auth: Auth = field(default_factory=Auth)
    email: Email = field(default_factory=Email)
    limits: Limits = field(default_factory=Limits)
    onwards: Onwards = field(default_factory=Onwards)
    upstream: Upstream = field(default_factory=Upstream)
    outbound: Outbound = field(default_factory=Outbound)
    recorder: Recorder = field(default_factory=Recorder)
    retention: Retention = field(default_factory=Retention)
    audit: Audit = field(default_factory=Audit)
    responses: Responses = field(default_factory=Responses)
    idempotency: Idempotency = field(default_factory=Idempotency)
    organizations: Organizations = field(default_factory=Organizations)
    daemons: Daemons = field(default_factory=Daemons)
    snapshot: Snapshot = field(default_factory=Snapshot)
    batches: Batches = field(default_factory=Batches)
    sample_files: SampleFiles = field(default_factory=SampleFiles)
    connections: SourceConnections = field(default_factory=SourceConnections)
    background_services: BackgroundServices = field(default_factory=BackgroundServices)
    credits: Credits = field(default_factory=Credits)
    metadata: Metadata = field(default_factory=Metadata)
    support: Support = field(default_factory=Support)
    shutdown: Shutdown = field(default_factory=Shutdown)

    @property
    def identity_proxies(self) -> Networks:
        """Whose identity headers are believed."""
        named = self.auth.proxy_header.trusted_proxies
        return self.trusted_proxies if named is None else named


FORWARDED_HEADERS = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-prefix",
)

_REACHES = ("public", "private", "any")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "outbound.endpoints": _REACHES,
    "outbound.webhooks": _REACHES,
    "outbound.images": _REACHES,
    "outbound.sources": _REACHES,
    "outbound.tools": _REACHES,
    "auth.proxy_header.link_registered": ("take_over", "refuse"),
    "auth.native.session.cookie_same_site": ("strict", "lax", "none"),
    "email.type": ("file", "smtp"),
    "onwards.show_served_by": ("never", "operators", "all"),
    "upstream.on_disconnect": ("cancel", "drain"),
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("text", "json"),
}

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
    "database.pool": "see database.pool_size and database.pool_overflow",
    "database.fusillade": "one database holds every schema",
    "database.outlet": "one database holds every schema",
    "database.underway_pool": "jobs are duties of the worker process",
    "auth.security.jwt_expiry": "login sessions are rows: see auth.native.session.timeout",
    "batches.files.upload_buffer_size": "a body is read as fast as its lines are checked",
    "batches.files.download_buffer_size": "lines are read as fast as they are taken",
    "enable_request_logging": "every call is recorded once; see retention.*",
    "enable_analytics": "every call is recorded once; see retention.*",
    "analytics": "see recorder.*",
}


def load(environ: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """Read, check and freeze the settings. Raises ConfigError with the name of what is wrong."""
    tree = _tree(os.environ if environ is None else environ, file)
    _drop_obsolete(tree)
    _take_former_name(tree)
    _drop_null(tree, "batches", "default_throughput")
    try:
        settings = cast(Settings, _schema(Settings, "").load(tree))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(error.messages_dict))) from error
    _check(settings)
    _warn(settings)
    return settings


def is_set(name: str) -> bool:
    """Whether somebody has set this one (by its dotted name), in the file or in the environment."""
    branch: Any = _tree(os.environ, None)
    for part in name.split("."):
        if not isinstance(branch, dict) or part not in branch:
            return False
        branch = branch[part]
    return True


def require_secret_key(settings: Settings) -> str:
    """The secret key, which web and worker cannot do without (ConfigError says how to make one)."""
    key = settings.secret_key or ""
    if len(key.encode()) < 16:
        fault = "is missing" if not key else "is weak (under 16 bytes)"
        raise ConfigError(
            f"secret_key {fault}. Make one with `openssl rand -base64 32` and set it as DWCTL_SECRET_KEY, "
            "the same for every web and worker process."
        )
    return key


def require_serving(settings: Settings) -> None:
    """What web and worker processes cannot start without (ConfigError says what to do)."""
    require_secret_key(settings)
    if not settings.database.url:
        raise ConfigError(
            "DATABASE_URL is not set. Give the address of a PostgreSQL (15 or newer), or use `dwctl up`, which brings its own."
        )


def names(cls: type = Settings, prefix: str = "") -> list[str]:
    """Every setting's dotted name, for the documentation and its test."""
    found: list[str] = []
    for name, kind in _hints(cls).items():
        if dataclasses.is_dataclass(kind):
            found += names(cast(type, kind), f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def _tree(environ: Mapping[str, str], file: Path | None) -> dict[str, Any]:
    """What is set, as it was written: file, then environment."""
    explicit = file or (Path(environ["DWCTL_CONFIG"]) if environ.get("DWCTL_CONFIG") else None)
    tree = _from_file(explicit or Path("config.yaml"), must_exist=explicit is not None)
    _merge(tree, _from_environment(environ))
    if environ.get("DATABASE_URL"):
        tree.setdefault("database", {})["url"] = environ["DATABASE_URL"]
    return tree


def _from_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigError(f"{path}: there is no such file") from error
        return {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of settings is wanted")
    return tree or {}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    known = names()
    for name, value in sorted(environ.items()):
        if not name.upper().startswith("DWCTL_") or name.upper() == "DWCTL_CONFIG":
            continue
        path = name[len("DWCTL_") :].lower()
        # One setting's own name ends like that (max_requests_per_file).
        if path.endswith("_file") and path.replace("__", ".") not in known:
            path, value = path.removesuffix("_file"), Path(value).read_text("utf-8").strip()
        branch = tree
        *parents, leaf = path.split("__")
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return tree


def _merge(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _drop_obsolete(tree: dict[str, Any]) -> None:
    for path, reason in OBSOLETE.items():
        *parents, leaf = path.split(".")
        branch: Any = tree
        for parent in parents:
            branch = branch.get(parent, {}) if isinstance(branch, dict) else {}
        if isinstance(branch, dict) and leaf in branch:
            del branch[leaf]
            log.warning("setting has no meaning here", extra={"setting": path, "reason": reason})


def _take_former_name(tree: dict[str, Any]) -> None:
    """`trusted_proxies` used to stand with the identity headers only."""
    auth = tree.get("auth")
    rule = auth.get("proxy_header") if isinstance(auth, dict) else None
    if isinstance(rule, dict) and "trusted_proxies" in rule:
        tree.setdefault("trusted_proxies", rule["trusted_proxies"])


def _warn(settings: Settings) -> None:
    """Of what does not stop the start, and cannot be meant."""
    shown = settings.batches.async_requests.completion_window
    if shown not in settings.batches.allowed_completion_windows:
        log.error("setting names no allowed window", extra={"setting": "batches.async_requests.completion_window", "window": shown})  # fmt: skip

    if settings.email.type == "smtp" and urlsplit(settings.dashboard_url).hostname == "localhost":
        log.warning("links in mails lead to localhost", extra={"setting": "dashboard_url"})


def _drop_null(tree: dict[str, Any], section: str, name: str) -> None:
    """In the Rust product null means the default there."""
    branch = tree.get(section)
    if isinstance(branch, dict) and name in branch and branch[name] is None:
        del branch[name]


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


@cache
def _schema(cls: type, prefix: str) -> Schema:
    members: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        member = _field(_hints(cls)[item.name], f"{prefix}{item.name}")
        member.required = MISSING is item.default and MISSING is item.default_factory
        members[item.name] = member
    base = Schema.from_dict(members, name=cls.__name__)

    class Built(base):  # type: ignore[valid-type,misc]
        class Meta:
            unknown = RAISE
            register = False

        def load(self, data: Any, **kwargs: Any) -> Any:
            return cls(**super().load(data, **kwargs))

    return Built()


def _field(kind: Any, path: str) -> fields.Field[Any]:
    optional = False
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        optional = type(None) in typing.get_args(kind)
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if dataclasses.is_dataclass(kind):
        return _Nested(cast(type, kind), f"{path}.")
    checks: validate.Validator | None = None
    if path in _CHOICES:
        checks = validate.OneOf(_CHOICES[path])
    elif kind is int:
        checks = validate.Range(min=0, error="must not be negative")
    simple: dict[Any, type[fields.Field[Any]]] = {
        str: fields.String,
        int: fields.Integer,
        float: fields.Float,
        bool: fields.Boolean,
        Decimal: fields.Decimal,
        Duration: _DurationField,
        tuple[str, ...]: _ListField,
        tuple[int, ...]: _IntListField,
        Networks: _NetworkListField,
        Factors: _FactorsField,
        Escalations: _EscalationsField,
        ModelSources: _ModelSourcesField,
        Annotated[tuple[DefaultModel, ...], _DefaultModelsField]: _DefaultModelsField,
    }
    return simple[kind](allow_none=optional, validate=checks)


class _Nested(fields.Field[Any]):
    def __init__(self, cls: type, prefix: str) -> None:
        super().__init__()
        self._cls, self._prefix = cls, prefix

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError("a mapping of settings is wanted")
        return _schema(self._cls, self._prefix).load(value)


def _explain(messages: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for name, problem in messages.items():
        if isinstance(problem, dict):
            lines += _explain(problem, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, problem)) if isinstance(problem, list) else str(problem)
            lines.append(
                f"{prefix}{name}: {'unknown setting' if text == 'Unknown field.' else text}"
            )
    return lines


def _holds(buffered_bytes: int, settings: Settings) -> bool:
    """Whether a body of the largest size that is let in has room. (Without such a size every body does that has.)"""
    return not buffered_bytes or buffered_bytes >= settings.limits.requests.max_body_size


def _may_be_passed(name: str) -> bool:
    """Whether a caller's header of that name may be sent to an inference server beside our credential."""
    return (
        _HEADER_NAME.fullmatch(name) is not None
        and name not in _NEVER_FORWARDED
        and not _NEVER_FORWARDED_PARTS.search(name.replace("_", "-"))
    )


_HOST = re.compile(
    r"(?:(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)


def _is_window(text: str) -> bool:
    try:
        window_seconds(text)
    except ValueError:
        return False
    return True


_ADDRESS = re.compile(r"[^@\s<>,;:()\"]+@[^@\s<>,;:()\"]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+/?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _origin_rules(cors: Cors) -> Mapping[str, bool]:
    wrong = (o for o in cors.allowed_origins if o not in ("*", "null"))
    origins = {
        f"auth.security.cors.allowed_origins: {origin!r} is no origin such as https://console.example": _ORIGIN.fullmatch(
            origin
        )
        is not None
        for origin in wrong
    }
    exposed = {
        f"auth.security.cors.exposed_headers: {name!r} is no header name": _HEADER_NAME.fullmatch(
            name.lower()
        )
        is not None
        for name in cors.exposed_headers
    }
    return origins | exposed


def _cookie_rules(session: Session) -> Mapping[str, bool]:
    domain = session.cookie_domain or ""
    return {
        "auth.native.session.cookie_domain: must have no blanks, control characters or ;": re.fullmatch(
            r"[^\s;\x00-\x1f\x7f]*", domain
        )
        is not None,
        "auth.native.session.cookie_name: must be a cookie's name": re.fullmatch(
            r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", session.cookie_name
        )
        is not None,
        # A browser keeps no such cookie from anybody.
        "auth.native.session.cookie_same_site: none needs cookie_secure": session.cookie_secure
        or session.cookie_same_site != "none",
    }


def _email_rules(email: Email) -> Mapping[str, bool]:
    folder = email.templates_dir
    return {
        "email.host: must be set where email.type is smtp": email.type != "smtp"
        or bool(email.host),
        "email.port: must be between 1 and 65535": 1 <= email.port <= 65535,
        "email.username: goes with email.password, and the other way round": (
            email.username is None
        )
        == (email.password is None),
        "email.timeout: must be between 1s and 1m": 1 <= email.timeout <= 60,
        "email.from_email: must be an address": _ADDRESS.fullmatch(email.from_email) is not None,
        "email.reply_to: must be an address": email.reply_to is None
        or _ADDRESS.fullmatch(email.reply_to) is not None,
        "email.from_name: must have no control characters": not _CONTROL.search(email.from_name),
        "email.templates_dir: must be a folder that is there": folder is None
        or Path(folder).is_dir(),
        "email.path: must be set where email.type is file": email.type != "file"
        or bool(email.path),
    }


def _are_different(names: Sequence[str]) -> bool:
    return all(name.strip() for name in names) and len(set(names)) == len(names)


def _check(settings: Settings) -> None:
    password = settings.auth.native.password
    rules = {
        "auth.native.password.min_length: must be at least 1 and not above max_length": 1
        <= password.min_length
        <= password.max_length,
        "auth: native and proxy_header are both off, so nobody could sign in": settings.auth.native.enabled
        or settings.auth.proxy_header.enabled,
        "auth.security.cors.allowed_origins: * cannot go with credentials": not (
            "*" in settings.auth.security.cors.allowed_origins
            and settings.auth.security.cors.allow_credentials
        ),
        **_origin_rules(settings.auth.security.cors),
        **_cookie_rules(settings.auth.native.session),
        **_email_rules(settings.email),
        "auth.native.password_reset_token_duration: must be between 1m and 7d": 60
        <= settings.auth.native.password_reset_token_duration
        <= 7 * 86400,
        "connections.encryption_key: is weak (under 16 bytes)": settings.connections.encryption_key
        is None
        or len(settings.connections.encryption_key.encode()) >= 16,
        "model_sources: names must be different, and none empty": _are_different(
            [source.name for source in settings.model_sources]
        ),
        **{
            f"model_sources.{source.name}.default_models: names must be different, and none empty": _are_different(
                [model.name for model in source.default_models]
            )
            for source in settings.model_sources
        },
        **{
            f"model_sources.{source.name}.url: must begin with http:// or https://": re.match(
                r"https?://[^\s/]", source.url
            )
            is not None
            for source in settings.model_sources
        },
        "auth.security.cors.allowed_origins: null is the origin of any sandboxed page": "null"
        not in settings.auth.security.cors.allowed_origins,
        f"forwarded_headers: must be some of {', '.join(FORWARDED_HEADERS)}": set(
            settings.forwarded_headers
        )
        <= set(FORWARDED_HEADERS),
        "metrics_token: must have at least 16 characters": settings.metrics_token is None
        or len(settings.metrics_token) >= 16,
        "limits.account.buffered_bytes: must be at least limits.requests.max_body_size (or 0)": _holds(
            settings.limits.account.buffered_bytes, settings
        ),
        "limits.process.buffered_bytes: must be at least limits.requests.max_body_size (or 0)": _holds(
            settings.limits.process.buffered_bytes, settings
        ),
        **{
            f"auth.security.allowed_hosts: {host!r} is no host name (name, name:port, or *.name; none for any)": _HOST.fullmatch(
                host
            )
            is not None
            for host in settings.auth.security.allowed_hosts
        },
        **{
            f"limits.requests.{name}: must be at least 1024": getattr(
                settings.limits.requests, name
            )
            >= 1024
            for name in ("max_admin_body_size", "max_sign_in_body_size")
        },
        "limits.files.body_timeout: must be at least 1s": settings.limits.files.body_timeout >= 1,
        "batches.files: min_expiry_seconds, default_expiry_seconds and max_expiry_seconds must be ordered, and above 0": 0
        < settings.batches.files.min_expiry_seconds
        <= settings.batches.files.default_expiry_seconds
        <= settings.batches.files.max_expiry_seconds
        <= _LONGEST_DAYS * 86400,
        **{
            f"batches.files.{name}: must be at least 1": getattr(settings.batches.files, name) >= 1
            for name in ("reported_errors", "batch_insert_size")
        },
        "sample_files.requests_per_file: must be between 1 and 10000": 1
        <= settings.sample_files.requests_per_file
        <= 10_000,
        "background_services.batch_daemon.purge_batch_size: must be at least 1": settings.background_services.batch_daemon.purge_batch_size
        >= 1,
        f"batches.files.expired_grace_seconds: must be at most {_LONGEST_DAYS} days": settings.batches.files.expired_grace_seconds
        <= _LONGEST_DAYS * 86400,
        "recorder.queue_size: must be at least 1": settings.recorder.queue_size >= 1,
        "recorder.queue_bytes: must be at least 1 MiB": settings.recorder.queue_bytes >= 1 << 20,
        "recorder.group_size: must be at least 1": settings.recorder.group_size >= 1,
        "recorder.database_wait: must be at least 100ms": settings.recorder.database_wait >= 0.1,
        **{
            f"limits.requests.{name}: must be at least 1s": getattr(settings.limits.requests, name)
            >= 1
            for name in ("stalled_reader_timeout", "head_timeout", "body_grace", "body_timeout")
        },
        **{
            f"upstream.passed_headers: {name} cannot be passed on": _may_be_passed(name)
            for name in settings.upstream.passed_headers
        },
        **{
            f"retention.{name}: must be at most {_LONGEST_DAYS}": days <= _LONGEST_DAYS
            for name, days in dataclasses.asdict(settings.retention).items()
        },
        f"audit.retention_days: must be between 0 and {_LONGEST_DAYS}": 0
        <= settings.audit.retention_days
        <= _LONGEST_DAYS,
        "idempotency.keep: must be at most retention.responses_days": not settings.retention.responses_days
        or settings.idempotency.keep <= settings.retention.responses_days * 86400,
        "organizations.max_per_user: must be at least 1": settings.organizations.max_per_user >= 1,
        f"organizations.invitation_expiry: must be between 1m and {_LONGEST_DAYS} days": 60
        <= settings.organizations.invitation_expiry
        <= _LONGEST_DAYS * 86400,
        **{
            f"batches.allowed_completion_windows: {window!r} is no window such as 24h, 7d or 1h 30m": _is_window(
                window
            )
            for window in settings.batches.allowed_completion_windows
        },
        **{
            f"batches.window_relaxation_factors: {window} is not among batches.allowed_completion_windows": window
            in settings.batches.allowed_completion_windows
            for window in settings.batches.window_relaxation_factors
        },
        "batches.allowed_url_paths: must not be empty": bool(settings.batches.allowed_url_paths),
        f"batches.allowed_url_paths: must be some of {', '.join(BATCH_PATHS)}": set(
            settings.batches.allowed_url_paths
        )
        <= set(BATCH_PATHS),
        "batches.default_throughput: must be finite and above 0": 0
        < settings.batches.default_throughput
        < math.inf,
        **{
            f"connections.{name}: must be above 0": getattr(settings.connections, name) > 0
            for name in ("connect_timeout", "read_timeout", "answer_timeout")
        },
        "connections.sync.default_completion_window: must be a window such as 24h, 7d or 1h 30m": _is_window(
            settings.connections.sync.default_completion_window
        ),
        # Whoever looks without a rest does nothing else.
        "connections.sync.look_interval: must be at least 100ms": settings.connections.sync.look_interval
        >= 0.1,
        "background_services.batch_daemon.claim_interval_ms: must be at least 10": settings.background_services.batch_daemon.claim_interval_ms
        >= 10,
        "connections.sync.lease: must be at least 2s": settings.connections.sync.lease >= 2,
        "connections.sync.max_ingests: must be at least 1": settings.connections.sync.max_ingests
        >= 1,
        "background_services.batch_daemon.urgency_weight: must be between 0 and 1": 0
        <= settings.background_services.batch_daemon.urgency_weight
        <= 1,
        "background_services.batch_daemon.claim_batch_size: must be at least 1": settings.background_services.batch_daemon.claim_batch_size
        >= 1,
        "daemons.dead_after: must be at least four times daemons.heartbeat": settings.daemons.dead_after
        >= 4 * settings.daemons.heartbeat,
    }
    broken = [text for text, holds in rules.items() if not holds]
    if broken:
        raise ConfigError("; ".join(broken))
