"""What gunicorn and `flask --app wsgi` import."""

import sys

from dwctl.app import create_app
from dwctl.commands.main import register
from dwctl.config import ConfigError

try:
    app = create_app()
except ConfigError as error:
    # gunicorn says it before its workers start, and takes any other end of one for a reason to start the next.
    if "gunicorn.arbiter" in sys.modules:
        raise
    sys.exit(f"dwctl: {error}")
register(app)
