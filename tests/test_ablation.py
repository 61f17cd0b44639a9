"""The diagnosis of masks and memories: what a mask fits, and what repairing it would win."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Bool
from torch import Tensor

from benchmarks.ablation.diagnose import judge


def box(top: int, left: int, height: int = 4, width: int = 4) -> Bool[Tensor, "h w"]:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


ASKED = box(4, 4)
THINGS = [("ship", ASKED), ("ship", box(20, 4)), ("pier", box(4, 20))]


@pytest.mark.parametrize(
    ("drawn", "cause", "iou", "outline", "pixels", "chosen"),
    [
        pytest.param(ASKED, "the asked thing", 1.0, 1.0, 1.0, 1.0, id="right"),
        pytest.param(box(4, 4, 4, 8), "the asked thing", 0.5, 1.0, 1.0, 1.0, id="too large"),
        pytest.param(box(4, 4, 4, 2), "the asked thing", 0.5, 1.0, 0.5, 1.0, id="too small"),
        pytest.param(box(20, 4), "another of its class", 0.0, 0.0, 0.0, 0.0, id="the other ship"),
        pytest.param(box(4, 20), "a thing of another class", 0.0, 0.0, 0.0, 0.0, id="the pier"),
        pytest.param(box(4, 7, 4, 17), "a thing of another class", 4 / 80, 0.0, 4 / 16, 1.0, id="the pier and a corner of the ship"),
        pytest.param(box(28, 28), "no thing", 0.0, 0.0, 0.0, 0.0, id="ground"),
        pytest.param(box(0, 0, 0, 0), "nothing drawn", 0.0, 0.0, 0.0, 0.0, id="empty"),
    ],
)
def test_what_a_mask_fits(drawn: Bool[Tensor, "h w"], cause: str, iou: float, outline: float, pixels: float, chosen: float) -> None:
    found = judge(drawn, ASKED, THINGS)
    assert found.cause == cause
    assert (found.iou, found.outline, found.pixels, found.chosen) == pytest.approx((iou, outline, pixels, chosen))
