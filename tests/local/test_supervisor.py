"""The supervisor as `dwctl up` uses it: a process of its own with real children."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

SUPERVISE = """
import json, sys
from dwctl.local.supervisor import Program, run
grace_s, programs = json.loads(sys.argv[1])
env = {"GREETING": "hello"}
sys.exit(run([Program(n, ["sh", "-c", s], env) for n, s in programs.items()], grace_s=grace_s))
"""

FOR_20_S = "for i in $(seq 400); do sleep 0.05; done"  # so that a failed test leaves nothing behind
STEADY = f"trap 'echo bye; exit 0' TERM; echo up; {FOR_20_S}"
STUBBORN = f"trap '' TERM; echo up; {FOR_20_S}"


def command(grace_s: float, programs: dict[str, str]) -> list[str]:
    return [sys.executable, "-c", SUPERVISE, json.dumps([grace_s, programs])]


def supervise(grace_s: float = 20, /, **programs: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(grace_s, programs),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(process: "subprocess.Popen[str]", *ends: str) -> str:
    """Read output until every one of these has ended a line."""
    assert process.stdout
    seen, missing = "", set(ends)
    while missing:
        line = process.stdout.readline()
        assert line, f"ended before {missing}: {seen}"
        seen += line
        missing -= {end for end in missing if line.rstrip().endswith(end)}
    return seen


def end_of(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=20)
    return output


def test_when_one_ends_the_others_are_stopped_and_its_code_is_ours() -> None:
    process = supervise(web=STEADY, worker="sleep 0.2; echo $GREETING >&2; exit 3")
    output = end_of(process)
    assert process.returncode == 3
    assert "worker | hello" in output
    assert "web    | bye" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all(number: signal.Signals) -> None:
    process = supervise(web=STEADY, worker=STEADY)
    read_until(process, "web    | up", "worker | up")
    process.send_signal(number)
    output = end_of(process)
    assert process.returncode == 128 + number
    assert output.count("| bye") == 2


def test_a_process_that_will_not_stop_is_killed_after_the_grace() -> None:
    process = supervise(0.3, web=STUBBORN, worker=STEADY)
    read_until(process, "web    | up", "worker | up")
    process.terminate()
    output = end_of(process)
    assert process.returncode == 128 + signal.SIGTERM
    assert "web stopped (rc=-9)" in output


def test_a_killed_process_counts_as_a_failure() -> None:
    process = supervise(web="kill -9 $$")
    end_of(process)
    assert process.returncode == 128 + signal.SIGKILL


def test_without_a_reader_everything_stops() -> None:
    process = supervise(web="while :; do echo up; sleep 0.05; done")
    read_until(process, "web    | up")
    assert process.stdout
    process.stdout.close()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM


def test_names_are_coloured_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(5, {"web": "echo up"}), stdout=theirs, start_new_session=True
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            output += os.read(ours, 4096)
        except OSError:  # Linux says EIO once the other side is closed
            break
    os.close(ours)
    assert process.wait(timeout=20) == 0
    assert b"\x1b[" in output
