"""`/settings` and `/system`: what this process works with, and whether it can."""

from __future__ import annotations

from typing import Any, ClassVar

from flask import current_app
from marshmallow import fields

from dwctl import __version__, config
from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource
from dwctl.ai.gateway import Gateway
from dwctl.config import ConfigError
from dwctl.db import db
from dwctl.errors import Unavailable
from dwctl.operations import health, written
from dwctl.web import current
from dwctl.web.schemas import ApiSchema, Blueprint, Name

blueprint = Blueprint("system", __name__, description="Settings in force, and the state of things")
guard.protect(blueprint)


class BrokenFile(Unavailable):
    """The settings as they are written now cannot be read. What is in force stays so until they can."""

    code = "settings_unreadable"


class SettingsQuery(ApiSchema):
    """Which settings."""

    example: ClassVar[dict[str, Any]] = {"search": "auth."}

    search = Name(load_default=None, metadata={"description": "Part of the name."})


class SettingSchema(ApiSchema):
    """One setting."""

    example: ClassVar[dict[str, Any]] = {
        "setting": "auth.native.enabled",
        "value": True,
        "source": "environment variable DWCTL_AUTH__NATIVE__ENABLED",
        "default": False,
        "allowed": "true, false",
        "takes_effect": "at once",
        "waits_for_restart": False,
    }

    setting = fields.String()
    value = fields.Raw(metadata={"description": "In force in this process; secrets are not shown."})
    source = fields.String(metadata={"description": "Where it is written, or `default`."})
    default = fields.Raw()
    allowed = fields.String(allow_none=True)
    takes_effect = fields.String(metadata={"description": "`at once` or `after a restart`."})
    waits_for_restart = fields.Boolean(
        metadata={"description": "Whether what is written now is not what is in force."}
    )


class SettingsSchema(ApiSchema):
    """All of them."""

    example: ClassVar[dict[str, Any]] = {"data": [SettingSchema.example]}

    data = fields.List(fields.Nested(SettingSchema))


class SystemSchema(ApiSchema):
    """What `/readyz` says, for people who are signed in."""

    example: ClassVar[dict[str, Any]] = {
        "version": "0.1.0",
        "ready": True,
        "checks": {"database": {"ready": True, "latency_ms": 0.7}},
    }

    version = fields.String()
    ready = fields.Boolean()
    checks = fields.Dict(
        metadata={"description": "By name: whether it holds, what is wrong, and what was seen."}
    )


@blueprint.route("/settings", methods=["GET"])
@guard.requires(Resource.SYSTEM, Operation.READ)
@blueprint.arguments(SettingsQuery, location="query")
@blueprint.response(200, SettingsSchema)
def list_settings(query: dict[str, Any]) -> dict[str, Any]:
    """List settings: what is in force, and where it is written

    Of the process that answers. All processes of a deployment take changes of what is live within seconds; what is not waits for a restart.
    """
    wanted = query["search"]
    try:
        loaded = config.read()
    except ConfigError as error:
        raise BrokenFile(f"{BrokenFile.__doc__} {error.problems[0]}") from error
    found = written.rows(current.settings(), loaded)
    return {"data": [row for row in found if wanted is None or wanted in row["setting"]]}


@blueprint.route("/system", methods=["GET"])
@guard.requires(Resource.SYSTEM, Operation.READ)
@blueprint.response(200, SystemSchema)
def get_system() -> dict[str, Any]:
    """Show version and state: database, keys and models, recorder, workers

    The same checks as `/readyz`, answered with 200 whatever they say.
    """
    gateway: Gateway = current_app.extensions["dwctl.gateway"]
    db.session.rollback()
    checks = health.look(gateway)
    return {
        "version": __version__,
        "ready": all(check.ready for check in checks.values()),
        "checks": {name: check.shown() for name, check in checks.items()},
    }
