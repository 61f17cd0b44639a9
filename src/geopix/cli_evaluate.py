"""``geopix score`` and ``geopix compare``: predictions of any program by the same rules, and runs side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from geopix import __version__

OK, USAGE, DATA = 0, 2, 3


def main(args: Sequence[str]) -> int:
    """Run ``score`` or ``compare``.

    Returns:
        0 done, 2 options, 3 problems in the data.
    """
    verb, words = args[0], list(args[1:])
    run: Callable[[list[str]], int] = {"score": _score, "compare": _compare}[verb]
    try:
        return run(words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    except (ValueError, FileNotFoundError) as error:
        print(f"geopix: {error}", file=sys.stderr)
        return USAGE if verb == "compare" else DATA


def parser(verb: str) -> argparse.ArgumentParser:
    """The options of ``score`` or ``compare``."""
    return {"score": _score_options, "compare": _compare_options}[verb]()


def _score_options() -> argparse.ArgumentParser:
    about = "Score the masks and answers of any program on a benchmark, by the rules of geopix test."
    parser = argparse.ArgumentParser("geopix score", description=about, allow_abbrev=False)
    parser.add_argument("predictions", type=Path, nargs="?", help="JSONL: key, answers (one text per turn) and masks (COCO RLE at the image's own size)")
    parser.add_argument("--benchmark", required=True, help="a name in benchmarks/, or a file")
    parser.add_argument("--benchmark_root", type=Path, default=Path("data"), help="folder of the data sets (default: data)")
    parser.add_argument("--protocol", default="generate", help="the rule by which masks are compared (default: generate; see docs/evaluation.md)")
    parser.add_argument("--family", nargs="*", default=[], help="score these questions alone: segment, refer, caption, vqa; the result says so")
    parser.add_argument("--output", type=Path, help="folder of the result (default: beside the predictions, with their name)")
    parser.add_argument("--questions", type=Path, help="write every question with its key to this JSONL, and score nothing")
    parser.add_argument("--resamples", type=_positive, default=1000, help="of the bootstrap behind the intervals (default: 1000)")
    parser.add_argument("--pictures", type=int, default=20, help="best and worst pictures in the report (default: 20)")
    parser.add_argument("--java", action="store_true", default=None, help="count METEOR and SPICE, too, where fewer than half of the questions are captions")
    return parser


def _compare_options() -> argparse.ArgumentParser:
    about = "Tests of the same data side by side, with the paired bootstrap of their differences."
    parser = argparse.ArgumentParser("geopix compare", description=about, allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of geopix test or geopix score; differences are to the first")
    parser.add_argument("--seeds", type=int, default=1, help="every so many runs in a row are one model with other seeds: their mean (default: 1)")
    parser.add_argument("--metric", nargs="*", default=[], help="these scores alone, or all that begin so, such as single/")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--resamples", type=_positive, default=1000, help="of the bootstrap (default: 1000)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def _score(words: list[str]) -> int:
    options = _score_options()
    said = options.parse_args(words)

    from geopix.cli import Parser
    from geopix.cli_benchmarks import read_benchmarks
    from geopix.evaluation.folder import Result, write_result
    from geopix.evaluation.foreign import score_predictions, write_questions
    from geopix.evaluation.outcome import FAMILIES
    from geopix.evaluation.protocols import PROTOCOLS

    if said.protocol not in PROTOCOLS:
        raise ValueError(f"there is no protocol {said.protocol!r}; expected one of {', '.join(PROTOCOLS)}.")
    if strange := set(said.family) - set(FAMILIES):
        raise ValueError(f"there is no family {sorted(strange)}; expected {', '.join(FAMILIES)}.")
    (data,) = read_benchmarks([said.benchmark], Parser(), root=said.benchmark_root, size=None, batch=1, workers=0).values()
    source = data.sources["test"]
    assert source is not None
    if said.questions is not None:
        print(f"{said.questions}: {write_questions(said.questions, source, said.family)} questions of {source.title}")
        return OK
    if said.predictions is None:
        options.error("give a file of predictions, or --questions FILE to write what is asked")
    output = said.output or said.predictions.with_suffix("")
    if output.exists() and not output.is_dir():
        raise ValueError(f"the result needs a folder, but {output} is a file; say --output FOLDER.")
    outcomes = score_predictions(said.predictions, source, PROTOCOLS[said.protocol], said.family)
    title = source.title + (f", {' and '.join(said.family)} alone" if said.family else "")
    about = {"command": " ".join(["geopix", *sys.argv[1:]]), "version": __version__, "predictions": str(said.predictions)}
    result = Result(said.protocol, title, about, tuple(outcomes), tuple(source.remarks))
    print(write_result(output, result, source, resamples=said.resamples, pictures=said.pictures, java=said.java))
    return OK


def _compare(words: list[str]) -> int:
    said = _compare_options().parse_args(words)

    from geopix.evaluation.compare import as_markdown, as_text, compare, titles

    rows = [row for row in compare(said.runs, seeds=said.seeds, resamples=said.resamples) if not said.metric or row.name.startswith(tuple(said.metric))]
    if not rows:
        raise ValueError(f"no score begins with {said.metric}.")
    print((as_markdown if said.markdown else as_text)(rows, titles(said.runs, seeds=said.seeds)).rstrip())
    drawn = "images drawn anew" if said.seeds == 1 else f"seeds and images drawn anew (of {said.seeds} seeds the range comes out too narrow)"
    print(f"\nin brackets: 95 % interval of the difference to the first, over {drawn}; marked where it excludes zero")
    return OK
