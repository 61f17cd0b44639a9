"""What a program of somebody else does with a benchmark: look at its images, read its questions, and hand in a line of answers and masks for each.

Of a test of geopix, which answers all questions, those about masks are handed in with

    python -m benchmarks.baselines.hand_in runs/standard/scenes_standard/samples.jsonl runs/baselines/ours/predictions.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Bool
from torch import Tensor

from geopix.cli import Parser
from geopix.cli_benchmarks import read_benchmarks
from geopix.data.source import Source, collate
from geopix.evaluation.outcome import questions
from geopix.rle import encode_rle
from geopix.types import Sample


@dataclass(frozen=True)
class Asked:
    """A question without its truth.

    Args:
        key: which line of predictions answers it.
        prompts: turn by turn.
        image: which of the images beside it.
    """

    key: str
    prompts: tuple[str, ...]
    image: int


def open_benchmark(name: str, root: Path) -> Source:
    """The images of a benchmark, as ``geopix score`` reads them."""
    (data,) = read_benchmarks([name], Parser(), root=root, size=None, batch=1, workers=0).values()
    source = data.sources["test"]
    assert source is not None
    return source


def asked(source: Source, images: int) -> Iterator[tuple[list[Sample], list[Asked]]]:
    """All questions of the family ``segment``, some images at a time."""
    count = source.count or 0
    for start in range(0, count, images):
        samples = [source.sample(position, truth=True) for position in range(start, min(start + images, count))]
        found = [(number, each) for number, sample in enumerate(samples) if sample.dialogues for each in questions(collate([sample]))]
        yield samples, [Asked(each.key, each.prompts, number) for number, each in found if each.task.startswith("segment/")]


def line(question: Asked, answers: Sequence[str], masks: Iterable[Bool[Tensor, "h w"]]) -> str:
    """A line of predictions; masks are at the image's own size, empty where the program refuses."""
    return json.dumps({"key": question.key, "answers": list(answers), "masks": [encode_rle(mask) for mask in masks]}) + "\n"


def write(path: Path, lines: Iterable[str], benchmark: str) -> None:
    """A file of predictions, and the command that scores it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}; next: geopix score {path} --benchmark {benchmark} --family segment")


def main(words: Sequence[str] | None = None) -> None:
    """Take the questions of the family ``segment`` out of a test's samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--benchmark", default="scenes_standard", help="that the test was about")
    said = parser.parse_args(words)
    lines = said.samples.read_text(encoding="utf-8").splitlines(keepends=True)
    write(said.out, (each for each in lines if json.loads(each)["task"].startswith("segment/")), said.benchmark)


if __name__ == "__main__":
    main()
