"""The house rules that a reader relies on, as tests."""

import ast
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import grimp
import pytest
from alembic.script import ScriptDirectory
from flask import Flask

from dwctl import config, revisions
from dwctl.access import guard
from dwctl.worker import duties
from tests.processes import ROOT, inherited

PACKAGE = ROOT / "dwctl"
NAMES_WITHOUT_MEANING = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "misc",
    "service",
    "services",
    "manager",
}
PURE = (
    "billing.money",
    "billing.tariffs",
    "upstream.sse",
    "catalog.key_rows",
    "catalog.layers",
    "catalog.routing",
    "queue.retry",
    "batches.metadata",
    "files.custom_ids",
    "files.lines",
)
IMPURE_PACKAGES = {
    "flask",
    "sqlalchemy",
    "psycopg",
    "flask_sqlalchemy",
    "flask_smorest",
    "requests",
}


def modules() -> Iterator[Path]:
    return PACKAGE.rglob("*.py")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("dwctl", include_external_packages=True, cache_dir=None)


def test_imports_point_down():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_room_has_its_place_in_the_layers():
    contract = ConfigParser()
    contract.read(ROOT / "setup.cfg")
    layers = re.findall(r"dwctl\.(\w+)", contract["importlinter:contract:layers"]["layers"])
    rooms = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__", "__main__"} == set(layers)


def test_every_blueprint_says_who_may_come_in(app: Flask):
    without = [name for name in app.blueprints if guard.rule_of(name) is None]
    assert without == []


def test_every_route_belongs_to_a_blueprint(app: Flask):
    assert [rule.rule for rule in app.url_map.iter_rules() if "." not in rule.endpoint] == []


def test_every_duty_is_registered():
    written = {
        duty.name
        for path in PACKAGE.glob("*/duties.py")
        if path.parent.name != "worker"
        for duty in import_module(f"dwctl.{path.parent.name}.duties").DUTIES
    }
    assert written == {duty.name for duty in duties.ALL}


def test_no_module_has_a_name_that_says_nothing():
    assert [path for path in modules() if path.stem in NAMES_WITHOUT_MEANING] == []


def test_every_module_says_what_it_is():
    assert [path for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_an_init_file_has_a_docstring_and_no_code():
    allowed = {"dwctl/__init__.py"}
    with_code = [
        name
        for path in PACKAGE.rglob("__init__.py")
        if len(ast.parse(path.read_text()).body) != 1
        and (name := str(path.relative_to(ROOT))) not in allowed
    ]
    assert with_code == []


def test_pure_modules_reach_neither_flask_nor_the_database(graph: grimp.ImportGraph):
    pure = {f"dwctl.{name}" for name in PURE}
    pure |= {name for name in graph.modules if name.startswith("dwctl.protocols")}
    for name in sorted(pure):
        reached = graph.find_upstream_modules(name) & (
            IMPURE_PACKAGES | {"dwctl.db", "dwctl.config"}
        )
        assert not reached, f"{name} reaches {reached}"


def test_the_environment_is_read_in_one_place_for_settings():
    """Others may look at what the system says of paths; settings come from `config` alone."""
    readers = [
        path
        for path in modules()
        if "DWCTL_" in path.read_text() and "os.environ" in path.read_text()
    ]
    # (The samples are text for people to copy.)
    allowed = {"dwctl/config.py", "dwctl/commands/up.py", "dwctl/commands/main.py", "dwctl/dashboard/samples.py"}  # fmt: skip
    assert {str(path.relative_to(ROOT)) for path in readers} <= allowed


def test_sessions_of_requests_are_made_in_one_place():
    calling = re.compile(r"requests\.(Session|session|request|get|post|put|patch|delete|head)\(")
    makers = {str(path.relative_to(ROOT)) for path in modules() if calling.search(path.read_text())}
    # (The snippets are text for people to copy.)
    assert makers == {"dwctl/upstream/outbound.py", "dwctl/dashboard/snippets.py"}


# Database


def test_flags_are_asked_for_as_partial_indexes_have_them():
    """`NOT hidden` is found in an index `WHERE NOT hidden`; `hidden IS false` reads the table."""
    asking = [path.name for path in modules() if re.search(r"\.is_\((True|False)\)", path.read_text())]  # fmt: skip
    assert not asking


def test_migrations_are_one_line_and_are_read_as_alembic_reads_them():
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    (head,) = scripts.get_heads()
    of_alembic = {script.revision for script in scripts.walk_revisions()}
    assert revisions.known() == (head, of_alembic)


def test_a_web_process_loads_nothing_that_only_a_release_or_a_rare_request_needs():
    program = "import sys, wsgi; print(*sorted(sys.modules))"
    environment = {**inherited(), "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere", "DWCTL_SECRET_KEY": "k" * 40}  # fmt: skip
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)  # fmt: skip
    large = {"alembic", "boto3", "jsonschema_rs", "pygments", "pytest"}
    assert large.isdisjoint(told.stdout.split())


