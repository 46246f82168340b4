"""The web processes' gunicorn settings without what starts dwctl in them."""

from pathlib import Path
from runpy import run_path

_OURS = ("post_fork", "post_worker_init", "worker_exit")
_settings = run_path(str(Path(__file__).parent.parent / "gunicorn.conf.py"))
globals().update({name: value for name, value in _settings.items() if name not in _OURS})
