"""Pixels that masks share: two numbers for each pair, from which all scores of masks are counted (:mod:`geopix.metrics.masks`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Mask = Bool[Tensor, "_ _"]


def _overlap(drawn: Bool[ndarray, "h w"] | None, true: Bool[ndarray, "h w"] | None) -> tuple[int, int]:
    """Pixels of intersection and union, where a missing mask is an empty one, and one that nobody asked for has at least one pixel."""
    if drawn is not None and true is not None:
        return int(np.count_nonzero(drawn & true)), int(np.count_nonzero(drawn | true))
    if true is not None:
        return 0, int(np.count_nonzero(true))
    return 0, max(int(np.count_nonzero(drawn)), 1) if drawn is not None else 0


def _two_columns(counts: Sequence[tuple[int, int]]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    intersection, union = torch.tensor(counts, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return intersection, union


def intersection_union(pred: Bool[Tensor, "m h w"], truth: Bool[Tensor, "m h w"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Pixels of the intersection and of the union of each pair of masks, as int64 on the CPU.

    Raises:
        ValueError: when the shapes differ.

    Example:
        >>> pred, truth = torch.zeros(1, 2, 4, dtype=torch.bool), torch.zeros(1, 2, 4, dtype=torch.bool)
        >>> pred[0, 0], truth[0, :, 0] = True, True
        >>> intersection_union(pred, truth)
        (tensor([1]), tensor([5]))
    """
    if pred.shape != truth.shape:
        raise ValueError(
            f"masks are compared pixel by pixel, but drawn ones are {tuple(pred.shape)} and true ones {tuple(truth.shape)}; bring both to the image's own size."
        )
    return _two_columns([_overlap(one, other) for one, other in zip(pred.cpu().numpy(), truth.cpu().numpy(), strict=True)])


def _arrays(masks: Sequence[Mask | None]) -> list[Bool[ndarray, "_ _"] | None]:
    sizes = {tuple(mask.shape) for mask in masks if mask is not None}
    if len(sizes) > 1:
        raise ValueError(f"the masks of one dialogue must all have the size of its image; found {sorted(sizes)}. Map drawn masks back to the image first.")
    return [None if mask is None else mask.cpu().numpy() for mask in masks]


