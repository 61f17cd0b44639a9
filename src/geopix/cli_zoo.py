"""``geopix list | show | config``: what parts there are, what one of them is, and what a command would run."""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from geopix.cli import main as run_verb
from geopix.cli_errors import ConfigError, Told
from geopix.cli_origins import annotated
from geopix.cli_places import slot_type
from geopix.zoo import FAMILIES, Preset, built, family_of, file_of, load, markdown, options, parts, plain, presets, read_preset, sentence, sources, summary

CONFIGS = Path("configs")
CHANNELS, LEVELS, WIDTH = (256, 512, 1024), (256, 256), 4096
"""Example widths, with which parts are counted that are told theirs: maps of an encoder, maps of a decoder for a memory, states of a 7B language model."""

_COLUMNS = 118


def main(args: Sequence[str]) -> int:
    """Run one of the three verbs.

    Returns:
        0, or the exit code of a mistake that was told.
    """
    verb, *words = args
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        if verb == "config":
            return show_config(words)
        print({"list": list_parts, "show": show}[verb](words), end="")
    except ValueError as error:
        print(f"geopix: {error}", file=sys.stderr)
        return 2
    return 0


# ---------------------------------------------------------------- list


def list_parts(words: Sequence[str]) -> str:
    """``geopix list [family] [--markdown]``."""
    families = [*FAMILIES, "config"]
    names = [word for word in words if word != "--markdown"]
    unknown = next((name for name in names if name not in families), None)
    if unknown is not None:
        near = get_close_matches(unknown, families, 1, 0.5)
        raise ConfigError(Told(f'unknown family "{unknown}"', expected=", ".join(families), near=", ".join(near), next="geopix list shows all of them"))
    if "config" in names and not CONFIGS.is_dir():
        raise ConfigError(Told("there is no folder configs here", found=str(Path.cwd()), next="run this where geopix is checked out"))
    if "--markdown" in words:
        return markdown(CONFIGS)
    files = presets(CONFIGS)
    return "\n".join(_configs(files) if name == "config" else _family(name, files) for name in (names or families))


def _family(name: str, files: Sequence[Preset]) -> str:
    family, found = FAMILIES[name], parts(name)
    width, place = (max((len(text) for text in column), default=0) for column in zip(*((part.__name__, part.__module__) for part in found), strict=True))
    lines = [f"{name}: {len(found)} class{'es' if len(found) > 1 else ''} for {family.slot}"]
    for part in found:
        lines.append(f"  {part.__name__:<{width}}  {part.__module__:<{place}}  {summary(part)}")
        mine = ", ".join(each.path.stem for each in files if each.path.parent.name == name and built(each.target) is part)
        if mine:
            lines += textwrap.wrap(f"presets in configs/{name}: {mine}", _COLUMNS, initial_indent=" " * (width + 4), subsequent_indent=" " * (width + 6))
    return "\n".join(lines) + "\n"


def _configs(files: Sequence[Preset]) -> str:
    width = max((len(each.path.as_posix()) for each in files), default=0)
    single = sum(each.path.parent.name in FAMILIES for each in files)
    lines = [f"config: {len(files) - single} configurations, {single} files of one part"]
    return "\n".join([*lines, *(f"  {each.path.as_posix():<{width}}  {sentence(each.header)}" for each in files)]) + "\n"


# ---------------------------------------------------------------- show


def show(words: Sequence[str]) -> str:
    """``geopix show NAME``."""
    if len(words) != 1 or words[0].startswith("-"):
        raise ConfigError(Told("geopix show takes one name", found=" ".join(words), next="geopix show MLPConnector, an import path, or a file of configs/"))
    name = words[0]
    preset = _preset(Path(name)) if Path(name).suffix in (".yaml", ".yml") else None
    target = preset.target if preset else _find(name)
    family = family_of(target)
    if family is None:
        expected = f"a class of one of the families {', '.join(FAMILIES)}"
        more = f"geopix config {name} prints a whole configuration" if preset else "geopix list"
        raise ConfigError(Told(f"{name} is no part", found=str(target) if target else "", expected=expected, next=more))
    count = _count_preset(preset, family) if preset else _count(target, family)
    head = [name, *textwrap.indent(preset.header, "  ").splitlines(), "", f"sets up {_path(target)}"] if preset else [_path(target)]
    return "\n".join([*head, "", textwrap.indent(plain(inspect.getdoc(target) or ""), "  "), "", *_facts(target, family, count, preset)]) + "\n"


