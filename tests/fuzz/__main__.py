"""python -m tests.fuzz: the fuzzer by hand, for as long as wanted, or one case again."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=7, help="the first seed; each round of cases takes the next"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seconds", type=float, help="how long to send new cases")
    what.add_argument("--case", type=int, help="this one alone: what was asked, answered and seen")
    chosen = parser.parse_args()
    os.environ["FUZZ_SEED"] = str(chosen.seed)
    for name in ("seconds", "case"):
        if getattr(chosen, name) is not None:
            os.environ[f"FUZZ_{name.upper()}"] = str(getattr(chosen, name))
    return int(pytest.main(["-q", "-s", str(Path(__file__).with_name("test_fuzz.py"))]))


sys.exit(main())
