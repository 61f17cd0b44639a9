"""Boxes written in text, ``{<x1><y1><x2><y2>}`` in percent of the image: read, and compared with the true ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor
from torchmetrics import Metric

Box = tuple[float, float, float, float]
"""``x1 y1 x2 y2`` in percent of the image's width and height, from its upper left corner."""

THRESHOLDS = (0.5, 0.7)
_GROUP = re.compile(r"\{([^{}]*)\}?")
_NUMBER = r"\s*<\s*([0-9]{1,3}(?:\.[0-9]+)?)\s*>\s*"
_BOX = re.compile(_NUMBER * 4)


def _read(text: str) -> list[Box | None]:
    """The boxes of a text, with None in the place of each that is malformed, so that later ones keep their places."""
    boxes: list[Box | None] = []
    for group in _GROUP.finditer(text):
        match = _BOX.fullmatch(group[1]) if group[0].endswith("}") else None
        x1, y1, x2, y2 = (float(number) for number in match.groups()) if match else (1.0, 1.0, 0.0, 0.0)
        boxes.append((x1, y1, x2, y2) if x1 <= x2 <= 100 and y1 <= y2 <= 100 else None)
    return boxes


def parse_boxes(text: str) -> list[Box]:
    """The well-formed boxes of a text, in order.

    Well-formed is four numbers from 0 to 100, each in angle brackets, all in braces, with ``x1 <= x2`` and ``y1 <= y2``. Anything else is left out.

    Example:
        >>> parse_boxes("The ship at {<10><20><30><40>}, not {<10><20>} or {<0><0><10><900>}.")
        [(10.0, 20.0, 30.0, 40.0)]
    """
    return [box for box in _read(text) if box is not None]


def box_iou(one: Box, other: Box) -> float:
    """Area of the intersection over area of the union, in [0, 1]; equal boxes give 1 even without area.

    Example:
        >>> box_iou((0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 5.0))
        0.5
    """
    if one == other:
        return 1.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    return shared / union if union else 0.0


def score_boxes(answer: str, truth: str) -> list[float]:
    """IoU of each box of an answer with the true one in the same place.

    A true box without a box in its place, or with a malformed one, scores 0; so does each box written beyond the true ones.

    Raises:
        ValueError: when the true text holds no box, or a malformed one.

    Example:
        >>> score_boxes("{<0><0><10><10>}", "{<0><0><10><10>} and {<5><5><9><9>}")
        [1.0, 0.0]
    """
    right, given = parse_boxes(truth), _read(answer)
    if not right or len(right) != len(_read(truth)):
        raise ValueError(f"a true answer must hold boxes such as {{<10><20><30><40>}}, 0 to 100 and x1 <= x2, y1 <= y2; found {truth!r}. Correct the data.")
    pairs = [(given[place] if place < len(given) else None, box) for place, box in enumerate(right)]
    found = [0.0 if box is None else box_iou(box, true) for box, true in pairs]
    return found + [0.0] * (len(given) - len(right))


def box_sums(answers: Sequence[str], truths: Sequence[str]) -> Float64[Tensor, " k"]:
    """Of the boxes of answers: how many, the sum of their IoUs, and how many reach each of :data:`THRESHOLDS`.

    Raises:
        ValueError: when the lengths differ, or a true text holds no well-formed box.
    """
    if len(answers) != len(truths):
        raise ValueError(f"one true text per answer is needed; found {len(answers)} answers and {len(truths)} truths.")
    ious = [iou for answer, truth in zip(answers, truths, strict=True) for iou in score_boxes(answer, truth)]
    reached = [sum(iou >= threshold for iou in ious) for threshold in THRESHOLDS]
    return torch.tensor([len(ious), sum(ious), *reached], dtype=torch.float64)


def box_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`BoxAccuracy` from :func:`box_sums`."""
    count, iou, *reached = sums.unbind(-1)
    return {f"acc@{threshold}": share / count for threshold, share in zip(THRESHOLDS, reached, strict=True)} | {"mean_iou": iou / count, "count": count}


def box_accuracy(answers: Sequence[str], truths: Sequence[str]) -> dict[str, Float64[Tensor, ""]]:
    """:class:`BoxAccuracy` of all answers at once.

    Example:
        >>> scores = box_accuracy(["{<0><0><10><6>}", "no idea"], ["{<0><0><10><10>}", "{<0><0><10><10>}"])
        >>> scores["acc@0.5"].item(), scores["mean_iou"].item()
        (0.5, 0.3)
    """
    return box_scores(box_sums(answers, truths))


class BoxAccuracy(Metric):
    """How well boxes written in answers fit the true ones, in [0, 1].

    - ``acc@0.5``, ``acc@0.7``: share of boxes with IoU of at least the threshold;
    - ``mean_iou``: mean IoU of the boxes;
    - ``count``: how many boxes were scored: for each answer those of the truth, and those it writes beyond them.

    Boxes are compared in order (:func:`score_boxes`), in percent of the image, as continuous rectangles. An answer that cannot be read counts 0
    for each of its boxes; no value is ever carried over from an earlier answer. Without boxes every rate is NaN and ``count`` is 0.

    VRSBench's "unique" and "non-unique" are this metric on two parts of the questions: things that are the only ones of their class in the image,
    and the others.

    Source: Acc@0.5 of visual grounding (TransVG, https://arxiv.org/abs/2104.08541), Acc@0.7 of VRSBench (https://arxiv.org/abs/2406.12384).

    Example:
        >>> metric = BoxAccuracy()
        >>> metric.update(["It is at {<0><0><10><10>}."], ["{<0><0><10><20>}"])
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'acc@0.5': 1.0, 'acc@0.7': 0.0, 'mean_iou': 0.5, 'count': 1.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2 + len(THRESHOLDS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Count the boxes of answers against those of the true texts.

        Raises:
            ValueError: when the lengths differ, or a true text holds no well-formed box.
        """
        self.sums += box_sums(answers, truths).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The scores so far, over all processes."""
        return box_scores(self.sums)