def score_dialogue(drawn: Sequence[Mask], truth: Sequence[Mask]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Intersections and unions of one dialogue's masks, paired in the order of the question.

    What is missing on either side is taken as an empty mask: a mask that was asked for and not drawn has intersection 0 and the true
    area as its union; a mask drawn beyond those asked for has intersection 0 and its own area as its union, at least one pixel, so that
    writing empty masks that nobody asked for counts 0 and not as empty against empty. Nothing that is drawn or asked for escapes the
    score, unlike evaluations that average over matched or produced masks alone.

    An absent thing (truth ``()``) for which nothing is written yields no counts, and is :class:`Refusal`'s to judge. To have it in
    gIoU as well, as gRefCOCO does, hand one empty true mask: a refusal then counts IoU 1.

    Args:
        drawn: any number of masks, each ``h w`` at the image's own size.
        truth: the masks asked for, of the same size.

    Returns:
        int64 intersections and unions, ``max(len(drawn), len(truth))`` of each, in the order of the question.

    Raises:
        ValueError: when the masks differ in size.

    Example:
        >>> square = torch.ones(2, 2, dtype=torch.bool)
        >>> score_dialogue([square], [square, square])
        (tensor([4, 0]), tensor([4, 4]))
    """
    masks = _arrays([*drawn, *truth])
    return _two_columns([_overlap(one, other) for one, other in zip_longest(masks[: len(drawn)], masks[len(drawn) :])])


def pairwise_pixels(drawn: Sequence[Mask], truth: Sequence[Mask]) -> tuple[Int64[ndarray, "d t"], Int64[ndarray, " d"], Int64[ndarray, " t"]]:
    """Pixels that each drawn mask shares with each true one, and the areas of either side.

    Raises:
        ValueError: when the masks differ in size.
    """
    masks, num = [mask for mask in _arrays([*drawn, *truth]) if mask is not None], len(drawn)
    if not masks:
        return np.zeros((0, 0), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    # 64 pixels in a word: many times as quick as comparing pixels, and as multiplying matrices of numbers.
    octets = np.packbits(np.stack(masks).reshape(len(masks), -1), axis=1)
    packed = np.pad(octets, ((0, 0), (0, -octets.shape[1] % 8))).view(np.uint64)
    areas = np.bitwise_count(packed).sum(1, dtype=np.int64)
    shared = [np.bitwise_count(mask & packed[num:]).sum(1, dtype=np.int64) for mask in packed[:num]]
    return np.array(shared, np.int64).reshape(num, len(truth)), areas[:num], areas[num:]


def _assign(shared: Int64[ndarray, "d t"], ours: Int64[ndarray, " d"], true: Int64[ndarray, " t"]) -> list[tuple[int | None, int | None]]:
    union = ours[:, None] + true - shared
    rows, columns = linear_sum_assignment(np.where(union == 0, 1.0, shared / np.maximum(union, 1)), maximize=True)
    found = dict(zip(columns.tolist(), rows.tolist(), strict=True))
    spare = sorted(set(range(len(ours))) - set(found.values()))
    return [(found.get(place), place) for place in range(len(true))] + [(place, None) for place in spare]


def match_masks(drawn: Sequence[Mask], truth: Sequence[Mask]) -> list[tuple[int | None, int | None]]:
    """Pairs (drawn, true) of positions under the one-to-one assignment with the largest sum of IoUs, whatever the order of the masks.

    As many are paired as the shorter side holds, masks that do not touch too, so there are ``max(len(drawn), len(truth))`` pairs as in
    :func:`score_dialogue`. First come the true masks in their order, each with its drawn one or None, then drawn ones without a true one.
    Empty masks fit empty ones.

    Source: H. W. Kuhn, "The Hungarian method for the assignment problem" (1955); scipy's ``linear_sum_assignment``.

    Raises:
        ValueError: when the masks differ in size.

    Example:
        >>> left, right = torch.tensor([[True, False]]), torch.tensor([[False, True]])
        >>> match_masks([right, left], [left])
        [(1, 0), (0, None)]
    """
    return _assign(*pairwise_pixels(drawn, truth))


def score_matched(drawn: Sequence[Mask], truth: Sequence[Mask]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Intersections and unions as :func:`score_dialogue` counts them, but with the pairs, and in the order, of :func:`match_masks`.

    Raises:
        ValueError: when the masks differ in size.

    Example:
        >>> left, right = torch.tensor([[True, False]]), torch.tensor([[False, True]])
        >>> score_matched([right, left], [left])
        (tensor([1, 0]), tensor([1, 1]))
    """
    shared, ours, true = pairwise_pixels(drawn, truth)
    counts: list[tuple[int, int]] = []
    for one, other in _assign(shared, ours, true):
        if one is not None and other is not None:
            counts.append((int(shared[one, other]), int(ours[one] + true[other] - shared[one, other])))
        elif other is not None:
            counts.append((0, int(true[other])))
        else:
            counts.append((0, max(int(ours[one]), 1)))
    return _two_columns(counts)


def boundary_iou(pred: Mask | None, truth: Mask | None, *, dilation: float = 0.02) -> tuple[int, int]:
    """Pixels of the intersection and of the union of two inner outlines: what of each mask lies within a distance of its edge.

    The distance is ``dilation`` times the diagonal of the image in whole pixels, at least one, counted along rows, columns and diagonals alike; the
    border of the image is an edge. Hand the pixels to :func:`mask_iou_sums`; missing masks count as in :func:`score_dialogue`.

    Source: Cheng et al., "Boundary IoU" (https://arxiv.org/abs/2103.16562), whose dilation of 0.02 is the default.

    Args:
        pred, truth: one mask each, at the image's own size; None where there is none.

    Raises:
        ValueError: when the masks differ in size.

    Example:
        >>> square = torch.ones(5, 5, dtype=torch.bool)
        >>> boundary_iou(square, square), boundary_iou(None, square)
        ((16, 16), (0, 16))
    """
    drawn, true = (None if mask is None else _outline(mask, dilation) for mask in _arrays([pred, truth]))
    return _overlap(drawn, true)


def _outline(mask: Bool[ndarray, "h w"], dilation: float) -> Bool[ndarray, "h w"]:
    distance = max(1, round(dilation * math.hypot(*mask.shape)))
    square = np.ones((2 * distance + 1, 2 * distance + 1), dtype=np.uint8)
    inside: ndarray = cv2.erode(mask.view(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inside == 0)


def drew_something(drawn: Sequence[Mask]) -> bool:
    """Whether an answer shows at least one pixel: no mask and empty masks alike are a refusal.

    Example:
        >>> drew_something([]), drew_something([torch.zeros(2, 2, dtype=torch.bool)]), drew_something([torch.ones(2, 2, dtype=torch.bool)])
        (False, False, True)
    """
    return any(bool(mask.any()) for mask in drawn)
