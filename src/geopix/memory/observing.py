"""What memories store of training truth, and how ranks agree on it."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@torch.no_grad()
def object_means(
    features: Float[Tensor, "b c h w"], image_index: Int[Tensor, " m"], masks: Float[Tensor, "m _ _"] | Bool[Tensor, "m _ _"]
) -> Float[Tensor, "m c"]:
    """The mean feature of each object, each cell weighted by the share of it that the mask covers; in float32, 0 for an empty mask."""
    with torch.autocast(features.device.type, enabled=False):
        share = F.adaptive_avg_pool2d(masks.float(), (features.shape[-2], features.shape[-1])).flatten(1)
        share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
        cells = features.float().flatten(2).index_select(0, image_index)
        return (cells @ share[..., None]).squeeze(-1)


def sum_over_ranks(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The sum of what all ranks give; every rank must call it, with the same length."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather_over_ranks(rows: Float[Tensor, "n f"]) -> Float[Tensor, "_ f"]:
    """The rows of all ranks, rank by rank; every rank must call it, with the same shape."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows)
    return torch.cat(gathered)
