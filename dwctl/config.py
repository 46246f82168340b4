"""Settings: their names, defaults, units and checks. What is written where is read by `dwctl.settings`.

Sources, later wins: the defaults below, the YAML file (`DWCTL_CONFIG`, else `config.yaml`; it need not exist), `DWCTL_*` variables
(`__` nests: `DWCTL_AUTH__NATIVE__ENABLED=false`; `..._FILE` reads the value from a file), `DATABASE_URL` (`sources`).
Values stay text until the type of their setting is known, so an all-digit secret stays a secret.
An unknown or bad setting stops the start with its name and where it stands (ConfigError). Settings of the Rust product that mean nothing
here are accepted with a warning that says why (`OBSOLETE`).
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from ipaddress import ip_network
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, validate

from dwctl.roles import ROLES
from dwctl.settings import mail_addresses, otel, schema, sources
from dwctl.settings.bounds import BOUNDS
from dwctl.settings.headers import may_be_passed
from dwctl.settings.kinds import (
    ConfigError,
    Duration,
    Escalation,
    Escalations,
    Factors,
    Networks,
    seconds_of,
    window_seconds,
)
from dwctl.settings.obsolete import OBSOLETE

__all__ = [
    "OBSOLETE",
    "ConfigError",
    "Duration",
    "Escalation",
    "Escalations",
    "Factors",
    "Networks",
    "seconds_of",
    "window_seconds",
]

log = logging.getLogger(__name__)


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
class Costs:
    """Whether callers are told what a call has cost them: `header` with answers in one piece, `stream_comment` at the end of streams."""

    header: bool = False
    stream_comment: bool = False


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
class RequestLogging:
    """What the request log shows of a call beside its figures.

    headers: `none`, `listed` (those of `listed_headers`) or `all`; values that are secrets, and those of `redacted_headers`, are never shown.
    bodies: without them calls are kept as with `store: false`, where their API does not promise to give them back.
    max_body_size: what is shown of a body; 0: all of it. sample: the share of calls whose bodies are shown.
    """

    headers: str = "none"
    listed_headers: tuple[str, ...] = (
        "accept",
        "content-type",
        "openai-beta",
        "retry-after",
        "x-request-id",
        "x-upstream-request-id",
    )
    redacted_headers: tuple[str, ...] = ()
    bodies: bool = True
    max_body_size: int = 64 * 1024
    sample: float = 1.0


@dataclass(frozen=True)
class Retention:
    """Days (0 keeps for ever); `events`: how long the events of a stream are kept after its end. `log_bytes`: how large the log may be.

    minutes_days, hours_days, rollups_days: sums of what was used by minute, by hour, by day. Those of all time stay.
    """

    responses_days: int = 30
    log_days: int = 90
    log_bytes: int = 0
    minutes_days: int = 7
    hours_days: int = 90
    rollups_days: int = 1830
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
    """Whose calls are paid for, and how surely.

    reserve_below: USD; accounts with less hold what a call may cost before it runs. assumed_output_tokens: of an answer whose request does not
    say how long it may become. reservation_wait: for how long a call waits that only others' reservations are in the way of.
    reservation_timeout: no call lasts longer, so what is held for longer is let go.
    """

    initial_credits_for_standard_users: Decimal = Decimal(0)
    reserve_below: Decimal = Decimal(10)
    assumed_output_tokens: int = 4096
    reservation_wait: Duration = 2.0
    reservation_timeout: Duration = 6 * 3600.0


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


class _DefaultModelsField(schema.ObjectsField):
    of = DefaultModel


@dataclass(frozen=True)
class ModelSource:
    """An endpoint that the release command makes once. `sync_interval` is taken and means nothing: lists are read when somebody asks."""

    name: str
    url: str
    api_key: str | None = None
    sync_interval: Duration = 10.0
    default_models: Annotated[tuple[DefaultModel, ...], _DefaultModelsField] = ()


class _ModelSourcesField(schema.ObjectsField):
    of = ModelSource


ModelSources = Annotated[tuple[ModelSource, ...], _ModelSourcesField]
"""Endpoints with `name`, `url`, `api_key`, and `default_models` (each `name`, `add_to_everyone_group`)."""


@dataclass(frozen=True)
class Shutdown:
    """`grace`: from SIGTERM until everything must have been drained (Heroku kills after 30 s)."""

    grace: Duration = 25.0


@dataclass(frozen=True)
class Otel:
    """Where traces go, by the names of OpenTelemetry's own variables, which are read into these (`settings.otel`)."""

    endpoint: str | None = None
    traces_endpoint: str | None = None
    headers: str | None = None
    protocol: str = "http/protobuf"
    timeout: Duration = 10.0
    service_name: str = "dwctl"
    resource_attributes: str | None = None
    sampler: str = "parentbased_always_on"
    sampler_arg: float = 1.0
    queue_size: int = 2048
    forward_to_upstream: bool = False


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
    enable_request_logging: bool = True
    enable_analytics: bool = True
    metrics_token: str | None = None
    enable_otel_export: bool | None = None
    trusted_proxies: Networks = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    forwarded_headers: tuple[str, ...] = ("x-forwarded-for", "x-forwarded-proto")
    log_level: str = "info"
    log_format: str = "text"
    log_requests: bool = False
    log_strangers_per_minute: int = 10
    reload_interval: Duration = 1.0
    database: Database = field(default_factory=Database)
    auth: Auth = field(default_factory=Auth)
    email: Email = field(default_factory=Email)
    limits: Limits = field(default_factory=Limits)
    onwards: Onwards = field(default_factory=Onwards)
    costs: Costs = field(default_factory=Costs)
    upstream: Upstream = field(default_factory=Upstream)
    outbound: Outbound = field(default_factory=Outbound)
    recorder: Recorder = field(default_factory=Recorder)
    request_logging: RequestLogging = field(default_factory=RequestLogging)
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
    otel: Otel = field(default_factory=Otel)

    @property
    def exports_traces(self) -> bool:
        """Whether spans are made and sent: as it is said, else where there is somewhere to send them."""
        if self.enable_otel_export is None:
            return bool(self.otel.endpoint or self.otel.traces_endpoint)
        return self.enable_otel_export

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
CHOICES: Mapping[str, tuple[str, ...]] = {
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
    "request_logging.headers": ("none", "listed", "all"),
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("text", "json"),
    "connections.sync.default_endpoint": BATCH_PATHS,
    "otel.sampler": otel.SAMPLERS,
}

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"
_URL = r"https?://[^\s/?#]+[^\s]*"
_FORMS: Mapping[str, tuple[str, str]] = {
    "admin_email": (r"[^@\s]+@[^@\s]+", "an e-mail address"),
    "support_email": (mail_addresses.FORM, "an e-mail address"),
    "email.from_email": (mail_addresses.FORM, "an e-mail address"),
    "email.reply_to": (mail_addresses.FORM, "an e-mail address"),
    "otel.endpoint": (_URL, "an absolute http(s) URL"),
    "otel.traces_endpoint": (_URL, "an absolute http(s) URL"),
    "otel.service_name": (r"[^\x00-\x1f\x7f]{1,255}", "a name"),
    "dashboard_url": (_URL, "an absolute http(s) URL"),
    "onboarding_url": (_URL, "an absolute http(s) URL"),
    "metadata.ai_api_base_url": (_URL, "an absolute http(s) URL"),
    "metadata.docs_url": (f"({_URL})?", "an absolute http(s) URL"),
    "metadata.docs_jsonl_url": (f"({_URL})?", "an absolute http(s) URL"),
    "database.url": (
        r"postgres(ql)?(\+psycopg)?://\S*",
        "the URL of a PostgreSQL (postgresql://...)",
    ),
    "database.direct_url": (
        r"postgres(ql)?(\+psycopg)?://\S*",
        "the URL of a PostgreSQL (postgresql://...)",
    ),
    "auth.native.session.cookie_name": (_TOKEN, "a cookie's name, without blanks or punctuation"),
    "auth.native.session.cookie_domain": (r"\.?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*", "a host name"),
    "auth.proxy_header.header_name": (_TOKEN, "a header's name"),
    "auth.proxy_header.email_header_name": (_TOKEN, "a header's name"),
    "auth.proxy_header.groups_field_name": (_TOKEN, "a header's name"),
    "auth.proxy_header.provider_field_name": (_TOKEN, "a header's name"),
}
"""How some texts must be written, and what that is called."""


