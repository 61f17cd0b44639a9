"""Pictures of the best and the worst answers of a test: asked, truth and drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from geopix.data.frame import to_own_frame
from geopix.data.source import Source
from geopix.evaluation.outcome import Outcome
from geopix.metrics.boxes import score_boxes
from geopix.metrics.caption import rouge_l
from geopix.metrics.vqa import normalise
from geopix.pictures import panel, to_rgb
from geopix.rle import decode_rle
from geopix.types import RLE, Sample


def worth(outcome: Outcome, read: Callable[[str], str] = normalise) -> float:
    """How good one answer is, in [0, 1], to put answers in order: mean IoU of its masks (a refusal 1 or 0), of its boxes, ROUGE-L, or right and wrong.

    Args:
        read: what is done to short answers before they are compared.
    """
    if outcome.family == "segment" and not outcome.pairs:
        return float(not outcome.drew)
    if outcome.pairs:
        return sum(pair.intersection / pair.union if pair.union else 1.0 for pair in outcome.pairs) / len(outcome.pairs)
    if outcome.family == "refer":
        found = score_boxes(outcome.answers[-1], outcome.expected[-1])
        return sum(found) / len(found)
    if outcome.family == "caption":
        return rouge_l(outcome.answers[-1], outcome.references or outcome.expected[-1:])
    return float(read(outcome.answers[-1]) == read(outcome.expected[-1]))


def extremes(outcomes: Sequence[Outcome], num: int) -> tuple[list[Outcome], list[Outcome]]:
    """The best ``num`` answers, best first, and the worst, worst first; answers with masks where there are any. None is in both."""
    masked = [outcome for outcome in outcomes if outcome.pairs] or list(outcomes)
    ordered = sorted(masked, key=worth, reverse=True)
    best = ordered[: min(num, (len(ordered) + 1) // 2)]
    return best, ordered[len(best) :][::-1][:num]


def answer_pictures(outcomes: Sequence[Outcome], source: Source, num: int) -> dict[str, bytes]:
    """A JPEG for each of the best and the worst answers, by their keys."""
    samples: dict[int, Sample] = {}
    shown = {}
    for outcome in (each for part in extremes(outcomes, num) for each in part):
        if outcome.position not in samples:
            samples[outcome.position] = source.sample(outcome.position, truth=True)
        shown[outcome.key] = _picture(outcome, samples[outcome.position])
    return shown


def _picture(outcome: Outcome, sample: Sample) -> bytes:
    number = int(outcome.key.rpartition("#")[2])
    image = to_rgb(to_own_frame(sample.image.float(), sample.frame).numpy())
    true = _stack(sample.truth[number] if sample.truth is not None else (), outcome)
    sheet = panel(image, " / ".join(outcome.prompts), true, _stack(outcome.drawn, outcome), " / ".join(outcome.answers), " / ".join(outcome.expected))
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="JPEG", quality=85)
    return file.getvalue()


def _stack(masks: Sequence[RLE], outcome: Outcome) -> np.ndarray:
    return np.stack([decode_rle(mask).numpy() for mask in masks]) if masks else np.zeros((0, *outcome.size), dtype=bool)
