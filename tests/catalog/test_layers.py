"""Versions of a large mapping: each is what a dict with the same changes is, and none changes another."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwctl.catalog.key_rows import KeyRows, Row, key_of, retired
from dwctl.catalog.layers import Layered, Shards
from dwctl.catalog.routing import UNLIMITED, Limits

NAMES = st.sampled_from("abcdefgh")
ROW: Row = (b"hash", b"i" * 16, b"o" * 16, b"c" * 16, "realtime", True, 50.0, None, None, None, None)  # fmt: skip


@given(
    st.dictionaries(NAMES, st.integers()),
    st.lists(st.dictionaries(NAMES, st.none() | st.integers()), max_size=6),
)
def test_a_version_is_what_a_dict_is(base: dict[str, int], steps: list[dict[str, int | None]]) -> None:  # fmt: skip
    layered, plain = Layered(Shards(base)), dict(base)
    versions = [(layered, plain)]
    for changes in steps:
        layered = layered.changed(changes)
        plain = {name: value for name, value in {**plain, **changes}.items() if value is not None}
        versions.append((layered, plain))
    for version, expected in versions:
        assert dict(version) == expected == {name: version[name] for name in expected}
        assert len(version) == len(expected)
        for name in "abcdefgh":
            assert (name in version) == (name in expected)
            assert version.get(name) == expected.get(name)
            assert version.get(name, "none") == expected.get(name, "none")
    assert layered.base is versions[0][0].base


@pytest.mark.parametrize("mapping", [Shards(), Layered(), KeyRows(Shards())], ids=lambda one: type(one).__name__)  # fmt: skip
def test_what_is_not_there(mapping: Mapping[bytes, object]) -> None:
    assert b"x" not in mapping
    assert mapping.get(b"x") is None
    assert list(mapping) == []
    with pytest.raises(KeyError):
        mapping[b"x"]


def test_a_row_becomes_a_key_once() -> None:
    keys = KeyRows(Shards({b"hash": ROW}))
    key = keys[b"hash"]
    assert keys[b"hash"] is key
    assert (key.id, key.owner_id, key.created_by) == tuple(UUID(bytes=part) for part in ROW[1:4])
    assert (key.purpose, key.sees_providers, key.expires_at) == ("realtime", True, 50.0)
    assert key.limits is UNLIMITED
    assert key_of((*ROW[:7], 0.5, 1, 2, 3)).limits == Limits(0.5, 1, 2, 3)


@pytest.mark.parametrize(
    ("own", "earlier", "end"), [(None, 9.0, 9.0), (5.0, 9.0, 5.0), (9.5, 9.0, 9.0)]
)
def test_an_earlier_secret_ends_with_its_key(own: float | None, earlier: float, end: float) -> None:
    row = (*ROW[:6], own, *ROW[7:])
    assert retired(row, b"earlier", earlier) == (b"earlier", *ROW[1:6], end, *ROW[7:])
