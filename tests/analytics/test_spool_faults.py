"""Spool files under a full disk, kills and drains: each whole record comes out exactly once, in its order."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwctl import config
from dwctl.analytics import spool_folder
from dwctl.analytics.draining import Drainer
from dwctl.analytics.spool import Spool, SpoolFile

DATABASE = "postgresql://u:p@db.example:5432/one"


def spool_in(folder: Path) -> Spool:
    return Spool(config.load({"DATABASE_URL": DATABASE, "DWCTL_RECORDER__SPOOL_DIR": str(folder)}))


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """The disk is full: no file of this process grows beyond so many bytes. A write that reaches it is cut, then refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


OPERATION = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 3)),
    st.tuples(st.just("full"), st.integers(0, 60)),
    st.tuples(st.just("kill"), st.integers(0, 60)),
    st.tuples(st.just("drain"), st.integers(0, 4)),
)


class Machine:
    """A process with its spool, that is killed and replaced; what came out, and what should."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = spool_in(folder)
        self.number = 0
        self.wanted: list[bytes] = []
        self.drained: list[bytes] = []

    def line(self) -> tuple[str, bytes]:
        self.number += 1
        return "final", b'{"id":%d,"body":"%b"}' % (self.number, b"x" * (self.number % 7))

    def append(self, count: int) -> None:
        lines = [self.line() for _ in range(count)]
        self.spool.append(lines)
        self.wanted += [record for _, record in lines]

    def full(self, room: int) -> None:
        own = self.spool._own
        size = own.path.stat().st_size if own else 0
        line = self.line()
        whole = len(b'{"kind":"final","record":}\n') + len(line[1])
        with files_end_at(size + min(room, whole - 1)), pytest.raises(OSError):
            self.spool.append([line])

    def kill(self, torn: int) -> None:
        """SIGKILL in the middle of an append."""
        own = self.spool.take_own()
        if own is not None:
            kind, record = self.line()
            text = b'{"kind":"%b","record":%b}\n' % (kind.encode(), record)
            with own.path.open("ab") as file:
                file.write(text[: min(torn, len(text) - 2)])
            own.release()
        self.spool = spool_in(self.folder)

    def drain(self, most: int) -> None:
        """Bring in at most so many lines of each file, as if the database went away then."""
        own = self.spool.take_own()
        for file in [*([own] if own else []), *self.spool.adopt()]:
            left = most
            for line in file.lines():
                if left == 0:
                    file.release()
                    break
                left -= 1
                if line.kind != "unreadable":
                    self.drained.append(line.record)
                file.mark(line.end)
            else:
                file.remove()


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATION, max_size=12))
def test_each_whole_record_comes_out_once_and_in_order(operations: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o700)
        machine = Machine(Path(folder))
        for name, argument in operations:
            getattr(machine, name)(argument)
        machine.kill(0)
        machine.drain(10_000)
        assert sorted(machine.drained, key=number) == machine.wanted
        assert list(Path(folder).iterdir()) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(OPERATION.filter(lambda one: one[0] in ("append", "full")), max_size=12))
def test_a_file_that_a_full_disk_has_cut_is_read_in_order(operations: list[tuple[str, int]]) -> None:  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o700)
        machine = Machine(Path(folder))
        for name, argument in operations:
            getattr(machine, name)(argument)
        machine.drain(10_000)
        assert machine.drained == machine.wanted


def number(record: bytes) -> int:
    return int(record.split(b",")[0].split(b":")[1])


def test_what_was_drained_is_not_drained_again(tmp_path: Path) -> None:
    file = SpoolFile.create(tmp_path, "x-")
    file.append([("final", b'{"id":%d}' % n) for n in range(4)])
    ends = [line.end for line in file.lines()]
    file.mark(ends[1])
    file.release()
    again = SpoolFile.lock(file.path)
    assert again
    assert [line.record for line in again.lines()] == [b'{"id":2}', b'{"id":3}']
    again.remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("mode", "owner"), [(0o777, None), (0o770, None), (0o700, 12345)])
def test_a_folder_that_others_can_write_into_is_refused(
    tmp_path: Path, mode: int, owner: int | None
) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    if owner is not None:
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, owner, owner)
    folder.chmod(mode)
    with pytest.raises(config.ConfigError, match="spool_dir"):
        spool_folder.of(config.load({"DWCTL_RECORDER__SPOOL_DIR": str(folder)}))


def test_a_folder_planted_in_the_temporary_one_is_not_used(
    tmp_path: Path, monkeypatch: Any
) -> None:
    blocked, planted = tmp_path / "blocked", tmp_path / f"dwctl-spool-{os.geteuid()}"
    blocked.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    planted.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(config.ConfigError, match="is a symbolic link"):
        spool_folder.of(config.load({}))


def test_files_of_others_and_links_are_not_adopted(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append([("final", b"{}")])
    own = spool.take_own()
    assert own
    target = tmp_path / "target"
    own.path.rename(target)
    own.path.symlink_to(target)
    own.release()
    assert list(spool_in(tmp_path).adopt()) == []


def test_files_of_the_dead_are_not_kept_locked_by_who_could_not_drain_them(tmp_path: Path) -> None:
    """A process that notices only by its drain that the database is away."""
    nowhere = {
        "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/none",
        "DWCTL_RECORDER__SPOOL_DIR": str(tmp_path),
        "DWCTL_RECORDER__DATABASE_WAIT": "100ms",
    }
    settings = config.load(nowhere)
    for number in range(3):
        dead = Spool(settings)
        dead.append([("final", b'{"id":"%s"}' % str(UUID(int=number)).encode())])
        left = dead.take_own()
        assert left
        left.release()
    Drainer(settings, Spool(settings), lambda _ids: None).drain()
    free = list(Spool(settings).adopt())
    assert len(free) == 3
    for file in free:
        file.release()