def test_migrations_import_nothing_of_ours():
    importing = [
        path.name
        for path in (ROOT / "migrations/versions").glob("*.py")
        if re.search(r"^\s*(from|import) dwctl", path.read_text(), re.MULTILINE)
    ]
    assert importing == []


def test_migrations_make_the_tables_that_the_code_describes(app: Flask):
    done = app.test_cli_runner().invoke(args=["db", "check"])
    assert done.exit_code == 0, done.output


# Documents


def test_every_migration_is_in_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text()
    names = [path.name[:4] for path in (ROOT / "migrations/versions").glob("*.py")]
    # The first release came with three.
    assert [name for name in sorted(names) if name > "0003" and f"| {name} |" not in text] == []


def test_every_setting_is_documented():
    text = (ROOT / "docs/configuration.md").read_text()
    assert [name for name in (*config.names(), *config.OBSOLETE) if f"`{name}`" not in text] == []


def test_no_setting_is_documented_that_does_not_exist():
    rows = re.findall(
        r"^\| `([a-z0-9_.]+)` \|", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE
    )
    assert set(rows) == {*config.names(), *config.OBSOLETE}
    assert len(rows) == len(set(rows))


def test_documented_defaults_are_those_of_the_code():
    text = (ROOT / "docs/configuration.md").read_text()
    wrong = []
    for name in config.names():
        value: object = config.Settings()
        for part in name.split("."):
            value = getattr(value, part)
        shown = re.search(rf"^\| `{re.escape(name)}` \| ([^|]+) \|", text, re.MULTILINE)
        if shown is None or not same(shown[1].strip(), value):
            wrong.append((name, value, shown and shown[1]))
    assert wrong == []


def same(shown: str, value: object) -> bool:
    """Whether a default as it stands in the table is this value."""
    if value in (None, "", (), {}):
        return shown == "none"
    text = shown.strip("`")
    if isinstance(value, bool):
        return text == str(value).lower()
    if isinstance(value, tuple):
        return text == ", ".join(map(str, value))
    if isinstance(value, float):
        return config.seconds_of(text) == value
    return text == str(value)


def test_the_tour_names_only_what_exists():
    text = (ROOT / "docs/tour.md").read_text()
    named = re.findall(
        r"`([\w./-]+(?:/|\.py|\.sql|\.md|\.cfg|\.toml|\.html|Procfile|Makefile))`", text
    )
    assert len(named) > 40
    missing = [
        path
        for path in named
        if not any((base / path).exists() for base in (ROOT, PACKAGE))
        and not ("/" not in path[:-1] and any(PACKAGE.glob(f"*/{path}")))  # furniture of many rooms
    ]
    assert missing == []


def test_every_room_is_on_the_tour():
    text = (ROOT / "docs/tour.md").read_text()
    rooms = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert [room for room in rooms if f"`{room}/`" not in text] == []


