"""Every recorded error answer, in every mode: a context that is too long keeps its code, and every error is one that clients can read."""

from __future__ import annotations

import pytest

from dwctl.protocols.disclosure import Disclosure, disclose
from tests.protocols.dialects.refusals import CONTEXT, OTHERS, TOO_LONG, Refusal
from tests.protocols.dialects.test_streams import MODES

modes = pytest.mark.parametrize("disclosure", MODES.values(), ids=MODES)


@modes
@pytest.mark.parametrize("refusal", CONTEXT.values(), ids=CONTEXT)
def test_a_context_that_is_too_long_keeps_its_code(
    refusal: Refusal, disclosure: Disclosure
) -> None:
    shown = disclose(disclosure, refusal.given, refusal.body)
    assert (shown.status, shown.error["code"]) == (400, TOO_LONG)


@modes
@pytest.mark.parametrize("refusal", OTHERS.values(), ids=OTHERS)
def test_every_error_is_one_that_clients_can_read(refusal: Refusal, disclosure: Disclosure) -> None:
    shown = disclose(disclosure, refusal.given, refusal.body)
    if not disclosure.trusted and not disclosure.sanitise:
        assert shown.status == refusal.status
    error = shown.error
    assert all(isinstance(error[name], str) and error[name] for name in ("message", "type", "code"))
    assert error["code"] != TOO_LONG
    assert "param" in error
    if disclosure.hides_words and not disclosure.sanitise:
        assert error["code"] == refusal.code
