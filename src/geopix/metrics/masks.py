"""Masks against the truth: gIoU, cIoU and precision at thresholds, and whether a model refuses to draw what is not there.

Masks of different images have different sizes, so a mask is reduced to two numbers first, the pixels of its intersection
and of its union with the truth (:func:`intersection_union`, :func:`score_dialogue`); everything else is counted from these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric

TENTHS = (5, 6, 7, 8, 9)
"""The thresholds of Pr@X in tenths: whole numbers, so that an IoU of exactly 0.6 is not above 0.6."""


def _count(masks: Bool[Tensor, "m h w"]) -> Int[Tensor, " m"]:
    # 32-bit sums are twice as fast as 64-bit ones; per row they cannot overflow.
    return masks.sum(2, dtype=torch.int32).sum(1)


def intersection_union(pred: Bool[Tensor, "m h w"], truth: Bool[Tensor, "m h w"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Pixels of the intersection and of the union of each pair of masks, as int64.

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
    return _count(pred & truth), _count(pred | truth)


def score_dialogue(drawn: Sequence[Bool[Tensor, "_ _"]], truth: Sequence[Bool[Tensor, "_ _"]]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
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
        int64 intersections and unions, ``max(len(drawn), len(truth))`` of each.

    Raises:
        ValueError: when the masks differ in size.

    Example:
        >>> square = torch.ones(2, 2, dtype=torch.bool)
        >>> score_dialogue([square], [square, square])
        (tensor([4, 0]), tensor([4, 4]))
    """
    sizes = {tuple(mask.shape) for mask in (*drawn, *truth)}
    if len(sizes) > 1:
        raise ValueError(f"the masks of one dialogue must all have the size of its image; found {sorted(sizes)}. Map drawn masks back to the image first.")
    paired = min(len(drawn), len(truth))
    intersections, unions = [], []
    if paired:
        shared, joined = intersection_union(torch.stack(list(drawn[:paired])), torch.stack(list(truth[:paired])))
        intersections.append(shared)
        unions.append(joined)
    for alone, least in ((truth[paired:], 0), (drawn[paired:], 1)):
        if alone:
            areas = _count(torch.stack(list(alone)))
            intersections.append(torch.zeros_like(areas))
            unions.append(areas.clamp(min=least))
    if not unions:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    return torch.cat(intersections), torch.cat(unions)


def drew_something(drawn: Sequence[Bool[Tensor, "_ _"]]) -> bool:
    """Whether an answer shows at least one pixel: no mask and empty masks alike are a refusal.

    Example:
        >>> drew_something([]), drew_something([torch.zeros(2, 2, dtype=torch.bool)]), drew_something([torch.ones(2, 2, dtype=torch.bool)])
        (False, False, True)
    """
    return any(bool(mask.any()) for mask in drawn)


def _mask_iou_update(intersection: Int[Tensor, " m"], union: Int[Tensor, " m"]) -> tuple[Float[Tensor, ""], Int[Tensor, " t"]]:
    """The sum of the IoUs, and how many are above each threshold."""
    if intersection.shape != union.shape or bool(((intersection < 0) | (intersection > union)).any()):
        raise ValueError(
            "one intersection and one union per mask are needed, with 0 <= intersection <= union; "
            f"found {intersection.tolist()[:8]} and {union.tolist()[:8]}. intersection_union and score_dialogue count them."
        )
    intersection, union = intersection.long(), union.long()
    empty = union == 0
    iou = torch.where(empty, 1.0, intersection.double() / union.clamp(min=1).double())
    tenths = torch.tensor(TENTHS, device=union.device)
    above = (10 * intersection[:, None] > tenths * union[:, None]) | empty[:, None]
    return iou.sum(), above.sum(0)


def _mask_iou_compute(
    iou_sum: Float[Tensor, ""], above: Int[Tensor, " t"], intersection: Int[Tensor, ""], union: Int[Tensor, ""], count: Int[Tensor, ""]
) -> dict[str, Tensor]:
    num = count.double()
    scores = {"giou": iou_sum / num, "ciou": intersection.double() / union.double()}
    for tenth, share in zip(TENTHS, above.double() / num, strict=True):
        scores[f"pr@0.{tenth}"] = share
    return scores | {"count": num}


def mask_iou(intersection: Int[Tensor, " m"], union: Int[Tensor, " m"]) -> dict[str, Tensor]:
    """:class:`MaskIoU` of all masks at once.

    Example:
        >>> scores = mask_iou(torch.tensor([2, 0]), torch.tensor([4, 6]))
        >>> scores["giou"].item(), scores["ciou"].item(), scores["pr@0.5"].item()
        (0.25, 0.2, 0.0)
    """
    iou_sum, above = _mask_iou_update(intersection, union)
    return _mask_iou_compute(iou_sum, above, intersection.sum(), union.sum(), torch.tensor(len(union)))


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

    Example:
        >>> metric = MaskIoU()
        >>> metric.update(torch.tensor([3, 0]), torch.tensor([4, 4]))
        >>> {name: value.item() for name, value in metric.compute().items() if name in ("giou", "ciou", "pr@0.7", "count")}
        {'giou': 0.375, 'ciou': 0.375, 'pr@0.7': 0.5, 'count': 2.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    iou_sum: Tensor
    above: Tensor
    intersection: Tensor
    union: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("iou_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("above", torch.zeros(len(TENTHS), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("intersection", "union", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, intersection: Int[Tensor, " m"], union: Int[Tensor, " m"]) -> None:
        """Count masks by the pixels of their intersections and unions; ``m`` may be 0.

        Raises:
            ValueError: unless ``0 <= intersection <= union`` for each mask.
        """
        intersection, union = intersection.to(self.count.device), union.to(self.count.device)
        iou_sum, above = _mask_iou_update(intersection, union)
        self.iou_sum += iou_sum
        self.above += above
        self.intersection += intersection.sum()
        self.union += union.sum()
        self.count += len(union)

    def compute(self) -> dict[str, Tensor]:
        """The scores so far, over all processes."""
        return _mask_iou_compute(self.iou_sum, self.above, self.intersection, self.union, self.count)


def _refusal_update(has_target: Bool[Tensor, " q"], drew: Bool[Tensor, " q"]) -> Int[Tensor, " 4"]:
    """Dialogues with a target and those drawn, dialogues without one and those refused."""
    if has_target.shape != drew.shape:
        raise ValueError(f"one has_target and one drew per dialogue are needed; found {len(has_target)} and {len(drew)}.")
    return torch.stack([has_target.sum(), (has_target & drew).sum(), (~has_target).sum(), (~has_target & ~drew).sum()])


def _refusal_compute(counts: Int[Tensor, " 4"]) -> dict[str, Tensor]:
    targets, drawn, absent, refused = counts.double()
    return {"t_acc": drawn / targets, "n_acc": refused / absent, "num_targets": targets, "num_absent": absent}


def refusal(has_target: Bool[Tensor, " q"], drew: Bool[Tensor, " q"]) -> dict[str, Tensor]:
    """:class:`Refusal` of all dialogues at once.

    Example:
        >>> scores = refusal(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
        >>> scores["t_acc"].item(), scores["n_acc"].item()
        (0.5, 1.0)
    """
    return _refusal_compute(_refusal_update(has_target, drew))


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

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, has_target: Bool[Tensor, " q"], drew: Bool[Tensor, " q"]) -> None:
        """Count dialogues: whether each has something to draw, and whether something was drawn (:func:`drew_something`)."""
        self.counts += _refusal_update(has_target, drew).to(self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        """The scores so far, over all processes."""
        return _refusal_compute(self.counts)
