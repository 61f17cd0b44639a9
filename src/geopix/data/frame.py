"""Letterboxing: an image of any size into a square canvas without cropping or stretching, and masks back to the image's own size.

Everything is exact to a fraction of a pixel: cell ``i`` of the canvas covers the image from ``(i - top) / scale`` to ``(i + 1 - top) / scale``,
so the round trip shifts nothing, whatever the sizes. The last row or column of the image's part may cover the image only partly.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from geopix.types import Frame

CHUNK = 32
"""Masks that are resampled at once, which bounds memory for images with hundreds of instances."""


def letterbox(image: Float[Tensor, "c h w"], size: int) -> tuple[Float[Tensor, "c canvas canvas"], Frame]:
    """The whole image, at its own proportions, centred in a canvas of ``size`` x ``size`` that is 0 elsewhere.

    The longer side fills the canvas, up or down. Resampling is bilinear; on the way down the filter widens (antialiasing), so no pixel is skipped.

    Args:
        image: any number of bands.
        size: rows and columns of the canvas.

    Raises:
        ValueError: for an image without pixels or a size below 1.
    """
    height, width = image.shape[-2:]
    if height < 1 or width < 1 or size < 1:
        raise ValueError(f"cannot letterbox an image of {height} x {width} into {size} x {size}; all of them must be at least 1.")
    scale = size / max(height, width)
    rows, columns = _extent(height, scale), _extent(width, scale)
    frame = Frame(height, width, scale, (size - rows) // 2, (size - columns) // 2, (size, size))
    if scale == 1.0 and rows == columns:
        return image.clone(), frame
    # An explicit scale keeps proportions exact where the shorter side does not come out whole; interpolate() then floors its own output
    # size, so the image is prolonged by repeating its edge until enough cells come out, and the surplus is cut.
    beyond = math.ceil(1 / scale) + 1
    longer = functional.pad(image[None], (0, beyond, 0, beyond), mode="replicate")
    small = functional.interpolate(longer, scale_factor=(scale, scale), mode="bilinear", antialias=True, recompute_scale_factor=False)
    canvas = image.new_zeros(image.shape[0], size, size)
    canvas[:, frame.top : frame.top + rows, frame.left : frame.left + columns] = small[0, :, :rows, :columns]
    return canvas, frame


def letterbox_masks(masks: Bool[Tensor, "m h w"], frame: Frame) -> Bool[Tensor, "m rows columns"]:
    """Masks of the image's own size on the canvas of its frame, so that no object vanishes.

    A cell belongs to a mask when more than half of it is covered. A mask that would keep less than half of its area this way (small and thin
    objects do) keeps instead the cells of its greatest coverage: as many as its area asks for, at least one, and every cell that is covered at
    least half as much as its best one, so that thin lines stay whole. A mask without pixels stays empty.

    Raises:
        ValueError: when the masks do not have the image's size.
    """
    if tuple(masks.shape[1:]) != (frame.height, frame.width):
        raise ValueError(f"masks of {masks.shape[1]} x {masks.shape[2]} (rows x columns) for an image of {frame.height} x {frame.width}; they must agree.")
    if frame.scale == 1.0 and frame.canvas == (frame.height, frame.width):
        return masks.clone()
    canvas = masks.new_zeros(masks.shape[0], *frame.canvas)
    rows, columns = _extent(frame.height, frame.scale), _extent(frame.width, frame.scale)
    down, across = (_shares(*side, frame.scale).to(masks.device) for side in ((frame.height, rows), (frame.width, columns)))
    for start in range(0, masks.shape[0], CHUNK):
        chunk = masks[start : start + CHUNK]
        coverage = down @ (chunk.float() @ across.T)
        inside = coverage > 0.5
        asked = chunk.sum((1, 2)) * frame.scale**2
        for index in torch.nonzero((inside.sum((1, 2)) < asked / 2) | ((asked > 0) & ~inside.any(2).any(1))).flatten().tolist():
            inside[index] = _best_cells(coverage[index], max(1, round(float(asked[index]))))
        canvas[start : start + CHUNK, frame.top : frame.top + rows, frame.left : frame.left + columns] = inside
    return canvas


def to_own_frame(mask_logits: Float[Tensor, "m hh ww"], frame: Frame) -> Float[Tensor, "m height width"]:
    """Mask logits of the whole canvas, at any resolution, sampled at the pixels of the image's own frame.

    Bilinear between cell centres. Cells of the padding are never mixed in: at the image's border the nearest cell of the image counts.

    Args:
        mask_logits: cover the canvas of ``frame``, corner to corner.
        frame: how the image was letterboxed.

    Returns:
        One map of ``frame.height`` x ``frame.width`` per mask.
    """
    rows = _sample(mask_logits, frame.height, frame.top, frame.scale, mask_logits.shape[1] / frame.canvas[0])
    return _sample(rows.mT, frame.width, frame.left, frame.scale, mask_logits.shape[2] / frame.canvas[1]).mT


def _extent(pixels: int, scale: float) -> int:
    """Canvas cells that ``pixels`` of the image touch; the tolerance keeps a side that fills the canvas from spilling by rounding."""
    return max(1, math.ceil(pixels * scale - 1e-6))


@lru_cache(maxsize=16)
def _shares(pixels: int, cells: int, scale: float) -> Float[Tensor, "cells pixels"]:
    """Share of each cell, as far as it lies in the image, that each of the image's rows (or columns) covers."""
    edges = (torch.arange(cells + 1, dtype=torch.float64) / scale).clamp(max=pixels)
    starts = torch.arange(pixels, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], starts + 1) - torch.maximum(edges[:-1, None], starts)
    return (overlap.clamp(min=0) / edges.diff()[:, None]).float()


def _best_cells(coverage: Float[Tensor, "rows columns"], count: int) -> Bool[Tensor, "rows columns"]:
    """The ``count`` cells of greatest coverage with their equals, and all that reach half of the greatest."""
    cells = coverage.flatten().sort(descending=True).values
    threshold = torch.minimum(cells[min(count, cells.numel()) - 1], cells[0] / 2)
    return (coverage >= threshold) & (coverage > 0)


def _sample(values: Float[Tensor, "m cells w"], pixels: int, offset: int, scale: float, per_canvas: float) -> Float[Tensor, "m pixels w"]:
    """Rows of a map of the canvas at the centres of the image's ``pixels`` rows, linear between the centres of cells."""
    centres = torch.arange(pixels, device=values.device, dtype=torch.float64) + 0.5
    position = (centres * scale + offset) * per_canvas - 0.5
    first = math.ceil(offset * per_canvas - 0.5 - 1e-6)
    last = math.floor((offset + pixels * scale) * per_canvas - 0.5 + 1e-6)
    if first > last:  # no cell has its centre in the image: the one that holds the image's middle is all there is
        first = last = math.floor((offset + pixels * scale / 2) * per_canvas)
    position = position.clamp(max(first, 0), min(last, values.shape[1] - 1))
    lower = position.floor().long()
    upper = (lower + 1).clamp(max=values.shape[1] - 1)
    fraction = (position - lower).to(values.dtype)[:, None]
    return values[:, lower] * (1 - fraction) + values[:, upper] * fraction