@dataclass(frozen=True)
class Remark:
    """What does not stop the start, and cannot be meant. `setting` stands at `origin`; `level` as for log lines."""

    setting: str
    event: str
    reason: str
    origin: str
    level: int = logging.WARNING


@dataclass(frozen=True)
class Loaded:
    """Settings with where they come from. `origins`: by dotted name, none for defaults. `files`: where they are or would be written."""

    settings: Settings
    origins: Mapping[str, str]
    files: tuple[Path, ...]
    remarks: tuple[Remark, ...]


def load(environ: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """Read, check and freeze the settings. Raises ConfigError with the name of what is wrong."""
    loaded = read(environ, file)
    tell(loaded.remarks)
    return loaded.settings


@dataclass
class _Remembered:
    """The last good settings, and what their files looked like when they were read. `found`: files of settings that have been there."""

    settings: Settings | None = None
    look: sources.Look = ()
    found: set[Path] = field(default_factory=set)


_remembered = _Remembered()


def remember() -> None:
    """Keep the settings for processes that are forked from this one, if their files have changed. Raises ConfigError once for a mistake."""
    look = sources.look(sources.files(os.environ, names()))
    if look != _remembered.look:
        _remembered.look = look
        _remembered.settings = read_again().settings


def load_or_remembered() -> Settings:
    """For a process that takes the place of another: a mistake that came into the file meanwhile must not stop it."""
    try:
        loaded = read_again()
    except ConfigError:
        if _remembered.settings is None:
            raise
        return _remembered.settings
    tell(loaded.remarks)
    return loaded.settings


def read_again() -> Loaded:
    """`read`, beside processes that serve. ConfigError also for a file of settings that is gone: the defaults in its place are nobody's wish."""
    file = sources.files(os.environ, names())[0].absolute()
    if file.exists():
        _remembered.found.add(file)
    elif file in _remembered.found:
        raise ConfigError(f"{file}: the file is gone")
    return read()


def tell(remarks: Iterable[Remark]) -> None:
    """Log what was accepted and cannot be meant."""
    for remark in remarks:
        details = {"setting": remark.setting, "reason": remark.reason, "origin": remark.origin}
        log.log(remark.level, remark.event, extra=details)


def read(environ: Mapping[str, str] | None = None, file: Path | None = None) -> Loaded:
    """The settings that `load` gives, and where each is written. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    written = sources.read(environ, file, names())
    remarks = [*_drop_obsolete(written), *_of_other_variables(environ)]
    _take_former_names(written)
    otel.take_variables(written, environ)
    _drop_null(written, "batches.default_throughput")
    try:
        settings = cast(Settings, _schema().load(written.tree))
    except ValidationError as error:
        problems = schema.explain(error.messages_dict, Settings)
        raise ConfigError(*(_located(written, *problem) for problem in problems)) from error
    _check(settings, written)
    origins = {name: origin for name in names() if (origin := written.origin(name))}
    return Loaded(settings, origins, tuple(written.files), (*remarks, *_doubts(settings, origins)))


def is_set(name: str) -> bool:
    """Whether somebody has set this one (by its dotted name), in the file or in the environment."""
    return sources.read(os.environ, None, names()).origin(name) is not None


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


@cache
def kinds() -> Mapping[str, Any]:
    """Every setting's dotted name with the kind of its value."""
    return dict(schema.walk(Settings))


def names() -> list[str]:
    """Every setting's dotted name, for the documentation and its test."""
    return list(kinds())


def value_of(settings: Settings, name: str) -> Any:
    """The value under a dotted name (a whole section, too)."""
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


@cache
def _schema() -> Schema:
    choices = {
        name: validate.OneOf(words, error="must be one of {choices}")
        for name, words in CHOICES.items()
    }
    forms = {name: _Form(*rule) for name, rule in _FORMS.items()}
    return schema.build(Settings, {**BOUNDS, **choices, **forms})


def _located(written: sources.Written, name: str, problem: str) -> str:
    """With its place: its own, or that of the list or mapping that it is in."""
    origin, around = written.origin(name), name
    while origin is None and around:
        around = around.rpartition(".")[0]
        origin = written.origins.get(around)
    return f"{name}: {problem}" + (f" ({origin})" if origin else "")


def _drop_obsolete(written: sources.Written) -> Iterator[Remark]:
    for name, reason in OBSOLETE.items():
        if origin := written.drop(name):
            yield Remark(name, "setting has no meaning here", reason, origin)


def _of_other_variables(environ: Mapping[str, str]) -> Iterator[Remark]:
    if environ.get("DATABASE_REPLICA_URL"):
        reason = OBSOLETE["database.replica_url"]
        yield Remark(
            "database.replica_url", "setting has no meaning here", reason, "DATABASE_REPLICA_URL"
        )


def _take_former_names(written: sources.Written) -> None:
    """`trusted_proxies` used to stand with the identity headers only, and the address of the database at the top."""
    for former, name in (
        ("auth.proxy_header.trusted_proxies", "trusted_proxies"),
        ("database_url", "database.url"),
    ):
        try:
            value, origin = written.find(former), written.origin(former) or ""
        except KeyError:
            continue
        if former not in names():
            written.drop(former)
        if written.origin(name) is None:
            written.put(name, value, origin)


def _doubts(settings: Settings, origins: Mapping[str, str]) -> Iterator[Remark]:
    name = "batches.async_requests.completion_window"
    shown = settings.batches.async_requests.completion_window
    if shown not in settings.batches.allowed_completion_windows:
        reason = f"{shown} is not among batches.allowed_completion_windows"
        yield Remark(
            name,
            "setting names no allowed window",
            reason,
            origins.get(name, "default"),
            logging.ERROR,
        )
    name = "dashboard_url"
    if settings.email.type == "smtp" and urlsplit(settings.dashboard_url).hostname == "localhost":
        reason = "nobody who gets a mail finds us there"
        origin = origins.get(name, "default")
        yield Remark(name, "links in mails lead to localhost", reason, origin)
    name = "enable_analytics"
    if not settings.enable_analytics:
        reason = "calls are not in the request log, make no roll-ups, and cost nobody anything"
        yield Remark(name, "calls are not charged", reason, origins.get(name, "default"))


def _drop_null(written: sources.Written, name: str) -> None:
    """In the Rust product null means the default there."""
    try:
        if written.find(name) is None:
            written.drop(name)
    except KeyError:
        pass


class _Form(validate.Regexp):
    """The whole text must look like that. Values are never quoted: they may be secrets."""

    def __init__(self, form: str, what: str) -> None:
        super().__init__(rf"(?:{form})\Z", error=f"must be {what}")


Rule = tuple[str, bool]
"""A setting's name with what is wrong of it, and whether all is well."""


def _check(settings: Settings, written: sources.Written) -> None:
    """What is about more than one setting, or about each part of a list. Raises ConfigError."""
    rules = chain(
        _auth_rules(settings.auth),
        _browser_rules(settings.auth),
        _email_rules(settings.email),
        _source_rules(settings.model_sources),
        _limit_rules(settings),
        _batch_rules(settings),
        _other_rules(settings),
    )
    broken = dict.fromkeys(text for text, is_kept in rules if not is_kept)
    if broken:
        raise ConfigError(*(_located(written, *text.split(": ", 1)) for text in broken))


def _auth_rules(auth: Auth) -> Iterator[Rule]:
    password = auth.native.password
    yield (
        "auth.native.password.min_length: must not be above max_length",
        password.min_length <= password.max_length,
    )
    yield (
        "auth.native.password.argon2_memory_kib: must be at least 8 for each of argon2_parallelism",
        password.argon2_memory_kib >= 8 * password.argon2_parallelism,
    )
    yield (
        "auth: native and proxy_header are both off, so nobody could sign in",
        auth.native.enabled or auth.proxy_header.enabled,
    )
    yield _some_of("auth.default_user_roles", auth.default_user_roles, ROLES)


_HOST = re.compile(
    r"(?:(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+/?")


def _browser_rules(auth: Auth) -> Iterator[Rule]:
    cors, cookie = auth.security.cors, auth.native.session
    origins = "auth.security.cors.allowed_origins"
    # A browser keeps no such cookie from anybody.
    yield (
        "auth.native.session.cookie_same_site: none needs cookie_secure",
        cookie.cookie_secure or cookie.cookie_same_site != "none",
    )
    yield (
        f"{origins}: * cannot go with credentials",
        not ("*" in cors.allowed_origins and cors.allow_credentials),
    )
    yield f"{origins}: null is the origin of any sandboxed page", "null" not in cors.allowed_origins
    for origin in cors.allowed_origins:
        is_one = origin in ("*", "null") or _ORIGIN.fullmatch(origin) is not None
        yield f"{origins}: {origin!r} is no origin such as https://console.example", is_one
    for name in cors.exposed_headers:
        is_one = re.fullmatch(_TOKEN, name) is not None
        yield f"auth.security.cors.exposed_headers: {name!r} is no header name", is_one
    for host in auth.security.allowed_hosts:
        yield (
            f"auth.security.allowed_hosts: {host!r} is no host name (name, name:port, or *.name; none for any)",
            _HOST.fullmatch(host) is not None,
        )


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _email_rules(email: Email) -> Iterator[Rule]:
    folder = email.templates_dir
    yield (
        "email.host: must be set where email.type is smtp",
        email.type != "smtp" or bool(email.host),
    )
    yield (
        "email.username: goes with email.password, and the other way round",
        (email.username is None) == (email.password is None),
    )
    yield (
        "email.from_name: must have no control characters",
        not _CONTROL.search(email.from_name),
    )
    yield (
        "email.templates_dir: must be a folder that is there",
        folder is None or Path(folder).is_dir(),
    )
    yield (
        "email.path: must be set where email.type is file",
        email.type != "file" or bool(email.path),
    )


def _source_rules(given: Sequence[ModelSource]) -> Iterator[Rule]:
    different = "names must be different, and none empty"
    yield f"model_sources: {different}", _are_different([source.name for source in given])
    for source in given:
        name, models = f"model_sources.{source.name}", source.default_models
        yield f"{name}.default_models: {different}", _are_different([m.name for m in models])
        yield (
            f"{name}.url: must begin with http:// or https://",
            re.match(r"https?://[^\s/]", source.url) is not None,
        )


def _limit_rules(settings: Settings) -> Iterator[Rule]:
    # (Without a largest size every body has room.)
    largest = settings.limits.requests.max_body_size
    for name in ("limits.account.buffered_bytes", "limits.process.buffered_bytes"):
        room = value_of(settings, name)
        yield (
            f"{name}: must be at least limits.requests.max_body_size (or 0)",
            not room or room >= largest,
        )


def _batch_rules(settings: Settings) -> Iterator[Rule]:
    batches, files = settings.batches, settings.batches.files
    windows = batches.allowed_completion_windows
    yield (
        "batches.files: min_expiry_seconds, default_expiry_seconds and max_expiry_seconds must be ordered",
        files.min_expiry_seconds <= files.default_expiry_seconds <= files.max_expiry_seconds,
    )
    yield "batches.allowed_completion_windows: must not be empty", bool(windows)
    for window in windows:
        yield (
            f"batches.allowed_completion_windows: {window!r} is no window such as 24h, 7d or 1h 30m",
            _is_window(window),
        )
    for window in batches.window_relaxation_factors:
        yield (
            f"batches.window_relaxation_factors: {window} is not among batches.allowed_completion_windows",
            window in windows,
        )
    yield "batches.allowed_url_paths: must not be empty", bool(batches.allowed_url_paths)
    yield _some_of("batches.allowed_url_paths", batches.allowed_url_paths, BATCH_PATHS)
    for name in (
        "batches.async_requests.completion_window",
        "connections.sync.default_completion_window",
    ):
        is_one = _is_window(value_of(settings, name))
        yield f"{name}: must be a window such as 24h, 7d or 1h 30m", is_one
    for status in settings.background_services.batch_daemon.retried_statuses:
        yield (
            f"background_services.batch_daemon.retried_statuses: {status} is neither a status of HTTP nor the beginning of some",
            _is_status(status),
        )


def _other_rules(settings: Settings) -> Iterator[Rule]:
    key, token = settings.connections.encryption_key, settings.metrics_token
    retention = settings.retention
    kept_s = retention.responses_days * 86400
    yield (
        "connections.encryption_key: is weak (under 16 bytes)",
        key is None or len(key.encode()) >= 16,
    )
    yield (
        "metrics_token: must have at least 16 characters",
        token is None or len(token) >= 16,
    )
    if settings.exports_traces:
        yield from otel.rules(
            settings.otel.protocol, settings.otel.headers, settings.otel.resource_attributes
        )
    yield _some_of("forwarded_headers", settings.forwarded_headers, FORWARDED_HEADERS)
    for name in settings.upstream.passed_headers:
        yield f"upstream.passed_headers: {name} cannot be passed on", may_be_passed(name)
    for setting in ("listed_headers", "redacted_headers"):
        for name in getattr(settings.request_logging, setting):
            yield (
                f"request_logging.{setting}: {name!r} is no header's name in lower case",
                re.fullmatch(_TOKEN, name) is not None and name == name.lower(),
            )
    yield (
        "idempotency.keep: must be at most retention.responses_days",
        not kept_s or settings.idempotency.keep <= kept_s,
    )
    yield (
        "retention: minutes_days must be at most hours_days, and that at most rollups_days",
        _grow([retention.minutes_days, retention.hours_days, retention.rollups_days]),
    )
    yield (
        "daemons.dead_after: must be at least four times daemons.heartbeat",
        settings.daemons.dead_after >= 4 * settings.daemons.heartbeat,
    )


def _some_of(name: str, given: Sequence[str], known: Sequence[str]) -> Rule:
    return f"{name}: must be some of {', '.join(known)}", set(given) <= set(known)


def _grow(days: Sequence[int]) -> bool:
    """Whether none is longer than the next; 0 is for ever."""
    lengths = [one or math.inf for one in days]
    return lengths == sorted(lengths)


def _are_different(names: Sequence[str]) -> bool:
    return all(name.strip() for name in names) and len(set(names)) == len(names)


def _is_window(text: str) -> bool:
    try:
        window_seconds(text)
    except ValueError:
        return False
    return True


def _is_status(number: int) -> bool:
    """`5` stands for 5xx, `50` for 50x."""
    return 1 <= number <= 5 or 10 <= number <= 59 or 100 <= number <= 599