def _path(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _facts(target: Any, name: str, count: str, preset: Preset | None) -> Iterator[str]:
    family = FAMILIES[name]
    said, ready = options(target), _presets_of(target, name)
    given = ", ".join(each for each in inspect.signature(target).parameters if each not in {option.name for option in said})
    used = preset.path if preset else ready[0] if ready and any(option.default is option.empty for option in said) else _path(target)
    rows = [
        ("family", f"{name}, slot {family.slot}"),
        ("contract", f"{_path(family.contract)}: {summary(family.contract)}"),
        ("", f"forward{_signature(family.contract.forward)}"),
        ("told", f"{given}: the model tells the widths" if given else ""),
        ("options", "" if said else "none"),
        *(("options" if index == 0 else "", _option(each)) for index, each in enumerate(said)),
        ("parameters", count),
        *(("from" if index == 0 else "", f"{label}: {address}") for index, (label, address) in enumerate(sources(target).items())),
        ("file", file_of(target)),
        *(("presets" if index == 0 else "", each) for index, each in enumerate(ready)),
        ("use", f"geopix fit --config configs/quickstart.yaml --{family.slot} {used}"),
    ]
    for label, text in rows:
        if text:
            yield from textwrap.wrap(text, _COLUMNS + 20, initial_indent=f"{label:<12}", subsequent_indent=" " * 16, break_long_words=False)


def _presets_of(target: Any, name: str) -> list[str]:
    return [each.path.as_posix() for each in presets(CONFIGS) if each.path.parent.name == name and built(each.target) is target]


def _option(parameter: inspect.Parameter) -> str:
    """A parameter with its annotation as it is written."""
    kind = parameter.annotation
    written = kind if isinstance(kind, str) else inspect.formatannotation(kind)
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{parameter.name}: {written}{default}"


def _signature(function: Callable[..., Any]) -> str:
    """A method's signature without ``self``."""
    signature, shown = inspect.signature(function), []
    for name, each in signature.parameters.items():
        if each.kind is each.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        shown += [_option(each)] if name != "self" else []
    return f"({', '.join(shown)}) -> {signature.return_annotation}"


def _preset(path: Path) -> Preset:
    if not path.is_file():
        near = get_close_matches(path.as_posix(), [each.as_posix() for each in CONFIGS.glob("**/*.yaml")], 3, 0.5)
        raise ConfigError(Told("a configuration file does not exist", found=str(path), near=", ".join(near), next="geopix list config"))
    return read_preset(path)


def _find(name: str) -> Any:
    """A part by its class name, or anything by its import path."""
    if "." in name:
        try:
            found = load(name)
        except Exception as error:
            raise ConfigError(Told(f"{name} cannot be imported", found=f"{type(error).__name__}: {error}", near=_near(name), next="geopix list")) from error
        if found is not None:
            return found
    named = [part for family in FAMILIES for part in parts(family) if part.__name__.lower() == name.lower()]
    if len(named) != 1:
        several = ", ".join(_path(part) for part in named)
        raise ConfigError(Told(f'no part is named "{name}"', found=several, near=_near(name), next="geopix list shows all; a part of your own: module.Class"))
    return named[0]


def _near(name: str) -> str:
    names = {part.__name__.lower(): part.__name__ for family in FAMILIES for part in parts(family)}
    return ", ".join(names[each] for each in get_close_matches(name.rsplit(".", 1)[-1].lower(), list(names), 3, 0.4))


# ---------------------------------------------------------------- how many parameters


def _count(target: Any, name: str) -> str:
    needed = [each.name for each in options(target) if each.default is each.empty]
    if needed:
        given = _presets_of(target, name)
        return f"depend on {', '.join(needed)}, which has no default" + (f": geopix show {given[0]}" if given else "")
    return _built(target, name)


def _count_preset(preset: Preset, name: str) -> str:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=slot_type(FAMILIES[name].slot), enable_path=True)
    try:
        said = parser.parse_args(["--part", str(preset.path)])
    except ArgumentError as error:
        raise ConfigError(Told(f"{preset.path} does not fit {FAMILIES[name].slot}", more=str(error).splitlines()[:6])) from error
    factory = (lambda: parser.instantiate_classes(said).part) if not FAMILIES[name].told else parser.instantiate_classes(said).part
    return _built(factory, name)


def _built(factory: Callable[..., nn.Module], name: str) -> str:
    """Build a part and count. Nothing is downloaded; what is told its widths is built without memory, at example widths."""
    widths = {"connector": (CHANNELS, WIDTH), "decoder": (CHANNELS, WIDTH), "memory": (LEVELS, WIDTH)}.get(name, ())
    try:
        with _offline(), torch.device("meta") if widths else contextlib.nullcontext():
            part = factory(*widths)
    except Exception as error:
        return f"not counted, since it cannot be built here: {(str(error) or type(error).__name__).splitlines()[0]}"
    counts = [sum(each.numel() for each in part.parameters() if each.requires_grad or not trained) for trained in (False, True)]
    for_example = f", for {'maps' if name != 'memory' else 'levels'} of {widths[0]} channels and a language model of width {WIDTH}" if widths else ""
    return f"{_number(counts[0])}, {_number(counts[1]) if counts[1] != counts[0] else 'all'} trained{for_example}"


def _number(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count:,}"


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let nothing be fetched from the hub."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


# ---------------------------------------------------------------- config


def show_config(words: Sequence[str]) -> int:
    """``geopix config FILE ... [options]``: what ``geopix fit`` would run, with the origin of each value."""
    count = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    args = [word for file in words[:count] for word in ("--config", file)] + [word for word in words[count:] if not word.startswith("--print_config")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = run_verb(["fit", *args, "--print_config"])
    if code == 0:
        print(annotated(printed.getvalue(), args), end="")
    return code
