"""Credentials at rest: AES-256-GCM under a key derived from `secret_key`, with a key id so that it can be rotated.

A sealed text reads `v1:<key id>:<base64 of nonce and ciphertext>`. The key id is the beginning of a hash of the derived key, so that
the right one among `secret_key` and `secret_key_previous` is found without trying them all.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dwctl.errors import DwctlError


class Undecryptable(DwctlError):
    """A stored credential was sealed with a secret_key that is not configured any more. Set secret_key_previous, or store the credential again."""

    code = "credential_undecryptable"


class Sealer:
    """Seals with the first secret, opens with any of them."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = {key_id: AESGCM(key) for key, key_id in map(_derive, secrets)}
        self._newest = _derive(secrets[0])[1] if secrets else None

    @property
    def newest(self) -> str | None:
        """The id of the key that seals; None without any."""
        return self._newest

    def has(self, key_id: str) -> bool:
        """Whether what that key has sealed can be opened."""
        return key_id in self._keys

    def seal(self, text: str) -> str:
        """The text in the form that the module docstring shows."""
        if self._newest is None:
            raise Undecryptable("secret_key is not set, so no credential can be stored.")
        nonce = os.urandom(12)
        body = self._keys[self._newest].encrypt(nonce, text.encode(), b"dwctl")
        return f"v1:{self._newest}:{base64.b64encode(nonce + body).decode()}"

    def open(self, sealed: str) -> str:
        """The text again. Raises Undecryptable when its key is not at hand or the text was tampered with."""
        _version, _, rest = sealed.partition(":")
        key_id, _, body = rest.partition(":")
        if key_id not in self._keys:
            raise Undecryptable
        try:
            raw = base64.b64decode(body)
            return self._keys[key_id].decrypt(raw[:12], raw[12:], b"dwctl").decode()
        except Exception as error:
            raise Undecryptable from error


def _derive(secret: str) -> tuple[bytes, str]:
    key = hashlib.sha256(b"dwctl credential encryption\0" + secret.encode()).digest()
    return key, hashlib.sha256(key).hexdigest()[:8]
