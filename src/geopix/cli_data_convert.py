"""``geopix data convert``: a public data set in its own layout to records, and the list of those that there are."""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
import sys
from argparse import RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from jsonargparse import ArgumentParser, DefaultHelpFormatter

import geopix.data.sources
from geopix.data.records import write_records
from geopix.data.sources.public import convert
from geopix.data.sources.reader import Reader

LOG = logging.getLogger(__name__)

USAGE = "usage: geopix data convert [NAME --root FOLDER --out FILE [options of NAME]]\n\nThe public data sets that are read, each by the name of its reader:\n"


def main(args: Sequence[str]) -> int:
    """Converts a set, or lists those that there are.

    Raises:
        FileNotFoundError, ValueError: as the reader and :func:`geopix.data.sources.public.convert` do.
    """
    found = readers()
    if not args or args[0] in ("--help", "-h"):
        print(USAGE + "".join(f"\n{_described(reader)}" for reader in found), end="")
        return 0
    reader = _chosen(args[0], found)
    if reader is None:
        near = get_close_matches(args[0].lower(), {name for one in found for name in _names(one)}, 3, 0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        print(f"geopix: no reader is called {args[0]!r}.{hint} geopix data convert lists all.", file=sys.stderr)
        return 2
    logging.basicConfig(format="geopix: %(message)s")
    parser = ArgumentParser(f"geopix data convert {reader.__name__}", description=_described(reader), formatter_class=_Formatter)
    parser.add_class_arguments(reader)
    parser.add_argument("--out", type=Path, required=True, help="the JSONL to write")
    said = parser.parse_args(list(args[1:]))
    out = Path(said.pop("out"))
    made = reader(**parser.instantiate_classes(said).as_dict())
    if not made.root.is_dir():
        raise FileNotFoundError(f"the folder {made.root} of {made.about.name} does not exist. Give its place as --root.")
    report = convert(made, out)
    quarantine = out.with_name(f"{out.stem}.quarantine.jsonl")
    write_records(quarantine, report.quarantine)
    with out.open("rb") as file:
        print(f"{out}: {sum(1 for _ in file)} records of {made.about.name}{f', split {made.split}' if made.split else ''}; {made.about.licence}")
    kinds = Counter(entry["kind"] for entry in report.quarantine)
    for kind, count in sorted(report.counts.items()):
        print(f"  {kind}: {count}{' (left out)' if kind in kinds else ''}")
    if report.quarantine:
        print(f"{quarantine}: {len(report.quarantine)} entries that were left out, with what and why")
    return 0


class _Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines about a set as they are."""


def readers() -> list[type[Reader]]:
    """Every reader of :mod:`geopix.data.sources`, by name."""
    for module in pkgutil.iter_modules(geopix.data.sources.__path__):
        try:
            importlib.import_module(f"{geopix.data.sources.__name__}.{module.name}")
        except ModuleNotFoundError as error:
            LOG.warning("the readers of %s are left out: they need the package %s, which comes with the extra geopix[data].", module.name, error.name)
    return sorted(_below(Reader), key=lambda reader: reader.__name__.lower())


def _below(reader: type) -> Iterator[type[Reader]]:
    children: Sequence[type[Reader]] = reader.__subclasses__()
    for one in children:
        if not inspect.isabstract(one):
            yield one
        yield from _below(one)


def _names(reader: type[Reader]) -> set[str]:
    return {reader.__name__.lower(), reader.about.name.lower(), reader.__module__.rpartition(".")[2]}


def _chosen(name: str, found: Sequence[type[Reader]]) -> type[Reader] | None:
    """By the class's or the set's own name, or by its module's where that holds one reader alone."""
    exact = [reader for reader in found if name.lower() in (reader.__name__.lower(), reader.about.name.lower())]
    in_module = [reader for reader in found if name.lower() == reader.__module__.rpartition(".")[2]]
    return exact[0] if len(exact) == 1 else in_module[0] if len(in_module) == 1 else None


def _described(reader: type[Reader]) -> str:
    about = reader.about
    splits = ", ".join(f"{name} {count}" for name, count in about.splits.items()) or "none published"
    rows = [("publication", about.publication), ("licence", about.licence), (f"splits ({about.counted})", splits), ("scored by", about.protocol)]
    rows += [("uncertain", sentence) for sentence in about.uncertain]
    return f"{reader.__name__}: {about.name}\n" + "".join(f"  {name + ':':<20}{text}\n" for name, text in rows)
