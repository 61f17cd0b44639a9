"""Grounded conversations, a description whose things are each drawn: how much of the truth is found, and by how good masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from geopix.metrics.pixels import match_masks, pairwise_pixels, score_matched

HALF = 0.5
_RECALLS = np.linspace(0, 1, 101)


def assigned_ious(drawn: Sequence[Bool[Tensor, "h w"]], truth: Sequence[Bool[Tensor, "h w"]]) -> Float64[Tensor, " d"]:
    """For each mask that was drawn its IoU with the true one that :func:`geopix.metrics.pixels.match_masks` gives it, or 0 where it gives none.

    Example:
        >>> left, right = torch.tensor([[True, False]]), torch.tensor([[False, True]])
        >>> assigned_ious([left | right, left, right], [left]).tolist()
        [0.0, 1.0, 0.0]
    """
    ious = torch.zeros(len(drawn), dtype=torch.float64)
    shared, joined = score_matched(drawn, truth)
    fit = torch.where(joined == 0, 1.0, shared.double() / joined.clamp(min=1))
    for place, (one, other) in enumerate(match_masks(drawn, truth)):
        if one is not None and other is not None:
            ious[one] = fit[place]
    return ious


def grounded_sums(ious: Float[Tensor, " d"], num_truth: int) -> Float64[Tensor, " k"]:
    """Of one image: 1, its mean IoU, how many true masks are found with IoU of at least one half, and how many there are.

    Its mean IoU is the sum of ``ious`` / max(masks drawn, true masks): what was missed and what was made up count 0. An image without either is not counted.

    Args:
        ious: of each mask that was drawn, with the true one assigned to it (:func:`assigned_ious`), 0 where none is.
        num_truth: how many true masks the image has.

    Raises:
        ValueError: when more masks have an IoU above 0 than there are true ones: each true mask is assigned once.
    """
    if int((ious > 0).sum()) > num_truth:
        raise ValueError(
            f"{num_truth} true masks cannot fit {int((ious > 0).sum())} drawn ones, each is assigned once; found {ious.tolist()}. "
            "assigned_ious makes such lists."
        )
    most = max(len(ious), num_truth)
    if not most:
        return torch.zeros(4, dtype=torch.float64)
    return torch.stack([torch.ones(()), ious.double().sum() / most, (ious >= HALF).sum(), torch.tensor(num_truth)]).double()


def grounded_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`GroundedConversation` from :func:`grounded_sums`."""
    images, iou, found, truth = sums.unbind(-1)
    return {"miou": iou / images, "recall@0.5": found / truth, "num_truth": truth, "count": images}


class GroundedConversation(Metric):
    """How well the masks of a grounded description fit, in [0, 1], whatever their order.

    - ``miou``: mean over images of the sum of the IoUs of assigned pairs / max(masks drawn, true masks). What is missed or made up counts 0, unlike
      in GLaMM and GeoPixel, whose mIoU averages over matched pairs alone;
    - ``recall@0.5``: share of all true masks whose assigned one has an IoU of at least 0.5. GLaMM asks for similar phrases as well (BERT),
      which is not done here;
    - ``num_truth``: how many true masks; ``count``: how many images.

    Without images ``miou`` is NaN, without true masks ``recall@0.5`` is.

    Source: grounded conversation generation of GLaMM (https://arxiv.org/abs/2311.03356); division by the longer side as ``ar_validate`` of
    PixelLM (https://arxiv.org/abs/2312.02228).

    Example:
        >>> metric = GroundedConversation()
        >>> metric.update(torch.tensor([0.75]), 2)
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'miou': 0.375, 'recall@0.5': 0.5, 'num_truth': 2.0, 'count': 1.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, ious: Float[Tensor, " d"], num_truth: int) -> None:
        """Count one image (:func:`grounded_sums`)."""
        self.sums += grounded_sums(ious, num_truth).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The scores so far, over all processes."""
        return grounded_scores(self.sums)


def matched_at_half(
    drawn: Sequence[Bool[Tensor, "h w"]], truth: Sequence[Bool[Tensor, "h w"]], confidence: Float[Tensor, " d"] | None = None
) -> Bool[Tensor, " d"]:
    """Which masks of an image average precision takes for right: from the most confident on, each takes the free true mask that it fits best, with an IoU
    of at least one half.

    Args:
        confidence: of each mask that was drawn; in the order of drawing where there is none.

    Source: ``COCOeval.evaluateImg`` of pycocotools.

    Raises:
        ValueError: when the masks differ in size.
    """
    shared, ours, true = pairwise_pixels(drawn, truth)
    ious = shared / np.maximum(ours[:, None] + true - shared, 1)
    matched = torch.zeros(len(drawn), dtype=torch.bool)
    order = range(len(drawn)) if confidence is None else torch.argsort(confidence, descending=True, stable=True).tolist()
    for one in order if len(truth) else ():
        best = int(ious[one].argmax())
        if ious[one, best] >= HALF:
            matched[one] = True
            ious[:, best] = -1  # taken
    return matched


