"""What went wrong, said once: what, where, what was found, what is accepted, and the next step."""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from geopix.checkpoint import CheckpointError
from geopix.cli_places import Places, parse_part
from geopix.contracts import Connector, MaskDecoder, Memory

_LONGEST = 14
_FOLDERS = {"VisionEncoder": "encoder", "Connector": "connector", "LanguageModel": "llm", "MaskDecoder": "decoder", "Memory": "memory", "Source": "data"}


class ConfigError(ValueError):
    """A command line or file that cannot be read as asked, already told in full."""


@dataclass
class Told:
    """One message. Empty lines of it are left out."""

    what: str
    where: str = ""
    found: str = ""
    expected: str = ""
    near: str = ""
    next: str = ""
    more: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = [("where", self.where), ("found", self.found), ("expected", self.expected), ("did you mean", self.near), ("next", self.next)]
        width = 14 if self.near else 10
        lines = [self.what, *(f"  {label:<{width}}{text}" for label, text in rows if text)]
        lines[1:1] = [f"  {line}" for line in self.more]
        return "\n".join(line[:300] for line in lines[:_LONGEST])


def explain(parser: ArgumentParser, message: str, args: Sequence[str]) -> str:
    """A parser's complaint in words for the user."""
    key, _, rest = message.partition(":\n") if message.startswith('Parser key "') else ("", "", message)
    key = key.partition('"')[2].rstrip('"')
    if match := re.match(r'Parser key "([\w.+]+)": (.*)', message, re.S):
        key, rest = match[1], match[2]
    places = Places(args)
    if match := re.search(r"Config file loop detected: .*?([^\s>]+)\s*$", rest, re.M):
        places.add(Path(match[1]))
        rest = _inline(key, Path(match[1])) or rest
    for tell in (_option, _kind, _import, _file, _unrecognized, _required, _choice, _yaml, _value):
        told = tell(parser, key, rest, places)
        if told is not None:
            return str(told)
    lines = [line.strip() for line in rest.splitlines() if line.strip()]
    return str(Told(lines[0] if lines else "the command cannot be read", key, more=lines[1:10]))


def _inline(key: str, path: Path) -> str:
    """The real complaint about a part file, which the parser hides when the part is required: the file's content is read on its own."""
    try:
        parse_part(key, path)
    except ArgumentError as error:
        return str(error)
    return ""


def _option(parser: ArgumentParser, key: str, rest: str, places: Places) -> Told | None:
    match = re.search(r"Option '([\w.]+)' is not accepted", rest)
    if match is None:
        return None
    name = match[1]
    before = re.findall(r"class_path'?[ =:]+'([\w.]+)'", rest[: match.start()])
    after = re.findall(r"class_path'?[ =:]+'([\w.]+)'", rest[match.end() :])
    part = _load((before[-1:] or after[:1] or [""])[0])
    if part is None:
        return Told(f'unknown option "{name}"', places.where(key, name), near=_near(name, _dests(parser)), next="list all options with --help")
    accepted = _accepted(part)
    return Told(
        f'unknown option "{name}" for {part.__name__}',
        places.where(f"{key}.{name}" if key else name, name),
        expected=_signature(accepted),
        near=_near(name, accepted),
        next=f"geopix fit --{key}.help {part.__module__}.{part.__qualname__}",
    )


def _kind(parser: ArgumentParser, key: str, rest: str, places: Places) -> Told | None:
    match = re.search(r"(?:Expected|Import path) '?([\w.]+)'? (?:to be|does not correspond to) a subclass of <?(?:class )?'?([\w.]+)'?", rest)
    if match is None:
        return None
    wanted = match[2].rsplit(".", 1)[-1]
    folder = _FOLDERS.get(wanted, "")
    return Told(
        f"{key} expects a {wanted}; {match[1].rsplit('.', 1)[-1]} is not one",
        places.where(key, match[1]),
        found=match[1],
        expected=f"a class that extends geopix's {wanted}",
        next=f"take one of configs/{folder}/, or a class_path of that kind" if folder else "give the class_path of such a class",
    )


def _import(parser: ArgumentParser, key: str, rest: str, places: Places) -> Told | None:
    match = re.search(r"Expected a path but (\S+) either not", rest) or re.search(r"Unexpected import path format: (\S+)", rest)
    if match is None and re.search(r"No module named|has no attribute|Problem with given class_path", rest):
        match = re.search(r"class_path'?[ =:]+'([\w.]+)'", rest) or re.search(r"Got value: ([\w.]+)", rest)
    if match is None:
        return None
    name = match[1].rstrip(".,")
    if "/" in name or name.endswith((".yaml", ".yml", ".json")):
        return Told(f"{key} names a file that does not exist", places.where(key, name), found=name, near=_near_file(name))
    return _why_not_imported(key, name, places)


