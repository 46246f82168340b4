"""The routing value: keys, access, models and prices as one immutable whole, and the pure questions put to it.

Access goes key -> owner -> groups and alias -> groups, never alias x keys. An empty set of groups lets nobody in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from dwctl.billing.tariffs import CurrentTariff, ProviderPrice
from dwctl.catalog.layers import Layered
from dwctl.upstream.target import Target

EVERYONE = UUID(int=0)
SYSTEM = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key or a model may be asked for, over all processes. None: no limit of that kind.

    `burst_size` belongs to `requests_per_second`, and never stands here alone; `capacity` is how many run at once; `tokens_per_minute` counts prompt and answer.
    """

    requests_per_second: float | None = None
    burst_size: int | None = None
    capacity: int | None = None
    tokens_per_minute: int | None = None


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Key:
    """Who a credential stands for on the AI surface. `owner_id` pays and has the groups; `id` is None for a queued row without a key.

    `sees_providers`: its owner may read endpoints. `expires_at`: since when it lets nobody in any more, in Unix time.
    """

    id: UUID | None
    owner_id: UUID
    created_by: UUID
    purpose: str
    limits: Limits = UNLIMITED
    sees_providers: bool = False
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept of an account's or a key's calls, where that is not as for all others.

    `zero_retention`: nothing of what they say, beyond their run. `sample`: the share whose bodies the request log shows; None: the setting's.
    """

    zero_retention: bool = False
    sample: float | None = None


_AS_ALL_OTHERS = Keeping()


@dataclass(frozen=True, slots=True)
class Rule:
    """A traffic rule: `target` is None for a refusal, else the alias that serves instead."""

    target: str | None


class Strategy(StrEnum):
    """How a composite model chooses among its components."""

    WEIGHTED_RANDOM = "weighted_random"
    PRIORITY = "priority"


@dataclass(frozen=True, slots=True)
class Fallback:
    """When a composite model's next component is tried.

    `on_status`: a number below 10 stands for a class (5: 5xx), one below 100 for a prefix (50: 50x). `max_attempts` None: as many as
    there are components.
    """

    enabled: bool = True
    on_rate_limit: bool = True
    on_status: tuple[int, ...] = (429, 500, 502, 503, 504)
    with_replacement: bool = False
    max_attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Component:
    """A standard model within a composite one."""

    model: Model
    weight: int = 1
    sort_order: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """One public model. `target` is None where its endpoint cannot be called (no endpoint, a bad URL, an unreadable credential), and for
    a composite model, which is served by its `components` (the enabled ones, in the order of priority).

    `owned_by` is whom callers are told that the model is from. `context_length` is in tokens, as the model's metadata says it, and so is `reasoning_input`
    (see `metadata`). `refuses_unrunnable_tools`: tools that nobody here can run are a 400.
    `provider_price`: what the operator pays for its tokens, where it is paid by these.
    """

    id: UUID
    alias: str
    target: Target | None
    type: str | None
    created_at: datetime
    trusted: bool
    sanitise: bool
    adapter: bool
    forward_service_tier: bool
    groups: frozenset[UUID]
    tariffs: tuple[CurrentTariff, ...]
    rules: Mapping[str, Rule] = field(default_factory=dict)
    limits: Limits = UNLIMITED
    batch_capacity: int | None = None
    endpoint_id: UUID | None = None
    is_composite: bool = False
    strategy: Strategy = Strategy.WEIGHTED_RANDOM
    fallback: Fallback = Fallback()
    components: tuple[Component, ...] = ()
    context_length: int | None = None
    reasoning_input: str | None = None
    refuses_unrunnable_tools: bool = False
    owned_by: str = "dwctl"
    provider_price: ProviderPrice | None = None

    @property
    def may_fall_back(self) -> bool:
        """Whether another target may be tried after one that has failed."""
        return self.is_composite and self.fallback.enabled


@dataclass(frozen=True, slots=True)
class Routing:
    """Everything that routing knows at one moment.

    `keys` are found by the hash of their secret (`hashes`, by the bytes of a key's id), and by those of earlier ones (`retired`) as keys
    that expire with these. `funded`: the level of funds of each account that has some (`billing.levels`). `capped`: keys with a limit on what
    they may spend. `keeping` is by the ids of accounts and of keys, deleted ones too: their queued work outlives them.
    """

    keys: Layered[bytes, Key] = field(default_factory=Layered)
    hashes: Layered[bytes, bytes] = field(default_factory=Layered)
    retired: Layered[bytes, tuple[bytes, ...]] = field(default_factory=Layered)
    groups: Layered[UUID, frozenset[UUID]] = field(default_factory=Layered)
    models: Mapping[str, Model] = field(default_factory=dict)
    funded: Layered[UUID, int] = field(default_factory=Layered)
    capped: frozenset[UUID] = frozenset()
    keeping: Mapping[UUID, Keeping] = field(default_factory=dict)

    def keeping_of(self, key: Key) -> Keeping:
        """What is kept of a key's calls: nothing where it or its owner wants that; the key's own share before its owner's."""
        if not self.keeping:
            return _AS_ALL_OTHERS
        owners = self.keeping.get(key.owner_id, _AS_ALL_OTHERS)
        own = self.keeping.get(key.id, _AS_ALL_OTHERS) if key.id else _AS_ALL_OTHERS
        return Keeping(
            owners.zero_retention or own.zero_retention,
            owners.sample if own.sample is None else own.sample,
        )

    def hashes_of(self, key_id: bytes) -> list[bytes]:
        """By what a key is found: the hashes of its secret and of earlier ones."""
        current = self.hashes.get(key_id)
        earlier = self.retired.get(key_id, ())
        return [*earlier] if current is None else [current, *earlier]

    def is_replaced(self, key: Key, secret_hash: bytes) -> bool:
        """Whether a rotation has given the key another secret than the one with this hash."""
        return key.id is not None and self.hashes.get(key.id.bytes) != secret_hash

    def may_use(self, owner_id: UUID, model: Model) -> bool:
        """Whether an account may call a model: by one of its groups, by Everyone, or as the system itself."""
        if EVERYONE in model.groups or owner_id == SYSTEM:
            return True
        return not model.groups.isdisjoint(self.groups.get(owner_id, frozenset()))

    def has_funds(self, owner_id: UUID) -> bool:
        """Whether the account's balance is above zero (as of the last notification)."""
        return owner_id in self.funded or owner_id == SYSTEM

    def visible_to(self, owner_id: UUID) -> list[Model]:
        """The models that an account may call, by alias."""
        models = (self.models[alias] for alias in sorted(self.models))
        return [model for model in models if self.may_use(owner_id, model)]
