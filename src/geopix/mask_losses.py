"""Losses of masks, each a sum over masks and their number. Truth is a mask, or the share of a mask in the cells of a coarser grid."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

Term = tuple[Tensor, Tensor]
"""A loss not yet divided: the sum over its elements, and their number."""

Truth = Bool[Tensor, "m h w"] | Float[Tensor, "m h w"]
"""Masks, or the share of each mask in the cells of a coarser grid."""


def count_of(items: Tensor) -> Tensor:
    """How many there are, as a tensor beside them."""
    return torch.tensor(len(items), device=items.device)


def bce_loss(logits: Float[Tensor, "m h w"], masks: Truth) -> Term:
    """Binary cross-entropy, mean over the pixels of a mask, summed over masks."""
    each = F.binary_cross_entropy_with_logits(logits.float(), masks.float(), reduction="none")
    return each.flatten(1).mean(1).sum(), count_of(masks)


def dice_loss(logits: Float[Tensor, "m h w"], masks: Truth, smooth: float = 1.0) -> Term:
    """``1 - (2 |A B| + smooth) / (|A| + |B| + smooth)`` with soft areas in pixels, summed over masks (V-Net, arXiv 1606.04797)."""
    inside, truth = logits.float().sigmoid().flatten(1), masks.float().flatten(1)
    overlap = (inside * truth).sum(1)
    return (1 - (2 * overlap + smooth) / (inside.sum(1) + truth.sum(1) + smooth)).sum(), count_of(masks)


def focal_loss(logits: Float[Tensor, "m h w"], masks: Truth, alpha: float = 0.25, gamma: float = 2.0) -> Term:
    """Cross-entropy of the pixels that are still wrong: weighted by ``(1 - p) ** gamma``, and by ``alpha`` inside (RetinaNet, arXiv 1708.02002)."""
    each = sigmoid_focal_loss(logits.float(), masks.float(), alpha=alpha, gamma=gamma, reduction="none")
    return each.flatten(1).mean(1).sum(), count_of(masks)


def lovasz_loss(logits: Float[Tensor, "m h w"], masks: Bool[Tensor, "m h w"]) -> Term:
    """Lovasz hinge: the convex extension of ``1 - IoU`` of each mask (Berman et al. 2018, arXiv 1705.08790, equation 8 and algorithm 1)."""
    truth = masks.flatten(1).float()
    errors, order = (1 - logits.float().flatten(1) * (2 * truth - 1)).sort(dim=1, descending=True)
    sorted_truth = truth.gather(1, order)
    area = truth.sum(1, keepdim=True)
    # What 1 - IoU is when the pixels of the largest errors, up to each one, are wrong.
    jaccard = 1 - (area - sorted_truth.cumsum(1)) / (area + (1 - sorted_truth).cumsum(1)).clamp(min=1)
    steps = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], dim=1)
    return (F.relu(errors) * steps).sum(), count_of(masks)


def boundary_loss(logits: Float[Tensor, "m h w"], masks: Bool[Tensor, "m h w"]) -> Term:
    """What is drawn, weighted by its signed distance from the true boundary (Kervadec et al. 2019, arXiv 1812.07032, equation 5).

    Distances are shares of the image's longer side, negative inside; so is the loss where all is right. A pixel drawn for an empty mask has distance 1.
    """
    distance = torch.from_numpy(np.stack([_signed_distance(mask) for mask in masks.cpu().numpy()]) if len(masks) else np.zeros(masks.shape, np.float32))
    return (logits.float().sigmoid() * distance.to(logits.device)).flatten(1).mean(1).sum(), count_of(masks)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        return np.ones(mask.shape, np.float32)
    outside = distance_transform_edt(~mask)
    inside = distance_transform_edt(mask) if not mask.all() else np.full(mask.shape, max(mask.shape))
    return np.where(mask, -inside, outside).astype(np.float32) / max(mask.shape)


def point_losses(
    logits: Float[Tensor, "m _ _"],
    masks: Bool[Tensor, "m H W"],
    points: int = 12_544,
    oversample: float = 3.0,
    important: float = 0.75,
    inside: float = 0.125,
) -> tuple[Term, Term]:
    """BCE and Dice at points of each mask at its full size, without an upsampled map of logits (PointRend, arXiv 1912.08193; Mask2Former, arXiv 2112.01527).

    Most points are those of ``oversample`` times as many random ones where the logit is nearest to 0, as there. Ours is that a share of the points is drawn
    inside the true mask, however small it is: an object of two pixels among millions would otherwise hardly ever be met.

    Args:
        logits: of any resolution that covers the whole canvas.
        masks: truth at the training size.
        points: points per mask.
        oversample: random points that the uncertain ones are chosen from, over those that are needed.
        important: share of the uncertain points.
        inside: share of the points inside the true mask, where it has any pixel; the rest is random.
    """
    if not len(masks):
        nothing = logits.float().sum() * 0.0
        return (nothing, count_of(masks)), (nothing, count_of(masks))
    with torch.no_grad():
        num_important, num_inside = int(points * important), int(points * inside)
        random = torch.rand(len(masks), int(points * oversample), 2, device=logits.device)
        uncertain = _at(logits.float(), random).abs().topk(num_important, dim=1, largest=False).indices
        chosen = random.gather(1, uncertain[..., None].expand(-1, -1, 2))
        rest = torch.rand(len(masks), points - num_important - num_inside, 2, device=logits.device)
        where = torch.cat([chosen, _inside(masks, num_inside), rest], dim=1)
        truth = _at(masks.float(), where, mode="nearest")
    drawn = _at(logits.float(), where)
    return bce_loss(drawn[:, None], truth[:, None]), dice_loss(drawn[:, None], truth[:, None])


def _at(maps: Float[Tensor, "m h w"], where: Float[Tensor, "m n 2"], mode: str = "bilinear") -> Float[Tensor, "m n"]:
    """Values of each map at its points ``(x, y)`` in 0..1 of the canvas."""
    return F.grid_sample(maps[:, None], 2 * where[:, None] - 1, mode=mode, align_corners=False, padding_mode="border")[:, 0, 0]


def _inside(masks: Bool[Tensor, "m h w"], num: int) -> Float[Tensor, "m n 2"]:
    """Points within the true pixels of each mask, all pixels alike; anywhere for an empty mask."""
    height, width = masks.shape[1:]
    areas = masks.flatten(1).sum(1)
    pixels = masks.flatten(1).nonzero()[:, 1]
    anywhere = torch.randint(height * width, (len(masks), num), device=masks.device)
    if not len(pixels):
        picked = anywhere
    else:
        start = areas.cumsum(0) - areas
        nth = (torch.rand(len(masks), num, device=masks.device) * areas[:, None]).long().clamp(max=(areas[:, None] - 1).clamp(min=0))
        own = pixels[(start[:, None] + nth).clamp(max=len(pixels) - 1)]
        picked = torch.where(areas[:, None] > 0, own, anywhere)
    corner = torch.stack([picked % width, picked // width], dim=-1)
    size = torch.tensor([width, height], device=masks.device)
    return (corner + torch.rand(corner.shape, device=masks.device)) / size
