"""Our credential in what an upstream says: it never goes on from here.

Servers quote it in errors, debugging pages and echoes, in whatever words. Nobody behind the client has a use for it.
"""

from __future__ import annotations

from collections.abc import Iterator

HIDDEN = b"[redacted]"
_SHORTEST = 16
"""A shorter one is no secret (`none`, `EMPTY`), and may be a word that somebody means."""


def secret_of(auth_header: tuple[str, str] | None) -> bytes:
    """What is secret in the header that proves who we are; nothing where nothing is."""
    if auth_header is None:
        return b""
    secret = auth_header[1].rpartition(" ")[2].encode("latin-1", "replace")
    return secret if len(secret) >= _SHORTEST else b""


def without(secret: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces with the secret hidden, also where it lies across several. What may be its beginning waits for the next piece."""
    held = b""
    for piece in pieces:
        data = held + piece if held else piece
        if secret in data:
            data = data.replace(secret, HIDDEN)
        begun = _begun(secret, data)
        held = data[len(data) - begun :]
        if passing := data[: len(data) - begun]:
            yield passing
    if held:
        yield held


def _begun(secret: bytes, data: bytes) -> int:
    """How many of the last bytes are the beginning of the secret."""
    at = max(0, len(data) - len(secret) + 1)
    while (at := data.find(secret[:1], at)) >= 0:
        if secret.startswith(data[at:]):
            return len(data) - at
        at += 1
    return 0
