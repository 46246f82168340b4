import subprocess
import sys

import pytest

from dwctl.config import Password
from dwctl.errors import Invalid
from dwctl.identity import passwords

RULE = Password(argon2_memory_kib=64, argon2_iterations=1)


def test_a_hash_is_argon2id_with_the_settings_parameters() -> None:
    stored = passwords.hash_password("correct horse", RULE)
    assert stored.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert passwords.verify("correct horse", stored, RULE)
    assert not passwords.verify("wrong horse", stored, RULE)


def test_the_parameters_in_the_hash_count_when_verifying() -> None:
    stored = passwords.hash_password("correct horse", RULE)
    other = Password(argon2_memory_kib=128, argon2_iterations=2)
    assert passwords.verify("correct horse", stored, other)


@pytest.mark.parametrize("stored", [None, "", "plain", "$argon2id$v=19$m=64,t=1,p=1$x$y"])
def test_no_hash_and_a_broken_one_let_nobody_in(stored: str | None) -> None:
    assert not passwords.verify("anything", stored, RULE)


@pytest.mark.parametrize(("password", "fault"), [("1234567", "at least 8"), ("x" * 65, "no more than 64")])  # fmt: skip
def test_lengths(password: str, fault: str) -> None:
    with pytest.raises(Invalid, match=f"Password must be {fault} characters"):
        passwords.check_length(password, RULE)
    passwords.check_length("12345678", RULE)


PATCHED = """
from gevent import monkey; monkey.patch_all()
import gevent
from dwctl.config import Password
from dwctl.identity import passwords
rule = Password(argon2_memory_kib=19456, argon2_iterations=4)
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.001)
clock = gevent.spawn(tick)
workers = [gevent.spawn(passwords.hash_password, "x" * 8, rule) for _ in range(8)]
hashes = [worker.get() for worker in workers]
assert len(set(hashes)) == 8
assert len(ticks) > 10, len(ticks)
"""


def test_under_gevent_others_go_on_while_hashes_are_computed() -> None:
    subprocess.run([sys.executable, "-c", PATCHED], check=True, timeout=60)
