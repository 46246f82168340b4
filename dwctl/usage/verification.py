"""What must hold of the sums at every moment; `dwctl credits verify` looks at it together with what must hold of money.

What an account's sums say was charged is what its log says, and that is checked against the ledger by `billing.verification`.
"""

from __future__ import annotations

from dwctl import sql
from dwctl.billing.verification import Check

_STATEMENTS = sql.load("dwctl.usage", "verification.sql")

CHECKS = tuple(Check(name, statement) for name, statement in _STATEMENTS.items())
"""Those of this room. None can be set right by itself: which of two sums is wrong, only the log can say, and that may be gone."""
