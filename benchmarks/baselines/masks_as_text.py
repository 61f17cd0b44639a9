"""Masks as text: no mask decoder; the language model writes each mask into its answer, as Text4Seg does (docs/baselines.md, docs/decoder_free.md).

Encoder, connector, language model, optimizer and budget are those of configs/standard.yaml. Train, then hand in what the answers describe:

    geopix fit --config configs/standard.yaml --config benchmarks/baselines/masks_as_text.yaml
    python -m benchmarks.baselines.masks_as_text runs/baselines/masks_as_text/checkpoints/last.ckpt
    geopix score runs/baselines/masks_as_text/predictions.jsonl --benchmark scenes_standard --family segment

What the text can say at best, and how long it is, before anything is trained: python -m benchmarks.baselines.masks_as_text --bound
Whether shapes or places are wrong: python -m benchmarks.baselines.masks_as_text --placed runs/baselines/masks_as_text/predictions/samples.jsonl
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from benchmarks.baselines.hand_in import asked, line, open_benchmark, write
from geopix.data.descriptors import read_descriptors, write_descriptors
from geopix.data.frame import to_own_frame
from geopix.data.scenes import Scenes
from geopix.data.source import Source
from geopix.llms.tokenizer import train_tokenizer
from geopix.metrics.masks import MaskIoU
from geopix.metrics.pixels import score_dialogue
from geopix.rle import decode_rle
from geopix.task import GeoPixTask
from geopix.types import SEG, Dialogue, Frame, Sample, Turn

SIDE = 64
_MASK = re.compile(r"\{([^{}<>]*)\}")
_ROWS = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?:(\d{1,3}-\d{1,3}(?:,\d{1,3}-\d{1,3})*)")


def write_runs(mask: Bool[Tensor, "h w"], side: int = SIDE) -> str:
    """A mask as run lengths in both directions, over ``side`` rows and columns: rows that are alike, then the columns from and to which they are inside.

    Rows without a cell inside are left out. A cell is inside where the mask covers at least half of it.

    >>> mask = torch.zeros(4, 4, dtype=torch.bool)
    >>> mask[1:3, 2:] = mask[3, 0] = True
    >>> write_runs(mask, 4)
    '1-2:2-3;3:0-0'
    """
    inside = F.adaptive_avg_pool2d(mask.double()[None], (side, side))[0] >= 0.5
    said = []
    for runs, rows in groupby(enumerate(map(_runs, inside.tolist())), key=lambda row: row[1]):
        numbers = [number for number, _ in rows]
        if runs:
            said.append(f"{numbers[0]}{f'-{numbers[-1]}' if len(numbers) > 1 else ''}:{runs}")
    return ";".join(said)


def _runs(row: Sequence[bool]) -> str:
    edges = [place for place in range(len(row) + 1) if (place < len(row) and row[place]) != (place > 0 and row[place - 1])]
    return ",".join(f"{start}-{end - 1}" for start, end in zip(edges[::2], edges[1::2], strict=True))


def read_runs(text: str, size: tuple[int, int], side: int = SIDE) -> Bool[Tensor, "h w"]:
    """The mask that a text describes, each cell stretched over its share of ``size``.

    Raises:
        ValueError: for anything that :func:`write_runs` would not write.
    """
    grid = torch.zeros(side, side)
    for each in text.split(";") if text else ():
        found = _ROWS.fullmatch(each)
        if found is None:
            raise ValueError(f"{each!r} is no 'row-row:column-column'; the text is cut off or describes no mask.")
        first, last = int(found[1]), int(found[2] or found[1])
        for run in found[3].split(","):
            start, end = map(int, run.split("-"))
            if not (0 <= first <= last < side and 0 <= start <= end < side):
                raise ValueError(f"{each!r} lies outside the grid of {side} rows and columns, or ends before it begins.")
            grid[first : last + 1, start : end + 1] = 1
    return F.interpolate(grid[None, None], size=size, mode="nearest-exact")[0, 0] > 0.5


class Described(Source):
    """Any source, its masks written into the answers. A model without a mask decoder learns from it as it does from captions.

    Args:
        source: its dialogues of the family ``segment`` become a kind of caption, without masks.
        side: rows and columns of the grid.
    """

    def __init__(self, source: Source, side: int = SIDE) -> None:
        self.source, self.side = source, side
        self.bands, self.count, self.blocks = source.bands, source.count, source.blocks
        self.title = f"{source.title}, masks as text on {side} x {side} cells"

    def check(self) -> None:
        """As the source."""
        self.source.check()

    def having(self, mix: Mapping[str, float]) -> Sequence[int] | None:
        """As the source."""
        return self.source.having(mix)

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """A sample of the source whose answers hold the masks; it has no truth, since nothing of it can be scored as masks."""
        sample = self.source.sample(index, mix, epoch=epoch)
        return replace(sample, dialogues=tuple(map(self._write, sample.dialogues)), truth=tuple(() for _ in sample.dialogues) if truth else None)

    def _write(self, dialogue: Dialogue) -> Dialogue:
        if not dialogue.task.startswith("segment/"):
            return dialogue
        texts = iter([f"{{{write_runs(mask, self.side)}}}" for mask in (dialogue.masks if dialogue.masks is not None else ())])
        turns = tuple(Turn(turn.prompt, re.sub(re.escape(SEG), lambda _: next(texts), turn.answer)) for turn in dialogue.turns)
        return Dialogue(turns, task="caption/masks")


class DescribedTexts:
    """What is said about some scenes, masks as text: what the tokenizer is trained from. Its numbers are tokens of their own in any case."""

    def __init__(self, source: Described, scenes: int = 500) -> None:
        self.source, self.scenes = source, scenes

    def texts(self) -> Iterable[str]:
        """Prompts and answers, in order."""
        for index in range(self.scenes):
            for dialogue in self.source.sample(index).dialogues:
                for turn in dialogue.turns:
                    yield turn.prompt
                    yield turn.answer


def masks_of(answers: Sequence[str], frame: Frame, side: int, unread: Counter[str]) -> list[Bool[Tensor, "h w"]]:
    """The masks that answers describe, in order, at the image's own size. A text that describes none counts as an empty one, in its place.

    Args:
        unread: counts the masks that were written, and those of them that could not be read.
    """
    masks = []
    for text in _MASK.findall(" ".join(answers)):
        unread["written"] += 1
        try:
            canvas = read_runs(text, frame.canvas, side)
        except ValueError:
            unread["unreadable"] += 1
            canvas = torch.zeros(frame.canvas, dtype=torch.bool)
        masks.append(to_own_frame(canvas[None].float() - 0.5, frame)[0] > 0)
    return masks


@torch.no_grad()
def answer(task: GeoPixTask, source: Source, side: int, longest: int, unread: Counter[str], images: int) -> Iterator[str]:
    """Lines of predictions from free answers of at most ``longest`` tokens a turn, to all questions about some images at a time."""
    for samples, found in asked(source, images):
        owners = torch.tensor([question.image for question in found], dtype=torch.long)
        seen = task.net.encode(torch.stack([sample.image for sample in samples]).to(task.device))
        prediction = task.net.generate(seen, [question.prompts for question in found], owners.to(task.device), max_new_tokens=longest)
        for question, answers in zip(found, prediction.answers, strict=True):
            yield line(question, answers, masks_of(answers, samples[question.image].frame, side, unread))


class _Written:
    """Texts as a corpus."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.written = texts

    def texts(self) -> Iterable[str]:
        """Each of them."""
        yield from self.written


