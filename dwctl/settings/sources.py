"""What is written where: the YAML file, then `DWCTL_*` variables, then DATABASE_URL; the later one wins. Knows no setting's meaning.

Values stay text until the kind of their setting is known (in the YAML file, too), so a secret of digits stays what it is. Each keeps where
it stands, for whoever has to mend it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dwctl.settings.kinds import ConfigError

Look = tuple[tuple[int, ...] | None, ...]

DEFAULT_FILE = Path("config.yaml")
_PREFIX = "DWCTL_"
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_MOST_VALUES = 100_000
_DEEPEST = 100
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Written:
    """Settings as they are written. `origins`: where, by dotted name. `files`: what was read, or would have been if it were there."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def origin(self, name: str) -> str | None:
        """Where a setting is written, or a part of it; None for a default."""
        if name in self.origins:
            return self.origins[name]
        parts = (each for each in self.origins if each.startswith(f"{name}."))
        return next((self.origins[each] for each in parts), None)

    def find(self, name: str) -> Any:
        """What is written under a dotted name (KeyError: nothing)."""
        branch: Any = self.tree
        for part in name.split("."):
            if not isinstance(branch, dict):
                raise KeyError(name)
            branch = branch[part]
        return branch

    def put(self, name: str, value: Any, origin: str) -> None:
        """Write one over what is there. ConfigError where something else is there than a mapping of settings."""
        *parents, leaf = name.split(".")
        branch = self.tree
        for depth, parent in enumerate(parents, start=1):
            if not isinstance(branch.get(parent), dict):
                if branch.get(parent) is not None:
                    whole = ".".join(parents[:depth])
                    raise ConfigError(
                        f"{name}: {whole} has a value as a whole already ({self.origin(whole)}; {origin})"
                    )
                branch[parent] = {}
            branch = branch[parent]
        if isinstance(branch.get(leaf), dict):
            self._forget(name)
        branch[leaf] = value
        self.origins[name] = origin

    def drop(self, name: str) -> str | None:
        """Take one out; where it was written, None if it was not."""
        *parents, leaf = name.split(".")
        try:
            branch = self.find(".".join(parents)) if parents else self.tree
        except KeyError:
            return None
        if not isinstance(branch, dict) or leaf not in branch:
            return None
        origin = self.origin(name)
        del branch[leaf]
        self._forget(name)
        return origin

    def _forget(self, name: str) -> None:
        for known in [each for each in self.origins if f"{each}.".startswith(f"{name}.")]:
            del self.origins[known]


def read(environ: Mapping[str, str], file: Path | None, known: Collection[str]) -> Written:
    """All of it. `file` goes before what DWCTL_CONFIG names; one of these must exist. `known`: names of settings. Raises ConfigError."""
    named = file or _named(environ)
    written = Written()
    _add_file(written, named or DEFAULT_FILE, must_exist=named is not None)
    _add_environment(written, environ, known)
    if environ.get("DATABASE_URL"):
        written.put("database.url", environ["DATABASE_URL"], "DATABASE_URL")
    return written


def files(environ: Mapping[str, str], known: Collection[str]) -> tuple[Path, ...]:
    """What `read` reads, first the file of settings, whether it is there or not."""
    variables = sorted(variable for variable in environ if _reads_file(variable, known))
    return (_named(environ) or DEFAULT_FILE, *(Path(environ[each]) for each in variables))


def look(files: Iterable[Path]) -> Look:
    """What the system says of each file, through links; it differs when one has changed. None for one that is not there."""
    return tuple(map(_signature, files))


