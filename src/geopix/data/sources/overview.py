"""All readers of public formats: by name, with their options, and what is known about their sets as a page of the documentation.

python -m geopix.data.sources.overview
"""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

import geopix.data.sources
from geopix.data.sources.reader import Reader

LOG = logging.getLogger(__name__)


def readers() -> list[type[Reader]]:
    """The readers of this package, by the name of their set; a module whose package is not installed is told and left out."""
    for module in pkgutil.iter_modules(geopix.data.sources.__path__):
        try:
            importlib.import_module(f"{geopix.data.sources.__name__}.{module.name}")
        except ModuleNotFoundError as error:
            LOG.warning("the readers of %s are left out: they need the package %s, which comes with the extra geopix[data].", module.name, error.name)
    own = [reader for reader in _below(Reader) if reader.__module__.startswith(f"{geopix.data.sources.__name__}.")]
    return sorted(own, key=lambda reader: reader.about.name.lower())


def _below(reader: type) -> Iterator[type[Reader]]:
    children: Sequence[type[Reader]] = reader.__subclasses__()
    for one in children:
        if not inspect.isabstract(one):
            yield one
        yield from _below(one)


def reader_named(name: str) -> type[Reader]:
    """A reader by its own or its set's name, or by its module's where that holds one reader alone; letter case does not matter.

    Raises:
        LookupError: when none is called so, naming those that are nearly.
    """
    found = readers()
    exact = [reader for reader in found if name.lower() in (reader.__name__.lower(), reader.about.name.lower())]
    in_module = [reader for reader in found if name.lower() == _module(reader)]
    for chosen in (exact, in_module):
        if len(chosen) == 1:
            return chosen[0]
    names = {called for reader in found for called in (reader.__name__.lower(), reader.about.name.lower(), _module(reader))}
    near = get_close_matches(name.lower(), names, 3, 0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise LookupError(f"no reader is called {name!r}.{hint} geopix data convert lists all.")


def _module(reader: type[Reader]) -> str:
    return reader.__module__.rpartition(".")[2]


class _Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines about a set as they are."""


def options_of(reader: type[Reader], command: str) -> ArgumentParser:
    """A parser of the arguments of a reader's constructor; :func:`made_by` makes the reader of what it gives."""
    parser = ArgumentParser(command, description=described(reader), allow_abbrev=False, formatter_class=_Formatter)
    parser.add_class_arguments(reader)
    return parser


def made_by(reader: type[Reader], parser: ArgumentParser, said: Any) -> Reader:
    """The reader with the arguments that were said.

    Raises:
        FileNotFoundError: when its root is no folder.
    """
    given = parser.instantiate_classes(said).as_dict()
    made = reader(**{name: given[name] for name in inspect.signature(reader).parameters})
    if not made.root.is_dir():
        raise FileNotFoundError(f"the folder {made.root} of {made.about.name} does not exist. Give its place as --root.")
    return made


def described(reader: type[Reader]) -> str:
    """What is known about a set, in lines of a terminal."""
    about = reader.about
    splits = ", ".join(f"{name} {count}" for name, count in about.splits.items()) or "none published"
    rows = [("publication", about.publication), ("licence", about.licence), (f"splits ({about.counted})", splits), ("scored by", about.protocol)]
    rows += [("uncertain", sentence) for sentence in about.uncertain]
    return f"{reader.__name__}: {about.name}\n" + "".join(f"  {name + ':':<20}{text}\n" for name, text in rows)


def markdown(found: Iterable[type[Reader]]) -> str:
    """A table of sets with licence, published counts and protocol, then what is uncertain about each."""
    lines = ["| set, reader | licence | published counts | how it is scored |", "|---|---|---|---|"]
    doubts = []
    for reader in found:
        about = reader.about
        module = reader.__module__.removeprefix("geopix.data.sources.")
        counts = ", ".join(f"{split} {count:,}" for split, count in about.splits.items())
        counted = f"{counts} {'expressions' if about.counted == 'dialogues' else 'images'}" if counts else "none per split"
        lines.append(f"| {about.name} ({about.publication}), `{module}.{reader.__name__}` | {about.licence} | {counted} | {about.protocol} |")
        if about.uncertain:
            doubts.append(f"- **{about.name}.** {' '.join(about.uncertain)}")
    return "\n".join([*lines, "", "What could not be confirmed, and what to know before comparing numbers:", "", *doubts, ""])


def main() -> None:
    """Prints the page."""
    print(markdown(readers()), end="")


if __name__ == "__main__":
    main()
