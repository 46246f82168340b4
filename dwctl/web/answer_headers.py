"""What browsers and caches must be told with an answer. (`x-content-type-options` is the server's: it adds that to every answer.)"""

from __future__ import annotations

from flask import Flask, Response, request

from dwctl.config import Security

_PERSONAL = ("/admin/", "/authentication/", "/ai/")


def init_app(app: Flask, rule: Security) -> None:
    """Answers about one account are kept by no cache; over https, browsers stay there if a setting says so."""
    hsts = f"max-age={rule.hsts_max_age}"

    @app.after_request
    def add_headers(response: Response) -> Response:
        if request.path.startswith(_PERSONAL):
            response.headers.setdefault("Cache-Control", "no-store")
        if rule.hsts_max_age and request.is_secure:
            response.headers.setdefault("Strict-Transport-Security", hsts)
        return response
