"""What a call is going to cost, before it runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from dwctl.billing import tariffs
from dwctl.billing.tariffs import TariffPrice
from dwctl.protocols import bounds
from dwctl.protocols.asked import Asked
from dwctl.protocols.usage import MOST_TOKENS, prompt_estimate


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one call. Counts are LLM tokens, `least` and `most` USD.

    prompt_tokens: likely; most_prompt_tokens: certainly not more, but for very large media (`bounds.most_read`).
    most_output_tokens: of all its answers together. is_bounded: the request says so itself, so `most` holds; otherwise it is a guess.
    least: the prompt as it is likely to be, at the lowest price that it may have, and no answer. most: everything at the highest.
    """

    prompt_tokens: int
    most_prompt_tokens: int
    most_output_tokens: int
    is_bounded: bool
    least: Decimal
    most: Decimal


def estimate(
    asked: Asked,
    price: TariffPrice | None,
    *,
    context_length: int | None = None,
    output_tokens: int,
) -> Estimate:
    """The estimate at that price (None: the call is free).

    Where the request does not say how long an answer may become, it is as long as the model can write (`context_length`, in tokens), or,
    where that is not known either, `output_tokens` long.
    """
    content = asked.read_by_model
    prompt = prompt_estimate(content)
    most_prompt = max(bounds.most_read(content), prompt)
    written = bounds.most_written(content, asked.surface.limited_by) if asked.surface.writes else 0
    output = written
    if output is None:
        each = context_length or output_tokens
        output = min(each * bounds.answers(content), MOST_TOKENS)
    least = most = Decimal(0)
    if price is not None:
        least = tariffs.price(price.cheapest, prompt, 0)
        most = tariffs.price(price.dearest, most_prompt, output)
    return Estimate(prompt, most_prompt, output, written is not None, least, most)
