"""Masks against the truth: gIoU, cIoU, precision at thresholds, outlines, sizes, and whether a model refuses to draw what is not there.

Masks of different images have different sizes, so a mask is reduced to two numbers first, the pixels of its intersection
and of its union with the truth (:func:`score_dialogue`, :func:`score_matched`, :func:`boundary_iou`); everything else is counted from these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import Metric

TENTHS = (5, 6, 7, 8, 9)
"""The thresholds of Pr@X in tenths: whole numbers, so that an IoU of exactly 0.6 is not above 0.6."""

SIZE_BUCKETS = {"empty": 1, "tiny": 12**2, "small": 32**2, "medium": 96**2, "large": math.inf}
"""Sizes of things, each with the true area in pixels of the image's own that it stays below. Small, medium and large part where COCO's do;
``tiny`` is what is smaller than 12 x 12 pixels, and an empty truth has a bucket of its own."""

Mask = Bool[Tensor, "_ _"]


def size_bucket(area: int) -> str:
    """The name of the first of :data:`SIZE_BUCKETS` that an area in pixels lies below.

    Example:
        >>> [size_bucket(area) for area in (0, 143, 144, 1023, 1024, 9216)]
        ['empty', 'tiny', 'small', 'small', 'medium', 'large']
    """
    return next(name for name, limit in SIZE_BUCKETS.items() if area < limit)


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


def mask_iou_sums(intersection: Int[Tensor, " m"], union: Int[Tensor, " m"], *, empty: float = 1.0, strict: bool = True) -> Float64[Tensor, " k"]:
    """Of masks: how many, the sum of their IoUs, how many reach each of :data:`TENTHS`, and all pixels of intersections and of unions.

    Args:
        intersection, union: pixels of each mask; ``m`` may be 0.
        empty: IoU of an empty mask against an empty truth: 1 in LISA, 0 in LAVT and RMSIN.
        strict: Pr@X counts IoU above X, and not IoU of exactly X.

    Raises:
        ValueError: unless ``0 <= intersection <= union`` for each mask.
    """
    if intersection.shape != union.shape or bool(((intersection < 0) | (intersection > union)).any()):
        raise ValueError(
            "one intersection and one union per mask are needed, with 0 <= intersection <= union; "
            f"found {intersection.tolist()[:8]} and {union.tolist()[:8]}. intersection_union and score_dialogue count them."
        )
    shared, joined = intersection.long(), union.long()
    iou = torch.where(joined == 0, empty, shared.double() / joined.clamp(min=1).double())
    tenths = torch.tensor(TENTHS, device=joined.device)
    excess = torch.where(joined[:, None] == 0, 10 * empty - tenths, (10 * shared[:, None] - tenths * joined[:, None]).double())
    reached = (excess > 0 if strict else excess >= 0).double().sum(0)
    count = torch.full_like(iou.sum(), len(iou))
    return torch.stack([count, iou.sum(), *reached, shared.sum().double(), joined.sum().double()])


def mask_iou_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`MaskIoU` from :func:`mask_iou_sums`."""
    count, iou, *reached, shared, joined = sums.unbind(-1)
    rates = {f"pr@0.{tenth}": share / count for tenth, share in zip(TENTHS, reached, strict=True)}
    return {"giou": iou / count, "ciou": shared / joined, **rates, "count": count}


def rmsin_names(scores: Mapping[str, Float[Tensor, "*s"]]) -> dict[str, Float[Tensor, "*s"]]:
    """The same scores under the names of RRSIS-D: ``giou`` is called mIoU there, ``ciou`` oIoU.

    Its rule is ``empty=0.0, strict=False``.

    Source: RMSIN (https://arxiv.org/abs/2312.12470), after LAVT (https://arxiv.org/abs/2112.02244).
    """
    names = {"giou": "miou", "ciou": "oiou"}
    return {names.get(name, name): value for name, value in scores.items()}


def mask_iou(intersection: Int[Tensor, " m"], union: Int[Tensor, " m"], *, empty: float = 1.0, strict: bool = True) -> dict[str, Float64[Tensor, ""]]:
    """:class:`MaskIoU` of all masks at once.

    Example:
        >>> scores = mask_iou(torch.tensor([2, 0]), torch.tensor([4, 6]))
        >>> scores["giou"].item(), scores["ciou"].item(), scores["pr@0.5"].item()
        (0.25, 0.2, 0.0)
    """
    return mask_iou_scores(mask_iou_sums(intersection, union, empty=empty, strict=strict))


