"""What gunicorn and `flask --app wsgi` import."""

from dwctl.app import create_app
from dwctl.commands.main import register

app = create_app()
register(app)
