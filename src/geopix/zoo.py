"""The parts that geopix holds: found by their contracts, told by their docstrings, with the files of ``configs/`` that set them up.

Nothing is written down twice: a part is listed because its class extends a contract, its line is the first sentence of its docstring and
its links are those of the docstring. ``geopix list --markdown`` prints ``docs/zoo.md``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

import geopix
from geopix.contracts import Component, Connector, LanguageModel, MaskDecoder, Memory, VisionEncoder

_ARXIV = re.compile(r"(?:https?://arxiv\.org/abs/|arXiv )(\d{4}\.\d{4,5})")
_REPOSITORY = re.compile(r"(?:https?://github\.com/|repository )([\w-]+/[\w.-]*\w)")
_SENTENCE = re.compile(r".+?[.!?](?=\s+[A-Z`(]|\s*$)", re.DOTALL)
_ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")


@dataclass(frozen=True)
class Family:
    """A contract and where its parts live.

    Args:
        contract: what every part of it extends.
        package: the package of geopix that holds its parts.
        slot: its place in a configuration.
        title: its heading.
        told: whether its parts are told their widths by the model, first and by position.
    """

    contract: type[Component]
    package: str
    slot: str
    title: str
    told: bool


FAMILIES = {
    "encoder": Family(VisionEncoder, "encoders", "model.net.encoder", "Encoders", told=False),
    "connector": Family(Connector, "connectors", "model.net.connector", "Connectors", told=True),
    "llm": Family(LanguageModel, "llms", "model.net.llm", "Language models", told=False),
    "decoder": Family(MaskDecoder, "decoders", "model.net.decoder", "Mask decoders", told=True),
    "memory": Family(Memory, "memory", "model.net.memory", "Memories", told=True),
}


@dataclass(frozen=True)
class Preset:
    """A file of ``configs/``.

    Args:
        path: the file, from the folder that holds ``configs``.
        header: the comment on top, without its signs.
        target: the class that it sets up, or a function that gives one; None for a file that sets up no part.
    """

    path: Path
    header: str
    target: Any


def parts(name: str) -> list[type[Component]]:
    """The classes of a family inside geopix that can be built, by name."""
    family = FAMILIES[name]
    package = importlib.import_module(f"geopix.{family.package}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    found = {part for part in _below(family.contract) if not inspect.isabstract(part) and part.__module__.startswith(f"{geopix.__name__}.")}
    return sorted(found, key=lambda part: part.__name__)


def _below(kind: type[Component]) -> Iterator[type[Component]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def load(path: str) -> Any:
    """What an import path names; None where its module has no such name.

    Raises:
        ImportError: when there is no such module.
    """
    module, _, name = path.rpartition(".")
    return vars(importlib.import_module(module)).get(name) if module else None


def built(target: Any) -> Any:
    """The class that a class path gives: itself, or the return type of a function."""
    return get_type_hints(target).get("return") if inspect.isfunction(target) else target


def family_of(target: Any) -> str | None:
    """The family of a class or of a function that gives one; None for what is no part."""
    kind = built(target)
    return next((name for name, family in FAMILIES.items() if inspect.isclass(kind) and issubclass(kind, family.contract)), None)


def presets(folder: Path) -> list[Preset]:
    """The files of a folder such as ``configs``, whole configurations first; none where it does not exist."""
    return [read_preset(path) for pattern in ("*.yaml", "*/*.yaml") for path in sorted(folder.glob(pattern))]


def read_preset(path: Path) -> Preset:
    """One file.

    Raises:
        ValueError: when it is no YAML, or names a module that cannot be imported.
    """
    text = path.read_text(encoding="utf-8")
    comment = re.match(r"(?:#[^\n]*\n)*", text)
    header = "\n".join(line[1:].removeprefix(" ").rstrip() for line in comment[0].splitlines()) if comment else ""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        pairs = {key.value: value.value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
        named = pairs.get("class_path")
        return Preset(path, header, load(named) if isinstance(named, str) else None)
    except (ImportError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}. Mend or move it.") from error


def plain(text: str) -> str:
    """A docstring for readers of text: roles are names and double ticks single ones."""
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def sentence(text: str) -> str:
    """The first sentence of a text, on one line; a blank or indented line ends it too."""
    paragraph = " ".join(re.split(r"\n(?:\s*\n| )", plain(text).strip())[0].split())
    first = _SENTENCE.match(paragraph)
    return first[0] if first else paragraph.rstrip(":")


def summary(target: Any) -> str:
    """The first sentence of a docstring."""
    return sentence(inspect.getdoc(target) or "")


def sources(target: Any) -> dict[str, str]:
    """Papers and code that a docstring names before its arguments: address by name, papers first."""
    told = (inspect.getdoc(target) or "").partition("\nArgs:")[0]
    papers = {f"arXiv {number}": f"https://arxiv.org/abs/{number}" for number in _ARXIV.findall(told)}
    return papers | {name: f"https://github.com/{name}" for name in _REPOSITORY.findall(told)}


def file_of(target: Any) -> str:
    """The file that holds a class or function, from the folder above the package where it is one of geopix."""
    path = Path(inspect.getsourcefile(target) or "")
    package = Path(geopix.__file__).parent
    return f"src/geopix/{path.relative_to(package).as_posix()}" if package in path.parents else str(path)


def options(target: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a configuration may set: the parameters without the widths that the model tells."""
    name = family_of(target)
    told = name is not None and FAMILIES[name].told and inspect.isclass(target)
    return [each for each in inspect.signature(target).parameters.values() if not (told and each.kind is each.POSITIONAL_OR_KEYWORD)]