def ap50(matched: Bool[Tensor, " d"], num_truth: int, confidence: Float[Tensor, " d"]) -> Float64[Tensor, ""]:
    """Average precision of the masks of all images at an IoU of one half, in [0, 1]; NaN without true masks.

    The mean over the recalls 0, 0.01 ... 1 of the best precision at that recall or a higher one. Masks of equal confidence enter together, so that the
    order of the images does not matter; where no two are equal the number is that of pycocotools, without its limit of 100 masks an image. A model
    that states no confidence gives all masks the same, and gets its precision times the share of recalls that it reaches: pycocotools, and with
    it GLaMM, gives another number then, which depends on the order of the images.

    Args:
        matched: of each mask that was drawn, whether it is right (:func:`matched_at_half`).
        num_truth: true masks of all images.
        confidence: of each mask that was drawn.

    Example:
        >>> ap50(torch.tensor([True, False]), 1, torch.tensor([0.9, 0.8])).item(), ap50(torch.tensor([True, False]), 1, torch.ones(2)).item()
        (1.0, 0.5)
    """
    if not num_truth:
        return torch.tensor(torch.nan, dtype=torch.float64)
    if not len(matched):
        return torch.zeros((), dtype=torch.float64)
    stated, order = torch.sort(confidence.cpu(), descending=True, stable=True)
    last = np.append(np.flatnonzero(np.diff(stated.numpy())), len(stated) - 1)
    right = matched.cpu()[order].numpy().cumsum()[last]
    best = np.maximum.accumulate((right / (last + 1))[::-1])[::-1]
    places = np.searchsorted(right / num_truth, _RECALLS, side="left")
    return torch.tensor(np.append(best, 0.0)[places].mean(), dtype=torch.float64)


def equal_ap50_sums(matched: Bool[Tensor, " d"], num_truth: int) -> Float64[Tensor, " k"]:
    """Of the masks of an image, or of several, none of which is more confident than another: how many are right, were drawn, and are true."""
    return torch.stack([matched.sum(), torch.tensor(len(matched)), torch.tensor(num_truth)]).double()


def equal_ap50_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """:func:`ap50` of masks that are all equally confident, from :func:`equal_ap50_sums`: precision times the share of recalls that are reached.

    Example:
        >>> equal_ap50_scores(equal_ap50_sums(torch.tensor([True, False]), 1))["ap50"].item()
        0.5
    """
    right, drawn, truth = sums.unbind(-1)
    reached = (torch.from_numpy(_RECALLS).to(sums.device) <= (right / truth)[..., None]).double().mean(-1)
    return {"ap50": torch.where(truth > 0, reached * right / drawn.clamp(min=1), torch.nan)}


class GroundedAP50(Metric):
    """Average precision at an IoU of one half over all images (:func:`ap50`), in [0, 1].

    - ``ap50``: NaN without true masks;
    - ``num_truth``: how many true masks; ``count``: how many were drawn.

    Where confidences are stated it is no function of sums, so it keeps two numbers for each mask that was drawn; where none is, it is one of
    :func:`equal_ap50_sums`.

    Source: ``COCOeval`` of pycocotools (https://arxiv.org/abs/1405.0312); AP50 of GLaMM (https://arxiv.org/abs/2311.03356).

    Example:
        >>> metric = GroundedAP50()
        >>> metric.update(torch.tensor([True, False]), 2, torch.tensor([0.9, 0.8]))
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'ap50': 0.505, 'num_truth': 2.0, 'count': 2.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    sums: Tensor
    matched: list[Tensor]
    confidence: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("matched", [], dist_reduce_fx="cat")
        self.add_state("confidence", [], dist_reduce_fx="cat")

    def update(self, matched: Bool[Tensor, " d"], num_truth: int, confidence: Float[Tensor, " d"] | None = None) -> None:
        """Add the masks of an image, or of several.

        Args:
            matched: of each mask that was drawn, whether it is right (:func:`matched_at_half`).
            num_truth: how many true masks there are.
            confidence: of each mask; all alike where there is none.
        """
        stated = torch.ones(len(matched)) if confidence is None else confidence
        # 32-bit floats, because torchmetrics gathers an empty tensor of that kind from a process without data.
        self.matched.append(matched.float().to(self.sums.device))
        self.confidence.append(stated.float().to(self.sums.device))
        self.sums += num_truth

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The score so far, over all processes."""
        matched, confidence = (dim_zero_cat(state) if len(state) else torch.zeros(0) for state in (self.matched, self.confidence))
        truth = self.sums[0]
        return {"ap50": ap50(matched > 0, int(truth), confidence).to(truth.device), "num_truth": truth, "count": torch.full_like(truth, len(matched))}
