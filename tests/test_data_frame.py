"""Letterbox and back: nothing shifts, nothing is stretched, nothing vanishes."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from geopix.data.frame import letterbox, letterbox_masks, to_own_frame
from geopix.rle import decode_rle, decode_runs, encode_rle
from geopix.types import Frame

SIZES = [(96, 96), (64, 128), (131, 67), (257, 200), (33, 47), (40, 40), (301, 75), (50, 333)]


def blobs(height: int, width: int) -> torch.Tensor:
    """Three ellipses, one of which touches the border."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    circles = [(0.5, 0.5, 0.4, 0.4), (0.0, 0.3, 0.6, 0.25), (0.7, 1.0, 0.25, 0.5)]
    return torch.stack([((y / height - cy) / ry) ** 2 + ((x / width - cx) / rx) ** 2 < 1 for cy, cx, ry, rx in circles])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_round_trip(height: int, width: int) -> None:
    masks = blobs(height, width)
    _, frame = letterbox(torch.zeros(1, height, width), 128)
    canvas = letterbox_masks(masks, frame)
    back = to_own_frame(canvas.float() * 2 - 1, frame) > 0
    iou = (back & masks).sum((1, 2)) / (back | masks).sum((1, 2))
    # Where the shorter side shrinks to a few dozen cells, one cell of border is several percent of the object.
    assert iou.min() > (0.97 if min(height, width) * frame.scale > 48 else 0.93), (iou, frame)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_a_linear_ramp_comes_back_at_any_resolution(height: int, width: int, resolution: int) -> None:
    """Logits equal to the image's own x coordinate, drawn at the cell centres of the canvas, give x at every pixel centre: no shift of any fraction."""
    frame = letterbox(torch.zeros(1, height, width), 128)[1]
    centres = (torch.arange(resolution) + 0.5) * 128 / resolution
    ramp = ((centres - frame.left) / frame.scale).expand(2, resolution, resolution)
    own = to_own_frame(ramp, frame)[0, height // 2]
    cell = 128 / resolution / frame.scale
    inner = slice(int(cell) + 1, width - int(cell) - 1)
    assert torch.allclose(own[inner], (torch.arange(width) + 0.5)[inner], atol=1e-3 * cell)


@pytest.mark.parametrize(("height", "width"), [*SIZES, (1000, 3), (1, 1), (7, 500)])
def test_constant_in_constant_out(height: int, width: int) -> None:
    canvas, frame = letterbox(torch.full((3, height, width), 0.7), 64)
    rows, columns = -(-round(height * frame.scale * 1e6) // 10**6), -(-round(width * frame.scale * 1e6) // 10**6)
    part = canvas[:, frame.top : frame.top + rows, frame.left : frame.left + columns]
    assert torch.allclose(part, torch.tensor(0.7), atol=1e-5)
    assert torch.isclose(canvas.sum(), part.sum()), "outside the image the canvas is 0"
    assert max(rows, columns) == 64
    full = letterbox_masks(torch.ones(1, height, width, dtype=torch.bool), frame)
    assert torch.equal(full[0], canvas[0] > 0)
    assert torch.allclose(to_own_frame(torch.where(full, 3.0, -9.0), frame), torch.tensor(3.0), atol=1e-4), "padding must not leak into the border"
    assert abs(frame.top - (64 - rows) / 2) < 1


def test_image_and_mask_lie_on_each_other() -> None:
    masks = blobs(301, 205)
    canvas, frame = letterbox(masks.float(), 96)
    assert ((canvas > 0.5) != letterbox_masks(masks, frame)).float().mean() < 0.003


def test_a_point_lies_where_the_frame_says() -> None:
    image = torch.zeros(1, 203, 119)
    image[0, 100, 60] = 1
    canvas, frame = letterbox(image, 64)
    y, x = (canvas[0].sum(1) @ (torch.arange(64) + 0.5), canvas[0].sum(0) @ (torch.arange(64) + 0.5))
    total = canvas.sum()
    assert y / total == pytest.approx(100.5 * frame.scale + frame.top, abs=0.1)
    assert x / total == pytest.approx(60.5 * frame.scale + frame.left, abs=0.1)


def test_down_scaling_averages_instead_of_skipping() -> None:
    board = (torch.arange(256)[:, None] + torch.arange(256)) % 2
    canvas, _ = letterbox(board[None].float(), 32)
    assert torch.allclose(canvas, torch.tensor(0.5), atol=0.03)


@pytest.mark.parametrize(("side", "lost_by_half_area"), [(1, 16), (2, 16), (3, 12), (4, 7), (6, 0)])
def test_no_small_object_vanishes_at_a_quarter(side: int, lost_by_half_area: int) -> None:
    """All 16 positions of a square against the grid of a 4x reduction: a plain area rule loses most of the small ones."""
    masks = torch.zeros(16, 64, 64, dtype=torch.bool)
    for index in range(16):
        y, x = 24 + index // 4, 24 + index % 4
        masks[index, y : y + side, x : x + side] = True
    plain = torch.nn.functional.avg_pool2d(masks[:, None].float(), 4)[:, 0] > 0.5
    assert int((~plain.flatten(1).any(1)).sum()) == lost_by_half_area
    kept = letterbox_masks(masks, letterbox(torch.zeros(1, 64, 64), 16)[1])
    areas = kept.flatten(1).sum(1)
    assert areas.min() >= 1
    assert areas.max() <= 5
    assert (kept & (torch.nn.functional.max_pool2d(masks[:, None].float(), 4)[:, 0] == 0)).sum() == 0, "only cells that the object touches"


def test_a_thin_line_stays_whole_and_nothing_stays_nothing() -> None:
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 33, 4:60] = True
    kept = letterbox_masks(masks, letterbox(torch.zeros(1, 64, 64), 16)[1])
    assert kept[0, 8].tolist() == [1 <= column < 15 for column in range(16)]
    assert kept.sum() == 14


def test_more_masks_than_a_chunk_and_none() -> None:
    frame = letterbox(torch.zeros(1, 40, 30), 20)[1]
    masks = torch.rand(70, 40, 30) > 0.5
    assert torch.equal(letterbox_masks(masks, frame), torch.cat([letterbox_masks(mask[None], frame) for mask in masks]))
    assert letterbox_masks(masks[:0], frame).shape == (0, 20, 20)
    assert to_own_frame(torch.zeros(0, 5, 5), frame).shape == (0, 40, 30)


def test_logits_keep_their_gradient() -> None:
    logits = torch.zeros(1, 8, 8, requires_grad=True)
    to_own_frame(logits, Frame(20, 30, 16 / 30, 2, 0, (16, 16))).sum().backward()
    assert logits.grad is not None
    assert logits.grad.sum() == pytest.approx(600)


def test_sizes_that_disagree() -> None:
    frame = letterbox(torch.zeros(1, 40, 30), 20)[1]
    with pytest.raises(ValueError, match=r"30 x 40.*40 x 30"):
        letterbox_masks(torch.zeros(1, 30, 40, dtype=torch.bool), frame)
    with pytest.raises(ValueError, match="0 x 5"):
        letterbox(torch.zeros(1, 0, 5), 20)


def test_rle() -> None:
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[1:4, 2:5] = True
    rle = encode_rle(mask)
    assert rle == {"size": [6, 8], "counts": "=33000a0"}
    assert torch.equal(decode_rle(rle), mask)
    assert torch.equal(decode_runs([6, 8], [13, 3, 3, 3, 3, 3, 20]), mask)
    assert not decode_rle({"size": [6, 8], "counts": "`1"}).any()
    assert decode_rle({"size": [6, 8], "counts": "0`1"}).all()
    assert decode_rle({"size": [12, 16], "counts": "01;00000000000\\3"})[0, :7].all()


@pytest.mark.parametrize("density", [0.001, 0.03, 0.5, 0.99])
def test_rle_agrees_with_pycocotools(density: float) -> None:
    mask = torch.rand(173, 260, generator=torch.Generator().manual_seed(3)) < density
    rle = encode_rle(mask)
    assert np.array_equal(coco.decode(rle), mask.numpy())
    assert torch.equal(decode_rle(rle), mask)


@pytest.mark.parametrize("counts", ["=33000a0", "", "zzzz", "=33000a0\n", "é", "P"])
def test_a_broken_rle_is_told(counts: str) -> None:
    """pycocotools reads beyond its buffer or returns what was in memory before for some of these."""
    with pytest.raises(ValueError, match=r"\[6, 9\]"):
        decode_rle({"size": [6, 9], "counts": counts})
