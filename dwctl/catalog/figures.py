"""Models as they are set up, and how fresh a process's copy of that is, for the metrics page.

What is said of models is the same in every process, so it is not added up. Series of a model that is gone are gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import psycopg

from dwctl import sql
from dwctl.catalog.routing import EVERYONE, Model, Routing
from dwctl.db import Connections
from dwctl.figures.families import Family, Merge, counter, gauge, histogram, info
from dwctl.polled import Polled

if TYPE_CHECKING:
    from dwctl.catalog.snapshot import Snapshot

_QUERIES = sql.load("dwctl.catalog")

_INFO = (
    "model", "model_name", "model_type", "endpoint_name", "endpoint_host", "is_composite", "lb_strategy",
    "sanitize_responses", "is_metered",
)  # fmt: skip
_LIMITS: tuple[tuple[str, str, Callable[[Model], float | None]], ...] = (
    (
        "dwctl_model_concurrency_limit",
        "Calls at once that the model may have; 0: no limit.",
        lambda model: model.limits.capacity,
    ),
    (
        "dwctl_model_rate_limit_rps",
        "Calls a second that the model may have; 0: no limit.",
        lambda model: model.limits.requests_per_second,
    ),
    (
        "dwctl_model_batch_capacity",
        "Batch requests at once that the model may have; 0: the default.",
        lambda model: model.batch_capacity,
    ),
)


def of_snapshot(snapshot: Snapshot) -> Iterator[Family]:
    """How fresh this process's copy is, and how it was kept so."""
    text = "Seconds since keys and models were last known to be right, in the process that is furthest behind."
    age_s = snapshot.age_s or 0.0
    yield gauge("dwctl_routing_age_seconds_max", text, (), age_s, Merge.LARGEST)
    text = "Reloads of keys and models: by what they were caused."
    yield _by_source("dwctl_cache_sync_total", text, snapshot.reloads)
    text = "Reloads that failed, and were tried again."
    yield _by_source("dwctl_cache_sync_errors_total", text, snapshot.faults)
    text = "Seconds from a change until it was read, by the table that had changed."
    yield histogram("dwctl_cache_sync_lag_seconds", text, ("table",), snapshot.lags_s)


class ModelFigures:
    """What is said of the models, with what the snapshot does not know of them: names of groups, and the throughput that is expected."""

    def __init__(self, connections: Connections) -> None:
        self._names = Polled(connections, _ask, _Names({}, {}), kept_s=60.0, outlives_faults=True)
        self._counted: tuple[Routing | None, dict[frozenset[UUID], int], int] = (None, {}, 0)

    def families(self, routing: Routing, pace: Callable[[], None]) -> Iterator[Family]:
        """`pace` gives others their turn."""
        names = self._names()
        models = list(routing.models.values())
        yield info(
            "dwctl_model_info", "A model that can be called.", _INFO, map(_labels_of, models)
        )
        for name, text, limit in _LIMITS:
            yield gauge(
                name, text, ("model",), {(m.alias,): limit(m) or 0 for m in models}, Merge.SAME
            )
        text = "Requests a second that the model is expected to answer; 0: not said."
        rates = {(m.alias,): names.throughputs.get(m.id, 0) for m in models}
        yield gauge("dwctl_model_throughput_rps", text, ("model",), rates, Merge.SAME)
        text = "API keys that may call the model."
        keys = self._keys_of(routing, models, pace)
        yield gauge("dwctl_model_api_key_count", text, ("model",), keys, Merge.SAME)
        text = "A group that may call a model."
        groups = (
            (model.alias, str(group), names.of_groups.get(group, ""))
            for model in models
            for group in sorted(model.groups)
        )
        yield info("dwctl_model_group_info", text, ("model", "group_id", "group_name"), groups)
        yield _components(models)

    def _keys_of(
        self, routing: Routing, models: Iterable[Model], pace: Callable[[], None]
    ) -> dict[tuple[str, ...], int]:
        """Keys by the set of groups that their owners are in: there are few of those, however many keys there are."""
        counted, by_groups, everybody = self._counted
        if (
            counted is None
            or counted.keys is not routing.keys
            or counted.groups is not routing.groups
        ):
            by_groups, everybody = Counter(), 0
            for hash in list(routing.hashes.values()):
                if (key := routing.keys.get(hash)) is not None:
                    by_groups[routing.groups.get(key.owner_id, frozenset())] += 1
                    everybody += 1
                pace()
            self._counted = (routing, by_groups, everybody)
        found: dict[tuple[str, ...], int] = {}
        for model in models:
            if EVERYONE in model.groups:
                found[(model.alias,)] = everybody
            else:
                found[(model.alias,)] = sum(
                    count
                    for groups, count in by_groups.items()
                    if not model.groups.isdisjoint(groups)
                )
            pace()
        return found


class _Names(NamedTuple):
    """Of groups their names, of models the throughput, both by id."""

    of_groups: Mapping[UUID, str]
    throughputs: Mapping[UUID, float]


def _ask(connection: psycopg.Connection[Any]) -> _Names:
    return _Names(
        dict(connection.execute(_QUERIES["group_names"]).fetchall()),
        dict(connection.execute(_QUERIES["model_throughputs"]).fetchall()),
    )


def _components(models: Iterable[Model]) -> Family:
    """Those that are enabled: others serve nothing, and the routing value does not know them."""
    weights = {
        (
            model.alias,
            component.model.alias,
            component.model.target.endpoint_name if component.model.target else "",
            str(component.sort_order),
            "true",
        ): component.weight
        for model in models
        for component in model.components
    }
    labels = ("composite", "component", "component_endpoint", "sort_order", "enabled")
    text = "The weight of a model within a composite one."
    return gauge("dwctl_model_component_weight", text, labels, weights, Merge.SAME)


def _labels_of(model: Model) -> tuple[str, ...]:
    target = model.target
    return (
        model.alias,
        target.model_name if target else "",
        model.type or "",
        (target.endpoint_name if target else None) or "",
        (urlsplit(target.base_url).netloc.rpartition("@")[2] if target else ""),
        _word(model.is_composite),
        model.strategy if model.is_composite else "",
        _word(model.sanitise),
        _word(any(not tariff.price.is_zero for tariff in model.tariffs)),
    )


def _word(value: bool) -> str:
    return "true" if value else "false"


def _by_source(name: str, text: str, counts: Mapping[str, int]) -> Family:
    return counter(name, text, ("source",), {(source,): n for source, n in counts.items()})
