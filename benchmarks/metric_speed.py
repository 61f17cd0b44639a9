"""How many masks of 512 x 512 pixels a second are scored, by each way that masks are compared, on two threads.

    python benchmarks/metric_speed.py

Masks are ellipses of many sizes; a second side is the first, moved a little. Each line is the best of three runs over 200 pairs; nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from geopix.metrics.masks import MaskIoU
from geopix.metrics.pixels import boundary_iou, intersection_union, score_dialogue, score_matched
from geopix.rle import decode_rle, encode_rle

SIDE, NUM, IN_A_DIALOGUE = 512, 200, 5


def ellipses() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """True masks, and what was drawn."""
    rng = np.random.default_rng(0)
    sides: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for _ in range(NUM):
        center, axes, angle = rng.integers(0, SIDE, 2), rng.integers(2, 120, 2), int(rng.integers(180))
        for masks, moved in zip(sides, (0, 5), strict=True):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            cv2.ellipse(mask, (center + moved).tolist(), axes.tolist(), angle, 0, 360, 1, -1)
            masks.append(torch.from_numpy(mask.astype(bool)))
    return sides


def rate(work: Callable[[], object]) -> float:
    """Masks a second."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return NUM / min(seconds)


def main() -> None:
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    truth, drawn = ellipses()
    stacked = torch.stack(drawn), torch.stack(truth)
    encoded = [encode_rle(mask) for mask in drawn], [encode_rle(mask) for mask in truth]
    metric = MaskIoU()
    dialogues = [slice(start, start + IN_A_DIALOGUE) for start in range(0, NUM, IN_A_DIALOGUE)]
    ways: dict[str, Callable[[], object]] = {
        "mask IoU, all at once": lambda: metric.update(*intersection_union(*stacked)),
        "mask IoU, one dialogue of one mask after the other": lambda: [
            metric.update(*score_dialogue([one], [other])) for one, other in zip(drawn, truth, strict=True)
        ],
        "mask IoU, both sides from run lengths": lambda: [
            metric.update(*score_dialogue([decode_rle(one)], [decode_rle(other)])) for one, other in zip(*encoded, strict=True)
        ],
        f"mask IoU, {IN_A_DIALOGUE} in a dialogue by the best assignment": lambda: [
            metric.update(*score_matched(drawn[part], truth[part])) for part in dialogues
        ],
        "boundary IoU": lambda: [boundary_iou(one, other) for one, other in zip(drawn, truth, strict=True)],
    }
    print(f"masks of {SIDE} x {SIDE} a second, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, work in ways.items():
        print(f"  {rate(work):9,.0f}  {name}")


if __name__ == "__main__":
    main()
