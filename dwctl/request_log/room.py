"""Who may do now what is dear to the process, so that nobody takes it all. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

Person = UUID | None
"""Who reads calls of an account; None: somebody who may read everybody's."""


def has_room(taken: Iterable[Person], person: Person, *, most: int, each: int) -> bool:
    """Whether one more may. Those who read everybody's calls have `most` places of their own; all others share as many, and one has `each` at most."""
    alike = [other for other in taken if (other is None) == (person is None)]
    return len(alike) < most and (person is None or alike.count(person) < each)
