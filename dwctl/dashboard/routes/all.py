"""The blueprints of all screens, for `urls`."""

from __future__ import annotations

import dwctl.dashboard.routes.batch_making  # noqa: F401 - more pages of `batches`
from dwctl.dashboard.routes import (
    account,
    badges,
    batches,
    call,
    credits,
    endpoint_forms,
    endpoints,
    files,
    groups,
    invitation,
    jump,
    keys,
    live,
    model_changes,
    model_forms,
    models,
    organizations,
    overview,
    people,
    playground,
    providers,
    queue,
    settings,
    sign_in,
    tool_sources,
    usage,
)

_ON_ONE_BLUEPRINT = (people, groups, organizations)
"""Modules whose pages are one screen: each of the others adds its own to that of the first."""

SCREENS = (
    sign_in.blueprint,
    overview.blueprint,
    live.blueprint,
    call.blueprint,  # that of `requests`, with the pages of single calls
    playground.blueprint,
    batches.blueprint,
    files.blueprint,
    queue.blueprint,
    model_changes.blueprint,
    model_forms.blueprint,
    models.blueprint,
    endpoint_forms.blueprint,
    endpoints.blueprint,
    tool_sources.blueprint,
    providers.blueprint,
    keys.blueprint,
    usage.blueprint,
    credits.blueprint,
    people.blueprint,
    invitation.blueprint,
    invitation.answers,
    settings.blueprint,
    account.blueprint,
    jump.blueprint,
    badges.blueprint,
)
