"""Where each value of a merged configuration comes from: a line of a file, the command line, or a default.

The parser merges and forgets. Here the command is read once more, in the parser's order, and what was said last about a key is its origin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

Key = tuple[str, ...]
Place = Callable[[yaml.Node], str]
_COLUMN = 64
_PART_FILES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Said:
    """A value and its origin.

    Args:
        kept: it was said about a part whose class was changed later; the parser keeps it only where it fits the new class.
    """

    text: str
    origin: str
    kept: bool = False


class Origins:
    """What a command and its files say about each key. Keys are without ``init_args``: options of a part stand beside its ``class_path``.

    Args:
        args: the command, without its verb.
        merged: what the parser made of it.
    """

    def __init__(self, args: Sequence[str], merged: Any) -> None:
        self._merged = _hoisted(merged)
        self._said: dict[Key, Said] = {}
        self._lengths: dict[Key, int] = {}
        self._grown: set[Key] = set()
        for option, value in _options(args):
            if option in ("config", "c"):
                self._file(Path(value), ())
            else:
                self._say(tuple(option.split(".")), _composed(value), lambda node: "command line", Path())

    def of(self, key: Key, node: yaml.Node) -> str:
        """The origin of a value of the merged configuration."""
        said = self._said.get(key)
        if said is None or (said.kept and not _same(said.text, _text(node))):
            return "default"
        return said.origin

    def mixed(self, key: Key) -> bool:
        """Whether a list was put together from several places."""
        return key in self._grown

    def _file(self, path: Path, key: Key) -> None:
        near = path.resolve()
        name = near.relative_to(Path.cwd()).as_posix() if near.is_relative_to(Path.cwd()) else str(path)
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if node is not None:
            self._say(key, node, lambda node: f"{name}:{node.start_mark.line + 1}", near.parent)

    def _say(self, key: Key, node: yaml.Node, place: Place, folder: Path, at: yaml.Node | None = None) -> None:
        """Note a value and what it holds.

        Args:
            folder: relative paths start here.
            at: what stands for the value's place, such as its key; the value itself by default.
        """
        key, grows = self._whole(key)
        where = place(at or node)
        if grows:
            return self._append(key, node, place, folder)
        if isinstance(node, yaml.MappingNode):
            pairs = _pairs(node)
            if "class_path" in pairs:
                self._change_class(key, pairs["class_path"][1].value)
            self._said[key] = Said(_text(node), where)
            for name, (written, value) in pairs.items():
                self._say(key if name == "init_args" else (*key, *self._split(key, name)), value, place, folder, written)
            return None
        if isinstance(node, yaml.SequenceNode):
            self._forget(key)
            self._grown.discard(key)
            self._said[key], self._lengths[key] = Said(_text(node), where), 0
            return self._append(key, node, place, folder)
        return self._say_scalar(key, node, place, folder, where)

    def _say_scalar(self, key: Key, node: yaml.Node, place: Place, folder: Path, where: str) -> None:
        path = folder / str(node.value)
        now = self._now(key)
        if isinstance(now, dict) and path.suffix in _PART_FILES and path.is_file():
            self._file(path, key)
        elif isinstance(now, dict) and "class_path" in now and _text(node) != "null":
            self._change_class(key, node.value)
            self._said[*key, "class_path"] = Said(_text(node), where)
        else:
            self._forget(key)
            self._said[key] = Said(_text(node), where)

    def _append(self, key: Key, node: yaml.Node, place: Place, folder: Path) -> None:
        """Items behind those that a list has."""
        if self._lengths.get(key):
            self._grown.add(key)
        self._said.setdefault(key, Said(_text(node), place(node)))
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            count = self._lengths.get(key, 0)
            self._lengths[key] = count + 1
            self._say((*key, str(count)), item, place, folder)

    def _whole(self, key: Key) -> tuple[Key, bool]:
        """A key without ``init_args`` and the sign of a list that grows; an option of a list's item is of its last item."""
        whole: Key = ()
        for name in key:
            if whole in self._lengths and not name.isdecimal():
                whole = (*whole, str(self._lengths[whole] - 1))
            if name != "init_args":
                whole = (*whole, name.removesuffix("+"))
        return whole, bool(key) and key[-1].endswith("+")

    def _split(self, key: Key, name: str) -> Key:
        """A key of a file: one name, or several with dots between them."""
        now = self._now(key)
        return (name,) if isinstance(now, dict) and name in now else tuple(name.split("."))

    def _now(self, key: Key) -> Any:
        value = self._merged
        for name in key:
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                value = value[int(name)]
            else:
                return None
        return value

    def _change_class(self, key: Key, name: str) -> None:
        before = self._said.get((*key, "class_path"))
        if before is not None and before.text.rsplit(".", 1)[-1] != name.rsplit(".", 1)[-1]:
            self._said |= {each: replace(said, kept=True) for each, said in self._said.items() if each[: len(key)] == key and each != key}

    def _forget(self, key: Key) -> None:
        for table in (self._said, self._lengths):
            for each in [each for each in table if each[: len(key)] == key]:
                del table[each]


