"""What a fault says, by its SQLSTATE and its connection."""

from __future__ import annotations

import pytest

from dwctl.analytics.faults import Fault, judge

CASES = [
    (None, False, Fault.AWAY),
    (None, True, Fault.RECORDS),
    ("08006", True, Fault.AWAY),
    ("53100", True, Fault.AWAY),
    ("53200", True, Fault.AWAY),
    ("53300", False, Fault.AWAY),
    ("57P01", False, Fault.AWAY),
    ("57P03", False, Fault.AWAY),
    ("57014", True, Fault.AWAY),
    ("25006", True, Fault.AWAY),
    ("40P01", True, Fault.BUSY),
    ("55P03", True, Fault.BUSY),
    ("40001", True, Fault.BUSY),
    # An OperationalError to psycopg, all of them: an index entry too long, a value too large to allocate.
    ("54000", True, Fault.RECORDS),
    ("54023", True, Fault.RECORDS),
    ("XX000", True, Fault.RECORDS),
    ("22003", True, Fault.RECORDS),
    ("23514", True, Fault.RECORDS),
    ("42P01", True, Fault.RECORDS),
    # The connection has the last word.
    ("22003", False, Fault.AWAY),
]


@pytest.mark.parametrize(("sqlstate", "connected", "fault"), CASES)
def test_a_fault_says(sqlstate: str | None, connected: bool, fault: Fault) -> None:
    assert judge(sqlstate, connected=connected) is fault
