"""``geopix data build``: the command line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from inspect import signature
from pathlib import Path

from geopix.data.build.compose import FAMILIES, Choices
from geopix.data.build.draw import draw_scenes
from geopix.data.build.measure import Limits
from geopix.data.build.rewrite import Rewriter
from geopix.data.build.shards import clear
from geopix.data.build.work import run
from geopix.data.sources.overview import made_by, options_of, reader_named
from geopix.data.sources.public import converted
from geopix.data.sources.reader import Reader

DATA_ERROR = 3
"""Exit code where the input is not what it should be."""
SHARED = ("root", "split")
"""Options of every reader that the command has of its own."""


def parser(reader: type[Reader] | None = None) -> argparse.ArgumentParser:
    """The options; with those of a reader where one is named."""
    made = argparse.ArgumentParser(
        "geopix data build",
        description="From instance masks to dialogues: a JSONL with instances (or scenes) in, one with proved descriptions out, with a datasheet.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("output", type=Path, help="the JSONL to write; the datasheet stands beside it")
    given = made.add_mutually_exclusive_group(required=True)
    given.add_argument("--records", type=Path, help="the JSONL to read: records with instances (docs/data.md)")
    given.add_argument("--scenes", choices=("easy", "standard", "hard"), help="draw scenes of this level and read those")
    given.add_argument("--reader", metavar="NAME", help="read a data set in its own layout, by any reader of geopix data convert, and with its options")
    made.add_argument("--root", type=Path, help="folder that the paths in the records start from (their own unless given), or that the reader reads")
    made.add_argument("--count", type=int, default=100, help="scenes to draw")
    made.add_argument("--size", type=int, default=128, help="rows and columns of a scene")
    made.add_argument("--split", help="split of the scenes (train unless given) or of what the reader reads")
    made.add_argument("--seed", type=int, default=0, help="of the scenes and of everything that is said")
    made.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes; the bytes written are the same for any number")
    made.add_argument("--restart", action="store_true", help="begin anew where an interrupted run left parts")
    made.add_argument("--keep", action="store_true", help="keep the dialogues that the records have")
    made.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="kinds of dialogues")
    made.add_argument("--targets", type=int, default=5, help="things that are described in an image at most")
    made.add_argument("--phrasings", type=int, default=2, help="descriptions of each, of different types")
    made.add_argument("--groups", type=int, default=2, help="group questions about an image at most")
    made.add_argument("--absent", type=int, default=2, help="questions for what is not there at most")
    made.add_argument("--min_area", type=int, default=Limits.min_area, help="least pixels of what is asked for alone")
    made.add_argument("--min_side", type=int, default=Limits.min_side, help="least shorter side of its box in pixels")
    made.add_argument("--max_near", type=int, default=Limits.max_near, help="most others of its class nearer than half the root of its own area")
    made.add_argument("--max_overlap", type=float, default=Limits.max_overlap, help="greatest share of its box that another's box covers")
    made.add_argument("--bands", type=int, nargs=3, help="numbers of the bands that are red, green and blue, the first being 1; files of three bands need none")
    made.add_argument("--low", type=float, default=0.0, help="stored value that means 0")
    made.add_argument("--high", type=float, help="stored value that means 1; only 8-bit files do without")
    words = made.add_mutually_exclusive_group()
    words.add_argument("--rewriter", help="folder or hub name of a causal language model that words descriptions anew; each result is proved again")
    words.add_argument("--seeing_rewriter", help="the same with a vision-language model, which is also shown the thing")
    if reader is not None:
        own = made.add_argument_group(f"options of {reader.__name__}", f"geopix data convert {reader.__name__} --help explains them")
        for name in signature(reader).parameters:
            if name not in SHARED:
                own.add_argument(f"--{name}", default=argparse.SUPPRESS)
    return made


def main(args: list[str]) -> int:
    """Runs the command and returns its exit code: 0 done, 2 options, 3 data."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--reader")
    name = first.parse_known_args(args)[0].reader
    try:
        reader = None if name is None else reader_named(name)
    except LookupError as error:
        parser().error(error.args[0])
    options = parser(reader)
    given = options.parse_args(args)
    if min(given.workers, given.count) < 1 or min(given.targets, given.phrasings, given.groups, given.absent, given.seed) < 0:
        options.error("--workers and --count need a number from 1 on; --targets, --phrasings, --groups, --absent and --seed one from 0 on")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    limits = Limits(given.min_area, given.min_side, given.max_near, given.max_overlap)
    choices = Choices(
        given.seed, given.targets, given.phrasings, given.groups, given.absent, tuple(given.families), limits,
        None if given.bands is None else tuple(given.bands), given.low, given.high, given.keep,
    )  # fmt: skip
    try:
        source, root = given.records, given.root
        if reader is not None:
            source, root = converted(_made(reader, given), given.output.parent), None
        if given.scenes is not None:
            source, split = given.output.with_name(f"{given.output.stem}.scenes.jsonl"), given.split or "train"
            draw_scenes(source, level=given.scenes, split=split, count=given.count, size=given.size, seed=given.seed, workers=given.workers)
        sheet = run(
            source, given.output, choices, root=root, workers=given.workers, rewriter=_rewriter(given.rewriter, given.seeing_rewriter),
            rewritten_by=given.rewriter or given.seeing_rewriter, restart=given.restart,
        )  # fmt: skip
        if given.scenes is not None:
            clear(source)
    except (ValueError, FileNotFoundError) as error:
        print(f"geopix: {error}", file=sys.stderr)
        return DATA_ERROR
    totals, left = sheet["totals"], sum(sheet["left out"].values())
    print(f"{totals.get('records', 0)} records with {sum(sheet['task'].values())} dialogues in {given.output}; {left} left out")
    if totals.get("records"):
        return 0
    sheet_path = given.output.with_suffix(".datasheet.md")
    print(f"geopix: nothing can be said about any image, for which masks and classes are needed; {sheet_path} counts why.", file=sys.stderr)
    return DATA_ERROR


def _made(reader: type[Reader], given: argparse.Namespace) -> Reader:
    """The reader with those of the options that are its own, read by their types."""
    parser, said = options_of(reader, "geopix data build"), vars(given)
    words = [f"--{name}={said[name]}" for name in signature(reader).parameters if said.get(name) is not None]
    return made_by(reader, parser, parser.parse_args(words))


def _rewriter(blind: str | None, seeing: str | None) -> Rewriter | None:
    if blind is None and seeing is None:
        return None
    from geopix.data.build.hf import LanguageModelRewriter, VisionLanguageModelRewriter  # loads transformers

    return LanguageModelRewriter(blind) if blind is not None else VisionLanguageModelRewriter(str(seeing))
