"""From what is configured to what the protocols ask for: the disclosure and the treatment of an admitted call."""

from __future__ import annotations

from dwctl.ai.calls import Call
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.treatments import Treatment


def disclosure_of(call: Call, *, strict: bool) -> Disclosure:
    """How far the call's upstream is quoted."""
    assert call.serving is not None
    return Disclosure(strict, call.serving.trusted, call.serving.sanitise)


def treatment_of(call: Call, *, strict: bool) -> Treatment:
    """The treatment of an admitted call."""
    assert call.serving is not None
    return call.surface.treat(
        call.asked,
        disclosure_of(call, strict=strict),
        adapted=call.serving.adapter,
        keep_service_tier=call.serving.forward_service_tier,
    )