def _why_not_imported(key: str, name: str, places: Places) -> Told | None:
    """The import done once more, to say at which step it fails and with whose error."""
    module_name, _, attribute = name.rpartition(".")
    where = places.where(key, name)
    if not module_name:
        return Told(f'"{name}" is no class path', where, expected="module.Class, such as geopix.connectors.mlp.MLPConnector, or a YAML file")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            searched = ", ".join(str(folder) for folder in places.folders)
            return Told(f'no module named "{error.name}"', where, found=name, expected=f"an installed module, or a file in {searched}", near=_near_module(name))
        return _failed(module_name, error, where)
    except Exception as error:
        return _failed(module_name, error, where)
    classes = [each for each, value in vars(module).items() if inspect.isclass(value) or inspect.isfunction(value)]
    if attribute in vars(module):
        return None
    return Told(f'module {module_name} has no "{attribute}"', where, found=name, near=_near(attribute, classes), expected=", ".join(_own(module, classes)[:12]))


def _failed(module: str, error: BaseException, where: str) -> Told:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    at = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else module
    return Told(f"module {module} was found, but importing it fails", where, found=f"{type(error).__name__}: {error}", expected="", next=f"mend {at}")


def _file(parser: ArgumentParser, key: str, rest: str, places: Places) -> Told | None:
    match = re.search(r"File does not exist: '([^']+)'", rest) or re.search(r"[Pp]ath (?:is )?not (?:readable|a file): '?([^'\s]+)", rest)
    if match is None:
        return None
    option = "--config" if key in ("config", "") else key
    return Told("a configuration file does not exist", option, found=match[1], near=_near_file(match[1]), next="geopix --help shows a first command")


def _unrecognized(parser: ArgumentParser, key: str, rest: str, places: Places) -> Told | None:
    match = re.search(r"unrecognized arguments: (\S+)", rest) or re.search(r"does not accept option '([\w.]+)'", rest)
    if match is None:
        return None
    name = match[1].lstrip("-").partition("=")[0]
    where = places.where(name, name.rsplit(".", 1)[-1])
    if match[1].startswith("-") or f"--{name}" in where:
        fix = "options are written in full; list them with --help"
        return Told(f'unknown option "--{name}"', "command line", near=_near(name, _dests(parser), "--"), next=fix)
    return Told(f'unknown option "{name}"', where, near=_near(name, _dests(parser)), next="list all options with --help")


def _required(parser: ArgumentParser, key: str, rest: str, places: Places) -> Told | None:
    match = re.search(r"(?:following arguments are required|[Rr]equired.*?): (.+)", rest) or re.search(r'Key "([\w.]+)" is required', rest)
    if match is None:
        return None
    keys = [re.sub(r"^(fit|validate|test|predict)\.", "", each.strip(" \"'.")) for each in match[1].split(",")]
    return Told(
        f"{len(keys)} required option{'s are' if len(keys) > 1 else ' is'} missing",
        found=places.named or "no --config",
        expected=", ".join(keys),
        next="start from a whole configuration: --config configs/quickstart.yaml",
    )


def _choice(parser: ArgumentParser, key: str, rest: str, places: Places) -> Told | None:
    match = re.search(r"invalid choice: '?([^'\s]+)'? \(choose from (.+)\)", rest)
    if match is None:
        return None
    choices = [each.strip(" '") for each in match[2].split(",")] + (
        ["sweep", "compare", "score", "list", "show", "config", "data"] if "subcommand" in rest else []
    )
    what = f'unknown verb "{match[1]}"' if "subcommand" in rest else f'{key} cannot be "{match[1]}"'
    return Told(what, expected=", ".join(choices), near=_near(match[1], choices), next="geopix --help")


def _yaml(parser: ArgumentParser, key: str, rest: str, places: Places) -> Told | None:
    if "Problems parsing config" not in rest and "while parsing" not in rest:
        return None
    lines = [line.strip() for line in rest.replace("Problems parsing config:", "").splitlines() if line.strip()]
    return Told("a configuration file is no valid YAML", places.named, more=lines[:5], next="check brackets, quotes and indentation near that line")


def _value(parser: ArgumentParser, key: str, rest: str, places: Places) -> Told | None:
    key, rest = _innermost(key, rest)
    wanted = re.findall(r"Expected an? <class '([\w.]+)'>", rest) + re.findall(r"Expected one of ([^\n]+)", rest)
    choices = [each.strip(" '\"") for listed in re.findall(r"Expected an? typing\.Literal\[(.+?)\]", rest) for each in listed.split(",")]
    given = next(filter(None, (re.search(rf"{verb} value: (.+?)(?:\. Got value: .*)?$", rest, re.M) for verb in ("Given", "Got"))), None)
    if not key or not (wanted or choices or given):
        return None
    where, found = places.where(key, key.rsplit(".", 1)[-1]), given[1] if given else ""
    if option := re.match(r"NestedArg\(key='([\w.]+)'", found):
        what = f'{key} has no option "{option[1]}", for no part is chosen there'
        return Told(what, where, next=f"choose the part first: --{key} CLASS, or the path of its YAML file")
    kinds = ["null" if each == "NoneType" else each for each in dict.fromkeys(wanted)]
    if choices:
        return Told(f'{key} cannot be "{found}"', where, expected=", ".join(dict.fromkeys([*choices, *kinds])), near=_near(found, choices))
    noise = re.compile(r"Expected a|Given value|Subtypes|Union|Errors:|Got value")
    others = [line.strip(" -") for line in rest.splitlines() if line.strip() and not noise.search(line)]
    return Told(f"{key} has a value of another type", where, found=found, expected=" or ".join(kinds), more=[] if kinds else others[:6])