def bound(level: str, scenes: int) -> str:
    """What true masks lose as text and how many tokens they take, by the grid; last Text4Seg's own form, which writes out every row."""
    source = Scenes(level, "val", count=scenes)
    masks = [mask for index in range(scenes) for each in source.sample(index).dialogues if each.masks is not None for mask in each.masks]
    size = (source.size, source.size)
    forms = {f"{side:>2} x {side}": ([write_runs(mask, side) for mask in masks], partial(read_runs, size=size, side=side)) for side in (16, 32, 64)}
    forms["16 x 16, every row"] = ([write_descriptors(mask, 16) for mask in masks], partial(read_descriptors, size=size))
    said = [f"{len(masks)} masks of {source.title}\n{'grid':<20}{'gIoU':>8}{'empty':>8}{'tokens':>8}{'most':>6}"]
    for name, (texts, read) in forms.items():
        tokenizer, iou = train_tokenizer(_Written(texts), vocab_size=1200), MaskIoU()
        back = [read(text) for text in texts]
        iou.update(*score_dialogue(back, masks))
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        lost = sum(not mask.any() for mask in back) / len(masks)
        said.append(f"{name:<20}{iou.compute()['giou']:>8.3f}{lost:>8.3f}{sum(lengths) / len(lengths):>8.0f}{max(lengths):>6}")
    return "\n".join(said)


