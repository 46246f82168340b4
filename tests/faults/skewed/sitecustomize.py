"""On the path of a process (PYTHONPATH) whose clock is to be wrong by SKEW_S seconds: Python's own start reads this module."""

import os
import time

_skew_s = float(os.environ["SKEW_S"])
_right = time.time

time.time = lambda: _right() + _skew_s
