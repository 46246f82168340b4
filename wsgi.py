"""What gunicorn and `flask --app wsgi` import."""

from dwctl.app import create_app

app = create_app()
