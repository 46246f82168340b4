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
        loader = _Loader(path.read_text("utf-8"))
        try:
            root = loader.get_single_node()
            tree = _value(loader, root, path, "", written) if root is not None else None
        finally:
            loader.dispose()
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


def _value(
    loader: yaml.SafeLoader, node: yaml.Node, path: Path, name: str, written: Written
) -> Any:
    """Text, None, list or dict; what it holds is noted with its line."""
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, name, written)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, part, path, "", Written()) for part in node.value]
    return None if node.tag == _NULL else node.value


def _mapping(
    loader: yaml.SafeLoader, node: yaml.MappingNode, path: Path, name: str, written: Written
) -> dict[str, Any]:
    own = [
        (key.value, key.start_mark.line + 1) for key, _ in node.value if key.tag.endswith(":str")
    ]
    for key, line in own:
        first = next(where for known, where in own if known == key)
        if first != line:
            raise ConfigError(f"{path}:{line}: {key} stands here a second time, after line {first}")
    loader.flatten_mapping(node)
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{path}:{key_node.start_mark.line + 1}: a setting's name is a text")
        key = str(key_node.value)
        inner = f"{name}.{key}" if name else key
        written.origins[inner] = f"{path}:{key_node.start_mark.line + 1}"
        found[key] = _value(loader, value_node, path, inner, written)
    return found


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
