"""Where in the command line and its files a name stands, and what type a slot has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from geopix.data.module import GeoPixData
from geopix.task import GeoPixTask

_FILES = (".yaml", ".yml", ".json")
_FILE = re.compile(r"[\w./\\~-]+\.(?:ya?ml|json)\b")


class Places:
    """The files that a command reads, in the order in which they are named, and the files that those name."""

    def __init__(self, args: Sequence[str]) -> None:
        self.args = list(args)
        given = [Path(each.partition("=")[2] if each.startswith("--") else each) for each in self.args]
        self.files: list[Path] = []
        for path in given:
            if path.suffix in _FILES:
                self.add(path)
        self.folders = [Path.cwd(), *dict.fromkeys(path.parent.resolve() for path in given if path in self.files)]

    @property
    def named(self) -> str:
        """The first file of the command."""
        return str(self.files[0]) if self.files else ""

    def add(self, path: Path) -> None:
        """Take a file and the files that it names."""
        if path in self.files or not path.is_file():
            return
        self.files.append(path)
        for name in _FILE.findall(path.read_text(encoding="utf-8", errors="replace")):
            self.add(path.parent / name)

    def where(self, key: str, name: str) -> str:
        """A key with the option or the file and line that wrote it last, where that can be told.

        Args:
            key: in full; ``init_args`` may be left out.
            name: the last part of the key, or the value that it has.
        """
        parts = [part for part in key.split(".") if part not in ("", "init_args")]
        for nearby in (False, True):
            found = [place for option, value in self._options() if (place := _place(option, value, parts, name, nearby=nearby))]
            if found:
                return found[-1] if found[-1].startswith("-") else f"{key}   {found[-1]}"
        word = re.compile(rf"(?<![\w]){re.escape(name)}(?![\w])")
        hits = [f"{path}:{number}" for path in self.files for number, line in enumerate(_lines(path), 1) if word.search(line.partition(" #")[0])]
        return f"{key}   {hits[0]}" if len(hits) == 1 else key

    def _options(self) -> list[tuple[str, str]]:
        """Options of the command with their values."""
        given = [(each.partition("="), after) for each, after in pairwise([*self.args, ""]) if each.startswith("-")]
        return [(option, value if equals else after) for (option, equals, value), after in given]


def _place(option: str, value: str, parts: Sequence[str], name: str, *, nearby: bool) -> str | None:
    """Where an option, or the file that is its value, writes a key."""
    given = [] if option in ("--config", "-c") else [part for part in option.lstrip("-").split(".") if part != "init_args"]
    if given != list(parts[: len(given)]):
        return f"{option} (command line)" if len(parts) == 1 and given[-1] == parts[0] else None
    path = Path(value)
    if path.suffix in _FILES and (root := _root(path)) is not None:
        found = _find(path, root, f"{path}:1", parts[len(given) :], name if name != parts[-1] else "", nearby=nearby and bool(given or len(parts) > 1))
        if found or not given:
            return found
    return f"{option} (command line)" if given == list(parts) or (given and value.startswith(("{", "["))) else None


def _find(path: Path, node: yaml.Node, at: str, parts: Sequence[str], value: str, *, nearby: bool) -> str | None:
    """File and line of a key below a node, or of a value of that key.

    Args:
        at: where the node itself is.
        nearby: where all of the key but its last part is there, look for that below.
    """
    if isinstance(node, yaml.ScalarNode) and Path(node.value).suffix in _FILES:
        other = next((each for each in (path.parent / node.value, Path(node.value)) if each.is_file() and each != path), None)
        root = None if other is None else _root(other)
        if other is not None and root is not None:
            return _find(other, root, f"{other}:1", parts, value, nearby=nearby)
    if not parts:
        return (_only(path, node, value) if value else None) or at
    if isinstance(node, yaml.SequenceNode) and parts[0].isdecimal() and int(parts[0]) < len(node.value):
        below = node.value[int(parts[0])]
        return _find(path, below, _at(path, below), parts[1:], value, nearby=nearby)
    for key, below in reversed(node.value if isinstance(node, yaml.MappingNode) else ()):
        if key.value.rstrip("+") == parts[0]:
            return _find(path, below, _at(path, key), parts[1:], value, nearby=nearby)
        if key.value == "init_args":
            return _find(path, below, _at(path, key), parts, value, nearby=nearby)
    return _only(path, node, value or parts[0]) if nearby and len(parts) == 1 else None


def _only(path: Path, node: yaml.Node, name: str) -> str | None:
    """Where a name or value stands below a node, if it does so once."""
    below = [node]
    for each in below:
        if isinstance(each, yaml.MappingNode):
            below += [part for pair in each.value for part in pair]
        elif isinstance(each, yaml.SequenceNode):
            below += each.value
    hits = [each for each in below if isinstance(each, yaml.ScalarNode) and each.value == name]
    return _at(path, hits[0]) if len(hits) == 1 else None


def _at(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _root(path: Path) -> yaml.Node | None:
    """The content of a file with its lines; None where it is no YAML."""
    try:
        return yaml.compose(path.read_text(encoding="utf-8", errors="replace"), yaml.SafeLoader) if path.is_file() else None
    except yaml.YAMLError:
        return None


def slot_type(key: str) -> Any:
    """The type hint that a key such as ``model.net.encoder`` is checked against; None where there is none."""
    kind: Any = {"model": GeoPixTask, "data": GeoPixData}.get(key.split(".")[0])
    for name in key.split(".")[1:]:
        if kind is None:
            return None
        classes = [each for each in (kind, *get_args(kind)) if isinstance(each, type) and each is not type(None)]
        kind = next((hint for each in classes if (hint := get_type_hints(each.__init__).get(name)) is not None), None)
    return kind


def parse_part(key: str, path: Path) -> Any:
    """The content of a part file, read for its slot on its own; None where the slot's type is not known.

    Raises:
        ArgumentError: when the content does not fit the slot.
    """
    annotation = slot_type(key)
    if annotation is None or not path.is_file():
        return None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=annotation)
    text = path.read_text(encoding="utf-8")
    return parser.parse_string("part:\n" + "\n".join(f"  {line}" for line in text.splitlines())).part


def kept_options(args: Sequence[str], config: Namespace) -> list[tuple[str, str, list[str]]]:
    """Options that a part keeps from the part before it, because the file that was swapped in names the same class and not these options.

    Args:
        args: the command.
        config: what it was parsed to, for its verb.

    Returns:
        key, file and options of each such part.
    """
    kept = []
    for option, value in pairwise(args):
        key, path = option.removeprefix("--"), Path(value)
        if option == key or path.suffix not in (".yaml", ".yml") or slot_type(key) is None:
            continue
        try:
            alone, merged = parse_part(key, path), config.get(key)
        except ArgumentError:  # a part may leave options to the command line, which it is not complete without
            continue
        if not isinstance(alone, Namespace) or not isinstance(merged, Namespace) or "init_args" not in alone or "init_args" not in merged:
            continue
        flags = {each[len(option) + 1 :].removeprefix("init_args.").split(".")[0].partition("=")[0] for each in args if each.startswith(f"{option}.")}
        names = [name for name, value in vars(alone.init_args).items() if name not in flags and merged.init_args.get(name) != value]
        if names:
            kept.append((key, value, names))
    return kept


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
