"""Losses as pure functions that return a sum and a count, and the weights they are added with.

A loss is ``sum / max(count, 1)`` with the count taken over all ranks, so an empty batch costs 0 and has a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geopix.mask_losses import Term, bce_loss, boundary_loss, count_of, dice_loss, focal_loss, lovasz_loss, point_losses
from geopix.types import Drawing, Output

TERMS = (
    "text", "bce", "dice", "focal", "lovasz", "boundary", "point_bce", "point_dice", "auxiliary_bce", "auxiliary_dice",
    "locate", "classify", "quality", "presence",
)  # fmt: skip
"""The names of all losses. Ranks count them in this order, whichever of them their batches allow."""


@dataclass(frozen=True)
class LossWeights:
    """What each loss counts. Text, BCE and Dice default to GeoPix's release (1, 2, 0.5).

    Args:
        text: cross-entropy of answer tokens.
        bce: binary cross-entropy of masks, mean over the pixels of a mask.
        dice: Dice loss of masks.
        focal: cross-entropy of the pixels that are still wrong.
        lovasz: Lovasz hinge, a surrogate of 1 - IoU.
        boundary: what is drawn, weighted by its distance from the true boundary; for the last part of a training, beside Dice.
        point_bce, point_dice: BCE and Dice at sampled points of the full-size truth; in place of ``bce`` and ``dice`` where masks are large.
        auxiliary: factor on BCE and Dice of the decoder's earlier masks.
        locate: divergence between where a decoder expects an object and where it lies, where a decoder says so.
        classify: cross-entropy of the class that the memory infers from a prompt, where the class is known.
        quality: squared error of the predicted IoU, where a decoder predicts it.
        presence: binary cross-entropy of presence, where a decoder predicts it.
    """

    text: float = 1.0
    bce: float = 2.0
    dice: float = 0.5
    focal: float = 0.0
    lovasz: float = 0.0
    boundary: float = 0.0
    point_bce: float = 0.0
    point_dice: float = 0.0
    auxiliary: float = 0.5
    locate: float = 0.5
    classify: float = 0.2
    quality: float = 0.1
    presence: float = 0.1

    def replace(self, changes: Mapping[str, float]) -> LossWeights:
        """The same weights with some changed.

        Raises:
            ValueError: on a name that is no weight.
        """
        unknown = sorted(set(changes) - set(vars(self)))
        if unknown:
            raise ValueError(f"unknown loss weight {unknown}; expected some of {sorted(vars(self))}.")
        return LossWeights(**{**vars(self), **changes})


def text_loss(logits: Float[Tensor, "a v"], labels: Int[Tensor, " a"]) -> Term:
    """Cross-entropy summed over answer tokens."""
    return F.cross_entropy(logits.float(), labels, reduction="sum"), count_of(labels)


def locate_loss(where: Float[Tensor, "m _ _"], masks: Bool[Tensor, "m h w"]) -> Term:
    """Kullback-Leibler divergence of the expected cells from the share of the mask in each, in nats, summed over the masks that are not empty.

    Picking the object out of all cells tells the language model which words matter, and the encoder which features, in far fewer steps than masks do,
    where a wrong object of the right class is a few pixels. It is ours; GLIP aligns words and regions by such products (arXiv 2112.03857).
    """
    share = _share(masks, where).flatten(1)
    seen = masks.flatten(1).any(1)
    share = share[seen] / share[seen].sum(1, keepdim=True)
    return F.kl_div(where[seen].float().flatten(1).log_softmax(1), share, reduction="sum"), seen.sum()


def class_loss(logits: Float[Tensor, "m p"], class_ids: Int[Tensor, " m"]) -> Term:
    """Cross-entropy summed over the masks whose class is known (id at least 0)."""
    known = class_ids >= 0
    return F.cross_entropy(logits[known].float(), class_ids[known], reduction="sum"), known.sum()


def quality_loss(quality: Float[Tensor, " m"], logits: Float[Tensor, "m h w"], masks: Bool[Tensor, "m h w"]) -> Term:
    """Squared error between the predicted IoU and the IoU that the drawn mask has, as Segment Anything trains it (arXiv 2304.02643)."""
    drawn = logits.detach() > 0
    overlap, union = (drawn & masks).flatten(1).sum(1), (drawn | masks).flatten(1).sum(1)
    return (quality.float() - overlap / union.clamp(min=1)).square().sum(), count_of(masks)


def presence_loss(presence: Float[Tensor, " m"], masks: Bool[Tensor, "m h w"]) -> Term:
    """Binary cross-entropy between presence and whether the true mask has any pixel, summed over masks."""
    return F.binary_cross_entropy_with_logits(presence.float(), masks.flatten(1).any(1).float(), reduction="sum"), count_of(masks)


def loss_terms(output: Output, masks: Bool[Tensor, "m h w"], weights: LossWeights | None = None) -> dict[str, Term]:
    """Every loss that an output allows, by its name in :data:`TERMS`.

    The final masks are compared at the training size; earlier ones on their own grid, with the share of the true mask in each of its cells.

    Args:
        weights: leave out what counts nothing under these; all losses are computed by default.
    """
    drawing = output.drawing

    def wanted(*names: str) -> bool:
        return weights is None or any(weight_of(name, weights) for name in names)

    terms: dict[str, Term] = {}
    if wanted("text"):
        terms["text"] = text_loss(output.logits, output.labels)
    if wanted("bce", "dice", "focal", "lovasz", "boundary", "quality"):
        final = _resize(drawing.mask_logits, masks)
        whole = {"bce": bce_loss, "dice": dice_loss, "focal": focal_loss, "lovasz": lovasz_loss, "boundary": boundary_loss}
        terms |= {name: loss(final, masks) for name, loss in whole.items() if wanted(name)}
        if drawing.quality is not None and wanted("quality"):
            terms["quality"] = quality_loss(drawing.quality, final, masks)
    if wanted("point_bce", "point_dice"):
        terms["point_bce"], terms["point_dice"] = point_losses(drawing.mask_logits, masks)
    if drawing.auxiliary and wanted("auxiliary_bce", "auxiliary_dice"):
        terms["auxiliary_bce"], terms["auxiliary_dice"] = _auxiliary(drawing, masks)
    if drawing.where is not None and wanted("locate"):
        terms["locate"] = locate_loss(drawing.where, masks)
    if drawing.class_logits is not None and drawing.class_logits.shape[1] and wanted("classify"):
        terms["classify"] = class_loss(drawing.class_logits, output.class_ids)
    if drawing.presence is not None and wanted("presence"):
        terms["presence"] = presence_loss(drawing.presence, masks)
    return terms


def _auxiliary(drawing: Drawing, masks: Bool[Tensor, "m h w"]) -> tuple[Term, Term]:
    """BCE and Dice of earlier masks, each the mean over how many there are of a mask."""
    shares = [_share(masks, logits) for logits in drawing.auxiliary]
    bce, dice = ([loss(logits, share) for logits, share in zip(drawing.auxiliary, shares, strict=True)] for loss in (bce_loss, dice_loss))
    return (torch.stack([value for value, _ in bce]).mean(), bce[0][1]), (torch.stack([value for value, _ in dice]).mean(), dice[0][1])


def weight_of(name: str, weights: LossWeights) -> float:
    """The factor of a term of :func:`loss_terms`; an auxiliary mask loss has the product of ``auxiliary`` and what the final mask's own loss counts."""
    factors = vars(weights)
    family, _, rest = name.partition("_")
    return factors[name] if name in factors else factors[family] * max(factors[rest], factors[f"point_{rest}"])


def _resize(logits: Float[Tensor, "m _ _"], masks: Bool[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
    if logits.shape == masks.shape or not len(logits):
        return logits.new_zeros(masks.shape) + logits.sum() if not len(logits) else logits
    return F.interpolate(logits[:, None].float(), masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _share(masks: Bool[Tensor, "m _ _"], grid: Float[Tensor, "m _ _"]) -> Float[Tensor, "m _ _"]:
    return F.adaptive_avg_pool2d(masks.float(), (grid.shape[-2], grid.shape[-1]))
