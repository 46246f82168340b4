"""The room's blueprints, for `urls`; what the room does when accounts come and go is registered with them."""

from __future__ import annotations

import dwctl.organizations.departures
import dwctl.organizations.domains  # noqa: F401 - their functions are hooks
from dwctl.organizations.routes import invitations, members, organizations

ADMIN = (organizations.blueprint, members.blueprint, invitations.blueprint)
