"""Tokens that open something once, for whoever has the link or the code. What is kept of one is its SHA-256."""

from __future__ import annotations

import hashlib
import secrets


def new() -> str:
    """One that nobody can guess."""
    return secrets.token_urlsafe(32)


def fingerprint(token: str) -> str:
    """What is stored of a token and looked up by."""
    return hashlib.sha256(token.encode()).hexdigest()