def _signature(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _named(environ: Mapping[str, str]) -> Path | None:
    return Path(environ["DWCTL_CONFIG"]) if environ.get("DWCTL_CONFIG") else None


def _is_ours(variable: str) -> bool:
    return variable.upper().startswith(_PREFIX) and variable.upper() != "DWCTL_CONFIG"


def _name_of(variable: str) -> str:
    return variable[len(_PREFIX) :].lower().replace("__", ".")


def _reads_file(variable: str, known: Collection[str]) -> bool:
    """Whether it names a file with the value. One setting's own name ends like that (max_requests_per_file)."""
    name = _name_of(variable)
    return _is_ours(variable) and name.endswith("_file") and name not in known


def _add_file(written: Written, path: Path, *, must_exist: bool) -> None:
    written.files.append(path)
    try:
        tree = _File(path, written).read()
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigError(f"{path}: there is no such file") from error
        return
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(_no_yaml(path, error)) from error
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of settings is wanted")
    written.tree = tree or {}


def _no_yaml(path: Path, error: Exception) -> str:
    """Without the lines themselves, which may hold secrets."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{path}:{error.problem_mark.line + 1}: not valid YAML: {error.problem}"
    return f"{path}: not valid YAML ({type(error).__name__})"


class _File:
    """One YAML file on its way into what is written."""

    def __init__(self, path: Path, written: Written) -> None:
        self._path = path
        self._written = written
        self._left = _MOST_VALUES
        text = path.read_text("utf-8")
        self._refuse_deep(text)
        self._loader = _Loader(text)

    def read(self) -> Any:
        """What it holds; names are noted with their lines. Raises ConfigError, yaml.YAMLError and RecursionError."""
        try:
            root = self._loader.get_single_node()
            return None if root is None else self._value(root, "")
        finally:
            self._loader.dispose()

    def _refuse_deep(self, text: str) -> None:
        """Composing recurses in C, beyond what Python guards: a process would crash."""
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                place = self._path if event.start_mark is None else self._at(event.start_mark)
                raise ConfigError(f"{place}: nested more than {_DEEPEST} deep")

    def _value(self, node: yaml.Node, name: str | None) -> Any:
        """Text, None, list or dict. `name`: None inside lists, whose parts have none."""
        self._left -= 1
        if self._left < 0:  # Aliases of aliases: a few lines, and no end.
            raise ConfigError(f"{self._path}: more than {_MOST_VALUES} values")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, name)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(part, None) for part in node.value]
        return None if node.tag == _NULL else node.value

    def _mapping(self, node: yaml.MappingNode, name: str | None) -> dict[str, Any]:
        self._refuse_repeated(node)
        self._loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{place}: a setting's name is a text")
            key = str(key_node.value)
            inner = None if name is None else f"{name}.{key}" if name else key
            if inner is not None:
                self._written.origins[inner] = place
            found[key] = self._value(value_node, inner)
        return found

    def _refuse_repeated(self, node: yaml.MappingNode) -> None:
        """YAML would take the last one, and nobody would know. (What `<<` merges comes later.)"""
        first: dict[str, yaml.Node] = {}
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in first:
                line = first[key.value].start_mark.line + 1
                raise ConfigError(
                    f"{self._place(key)}: {key.value} stands here a second time, after line {line}"
                )
            first[key.value] = key

    def _place(self, node: yaml.Node) -> str:
        return self._at(node.start_mark)

    def _at(self, mark: Any) -> str:
        return f"{self._path}:{mark.line + 1}"


def _add_environment(written: Written, environ: Mapping[str, str], known: Collection[str]) -> None:
    by_name: dict[str, str] = {}
    for variable, value in sorted(environ.items()):
        if not _is_ours(variable):
            continue
        name, origin = _name_of(variable), variable
        if _reads_file(variable, known):
            name = name.removesuffix("_file")
            path = Path(value)
            value, origin = _secret(variable, path), f"{variable} ({path})"
            written.files.append(path)
        if name in by_name:
            raise ConfigError(f"{name}: set twice, by {by_name[name]} and {variable}")
        by_name[name] = variable
        written.put(name, value, origin)


def _secret(variable: str, path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{variable}: {path} cannot be read: {why}") from error
