"""In front of everything that Flask serves: where a request comes from, for which host, and whether its path is one that is served."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from dwctl.config import Settings
from dwctl.errors import DwctlError, NotFound
from dwctl.web import errors, hosts, paths, proxies

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Entrance:
    """Lets canonical requests for known hosts through, with the client's address in place of a trusted proxy's."""

    def __init__(self, app: Flask, settings: Settings, behind: Wsgi) -> None:
        self._urls = app.url_map
        self._trusted = settings.trusted_proxies
        self._believed = settings.forwarded_headers
        self._allowed_hosts = settings.auth.security.allowed_hosts
        self._behind = behind

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        target = environ.get("RAW_URI") or environ["PATH_INFO"]
        path = paths.path_in(target)
        authority = paths.authority_in(target)
        if authority is not None:
            environ["HTTP_HOST"] = authority
        proxies.apply(environ, self._trusted, self._believed)
        try:
            self._check(path, environ)
        except DwctlError as error:
            return errors.answer_wsgi(error, environ["PATH_INFO"], start_response)
        return self._behind(environ, start_response)

    def _check(self, path: str, environ: dict[str, Any]) -> None:
        # From here on there is one truth about the path, whatever the server has made of it.
        environ["PATH_INFO"] = paths.decoded(path)
        if not paths.is_canonical(path) or not self._spells_its_route_out(path, environ):
            raise NotFound("There is nothing under this path.")
        hosts.check(environ.get("HTTP_HOST", ""), environ["PATH_INFO"], self._allowed_hosts)

    def _spells_its_route_out(self, path: str, environ: dict[str, Any]) -> bool:
        if "%" not in path:
            return True
        doors = self._urls.bind("", path_info=environ["PATH_INFO"].encode("latin-1").decode())
        try:
            rule, _ = doors.match(method=environ["REQUEST_METHOD"], return_rule=True)
        except HTTPException:
            return True  # Flask says what is wrong with it.
        assert isinstance(rule, Rule)
        return paths.spells_out(path, rule.rule)
