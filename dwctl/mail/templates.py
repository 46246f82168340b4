"""What mails say: a subject, a plain text and an HTML page for each name, as Jinja templates with the mail's values.

`email.templates_dir` may hold any of these files (`NAME.subject`, `NAME.txt`, `NAME.html`); those that it lacks are ours. A value that a
template names and the mail lacks is an error, not a gap. Values come from outside: in HTML they are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import BaseLoader, ChoiceLoader, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from dwctl.config import ConfigError, Settings

_OURS = Path(str(files("dwctl.mail"))) / "templates"
_KINDS = ("subject", "txt", "html")
_LONGEST_SUBJECT = 200
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Words:
    """What one mail says. The subject is one line."""

    subject: str
    text: str
    html: str


class Templates:
    """The templates in force. Raises ConfigError for one of the operator's that is no template."""

    def __init__(self, settings: Settings) -> None:
        own = settings.email.templates_dir
        loaders: list[BaseLoader] = [FileSystemLoader(folder) for folder in (own, _OURS) if folder]
        self._jinja = SandboxedEnvironment(
            loader=ChoiceLoader(loaders),
            undefined=StrictUndefined,
            autoescape=lambda name: name is not None and name.endswith(".html"),
        )
        self._common = {
            "title": settings.metadata.title,
            "from_name": settings.email.from_name,
            "dashboard_url": settings.dashboard_url.rstrip("/"),
        }
        self._check()

    def fill(self, name: str, values: Mapping[str, str]) -> Words:
        """The mail of that template. Raises jinja2.TemplateError."""
        given = {**self._common, **values}
        subject, text, html = (
            self._jinja.get_template(f"{name}.{kind}").render(given) for kind in _KINDS
        )
        return Words(_BLANK.sub(" ", subject).strip()[:_LONGEST_SUBJECT], text, html)

    def _check(self) -> None:
        for name in self._jinja.list_templates(extensions=list(_KINDS)):
            try:
                self._jinja.get_template(name)
            except (TemplateError, OSError, UnicodeError) as error:
                raise ConfigError(f"email.templates_dir: {name}: {error}") from error
