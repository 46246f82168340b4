"""Which of a caller's headers a setting may have sent on to inference servers."""

from __future__ import annotations

import re

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


def may_be_passed(name: str) -> bool:
    """Whether a caller's header of that name may be sent to an inference server beside our credential."""
    return (
        _HEADER_NAME.fullmatch(name) is not None
        and name not in _NEVER_FORWARDED
        and not _NEVER_FORWARDED_PARTS.search(name.replace("_", "-"))
    )
