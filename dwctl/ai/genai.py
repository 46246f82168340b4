"""Calls in figures, under the names of OpenTelemetry's semantic conventions for generative AI: durations, first tokens, tokens.

Every label is bounded by what is configured: models are aliases that exist (all other names are one), answers are by the name that our own
configuration has for the model at its target, never by what a server says. Counted when a call is written down, and where one is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from decimal import Decimal
from functools import reduce
from urllib.parse import urlsplit

import msgspec

from dwctl.analytics.records import Record
from dwctl.billing.money import EXACT
from dwctl.figures.families import Family, counter, histogram
from dwctl.figures.spreads import NO_MODEL, NOTED_AT_MOST, Spreads
from dwctl.upstream.target import Target

OPERATIONS = {
    "chat/completions": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "responses": "responses",
    "messages": "chat",
    "rerank": "rerank",
}
"""The operation of a path. The conventions have no name for the last ones' own."""

DURATION_S = tuple(0.01 * 2**n for n in range(14))
FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
EACH_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(float(4**n) for n in range(14))

_COMMON = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "request_origin",
    "batch_sla",
)
_ALIAS = _COMMON.index("gen_ai_request_model")
_SERVER = ("server_address", "server_port")
# Answers that say what they used; others need not.
_TELL_USAGE = frozenset({"chat/completions", "completions", "responses"})
_CENTS = 100


class _Ended(msgspec.Struct, frozen=True):
    """What is counted of a call."""

    labels: tuple[str, ...]
    status: int
    duration_ms: int
    ttfb_ms: int | None
    response_type: str
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None


class GenAi:
    """Those of this process."""

    def __init__(self, public_url: str) -> None:
        """`public_url`: where callers find this server."""
        url = urlsplit(public_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        self._server = (url.hostname or "", str(port))
        self._durations = Spreads(DURATION_S)
        self._first_tokens = Spreads(FIRST_TOKEN_S)
        self._each_token = Spreads(EACH_TOKEN_S)
        self._tokens = Spreads(TOKENS)
        self._noted: list[_Ended] = []
        self._deducted: dict[str, Decimal] = {}
        self._unknown_usage: Counter[tuple[str, str]] = Counter()

    def ended(self, path: str, record: Record, target: Target | None, stored: bytes = b"") -> None:
        """A call on the route `path` is over; `stored` is what is kept of its answer. `target`: where it was sent last."""
        self._noted.append(
            _Ended(
                _labels(path, record, record.model or NO_MODEL, target),
                record.status_code,
                record.duration_ms,
                record.ttfb_ms,
                record.response_type,
                record.prompt_tokens,
                record.completion_tokens,
                record.cost,
            )
        )
        if len(self._noted) >= NOTED_AT_MOST:
            self._sort()
        if record.usage_source != "reported" and path in _TELL_USAGE and 200 <= record.status_code < 300:  # fmt: skip
            reason = "missing_usage" if stored.lstrip()[:1] in (b"{", b"[") else "parse_error"
            self._unknown_usage[path, reason] += 1

    def _sort(self) -> None:
        """Into their histograms, many calls at a time: a loop that is warm costs a third, and most calls are alike."""
        noted, self._noted = self._noted, []
        alike = defaultdict[tuple[str, ...], list[_Ended]](list)
        for call in noted:
            alike[call.labels].append(call)
        for labels, calls in alike.items():
            self._sort_alike(labels, calls)

    def _sort_alike(self, labels: tuple[str, ...], calls: list[_Ended]) -> None:
        fine = [call.duration_ms / 1000 for call in calls if call.status < 400]
        self._durations.add_all((*labels, ""), fine)
        if len(fine) < len(calls):
            for call in calls:
                if call.status >= 400:
                    self._durations.add((*labels, str(call.status)), call.duration_ms / 1000)
        streams = [call.ttfb_ms / 1000 for call in calls if call.ttfb_ms is not None and call.response_type.endswith("_stream")]  # fmt: skip
        self._first_tokens.add_all(labels, streams)
        written = [call for call in calls if call.completion_tokens > 0]
        each = [max(0, call.duration_ms - (call.ttfb_ms or 0)) / 1000 / call.completion_tokens for call in written]  # fmt: skip
        self._each_token.add_all(labels, each)
        self._tokens.add_all((*labels, "output"), [call.completion_tokens for call in written])
        read = [call.prompt_tokens for call in calls if call.prompt_tokens > 0]
        self._tokens.add_all((*labels, "input"), read)
        costs = [call.cost for call in calls if call.cost]
        if costs:
            alias = labels[_ALIAS]
            self._deducted[alias] = reduce(EXACT.add, costs, self._deducted.get(alias, Decimal(0)))

    def refused(self, path: str, record: Record, known: Container[str]) -> None:
        """A caller's call was not let in. `known`: the aliases that there are."""
        alias = record.model if record.model in known else None
        labels = _labels(path, record, alias or NO_MODEL, None)
        self._durations.add((*labels, str(record.status_code)), record.duration_ms / 1000)

    def families(self) -> Iterator[Family]:
        """For the metrics page."""
        self._sort()
        yield self._histogram(
            "gen_ai_server_request_duration_seconds",
            "Seconds from a call's arrival to the end of its answer.",
            ("error_type",),
            self._durations,
        )
        yield self._histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Seconds from a streaming call's arrival to the first byte of its upstream's answer.",
            (),
            self._first_tokens,
        )
        yield self._histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Seconds after the first byte, for each token of the answer.",
            (),
            self._each_token,
        )
        yield self._histogram(
            "gen_ai_client_token_usage", "Tokens of a call.", ("gen_ai_token_type",), self._tokens
        )
        yield counter(
            "dwctl_credits_deducted_total",
            "What calls were charged, in cents and their fractions.",
            ("model",),
            {(alias,): float(usd * _CENTS) for alias, usd in list(self._deducted.items())},
        )
        yield counter(
            "dwctl_usage_extraction_failures_total",
            "Calls that succeeded and whose upstream did not say what they used.",
            ("endpoint", "reason"),
            self._unknown_usage,
        )

    def _histogram(self, name: str, text: str, own: tuple[str, ...], spreads: Spreads) -> Family:
        found = histogram(name, text, (*_COMMON, *own), spreads)
        # The same for all of them, so that counting need not carry it along.
        rows = [((*labels, *self._server), figures) for labels, figures in found.rows]
        return Family(
            name, found.kind, text, (*found.labels, *_SERVER), rows, found.bounds, found.merge
        )


def _labels(path: str, record: Record, alias: str, target: Target | None) -> tuple[str, ...]:
    return (
        OPERATIONS.get(path, ""),
        target.endpoint_name if target else "",
        alias,
        target.model_name if target else "",
        "fusillade" if record.batch_id else record.origin,
        record.sla if record.queued else "",
    )
