"""Where in the command line and its files a name stands, and what type a slot has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from geopix.data.module import GeoPixData
from geopix.task import GeoPixTask

_FILE = re.compile(r"[\w./\\~-]+\.(?:ya?ml|json)\b")


class Places:
    """The files that a command reads, in the order in which they are named, and the files that those name."""

    def __init__(self, args: Sequence[str]) -> None:
        self.args = list(args)
        given = [Path(each.partition("=")[2] if each.startswith("--") else each) for each in self.args]
        self.files: list[Path] = []
        for path in given:
            if path.suffix in (".yaml", ".yml", ".json"):
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
        """A key with the option or the file and line that wrote it, where that can be told."""
        flags = [each for each in self.args if each.startswith("--") and each.lstrip("-").partition("=")[0].endswith(name)]
        if flags:
            return f"{flags[0].partition('=')[0]} (command line)"
        if name in self.args:
            return f"{key} (command line)"
        word = re.compile(rf"(?<![\w]){re.escape(name)}(?![\w])")
        hits = [(path, number) for path in self.files for number, line in enumerate(_lines(path), 1) if word.search(line.partition(" #")[0])]
        return f"{key}   {hits[-1][0]}:{hits[-1][1]}" if hits else key


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
