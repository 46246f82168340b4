"""Our credential in what an upstream says, wherever its pieces end."""

from __future__ import annotations

import random

import pytest

from dwctl.upstream.redaction import HIDDEN, secret_of, without

SECRET = b"sk-sk-ours-at-the-upstream"


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        (None, b""),
        (("authorization", f"Bearer {SECRET.decode()}"), SECRET),
        (("x-api-key", SECRET.decode()), SECRET),
        (("authorization", "Bearer none"), b""),
    ],
)
def test_what_is_secret_in_a_header(header: tuple[str, str] | None, secret: bytes) -> None:
    assert secret_of(header) == secret


def test_it_is_hidden_however_the_text_is_cut() -> None:
    text = b"You sent %s, sk-sk-sk-ours, sk-%s%s and sk-" % (SECRET, SECRET, SECRET)
    expected = text.replace(SECRET, HIDDEN)
    assert b"ours-at" not in expected
    chance = random.Random(7)
    for _ in range(500):
        cuts = sorted(chance.sample(range(1, len(text)), chance.randrange(0, 20)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        found = list(without(SECRET, iter(pieces)))
        assert b"".join(found) == expected
        assert all(found)
    assert b"".join(without(SECRET, (text[i : i + 1] for i in range(len(text))))) == expected


def test_what_cannot_be_its_beginning_is_passed_on_at_once() -> None:
    pieces = without(SECRET, iter([b"data: {}\n\n", b"data: sk-x\n\n", b"sk-sk-o", b"k"]))
    assert list(pieces) == [b"data: {}\n\n", b"data: sk-x\n\n", b"sk-sk-ok"]