def annotated(text: str, args: Sequence[str]) -> str:
    """A merged configuration with the origin of each value behind it, as a comment.

    Args:
        text: the configuration as YAML.
        args: the command that it was merged from, without its verb.
    """
    origins = Origins(args, yaml.safe_load(text))
    lines, comments = text.splitlines(), dict(_comments((), yaml.compose(text, Loader=yaml.SafeLoader), origins, 0))
    return "".join(f"{line:<{_COLUMN}}  # {comments[number]}\n" if number in comments else f"{line}\n" for number, line in enumerate(lines))


def _comments(key: Key, node: yaml.Node, origins: Origins, line: int) -> Iterator[tuple[int, str]]:
    """Line and comment of every value below a node. ``line`` is the one on which the node's name stands."""
    if isinstance(node, yaml.MappingNode) and node.value:
        for name, value in node.value:
            below = key if name.value == "init_args" and isinstance(value, yaml.MappingNode) and value.value else (*key, name.value)
            yield from _comments(below, value, origins, name.start_mark.line)
    elif isinstance(node, yaml.SequenceNode) and node.value and (origins.mixed(key) or any(isinstance(item, yaml.MappingNode) for item in node.value)):
        for index, item in enumerate(node.value):
            yield from _comments((*key, str(index)), item, origins, item.start_mark.line)
    elif isinstance(node, yaml.ScalarNode):
        yield (node.start_mark.line if node.style in ("|", ">") else node.end_mark.line), origins.of(key, node)
    else:
        yield line, origins.of(key, node)


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options of a command with their values."""
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            yield name.lstrip("-"), value if equals else next(words, "")


def _composed(value: str) -> yaml.Node:
    """The value of an option as the parser reads it: YAML, or else text."""
    try:
        node = yaml.compose(value, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    return node or yaml.ScalarNode("tag:yaml.org,2002:str", value)


def _pairs(node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Names and values of a mapping by name, merged anchors resolved. ``a.b`` is lost where the same mapping names ``a`` behind it, as in the parser."""
    found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for name, value in node.value:
        if name.tag == "tag:yaml.org,2002:merge":
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                found = _pairs(each) | found
    found |= {str(name.value): (name, value) for name, value in node.value if name.tag != "tag:yaml.org,2002:merge"}
    names = list(found)
    return {name: pair for index, (name, pair) in enumerate(found.items()) if not any(name.startswith(f"{later}.") for later in names[index + 1 :])}


def _hoisted(value: Any) -> Any:
    """A configuration without ``init_args``: options of a part stand beside its ``class_path``."""
    if isinstance(value, list):
        return [_hoisted(each) for each in value]
    if not isinstance(value, dict):
        return value
    own = {str(name): _hoisted(each) for name, each in value.items() if name != "init_args"}
    return own | (_hoisted(value.get("init_args")) or {})


def _text(node: yaml.Node) -> str:
    """A value as text, to compare it with another."""
    if isinstance(node, yaml.MappingNode):
        return "{" + ", ".join(sorted(f"{name.value}: {_text(value)}" for name, value in node.value)) + "}"
    if isinstance(node, yaml.SequenceNode):
        return "[" + ", ".join(_text(each) for each in node.value) + "]"
    if node.tag == "tag:yaml.org,2002:null":
        return "null"
    return str(node.value).lower() if node.tag == "tag:yaml.org,2002:bool" else str(node.value)


def _same(one: str, two: str) -> bool:
    try:
        return one == two or float(one) == float(two)
    except ValueError:
        return False
