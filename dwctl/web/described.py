"""What the API reference says of a view beyond its schemas and its docstring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

V = TypeVar("V", bound=Callable[..., Any])

_ATTRIBUTE = "_described"


@dataclass(frozen=True, slots=True)
class Description:
    """body: JSON Schema of a success without a marshmallow schema; example: one such body. headers: those of a success, by name, each with a sentence.
    also_as: content types that a success in text may have beside the declared one. refusals: statuses that do not follow from the route's form. deprecated: what to use instead.
    """

    body: Mapping[str, Any] | None = None
    example: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    also_as: tuple[str, ...] = ()
    refusals: tuple[int, ...] = ()
    deprecated: str | None = None


NOTHING = Description()


def says(**members: Any) -> Callable[[V], V]:
    """Attach a Description of these members to a view. Where it stands among the view's decorators does not matter."""

    def decorate(view: V) -> V:
        setattr(view, _ATTRIBUTE, Description(**members))
        return view

    return decorate


def ids() -> Callable[[V], V]:
    """The body is a list of ids."""
    body = {"type": "array", "items": {"type": "string", "format": "uuid"}}
    return says(body=body, example=["0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47"])


def of(view: Callable[..., Any]) -> Description:
    """The view's description; an empty one where it has none."""
    found: Description = getattr(view, _ATTRIBUTE, NOTHING)
    return found
