"""`POST /cost-estimate`: what a call would cost, before it is made. Nothing is sent, recorded or charged.

The question has the form of a batch's line: where the call would go (`url`), and its body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from dwctl.ai import admission, bodies, history
from dwctl.ai.admission import Admitted
from dwctl.ai.calls import Line, Request, Stamp
from dwctl.ai.holdings import Hold
from dwctl.billing import estimates, ledger, levels, money
from dwctl.billing.money import EXACT, short_text
from dwctl.billing.tariffs import TariffPrice
from dwctl.catalog.layers import Layered
from dwctl.catalog.routing import Key
from dwctl.protocols import asked as reading
from dwctl.protocols.asked import Asked
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.modes import Mode, Tier
from dwctl.protocols.surfaces import SURFACES, Surface

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

_NO_BATCH = UUID(int=0)
_MOST_CALLS = 2**53


def estimate(gateway: Gateway, key: Key, question: bytes, hold: Hold) -> dict[str, Any]:
    """The answer. Raises what the call would be refused with, unless that is for want of funds; DatabaseAway."""
    admitted = _admitted(gateway, key, reading.read(question), hold)
    price = admitted.price
    found = estimates.estimate(
        admitted.request.asked,
        price,
        context_length=admitted.context_length,
        output_tokens=gateway.settings.credits.assumed_output_tokens,
    )
    with gateway.connections.transaction() as connection:
        balance = ledger.balance(connection, key.owner_id)
    return {
        "object": "cost_estimate",
        "model": admitted.request.asked.alias,
        "prompt_tokens": found.prompt_tokens,
        "most_prompt_tokens": found.most_prompt_tokens,
        "most_output_tokens": found.most_output_tokens,
        "is_bounded": found.is_bounded,
        "least_cost": short_text(found.least),
        "most_cost": short_text(found.most),
        "tariff": None if price is None else _shown(price),
        "balance": short_text(balance),
        "calls_covered": _covered(balance, found.most),
    }


def _admitted(gateway: Gateway, key: Key, question: Mapping[str, Any], hold: Hold) -> Admitted:
    surface, content = _surface(question), _body(question)
    window = _window(question, gateway.settings.batches.allowed_completion_windows)
    stamp, body = Stamp.now(), orjson.dumps(content)
    content = bodies.content_of(surface, body)
    asked = Asked(
        surface=surface,
        body=body,
        content=content,
        alias=reading.read_alias(content),
        id=stamp.id,
        created_at=stamp.at,
        mode=surface.mode(content) if window is None else Mode(Tier.FLEX, of_batch=True),
    )
    line = None if window is None else Line(_NO_BATCH, None, window)
    request = Request(stamp, asked, is_kept=False, tracked=False, line=line)
    # Who has no money may ask what it would take.
    routing = replace(gateway.snapshot.routing, funded=Layered({key.owner_id: levels.HIGHEST}))  # fmt: skip
    strict = gateway.settings.onwards.strict_mode
    return history.resolve(gateway, admission.admit(routing, key, request, strict=strict), hold)


def _surface(question: Mapping[str, Any]) -> Surface:
    url = question.get("url")
    if isinstance(url, str) and (found := SURFACES.get(url.removeprefix("/v1/"))) is not None:
        return found
    known = ", ".join(f"/v1/{path}" for path in SURFACES)
    raise InvalidRequest(f"`url` must be one of {known}.", param="url", code="invalid_value")


def _body(question: Mapping[str, Any]) -> dict[str, Any]:
    body = question.get("body")
    if not isinstance(body, dict):
        raise InvalidRequest(
            "`body` must be the call's body, an object.", param="body", code="invalid_type"
        )
    return body


def _window(question: Mapping[str, Any], known: tuple[str, ...]) -> str | None:
    window = question.get("completion_window")
    if window is not None and window not in known:
        raise InvalidRequest(
            f"`completion_window` must be one of {', '.join(known)}.",
            param="completion_window",
            code="invalid_value",
        )
    return window


def _shown(price: TariffPrice) -> dict[str, Any]:
    apart = {"cached_input": price.cached_input, "reasoning": price.reasoning}
    prices = {"input": price.input, "output": price.output}
    prices |= {name: each for name, each in apart.items() if each is not None}
    texts = {f"{name}_price_per_token": money.price_text(each) for name, each in prices.items()}
    return {"id": str(price.tariff_id), **texts}


def _covered(balance: Decimal, most: Decimal) -> int | None:
    """How many such calls the balance is enough for, whatever they use; None: for any number, or for so many that no reader could tell."""
    if not most:
        return None
    calls = int(EXACT.divide_int(max(balance, Decimal(0)), most))
    return calls if calls <= _MOST_CALLS else None
