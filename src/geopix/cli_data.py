"""``geopix data VERB``: looking at records, repairing, dividing and making them.

Imports what a verb needs when it runs, so that its help comes at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

OK, USAGE, DATA = 0, 2, 3

HELP = """usage: geopix data VERB [options]

Records are one JSONL file, one image per line (docs/data.md).

verbs:
  check     everything that is wrong with files of records, in one report; --fix repairs into a new file
  stats     classes, sizes, places, words and tasks as a table, plots and one HTML page
  show      records as pictures: masks in colours, and beside them the words that are learnt
  split     divide into train, val, test: by image, place or class; an image or its near copy is never divided
  convert   a public data set in its own layout to records; without a name: which there are
  build     dialogues from instance masks: descriptions proved to select their object, questions, captions
  pack      records with their files as shards, to stream from a folder or an object store
  fetch     download what authors publish on the hub; without a name: what there is, and where to get the rest

geopix data VERB --help: the options of a verb.
exit codes: 0 done, 2 options, 3 problems in the data.
"""


def main(args: Sequence[str]) -> int:
    """Runs one verb.

    Returns:
        0 done, 2 options, 3 problems in the data.
    """
    try:
        code = _run(*((args[0], list(args[1:])) if args else ("--help", [])))
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it writes the rest at its end
        return OK
    return code


def _run(verb: str, words: list[str]) -> int:
    if verb in ("--help", "-h", "help"):
        print(HELP, end="")
        return OK
    try:
        if verb == "build":
            from geopix.data.build.command import main as main_build

            return main_build(words)
        if verb == "convert":
            from geopix.cli_data_convert import main as main_convert

            return main_convert(words)
        if verb == "pack":
            from geopix.data.pack import main as main_pack

            return main_pack(words)
        if verb == "fetch":
            from geopix.data.fetch import main as main_fetch

            return main_fetch(words)
        if verb not in VERBS:
            print(f"geopix: data has no verb {verb!r}; it has {', '.join([*VERBS, 'convert', 'build', 'pack', 'fetch'])}.", file=sys.stderr)
            return USAGE
        logging.basicConfig(format="geopix: %(message)s")
        return VERBS[verb][1](parser(verb).parse_args(words))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    except ModuleNotFoundError as error:
        print(f"geopix: data {verb} needs the package {error.name}; install the extra: geopix[data].", file=sys.stderr)
        return USAGE
    except (FileNotFoundError, ValueError) as error:
        print(f"geopix: {error}", file=sys.stderr)
        return DATA


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"geopix: {message}; {self.prog} --help shows the options.\n")


def parser(verb: str) -> argparse.ArgumentParser:
    """The options of check, stats, show or split."""
    made = _Parser(f"geopix data {verb}", description=VERBS[verb][0], allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if verb == "check":
        made.add_argument("files", type=Path, nargs="+", metavar="FILE", help="JSONL files; leaks are looked for between splits of all of them")
        made.add_argument("--fix", type=Path, metavar="OUT", help="write a new file with what is right or could be repaired; needs a single FILE")
        made.add_argument(
            "--quarantine", type=Path, metavar="FILE", help="records with problems, with line, key, what and why (with --fix: OUT.quarantine.jsonl)"
        )
        made.add_argument("--vocabulary", type=Path, metavar="FILE", help="class names that are allowed: a JSON list, or one a line")
        made.add_argument("--limit", type=int, metavar="N", help="read the first N records only")
        made.add_argument("--json", action="store_true", help="print the report as JSON")
    else:
        made.add_argument("file", type=Path, metavar="FILE", help="a JSONL file")
    if verb == "stats":
        made.add_argument("--out", type=Path, metavar="FOLDER", help="also write plots (PNG), numbers (JSON) and a page (HTML) there")
        made.add_argument("--limit", type=int, metavar="N", help="read the first N records only")
    if verb == "show":
        made.add_argument("--out", type=Path, metavar="FOLDER", default=Path("runs/show"), help="where the pictures are written")
        made.add_argument("--count", type=int, metavar="N", default=8, help="records, spread over the file")
        made.add_argument("--key", metavar="KEY", help="only the record of this key")
        made.add_argument("--dialogues", type=int, metavar="N", default=6, help="dialogues of each record at most")
    if verb == "split":
        made.add_argument("--shares", nargs="+", required=True, metavar="NAME=SHARE", help="such as train=0.8 val=0.1 test=0.1")
        made.add_argument("--by", choices=("image", "place", "class"), default="image", help="what decides")
        made.add_argument("--seed", type=int, default=0, help="of the draw")
        made.add_argument("--cell", type=float, default=1000.0, metavar="METRES", help="by place: side of the grid's cells")
        made.add_argument("--scene", type=_scene, metavar="REGEX", help="by place, for images without georeference: the first group names a tile's scene")
        made.add_argument("--out", type=Path, required=True, metavar="FILE", help="the JSONL to write")
    if verb != "show":
        made.add_argument("--workers", type=int, metavar="N", help="processes (as many as cores for a long file)")
    return made


def check(said: argparse.Namespace) -> int:
    """``geopix data check``."""
    from geopix.data.quality.fix import fix_file, quarantine_file
    from geopix.data.quality.survey import survey

    if len(said.files) > 1 and (said.fix or said.quarantine):
        raise _usage("--fix and --quarantine take a single FILE")
    if said.limit is not None and (said.fix or said.quarantine):
        raise _usage("--limit leaves records unread, so nothing can be repaired or set aside with it")
    vocabulary = None if said.vocabulary is None else _vocabulary(said.vocabulary)
    found = survey(said.files, vocabulary=vocabulary, limit=said.limit, workers=said.workers)
    bad = any(findings.problems for findings in found)
    print(
        json.dumps([findings.as_json() for findings in found], ensure_ascii=False, indent=1)
        if said.json
        else "\n".join(findings.as_text() for findings in found)
    )
    told = sys.stderr if said.json else sys.stdout
    if said.fix:
        quarantine = said.quarantine or said.fix.with_name(f"{said.fix.stem}.quarantine.jsonl")
        fixed = fix_file(said.files[0], found[0].problems, said.fix, quarantine, vocabulary=vocabulary)
        print(f"{said.fix}: {fixed.written} records; repaired: {_listed(fixed.repairs)}", file=told)
        print(f"{quarantine}: {sum(fixed.quarantined.values())} records; {_listed(fixed.quarantined)}", file=told)
    elif said.quarantine:
        print(f"{said.quarantine}: {quarantine_file(said.files[0], found[0].problems, said.quarantine)} records", file=told)
    return DATA if bad else OK


def stats(said: argparse.Namespace) -> int:
    """``geopix data stats``."""
    from geopix.data.quality.stats import measure_file, table

    found = measure_file(said.file, limit=said.limit, workers=said.workers)
    print(table(found))
    for trouble in found.troubles[:5]:
        print(f"geopix: not measured: {trouble}", file=sys.stderr)
    if said.out is not None:
        from geopix.cli_data_pictures import write_page

        print(f"\nwritten: {write_page(found, said.file.name, said.out)}")
    return DATA if found.troubles or not found.records else OK


def show(said: argparse.Namespace) -> int:
    """``geopix data show``."""
    from geopix.cli_data_pictures import show_records

    paths, troubles = show_records(said.file, said.out, count=said.count, key=said.key, dialogues=said.dialogues)
    for path in paths:
        print(path)
    for trouble in troubles:
        print(f"geopix: {trouble}", file=sys.stderr)
    return DATA if troubles or not paths else OK


def split(said: argparse.Namespace) -> int:
    """``geopix data split``."""
    from geopix.data.quality.split import SCENE, split_records, write_split

    shares = _shares(said.shares)
    if said.out.resolve() == said.file.resolve():
        raise _usage("--out must be another file than FILE; nothing is changed in place")
    names = split_records(said.file, shares, by=said.by, seed=said.seed, cell=said.cell, scene=said.scene or SCENE, workers=said.workers)
    counts = write_split(said.file, names, said.out)
    classes = sorted({name for count in counts.values() for name in count if name})
    print(f"{'':<24}" + "".join(f"{name:>12}" for name in shares))
    for row in ["", *classes]:
        print(f"{row[:23] or 'records':<24}" + "".join(f"{counts[name][row] if name in counts else 0:>12}" for name in shares))
    print(f"written: {said.out}")
    if empty := [name for name in shares if name not in counts]:
        print(f"geopix: no record came to {', '.join(empty)}: groups that must stay together are larger than its share.", file=sys.stderr)
    return DATA if empty else OK


VERBS: dict[str, tuple[str, Callable[[argparse.Namespace], int]]] = {
    "check": ("Everything that is wrong with files of records, in one report. Exit code 3 when something is.", check),
    "stats": ("What a file of records holds, in numbers.", stats),
    "show": ("Records as pictures: the image with its masks in colours; prompts in bold, and below them the answers, which are what is learnt.", show),
    "split": ("Divide records. Images that are equal or nearly so are never divided; the same seed gives the same splits.", split),
}


def _scene(pattern: str) -> str:
    """A pattern that can name a scene."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{pattern!r} is no regular expression: {error}") from error
    if not groups:
        raise argparse.ArgumentTypeError(f"{pattern!r} has no group; expected one in brackets, such as '^(s_.*)_[0-9]+$': what it matches names the scene")
    return pattern


def _usage(message: str) -> SystemExit:
    print(f"geopix: {message}.", file=sys.stderr)
    return SystemExit(USAGE)


def _vocabulary(path: Path) -> frozenset[str]:
    if not path.is_file():
        raise FileNotFoundError(f"the vocabulary {path} does not exist. Expected a JSON list of class names, or one name a line.")
    text = path.read_text(encoding="utf-8-sig")
    names = json.loads(text) if text.lstrip().startswith("[") else [line.strip() for line in text.splitlines() if line.strip()]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the vocabulary {path}: expected class names, a JSON list of texts or one name a line; found {str(names)[:80]}.")
    return frozenset(names)


def _shares(words: Sequence[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for word in words:
        name, _, share = word.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise _usage(f"a share is NAME=NUMBER, such as train=0.8; found {word!r}") from None
    if len(shares) != len(words) or "" in shares or min(shares.values()) <= 0:
        raise _usage(f"shares need different names and numbers above 0; found {' '.join(words)}")
    return shares


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"
