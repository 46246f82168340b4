"""Spool files: written before an answer leaves, found by siblings when their owner is gone, never drained twice at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gevent
import pytest
from gevent import monkey

from dwctl import config
from dwctl.analytics import spool_folder
from dwctl.analytics.spool import Spool, SpoolFile
from tests.processes import GUNICORN, WEB, Process, free_port

WORKER = [GUNICORN, "-c", "dwctl/worker/gunicorn.conf.py", "dwctl.worker.app:app"]
DATABASE = "postgresql://u:p@db.example:5432/one"
LINES = [("open", b'{"id":1}'), ("final", b'{"id":2}')]


def spool_in(folder: Path, url: str = DATABASE) -> Spool:
    return Spool(config.load({"DATABASE_URL": url, "DWCTL_RECORDER__SPOOL_DIR": str(folder)}))


def read(file: SpoolFile) -> list[tuple[str, bytes]]:
    """What is in it that can be read."""
    return [(line.kind, line.record) for line in file.lines() if line.kind != "unreadable"]


def test_lines_come_back_as_they_were(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(LINES[:1])
    spool.append(LINES[1:])
    own = spool.take_own()
    assert own
    assert read(own) == LINES
    assert spool.pending_bytes == own.path.stat().st_size
    own.remove()
    assert spool.pending_bytes == 0
    assert spool.take_own() is None


def test_after_its_file_was_taken_a_process_begins_another(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(LINES[:1])
    first = spool.take_own()
    spool.append(LINES[1:])
    second = spool.take_own()
    assert first
    assert second
    assert first.path != second.path
    assert read(first) == LINES[:1]
    assert read(second) == LINES[1:]
    first.remove()
    second.remove()


def test_a_living_process_keeps_its_file(tmp_path: Path) -> None:
    mine, sibling = spool_in(tmp_path), spool_in(tmp_path)
    mine.append(LINES)
    assert list(sibling.adopt()) == []
    assert list(mine.adopt()) == []
    own = mine.take_own()
    assert own
    own.release()


def test_an_orphan_is_adopted_by_one(tmp_path: Path) -> None:
    dead = spool_in(tmp_path)
    dead.append(LINES)
    left = dead.take_own()
    assert left
    left.release()
    (orphan,) = spool_in(tmp_path).adopt()
    assert list(spool_in(tmp_path).adopt()) == []
    assert read(orphan) == LINES
    orphan.remove()
    assert list(spool_in(tmp_path).adopt()) == []


def test_the_file_of_a_killed_process_is_an_orphan(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.analytics.test_spool import *; "
        "spool_in(Path(sys.argv[1])).append(LINES); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, check=False)
    (orphan,) = spool_in(tmp_path).adopt()
    assert read(orphan) == LINES
    orphan.remove()


def test_another_database_has_other_files(tmp_path: Path) -> None:
    dead = spool_in(tmp_path)
    dead.append(LINES)
    left = dead.take_own()
    assert left
    left.release()
    for url in (
        "postgresql://u:p@db.example:5432/two",
        "postgresql://u:p@other.example:5432/one",
        "postgresql://u:p@db.example:5433/one",
    ):
        assert list(spool_in(tmp_path, url).adopt()) == []
        assert spool_in(tmp_path, url).pending_bytes == 0
    # The same one under another password is the same.
    (orphan,) = spool_in(tmp_path, "postgres://u:new@db.example:5432/one").adopt()
    orphan.remove()


def test_whoever_is_killed_while_it_writes_does_not_tear_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of a process: its greenlets are killed, a native thread goes on, and what is left is spooled."""
    write, sleep = os.write, monkey.get_original("time", "sleep")

    def slowly(descriptor: int, text: bytes) -> int:
        sleep(0.05)
        return write(descriptor, text)

    monkeypatch.setattr(os, "write", slowly)
    spool = spool_in(tmp_path)
    writing = gevent.spawn(spool.append, LINES)
    gevent.sleep(0.12)
    writing.kill()
    spool.append(LINES)
    own = spool.take_own()
    assert own
    assert [(line.kind, line.record) for line in own.lines()] == LINES * 2
    own.remove()


@pytest.mark.parametrize("spoilt", [b'{"kind":"fin', b"\x00\xff", b"[]", b'{"kind":"final"}', b""])
def test_a_line_that_was_cut_is_skipped(tmp_path: Path, spoilt: bytes) -> None:
    file = SpoolFile.create(tmp_path, "x-")
    file.append(LINES)
    with file.path.open("ab") as raw:
        raw.write(spoilt + b"\n")
    file.append(LINES[:1])
    assert read(file) == [*LINES, LINES[0]]
    file.remove()


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "new" / "folder")
    spool.append(LINES)
    own = spool.take_own()
    assert own
    assert own.path.stat().st_mode & 0o077 == 0
    own.remove()


def test_the_folder_that_was_named_must_be_usable(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("no folder")
    settings = config.load({"DWCTL_RECORDER__SPOOL_DIR": str(taken / "spool")})
    with pytest.raises(config.ConfigError, match="spool_dir"):
        spool_folder.of(settings)


@pytest.mark.parametrize("fault", ["link", "others", "group", "file"])
def test_a_folder_that_others_could_write_into_is_refused(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "spool"
    if fault == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    elif fault == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o707 if fault == "others" else 0o770)
    with pytest.raises(config.ConfigError, match="spool_dir"):
        spool_folder.of(config.load({"DWCTL_RECORDER__SPOOL_DIR": str(folder)}))


def test_a_folder_that_is_made_is_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "spool"
    made = spool_folder.of(config.load({"DWCTL_RECORDER__SPOOL_DIR": str(folder)}))
    assert made.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("fault", ["soft link", "hard link", "others write", "folder"])
def test_a_file_that_we_have_not_written_alone_is_not_drained(tmp_path: Path, fault: str) -> None:
    spool = spool_in(tmp_path)
    spool.append(LINES)
    own = spool.take_own()
    assert own
    own.release()
    path = own.path
    if fault == "soft link":
        path.symlink_to(path.rename(tmp_path / "elsewhere"))
    elif fault == "hard link":
        os.link(path, tmp_path / "second-name")
    elif fault == "others write":
        path.chmod(0o622)
    else:
        path.unlink()
        path.mkdir()
    assert list(spool.adopt()) == []


def test_a_bad_folder_stops_the_start_with_one_line(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    tmp_path.chmod(0o777)
    for command in (WEB, WORKER):
        process = Process(
            command, environ | {"DWCTL_RECORDER__SPOOL_DIR": str(tmp_path)}, free_port()
        )
        assert process.wait() != 0
        (line,) = process.output().splitlines()
        assert line.startswith(f"dwctl: recorder.spool_dir: {tmp_path} can be written by others")


def test_without_a_name_the_state_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert spool_folder.of(config.load({})) == tmp_path / "dwctl" / "spool"
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert spool_folder.of(config.load({})).name == f"dwctl-spool-{os.geteuid()}"


def test_what_is_set_aside_can_be_read_by_a_person(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.reject("final", b'{"id":"a"}', "NumericValueOutOfRange")
    spool.reject("final", b'{"id":"b"}', "NumericValueOutOfRange")
    (file,) = tmp_path.glob("*rejected.jsonl")
    reason = '{"reason":"NumericValueOutOfRange","kind":"final"}'
    assert file.read_text().splitlines() == [reason, '{"id":"a"}', reason, '{"id":"b"}']
    # It is nobody's spool.
    assert list(spool.adopt()) == []
    assert os.listdir(tmp_path) == [file.name]
