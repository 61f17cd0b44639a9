"""Masks against the truth: gIoU, cIoU, precision at thresholds, outlines, sizes, and whether a model refuses to draw what is not there.

Masks of different images have different sizes, so a mask is reduced to two numbers first, the pixels of its intersection
and of its union with the truth (:mod:`geopix.metrics.pixels`); everything else is counted from these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor
from torchmetrics import Metric

TENTHS = (5, 6, 7, 8, 9)
"""The thresholds of Pr@X in tenths: whole numbers, so that an IoU of exactly 0.6 is not above 0.6."""

SIZE_BUCKETS = {"empty": 1, "tiny": 12**2, "small": 32**2, "medium": 96**2, "large": math.inf}
"""Sizes of things, each with the true area in pixels of the image's own that it stays below. Small, medium and large part where COCO's do;
``tiny`` is what is smaller than 12 x 12 pixels, and an empty truth has a bucket of its own."""


def size_bucket(area: int) -> str:
    """The name of the first of :data:`SIZE_BUCKETS` that an area in pixels lies below.

    Example:
        >>> print(*(size_bucket(area) for area in (0, 143, 144, 1023, 1024, 9216)))
        empty tiny small small medium large
    """
    return next(name for name, limit in SIZE_BUCKETS.items() if area < limit)


def mask_iou_each(intersection: Int[Tensor, " m"], union: Int[Tensor, " m"], *, empty: float = 1.0, strict: bool = True) -> Float64[Tensor, "m k"]:
    """Of each mask what :func:`mask_iou_sums` adds up: 1, its IoU, whether it reaches each of :data:`TENTHS`, its pixels of intersection and of union.

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
    reached = (excess > 0 if strict else excess >= 0).double()
    return torch.cat([torch.ones_like(iou)[:, None], iou[:, None], reached, shared.double()[:, None], joined.double()[:, None]], dim=1)


def mask_iou_sums(intersection: Int[Tensor, " m"], union: Int[Tensor, " m"], *, empty: float = 1.0, strict: bool = True) -> Float64[Tensor, " k"]:
    """Of masks: how many, the sum of their IoUs, how many reach each of :data:`TENTHS`, and all pixels of intersections and of unions.

    Arguments and errors are those of :func:`mask_iou_each`.
    """
    return mask_iou_each(intersection, union, empty=empty, strict=strict).sum(0)


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
