"""Reading the files of public data sets as they are found: text in several encodings, JSON, pickles of data alone, pictures under other endings."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from geopix.data.images import describe
from geopix.data.sources.reader import Report

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


def require(root: Path, names: Iterable[str], what: str) -> list[Path]:
    """The files and folders of a layout.

    Raises:
        FileNotFoundError: naming all that are not there, and what is.
    """
    paths = [root / name for name in names]
    if lost := [path for path in paths if not path.exists()]:
        nearest = next((folder for folder in (root, *root.parents) if folder.is_dir()), Path())
        found = sorted(entry.name for entry in nearest.iterdir())[:12]
        raise FileNotFoundError(
            f"{root} is not laid out as {what}: {', '.join(path.relative_to(root).as_posix() for path in lost)} not found. "
            f"{nearest} holds {found}. Give the folder that holds {', '.join(names)} as root."
        )
    return paths


def first_of(root: Path, names: Iterable[str], what: str) -> Path:
    """The first of several names that a file or folder goes by in different releases.

    Raises:
        FileNotFoundError: when there is none of them.
    """
    names = list(names)
    for name in names:
        if (root / name).exists():
            return root / name
    found = sorted(entry.name for entry in root.iterdir())[:12] if root.is_dir() else "no folder at all"
    raise FileNotFoundError(f"{root} is not laid out as {what}: expected one of {names}, found {found}.")


def read_text(path: Path, report: Report) -> str:
    """A text file in UTF-8 or, counted, in the Western encoding of old Windows programs; lines end in ``\\n``.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: when it is no text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    stored = path.read_bytes()
    if not stored.strip() or stored.startswith((b"version https://git-lfs", b"PK\x03\x04")) or re.match(rb"(?i)\s*<(!doctype html|html)", stored):
        raise ValueError(f"{path} cannot be read as text: {describe(path)}.")
    try:
        text = stored.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in stored:
            raise ValueError(f"{path} is no text: {describe(path)}.") from None
        text = stored.decode("cp1252", errors="replace")
        report.note("text that is not UTF-8, read as cp1252")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, report: Report) -> list[str]:
    """The lines of a text file that hold something."""
    return [line.strip() for line in read_text(path, report).split("\n") if line.strip()]


def read_json(path: Path, report: Report, kind: type = list) -> Any:
    """A JSON file whose outermost value is a list or an object, as expected.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: when it is cut off, no JSON, or of another kind.
    """
    try:
        text = read_text(path, report)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {describe(path)}.") from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}. It ends with {text[-30:]!r}; is it cut off?") from error
    if not isinstance(document, kind):
        raise ValueError(f"{path}: expected a JSON {'object' if kind is dict else 'list'}, found a {type(document).__name__}.")
    return document


def read_json_lines(path: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with one per line, each with its number from 1; lines that are none are left out."""
    for number, line in enumerate(read_text(path, report).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            report.leave_out("damaged record", f"{path.name}, line {number}", f"not valid JSON: {error}")
            continue
        if isinstance(entry, dict):
            yield number, entry
        else:
            report.leave_out("damaged record", f"{path.name}, line {number}", f"expected an object, found a {type(entry).__name__}")


_NUMPY = {("reconstruct", "_reconstruct"), ("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer")}
_PLAIN = {"list", "dict", "set", "tuple", "str", "int", "float", "bool", "bytes", "bytearray", "complex", "frozenset"}


class _DataOnly(pickle.Unpickler):
    """Refuses everything but plain values and numpy's arrays: an ordinary unpickler runs whatever a file tells it to."""

    def find_class(self, module: str, name: str) -> Any:
        inner = module.split(".")
        numpy = inner[0] == "numpy" and ((inner[-1], name) in _NUMPY or (module == "numpy" and name in {"dtype", "ndarray"}))
        if numpy or (module in {"builtins", "__builtin__"} and name in _PLAIN) or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data; only plain values and numpy arrays are read")


def read_pickle(path: Path) -> Any:
    """The values of a pickle; one that would run code is refused.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: when it is damaged or holds more than data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        with path.open("rb") as file:
            return _DataOnly(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, ImportError, OverflowError) as error:
        raise ValueError(f"{path} cannot be read as a pickle of data: {error}. {describe(path)}.") from error


def find_picture(folder: Path, name: str, report: Report | None = None) -> Path:
    """The file of a picture that a data set names: as named, or else with another ending or letter case, counted.

    Gives the path as named where there is none, for the message.
    """
    named = folder / name
    if named.is_file():
        return named
    stem = named.with_suffix("") if named.suffix.lower() in SUFFIXES else named
    for suffix in SUFFIXES:
        for written in (suffix, suffix.upper()):
            if (other := stem.with_name(stem.name + written)).is_file():
                if report is not None and named.suffix:
                    report.note("picture found under another ending")
                return other
    return named


def tell_unpaired(folder: Path, stems: Iterable[str], report: Report, what: str) -> None:
    """Leave out, by name, the pictures of a folder that nothing is written about."""
    known = set(stems)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.stem not in known:
            report.leave_out("picture without labels", path.stem, f"there is no {what} for {path.name}")


def grouped(entries: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Entries by a key, in the order in which keys first occur."""
    groups: dict[Any, list[Any]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    return groups
