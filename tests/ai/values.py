"""Calls as values, for tests of rooms that need no process: who asks, for which model, where it runs."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import orjson

from dwctl.ai.calls import Request, Stamp
from dwctl.billing import levels
from dwctl.billing.tariffs import CurrentTariff
from dwctl.catalog.layers import Layered
from dwctl.catalog.routing import EVERYONE, Component, Fallback, Key, Model, Routing, Strategy
from dwctl.protocols.asked import Asked
from dwctl.protocols.surfaces import CHAT, Surface
from dwctl.upstream.target import Target, Timeouts

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def a_target(name: str = "upstream-name", url: str = "http://127.0.0.1:9/v1") -> Target:
    return Target(
        url, name, ("authorization", "Bearer sk-ours"), Timeouts(), uuid4(), "server", False
    )


def a_tariff(
    input: str, output: str, purpose: str = "realtime", window: str | None = None
) -> CurrentTariff:
    return CurrentTariff(Decimal(input), Decimal(output), purpose, window, LONG_AGO)


def a_model(alias: str = "m", **more: Any) -> Model:
    members: dict[str, Any] = {
        "id": uuid4(),
        "alias": alias,
        "target": a_target(),
        "type": "CHAT",
        "created_at": LONG_AGO,
        "trusted": False,
        "sanitise": False,
        "adapter": True,
        "forward_service_tier": False,
        "groups": frozenset({EVERYONE}),
        "tariffs": (a_tariff("0.001", "0.002"),),
    }
    return Model(**members | more)


def a_pool(
    *targets: Target,
    weights: tuple[int, ...] = (),
    strategy: Strategy = Strategy.PRIORITY,
    fallback: Fallback | None = None,
    **more: Any,
) -> Model:
    """A composite model with a component for each target, in that order."""
    components = tuple(
        Component(a_model(f"part-{number}", target=target), weight, number)
        for number, (target, weight) in enumerate(
            zip(targets, weights or (1,) * len(targets), strict=True)
        )
    )
    made: dict[str, Any] = {
        "target": None,
        "is_composite": True,
        "components": components,
        "strategy": strategy,
        "fallback": fallback or Fallback(),
    }
    return a_model(**made | more)


def a_key(owner: UUID | None = None, purpose: str = "realtime") -> Key:
    owner = owner or uuid4()
    return Key(uuid4(), owner, owner, purpose)


def a_routing(*models: Model, funded: tuple[Key, ...] = ()) -> Routing:
    return Routing(
        models={model.alias: model for model in models},
        funded=Layered({key.owner_id: levels.HIGHEST for key in funded}),
    )


def a_request(surface: Surface = CHAT, alias: str = "m", **content: Any) -> Request:
    body: dict[str, Any] = {"model": alias}
    body |= (
        {"input": "Hello"}
        if surface.path == "responses"
        else {"messages": [{"role": "user", "content": "Hello"}]}
    )
    body |= content
    stamp = Stamp.now()
    asked = Asked(
        surface=surface,
        body=orjson.dumps(body),
        content=body,
        alias=alias,
        id=stamp.id,
        created_at=stamp.at,
        mode=surface.mode(body),
    )
    return Request(stamp, asked, asked.is_stored)