class MaskIoU(Metric):
    """How well masks fit, in [0, 1], in the terms of LISA.

    - ``giou``: mean of the IoU of each mask. Not the "generalized IoU" of boxes, and not what some remote sensing papers call gIoU
      (they mean the cumulative one; RRSIS-D says mIoU for this and oIoU for the next).
    - ``ciou``: sum of all intersections / sum of all unions; large masks dominate.
    - ``pr@0.5`` ... ``pr@0.9``: share of masks with IoU strictly above the threshold, as in SegEarth-R1 (LAVT and RMSIN count equality too).
    - ``count``: how many masks were scored.

    Degenerate cases: an empty mask against an empty truth counts IoU 1 (as LISA; LAVT and RMSIN say 0) and is above every threshold;
    ``ciou`` is NaN when nothing was drawn or asked for anywhere; without any mask every rate is NaN and ``count`` is 0.
    IoU is exact: nothing is added to a denominator.

    Source: ``validate`` of LISA (https://arxiv.org/abs/2308.00692); Pr@X of SegEarth-R1 (https://arxiv.org/abs/2504.09644).

    Args:
        empty, strict: see :func:`mask_iou_sums`; other values give the rules of other papers.

    Example:
        >>> metric = MaskIoU()
        >>> metric.update(torch.tensor([3, 0]), torch.tensor([4, 4]))
        >>> {name: value.item() for name, value in metric.compute().items() if name in ("giou", "ciou", "pr@0.7", "count")}
        {'giou': 0.375, 'ciou': 0.375, 'pr@0.7': 0.5, 'count': 2.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    sums: Tensor

    def __init__(self, *, empty: float = 1.0, strict: bool = True) -> None:
        super().__init__()
        self.empty, self.strict = empty, strict
        self.add_state("sums", torch.zeros(4 + len(TENTHS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, intersection: Int[Tensor, " m"], union: Int[Tensor, " m"]) -> None:
        """Count masks by the pixels of their intersections and unions; ``m`` may be 0.

        Raises:
            ValueError: unless ``0 <= intersection <= union`` for each mask.
        """
        self.sums += mask_iou_sums(intersection, union, empty=self.empty, strict=self.strict).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The scores so far, over all processes."""
        return mask_iou_scores(self.sums)


def drew_something(drawn: Sequence[Mask]) -> bool:
    """Whether an answer shows at least one pixel: no mask and empty masks alike are a refusal.

    Example:
        >>> drew_something([]), drew_something([torch.zeros(2, 2, dtype=torch.bool)]), drew_something([torch.ones(2, 2, dtype=torch.bool)])
        (False, False, True)
    """
    return any(bool(mask.any()) for mask in drawn)


def refusal_sums(has_target: Bool[Tensor, " q"], drew: Bool[Tensor, " q"]) -> Float64[Tensor, " k"]:
    """Of dialogues: how many have a target, in how many of those was drawn, how many have none, and how many of those were refused.

    Args:
        has_target: whether each has something to draw.
        drew: whether something was drawn (:func:`drew_something`).

    Raises:
        ValueError: when the lengths differ.
    """
    if has_target.shape != drew.shape:
        raise ValueError(f"one has_target and one drew per dialogue are needed; found {len(has_target)} and {len(drew)}.")
    return torch.stack([has_target.sum(), (has_target & drew).sum(), (~has_target).sum(), (~has_target & ~drew).sum()]).double()


def refusal_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`Refusal` from :func:`refusal_sums`."""
    targets, drawn, absent, refused = sums.unbind(-1)
    return {"t_acc": drawn / targets, "n_acc": refused / absent, "num_targets": targets, "num_absent": absent}


def refusal(has_target: Bool[Tensor, " q"], drew: Bool[Tensor, " q"]) -> dict[str, Float64[Tensor, ""]]:
    """:class:`Refusal` of all dialogues at once.

    Example:
        >>> scores = refusal(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
        >>> scores["t_acc"].item(), scores["n_acc"].item()
        (0.5, 1.0)
    """
    return refusal_scores(refusal_sums(has_target, drew))


class Refusal(Metric):
    """Whether a model draws when the thing is there, and refuses when it is not; both in [0, 1].

    - ``t_acc``: share of the dialogues with a target in which at least one pixel was drawn, wherever it lies.
    - ``n_acc``: share of the dialogues without a target in which nothing was drawn: no ``[SEG]``, or only empty masks.
    - ``num_targets``, ``num_absent``: how many dialogues of each kind were scored.

    The two are only worth something together: one who never draws has ``n_acc`` 1, one who always draws has ``t_acc`` 1.
    A rate without dialogues is NaN.

    Source: the definitions of GRES (https://arxiv.org/abs/2306.00968), with no-target as the positive class:
    N-acc = TP / (TP + FN), T-acc = TN / (TN + FP). The released code of ReLA divides by one more and puts TP / (TP + FP + 1) in the place of
    T-acc; numbers printed by that code are something else.

    Example:
        >>> metric = Refusal()
        >>> metric.update(torch.tensor([True, False, False]), torch.tensor([True, True, False]))
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'t_acc': 1.0, 'n_acc': 0.5, 'num_targets': 1.0, 'num_absent': 2.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, has_target: Bool[Tensor, " q"], drew: Bool[Tensor, " q"]) -> None:
        """Count dialogues: whether each has something to draw, and whether something was drawn (:func:`drew_something`)."""
        self.sums += refusal_sums(has_target, drew).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The scores so far, over all processes."""
        return refusal_scores(self.sums)