def centred(mask: Bool[Tensor, "h w"], other: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """A mask moved by whole pixels so that its centre lies on another's; what leaves the image is lost."""
    down, right = (other.nonzero().double().mean(0) - mask.nonzero().double().mean(0)).round().int().tolist()
    height, width = mask.shape
    return F.pad(mask, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))[max(-down, 0) :][:height, max(-right, 0) :][:, :width]


def placed(samples: Path, source: Source) -> str:
    """Of a scored file, the masks of single things that were written where one was asked for: as they stand, and moved to the centre of the true one.

    Beside it, what the mask that was written just before, for another question, would score there.
    """
    ious, moved, others, count, right, before = MaskIoU(), MaskIoU(), MaskIoU(), 0, 0, None
    for each in map(json.loads, samples.read_text(encoding="utf-8").splitlines()):
        if each["task"] != "segment/single" or len(each["drawn"]) != 1 or each["targets"] != 1:
            continue
        sample = source.sample(each["position"], truth=True)
        assert sample.truth is not None
        if sample.key != each["image"]:
            raise ValueError(f"{samples} is of other images: {each['image']} where the benchmark has {sample.key}; name its benchmark (--benchmark, --level).")
        truth, drawn = decode_rle(sample.truth[int(each["key"].rpartition("#")[2])][0]), decode_rle(each["drawn"][0])
        if drawn.any():
            count += 1
            right += re.sub(_MASK, SEG, each["answers"][0]) == each["expected"][0]
            ious.update(*score_dialogue([drawn], [truth]))
            moved.update(*score_dialogue([centred(drawn, truth)], [truth]))
            if before is not None:
                others.update(*score_dialogue([centred(before, truth)], [truth]))
            before = drawn
    if not count:
        return "no single thing has a mask"
    found, there, other = (float(each.compute()["giou"]) for each in (ious, moved, others))
    return (
        f"{count} single things with a mask: words as expected {right / count:.0%}; gIoU {found:.3f}, of masks moved to the true centre {there:.3f}, "
        f"of another question's mask moved there {other:.3f}"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Answer a benchmark, or print what the text can say at best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--benchmark", help="a name in benchmarks/, or a file (default: scenes_LEVEL)")
    parser.add_argument("--benchmark_root", type=Path, default=Path("data"))
    parser.add_argument("--level", default="standard", choices=["easy", "standard", "hard"], help="of the scenes")
    parser.add_argument("--side", type=int, default=SIDE, help="rows and columns of the grid that the model was trained on")
    parser.add_argument("--longest", type=int, default=768, help="tokens of an answer")
    parser.add_argument("--images", type=int, default=16, help="that are answered at a time; a GPU is faster with more")
    parser.add_argument("--placed", type=Path, help="samples.jsonl of geopix score: print what the masks would score in the right place; answer nothing")
    parser.add_argument("--bound", action="store_true", help="print what masks lose as text, and their length; answer nothing")
    parser.add_argument("--out", type=Path, help="default: predictions.jsonl in the run folder")
    said = parser.parse_args(words)
    if said.bound:
        print(bound(said.level, 100))
        return
    benchmark = said.benchmark or f"scenes_{said.level}"
    source = open_benchmark(benchmark, said.benchmark_root)
    if said.placed is not None:
        print(placed(said.placed, source))
        return
    if said.checkpoint is None:
        parser.error("give a checkpoint, --placed or --bound")
    task = GeoPixTask.load_from_checkpoint(said.checkpoint, map_location="cpu").eval().to("cuda" if torch.cuda.is_available() else "cpu")
    unread, began = Counter[str](), time.perf_counter()
    write(said.out or said.checkpoint.parents[1] / "predictions.jsonl", answer(task, source, said.side, said.longest, unread, said.images), benchmark)
    print(f"{unread['written']} masks written, {unread['unreadable']} of them unreadable and counted as empty; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
