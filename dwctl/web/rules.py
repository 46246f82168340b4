"""Routes whose addresses are put together by functions that are made when one is first wanted."""

from __future__ import annotations

from collections.abc import Callable

from werkzeug.routing import Rule

_Build = Callable[..., tuple[str, str]]


class LateRule(Rule):
    """A route as werkzeug has it, which writes, parses and compiles two functions for each: two thirds of making an application, for
    addresses of which a process asks for a few. Should werkzeug come to call it otherwise, they are made at once again.
    """

    def _compile_builder(self, append_unknown: bool = True) -> _Build:
        compile_builder = super()._compile_builder
        made: _Build | None = None

        def build(rule: Rule, /, **values: object) -> tuple[str, str]:
            nonlocal made
            if made is None:
                made = compile_builder(append_unknown)
            return made(rule, **values)

        return build
