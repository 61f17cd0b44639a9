"""For every metric class: how it is built, things to feed it one at a time, and the function that turns its sums into scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torchmetrics import Metric

from geopix.metrics import boxes, calibration, caption, cider, grounded, masks, vqa

KINDS = ("presence", "colour", "never")
BOX = "{<0><0><10><10>}"


@dataclass(frozen=True)
class Case:
    """Args:
    make: the metric.
    items: arguments of ``update``, one tuple per thing.
    scores: scores from the state ``sums``; None where the metric is no function of sums.
    """

    make: Callable[[], Metric]
    items: list[tuple[Any, ...]]
    scores: Callable[[torch.Tensor], dict[str, torch.Tensor]] | None = None


def columns(*rows: tuple[Any, ...]) -> list[tuple[torch.Tensor, ...]]:
    return [tuple(torch.tensor([value]) for value in row) for row in rows]


CAPTIONS = [
    (["a ship near the long pier"], [["a ship near a pier", "one ship near the long pier"]]),
    (["a bridge over water"], ["a bridge over the water"]),
    ([""], ["a road"]),
    (["three tennis courts beside a road"], [["three tennis courts beside a road", "courts"]]),
    (["größe x y"], ["größe x z y"]),
]
CASES = {
    "MaskIoU": Case(masks.MaskIoU, columns((3, 7), (0, 0), (5, 5), (0, 9), (2, 3)), masks.mask_iou_scores),
    "Refusal": Case(masks.Refusal, columns((True, True), (False, False), (True, False), (False, True), (True, True)), masks.refusal_scores),
    "VQAAccuracy": Case(
        partial(vqa.VQAAccuracy, KINDS, left_out=("area",)),
        [
            (["presence"], ["yes"], ["yes"]),
            (["colour"], ["red"], ["blue"]),
            (["presence"], ["No."], ["no"]),
            (["area"], [""], ["5"]),
            (["colour"], ["red"], ["red"]),
        ],
        partial(vqa.vqa_scores, known=KINDS),
    ),
    "Hallucination": Case(vqa.Hallucination, [([True],), ([False],), ([False, True],), ([],), ([False],)], vqa.hallucination_scores),
    "BoxAccuracy": Case(boxes.BoxAccuracy, [([f"{{<0><0><10><{size}>}}"], [BOX]) for size in (10, 7, 5, 2)] + [(["none"], [BOX])], boxes.box_scores),
    "RougeL": Case(caption.RougeL, CAPTIONS, caption.rouge_scores),
    "Bleu": Case(caption.Bleu, CAPTIONS, caption.bleu_scores),
    "CiderD": Case(cider.CiderD, CAPTIONS),
    "GroundedConversation": Case(
        grounded.GroundedConversation,
        [(torch.tensor(ious, dtype=torch.float64), num) for ious, num in (([0.75, 0.0], 2), ([0.5], 1), ([], 2), ([0.0], 0), ([], 0))],
        grounded.grounded_scores,
    ),
    "GroundedAP50": Case(
        grounded.GroundedAP50,
        [
            (torch.tensor(right, dtype=torch.bool), num, torch.tensor(sure))
            for right, num, sure in (([1, 0], 2, [0.9, 0.8]), ([1], 1, [0.7]), ([], 2, []), ([0, 1], 1, [0.95, 0.8]), ([], 0, []))
        ],
    ),
    "PresenceCalibration": Case(
        calibration.PresenceCalibration, columns((0.3, True), (1.0, True), (0.0, False), (0.32, False), (0.9, False)), calibration.presence_scores
    ),
    "QualityError": Case(calibration.QualityError, columns((0.3, 0.5), (0.9, 0.8), (0.0, 0.1), (0.5, 0.5), (0.7, 0.2)), calibration.quality_scores),
}
