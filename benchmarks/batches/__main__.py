"""Files, batches and the worker.

    python -m benchmarks.batches [part ...]     all parts, or those that are named

Parts are the modules of this package that have a `measure`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

from benchmarks import batches, report

_PARTS = sorted(
    module.name for module in pkgutil.iter_modules(batches.__path__) if module.name[0] != "_"
)


def main() -> int:
    """Measure what is asked for."""
    asked = sys.argv[1:] or _PARTS
    if unknown := sorted(set(asked) - set(_PARTS)):
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(_PARTS)}", file=sys.stderr)
        return 2
    for part in asked:
        module = importlib.import_module(f"benchmarks.batches.{part}")
        if hasattr(module, "measure"):
            module.measure(report)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
