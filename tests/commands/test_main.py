"""The console script itself: finding commands, and what it says when something is missing."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from dwctl.commands.main import COMMANDS, cli
from tests.processes import inherited

DWCTL = Path(sys.executable).with_name("dwctl")


def run(*args: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """In a folder without config.yaml, with nothing of ours in the environment."""
    environ = {**inherited(), "XDG_DATA_HOME": str(folder), "HOME": str(folder), **environ}
    return subprocess.run(
        [DWCTL, *args],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_found_and_says_what_the_table_says(name: str):
    context = click.Context(cli, info_name="dwctl")
    found = cli.get_command(context, name)
    assert found is not None
    if name not in ("db", "up"):
        assert found.help == COMMANDS[name][1]


def test_help_lists_every_command_without_importing_them(tmp_path: Path):
    code = (
        "import sys; from dwctl.commands.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'sqlalchemy' not in sys.modules, 'help imports the database'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for _, text in COMMANDS.values())


def test_the_application_has_our_commands_beside_those_of_its_extensions():
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "--help"],
        cwd=Path(__file__).parents[2],
        env=inherited(),
        capture_output=True,
        text=True,
        check=False,
    )
    listed = {
        line.split()[0]
        for line in done.stdout.splitlines()
        if line.startswith("  ") and line.split()
    }
    assert {"db", "users", "models"} <= listed, done.stderr


def test_without_a_database_a_command_says_what_to_do_in_one_line(tmp_path: Path):
    done = run("--data-dir", str(tmp_path / "none"), "users", "list", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "dwctl: no database: set DATABASE_URL, start one with `dwctl up`, or name its folder with --data-dir before the command"
    ]


def test_a_command_chooses_between_two_databases_never_silently(tmp_path: Path):
    named = {"DATABASE_URL": "postgresql://127.0.0.1:9/nowhere"}
    done = run("--data-dir", str(tmp_path), "users", "list", folder=tmp_path, **named)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "dwctl: two databases are named, by --data-dir and by DATABASE_URL (or database.url): leave out one"
    ]


def test_a_bad_setting_is_one_line(tmp_path: Path):
    done = run("users", "list", folder=tmp_path, DWCTL_NO_SUCH_SETTING="1")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "dwctl: no_such_setting: unknown setting (DWCTL_NO_SUCH_SETTING)"
    ]


def test_an_unknown_command_is_refused(tmp_path: Path):
    done = run("frobnicate", folder=tmp_path)
    assert done.returncode == 2
    assert "No such command 'frobnicate'" in done.stderr