def markdown(folder: Path) -> str:
    """The page ``docs/zoo.md``.

    Args:
        folder: the folder ``configs``.
    """
    files = presets(folder)
    pages = [_INTRODUCTION]
    for name, family in FAMILIES.items():
        rows = [_row(part, name, files) for part in parts(name)]
        pages.append(f"## {family.title}\n\nSlot `{family.slot}`; presets are files of `configs/{name}/`.\n")
        pages.append("| class | what it is | from | presets |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    for title, subfolder in (("Whole configurations", folder), ("Tiny twins of them", folder / "tiny"), ("Data", folder / "data")):
        rows = [f"| `{_shown(each, folder)}` | {_cell(sentence(each.header))} | {_size(each)} |" for each in files if each.path.parent == subfolder]
        if rows:
            pages.append(f"## {title}\n\n| file | what it is | parameters (trained) |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(pages)


_INTRODUCTION = """# The zoo

Every part that geopix holds, and every file of `configs/`. This page is printed by `geopix list --markdown`; a test compares it with the code.

- `geopix list [encoder | connector | llm | decoder | memory | config]` prints the same in the terminal.
- `geopix show NAME` tells all about one part: manual, options with types and defaults, parameters. `NAME` is a class, an import path or a preset's file.
- A part is swapped on the command line: `--model.net.connector configs/connector/resampler.yaml`, or by its import path.
- What each contract asks, and how to write a part: [A part of your own](extend.md).
"""


def _row(part: type[Component], name: str, files: list[Preset]) -> str:
    mine = [f"`{each.path.stem}`" for each in files if each.path.parent.name == name and built(each.target) is part]
    links = [f"[{label}]({address})" for label, address in sources(part).items()]
    return f"| `{part.__name__}`<br>`{part.__module__}` | {_cell(summary(part))} | {', '.join(links)} | {', '.join(mine)} |"


def _size(preset: Preset) -> str:
    """The parameters of a whole configuration, where its header says them."""
    told = re.search(r"^Parameters \(trained\): ([\d.]+ [BM] \([\d.]+ [BM]\))", preset.header, re.MULTILINE)
    return told[1] if told else ""


def _shown(preset: Preset, folder: Path) -> str:
    return (folder.name / preset.path.relative_to(folder)).as_posix()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
