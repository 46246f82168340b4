"""The bare hello's settings under gunicorn's own gevent worker: a base that stays the same while our worker class changes."""

from pathlib import Path
from runpy import run_path

globals().update(run_path(str(Path(__file__).with_name("hello.conf.py"))))
worker_class = "gevent"