def _innermost(key: str, rest: str) -> tuple[str, str]:
    """The option of a part whose value does not fit, in full, and the complaint about it alone; what was given where no single option is named."""
    nested = list(re.finditer(r'^( *)(?:- )?(?:Type <class .+?> expects a function or a callable class: )?Parser key "([\w.+]+)":', rest, re.M))
    depths = [len(match[1]) for match in nested]
    if not key or not nested or depths != sorted(set(depths)):
        return key, rest
    told = takewhile(lambda line: not line.strip() or len(line) - len(line.lstrip()) > depths[-1], rest[nested[-1].end() :].splitlines())
    return ".".join([key, *(match[2] for match in nested)]), "\n".join(told)


def _load(name: str) -> Any:
    """A class or function by its path; None where it cannot be imported."""
    module, _, attribute = name.rpartition(".")
    try:
        return vars(importlib.import_module(module)).get(attribute) if module else None
    except ImportError:
        return None


def _accepted(part: Any) -> dict[str, inspect.Parameter]:
    """Options of a part: its parameters, without the widths that a factory is told by the model."""
    glue = inspect.isclass(part) and issubclass(part, Connector | MaskDecoder | Memory)
    parameters = inspect.signature(part).parameters
    return {name: each for name, each in parameters.items() if not (glue and each.kind is each.POSITIONAL_OR_KEYWORD)}


def _signature(accepted: dict[str, inspect.Parameter]) -> str:
    if len(accepted) > 8:
        return ", ".join(accepted)
    return ", ".join(re.sub("['\"]|typing\\.", "", str(each)) for each in accepted.values())


def _own(module: Any, classes: list[str]) -> list[str]:
    return [name for name in classes if vars(module)[name].__module__ == module.__name__ and not name.startswith("_")]


def _dests(parser: ArgumentParser) -> list[str]:
    """Every option that a parser declares, in full."""
    return sorted(action.dest for action in parser._actions)


def _near(name: str, names: Iterable[str], prefix: str = "") -> str:
    pool = list(names)
    tails = {each.rsplit(".", 1)[-1]: each for each in pool}
    begun = [each for each in pool if each.startswith(name)]
    found = begun[:1] or get_close_matches(name, pool, 1, 0.6) or [tails[each] for each in get_close_matches(name.rsplit(".", 1)[-1], list(tails), 1, 0.6)]
    return prefix + found[0] if found else ""


def _near_file(name: str) -> str:
    path = Path(name)
    around = [str(each) for each in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    found = get_close_matches(str(path), around, 1, 0.5)
    return found[0] if found else ""


def _near_module(name: str) -> str:
    """A module of geopix with that class, where only the folder was wrong."""
    package = Path(__file__).parent
    last = name.rsplit(".", 1)[-1]
    for path in package.rglob("*.py"):
        if f"class {last}(" in path.read_text(encoding="utf-8"):
            return ".".join(["geopix", *path.relative_to(package).with_suffix("").parts, last])
    return ""


def _module_of(error: BaseException) -> str:
    """The file in which an import failed, as a module's short name."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename).stem


def tell(error: BaseException) -> tuple[int, str] | None:
    """Exit code and message of an error that a user can mend; None for one that is a defect of the program.

    A mistake of a user is what geopix or the trainer raised on purpose: ValueError or FileNotFoundError from their own code.
    """
    if isinstance(error, ConfigError):
        return 2, str(error)
    if isinstance(error, CheckpointError):
        return 5, str(error)
    importing = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "import_object" and "jsonargparse" in frame.filename]
    if importing:
        return 2, str(_failed(_module_of(error), error, ""))
    if not isinstance(error, ValueError | FileNotFoundError):
        return None
    frames = [frame.filename.replace("\\", "/") for frame in traceback.extract_tb(error.__traceback__)]
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        frames = re.findall(r'File "([^"]+)"', text)
        text = re.split(r"\n\w[\w.]*(?:Error|Exception): ", text)[-1].strip()
    if not frames or not re.search(r"/geopix/|/lightning/pytorch/", frames[-1]):
        return None
    if "/lightning/pytorch/" in frames[-1] and len(lines := text.splitlines()) > _LONGEST:  # what geopix says itself is as long as it must be
        text = "\n".join([*lines[:_LONGEST], f"  ... and {len(lines) - _LONGEST} more lines; GEOPIX_TRACE=1 shows all"])
    return 3 if "/geopix/data/" in frames[-1] else 2, text
