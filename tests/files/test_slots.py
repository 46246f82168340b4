"""Uploads at once: each account has its bound, whatever the process has."""

from __future__ import annotations

import uuid
from contextlib import ExitStack

import pytest

from dwctl.config import FileLimits
from dwctl.files.slots import Slots, TooManyUploads

ALICE, BOB = uuid.uuid4(), uuid.uuid4()


def test_an_account_has_its_bound_and_gets_each_place_back() -> None:
    slots = Slots(FileLimits(), 2)
    with ExitStack() as uploads:
        for account in (ALICE, ALICE, BOB):
            uploads.enter_context(slots.one(account))
        with pytest.raises(TooManyUploads, match="has 2 file uploads") as refused:
            uploads.enter_context(slots.one(ALICE))
        assert refused.value.retry_after_s
    with slots.one(ALICE), slots.one(ALICE):
        pass


def test_whoever_is_refused_by_the_process_holds_nothing_of_the_account() -> None:
    slots = Slots(FileLimits(max_concurrent_uploads=1, max_upload_wait_secs=0), 1)
    with slots.one(ALICE), pytest.raises(TooManyUploads), slots.one(BOB):
        pass
    with slots.one(BOB):
        pass


def test_without_bounds_all_get_in() -> None:
    slots = Slots(FileLimits(), 0)
    with ExitStack() as uploads:
        for _ in range(100):
            uploads.enter_context(slots.one(ALICE))
