"""All readers of public formats, and what is known about their sets as a page of the documentation.

python -m geopix.data.sources.overview
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

import geopix.data.sources
from geopix.data.sources.reader import Reader


def readers() -> list[type[Reader]]:
    """The readers of this package, by the name of their set."""
    for module in pkgutil.iter_modules(geopix.data.sources.__path__):
        importlib.import_module(f"geopix.data.sources.{module.name}")
    own = [reader for reader in Reader.__subclasses__() if reader.__module__.startswith("geopix.data.sources.")]
    return sorted(own, key=lambda reader: reader.about.name.lower())


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