def test_every_dependency_has_a_reason():
    declared = ConfigParser()
    declared.read(ROOT / "setup.cfg")
    lines = declared["options"]["install_requires"].split("\n")
    lines += (ROOT / "requirements-dev.txt").read_text().split("\n")
    names = {
        re.split(r"[\[ <>=!~;]", line.strip())[0].lower()
        for line in lines
        if line.strip()[:1].isalpha()
    }
    text = (ROOT / "docs/decisions/0008-dependencies.md").read_text().lower()
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_documents_link_only_to_what_exists():
    dead = []
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link and not (page.parent / link).exists():
                dead.append((page.name, link))
    assert dead == []


def test_a_decision_has_a_number_of_its_own_and_bears_it():
    pages = sorted((ROOT / "docs/decisions").glob("0*.md"))
    titles = [page.read_text().split("\n", 1)[0] for page in pages]
    borne = [int(re.search(r"\d+", title).group()) for title in titles]  # type: ignore[union-attr]
    assert borne == [int(page.name[:4]) for page in pages]
    assert len(set(borne)) == len(borne)


# What a reader has to fill in: made elsewhere, secret, or shown by an earlier answer.
TO_FILL_IN = {
    "batches.md": {"KEY"},
    "calling.md": {"KEY"},
    "connections.md": {"ACCESS_KEY_ID", "BUCKET", "ENDPOINT_URL", "SECRET_ACCESS_KEY"},
    "organizations.md": {"CAROLS_KEY", "TOKEN"},
    "routing.md": {"COMPOSITE_ID", "ENDPOINT_ID", "MODEL_ID"},
    "sign-in.md": {"CODE"},
}


def test_examples_set_what_they_use():
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        lines = "\n".join(
            re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
        )
        used = set(re.findall(r"\$\{?([A-Z][A-Z_]*)", lines)) - {"PATH", "PWD"}
        made = set(re.findall(r"\b([A-Z][A-Z_]*)=|\bread -rs (\w+)", lines))
        made = {name for names in made for name in names}
        assert used - made == TO_FILL_IN.get(page.name, set()), page.name


def test_examples_have_no_comments():
    """They are pasted: zsh, which macOS has, takes none of what is typed, and an apostrophe in one swallows the lines behind it."""
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
        assert re.findall(r"(?:^|\s)#.*", "\n".join(blocks)) == [], page.name


def test_examples_speak_to_where_dwctl_listens():
    """8000 and 8001 are other people's inference servers there."""
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        ports = set(re.findall(r"localhost:(?!800[01]/v1\b)(\d+)", page.read_text()))
        assert ports <= {"3001", "3002"}, page.name


def test_variables_with_our_prefix_in_documents_are_settings():
    """A process that finds another one in its environment does not start."""
    known = {"DWCTL_" + name.upper().replace(".", "__") for name in config.names()}
    known |= {f"{name}_FILE" for name in known} | {"DWCTL_CONFIG"}
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        named = set(re.findall(r"\bDWCTL_[A-Z_]+[A-Z]", page.read_text()))
        assert named <= known, page.name


def test_make_targets_that_documents_name_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page


# Tests


def test_no_test_reaches_the_network():
    with (
        socket.socket() as connection,
        pytest.raises(pytest.fail.Exception, match="tests reach this machine only"),
    ):
        connection.connect(("192.0.2.1", 80))


def test_an_application_of_the_tests_is_closed() -> None:
    """What it leaves open is collected in the middle of some other test, and fails that."""
    makes = re.compile(r"\bcreate_(?:worker_)?app\(")
    # The one place that closes them; and those whose applications have no database.
    fine = {"applications.py", "test_every_field.py", "test_architecture.py", "documented.py", "test_reference.py", "test_package.py"}  # fmt: skip
    leaving = [path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts and path.name not in fine and makes.search(path.read_text())]  # fmt: skip
    assert leaving == []
