"""Chores of the room of files: purge what is left of uploads that came to nothing."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl.config import Settings
from dwctl.queue.duties import Duty

_AT_ONCE = 5000
_UNHEARD_OF_S = 600.0


def purge_uploads(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete lines of uploads that were refused, or whose process has died, some at a time.

    A slow upload is not heard of while its next megabytes come: it is given the whole time that its body may take, and some more.
    """
    silent_s = settings.limits.files.body_timeout + _UNHEARD_OF_S
    row = connection.execute(
        "SELECT fusillade.purge_uploads(%s, %s)", (silent_s, _AT_ONCE)
    ).fetchone()
    return 0.2 if row and row[0] else 10.0


DUTIES = (Duty("purge_uploads", purge_uploads),)
