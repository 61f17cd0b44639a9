"""``geopix data convert``: a public data set in its own layout to records, and the list of those that there are."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from geopix.data.records import write_records
from geopix.data.sources.overview import described, made_by, options_of, reader_named, readers
from geopix.data.sources.public import convert

USAGE = "usage: geopix data convert [NAME --root FOLDER --out FILE [options of NAME]]\n\nThe public data sets that are read, each by the name of its reader:\n"


def main(args: Sequence[str]) -> int:
    """Converts a set, or lists those that there are.

    Raises:
        FileNotFoundError, ValueError: as the reader and :func:`geopix.data.sources.public.convert` do.
    """
    if not args or args[0] in ("--help", "-h"):
        print(USAGE + "".join(f"\n{described(reader)}" for reader in readers()), end="")
        return 0
    try:
        reader = reader_named(args[0])
    except LookupError as error:
        print(f"geopix: {error.args[0]}", file=sys.stderr)
        return 2
    logging.basicConfig(format="geopix: %(message)s")
    parser = options_of(reader, f"geopix data convert {reader.__name__}")
    parser.add_argument("--out", type=Path, required=True, help="the JSONL to write")
    said = parser.parse_args(list(args[1:]))
    out = Path(said.out)
    made = made_by(reader, parser, said)
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
