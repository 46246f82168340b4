"""What browsers and caches must be told with an answer. (`x-content-type-options` is the server's: it adds that to every answer.)"""

from __future__ import annotations

from flask import Flask, Response, request

from dwctl.config import Security

_PERSONAL = ("/admin/", "/authentication/", "/ai/")
# What else comes from an inference route is answered in front of Flask, and kept by no cache anyway: a POST without a lifetime.
_INFERENCE = ("/ai/", "/admin/api/v1/ai/")


def init_app(app: Flask, rule: Security) -> None:
    """Answers about one account are kept by no cache; over https, browsers stay there if a setting says so; nothing is framed by others.

    What a page says of these itself goes before. Inference is answered in front of Flask: what comes from there is shown by no browser.
    """
    always = [
        (name, value)
        for name, value in (
            ("X-Frame-Options", rule.headers.frame_options),
            ("Referrer-Policy", rule.headers.referrer_policy),
            ("Permissions-Policy", rule.headers.permissions_policy),
        )
        if value
    ]
    policy = rule.headers.content_security_policy
    hsts = f"max-age={rule.hsts_max_age}"

    @app.after_request
    def add_headers(response: Response) -> Response:
        is_call = request.method == "POST" and request.path.startswith(_INFERENCE)
        if request.path.startswith(_PERSONAL) and not is_call:
            response.headers.setdefault("Cache-Control", "no-store")
        if rule.hsts_max_age and request.is_secure:
            response.headers.setdefault("Strict-Transport-Security", hsts)
        if not is_call:
            for name, value in always:
                response.headers.setdefault(name, value)
            if policy and response.mimetype != "text/html":
                response.headers.setdefault("Content-Security-Policy", policy)
        return response
