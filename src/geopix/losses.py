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

from geopix.types import Output

Term = tuple[Tensor, Tensor]
"""A loss not yet divided: the sum over its elements, and their number."""

Truth = Bool[Tensor, "m h w"] | Float[Tensor, "m h w"]
"""Masks, or the share of each mask in the cells of a coarser grid."""

TERMS = ("text", "bce", "dice", "auxiliary_bce", "auxiliary_dice", "locate", "classify", "quality", "presence")
"""The names of all losses. Ranks count them in this order, whichever of them their batches allow."""


@dataclass(frozen=True)
class LossWeights:
    """What each loss counts. Text, BCE and Dice default to GeoPix's release (1, 2, 0.5).

    Args:
        text: cross-entropy of answer tokens.
        bce: binary cross-entropy of masks, mean over the pixels of a mask.
        dice: Dice loss of masks.
        auxiliary: factor on BCE and Dice of the decoder's earlier masks.
        locate: divergence between where a decoder expects an object and where it lies, where a decoder says so.
        classify: cross-entropy of the class that the memory infers from a prompt, where the class is known.
        quality: squared error of the predicted IoU, where a decoder predicts it.
        presence: binary cross-entropy of presence, where a decoder predicts it.
    """

    text: float = 1.0
    bce: float = 2.0
    dice: float = 0.5
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
    return F.cross_entropy(logits.float(), labels, reduction="sum"), _count(labels)


def bce_loss(logits: Float[Tensor, "m h w"], masks: Truth) -> Term:
    """Binary cross-entropy, mean over the pixels of a mask, summed over masks."""
    each = F.binary_cross_entropy_with_logits(logits.float(), masks.float(), reduction="none")
    return each.flatten(1).mean(1).sum(), _count(masks)


def dice_loss(logits: Float[Tensor, "m h w"], masks: Truth, smooth: float = 1.0) -> Term:
    """``1 - (2 |A B| + smooth) / (|A| + |B| + smooth)`` with soft areas in pixels, summed over masks (V-Net, arXiv 1606.04797)."""
    inside, truth = logits.float().sigmoid().flatten(1), masks.float().flatten(1)
    overlap = (inside * truth).sum(1)
    return (1 - (2 * overlap + smooth) / (inside.sum(1) + truth.sum(1) + smooth)).sum(), _count(masks)


def locate_loss(where: Float[Tensor, "m _ _"], masks: Bool[Tensor, "m h w"]) -> Term:
    """Kullback-Leibler divergence of the expected cells from the share of the mask in each, in nats, summed over the masks that are not empty.

    Picking the object out of all cells tells the language model which words matter, and the encoder which features, in far fewer steps than masks do,
    where a wrong object of the right class is a few pixels. It is ours; GLIP aligns words and regions by such products (arXiv 2112.03857).
    """
    share = _share(masks, where.shape[-2:]).flatten(1)
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
    return (quality.float() - overlap / union.clamp(min=1)).square().sum(), _count(masks)


def presence_loss(presence: Float[Tensor, " m"], masks: Bool[Tensor, "m h w"]) -> Term:
    """Binary cross-entropy between presence and whether the true mask has any pixel, summed over masks."""
    return F.binary_cross_entropy_with_logits(presence.float(), masks.flatten(1).any(1).float(), reduction="sum"), _count(masks)


def loss_terms(output: Output, masks: Bool[Tensor, "m h w"]) -> dict[str, Term]:
    """Every loss that an output allows, by its name in :data:`TERMS`.

    The final masks are compared at the training size; earlier ones on their own grid, with the share of the true mask in each of its cells.
    """
    drawing = output.drawing
    final = _resize(drawing.mask_logits, masks)
    terms = {"text": text_loss(output.logits, output.labels), "bce": bce_loss(final, masks), "dice": dice_loss(final, masks)}
    if drawing.auxiliary:
        shares = [_share(masks, logits.shape[-2:]) for logits in drawing.auxiliary]
        pairs = [(bce_loss(logits, share), dice_loss(logits, share)) for logits, share in zip(drawing.auxiliary, shares, strict=True)]
        terms["auxiliary_bce"] = (torch.stack([bce[0] for bce, _ in pairs]).mean(), pairs[0][0][1])
        terms["auxiliary_dice"] = (torch.stack([dice[0] for _, dice in pairs]).mean(), pairs[0][1][1])
    if drawing.where is not None:
        terms["locate"] = locate_loss(drawing.where, masks)
    if drawing.class_logits is not None and drawing.class_logits.shape[1]:
        terms["classify"] = class_loss(drawing.class_logits, output.class_ids)
    if drawing.quality is not None:
        terms["quality"] = quality_loss(drawing.quality, final, masks)
    if drawing.presence is not None:
        terms["presence"] = presence_loss(drawing.presence, masks)
    return terms


def weight_of(name: str, weights: LossWeights) -> float:
    """The factor of a term of :func:`loss_terms`; an auxiliary mask loss has the product of two."""
    factors = vars(weights)
    family, _, rest = name.partition("_")
    return factors[family] * factors[rest] if rest else factors[family]


def _resize(logits: Float[Tensor, "m _ _"], masks: Bool[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
    if logits.shape == masks.shape or not len(logits):
        return logits.new_zeros(masks.shape) + logits.sum() if not len(logits) else logits
    return F.interpolate(logits[:, None].float(), masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _share(masks: Bool[Tensor, "m _ _"], size: tuple[int, int]) -> Float[Tensor, "m _ _"]:
    return F.adaptive_avg_pool2d(masks.float(), size)


def _count(items: Tensor) -> Tensor:
    return torch.tensor(len(items), device=items.device)
