"""How records are cut into groups: in order, bounded by number and bytes, no call twice."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from dwctl.analytics import writing
from dwctl.analytics.writing import Entry, Kind, groups

SIZES = [1, 1000, writing.MOST_GROUP_BYTES // 3, writing.MOST_GROUP_BYTES, writing.MOST_GROUP_BYTES + 1]  # fmt: skip
TEXTS = {size: b"x" * size for size in SIZES}


def entry(kind: Kind, id: int, size: int) -> Entry:
    return Entry(kind, UUID(int=id), TEXTS[size], None, None, None, True)


ENTRIES = st.lists(st.builds(entry, st.sampled_from(Kind), st.integers(0, 5), st.sampled_from(SIZES)))  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(ENTRIES, st.integers(1, 6))
def test_groups_keep_order_and_bounds(entries: list[Entry], most: int) -> None:
    found = list(groups(entries, most))
    assert [one for group in found for one in group] == entries
    for group in found:
        assert 1 <= len(group) <= most
        assert len(group) == 1 or sum(len(one.line) for one in group) <= writing.MOST_GROUP_BYTES
        keys = [(one.kind is Kind.FINAL, one.id) for one in group]
        assert len(set(keys)) == len(keys)


@settings(max_examples=100, deadline=None)
@given(ENTRIES, st.integers(1, 6))
def test_no_group_ends_early(entries: list[Entry], most: int) -> None:
    found = list(groups(entries, most))
    for group, following in zip(found, found[1:], strict=False):
        after = following[0]
        size = sum(len(one.line) for one in group) + len(after.line)
        keys = {(one.kind is Kind.FINAL, one.id) for one in group}
        assert len(group) == most or size > writing.MOST_GROUP_BYTES or (after.kind is Kind.FINAL, after.id) in keys  # fmt: skip
