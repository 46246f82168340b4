"""Run the processes of `dwctl up` in one terminal: they start together and stop together.

honcho does the work. Changed here are the things that a server with calls in flight needs: a longer
grace, an end of that grace for a process that will not stop, and signals that are noted at once and
acted on by the loop. honcho's own handler prints, which fails when it interrupts a print, and it
forgets processes that had not yet reported their start.
"""

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import NamedTuple

import honcho.manager
import honcho.printer

GRACE_S = 30.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Program(NamedTuple):
    """One process to run; `env` is added to our own environment."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = {}


def run(programs: Sequence[Program], *, grace_s: float = GRACE_S) -> int:
    """Run all programs until one of them ends or a signal says stop, then stop them all.

    Each gets SIGTERM and `grace_s` seconds, then SIGKILL. Their lines appear on stdout after the
    program's name. Call it from the main thread; it leaves its signal handlers in place, so that
    what the caller still has to put away is not interrupted.
    Returns: an exit code, of the first program to end or 128 + the number of the signal.
    """
    honcho.manager.KILL_WAIT = grace_s  # its only way to be told
    manager = _Manager(printer=_Printer())
    for name, argv, env in programs:
        # honcho passes a command to a shell, which must not stay between us and the program.
        command = "exec " + shlex.join(argv)
        manager.add_process(name, command, env={"PYTHONUNBUFFERED": "1", **os.environ, **env})
    manager.loop()
    code = manager.returncode or 0
    return code if code >= 0 else 128 - code


class _Manager(honcho.manager.Manager):  # type: ignore[misc]
    """The loop asks `_any_stopped` whether it is time to stop everything; a signal makes it so."""

    returncode: int | None = None
    _told_to_stop = False

    def _start(self) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        super()._start()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._told_to_stop and self.returncode is None:
            self.returncode = 128 + number
        self._told_to_stop = True

    def _any_stopped(self) -> bool:
        return self._told_to_stop or bool(super()._any_stopped())


class _Printer(honcho.printer.Printer):  # type: ignore[misc]
    """Stops everything, in order, when nobody can read the output any more."""

    _unread = False

    def write(self, message: object) -> None:
        if self._unread:
            return
        try:
            super().write(message)
        except OSError:
            self._unread = True
            # What is left in the buffer would fail once more at the end, and make an exit code of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            os.kill(os.getpid(), signal.SIGTERM)
