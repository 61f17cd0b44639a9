"""What memories share: how the cells of a mask's image read slots, whatever the slots are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

MASK_PATCH = 4
"""Mask pixels per cell along each side, given to the mask's encoder; GeoPix's first masks are two or four times as fine as its features."""

FEW_KEYS = 256
"""Up to here attention is plain matrix products: the scores are small, and on CPUs the fused kernel's backward takes two to three times as long."""


def plain_attention(
    q: Float[Tensor, "*m n e"], k: Float[Tensor, "*m t e"], v: Float[Tensor, "*m t e"], bias: Float[Tensor, "*#m _ t"] | None = None
) -> Float[Tensor, "*m n e"]:
    """Scaled dot-product attention as two matrix products; ``bias`` is added to the scores."""
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    return (scores if bias is None else scores + bias).softmax(-1) @ v


class Attention(nn.Module):
    """Multi-head attention. Keys carry no bias: it adds the same to all scores of a query, which softmax ignores."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(
        self,
        queries: Float[Tensor, "m n d"],
        keys: Float[Tensor, "m t d"],
        values: Float[Tensor, "m t d"],
        bias: Float[Tensor, "m t"] | None = None,
    ) -> Float[Tensor, "m n d"]:
        """What each query reads; ``bias`` is added to the scores of each key."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.q_proj(queries), self.k_proj(keys), self.v_proj(values)))
        attend = plain_attention if keys.shape[1] <= FEW_KEYS else F.scaled_dot_product_attention
        read = attend(q, k, v, None if bias is None else bias[:, None, None].to(q.dtype))
        return self.out_proj(read.transpose(1, 2).flatten(2))


class ObjectEncoder(nn.Module):
    """Joins an image's features with one mask: a small convolutional encoder of the mask, and a ConvNeXt block over the sum.

    It stands for the memory encoder of SAM 2 (Ravi et al. 2024, arXiv 2408.00714), from which GeoPix takes its own.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mask = nn.Sequential(nn.Conv2d(MASK_PATCH**2, dim, 3, padding=1), nn.GroupNorm(1, dim), nn.GELU(), nn.Conv2d(dim, dim, 1))
        self.spatial = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.channel = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.scale = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, features: Float[Tensor, "m d h w"], mask: Float[Tensor, "m H W"]) -> Float[Tensor, "m h w d"]:
        """Cells that know the image and the object, with channels last; the mask is ``MASK_PATCH`` times as fine as the features."""
        rows, columns = features.shape[-2:]
        patches = mask.unflatten(2, (columns, MASK_PATCH)).unflatten(1, (rows, MASK_PATCH)).permute(0, 2, 4, 1, 3).flatten(1, 2)
        x = (features + self.mask(patches)).contiguous(memory_format=torch.channels_last)
        mixed = self.channel(self.norm(self.spatial(x).permute(0, 2, 3, 1)))
        return x.permute(0, 2, 3, 1) + self.scale * mixed


class MemoryAttention(nn.Module):
    """Cells attend to each other, then to the slots, then pass an MLP; every residual is used, each scaled per channel.

    Args:
        dim: width of cells and slots.
        heads: attention heads among the slots; among the cells there is one, as in GeoPix.
        ffn: hidden width of the MLP.
    """

    def __init__(self, dim: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.norm_space = nn.LayerNorm(dim)
        self.space = Attention(dim, 1)
        self.norm_read = nn.LayerNorm(dim)
        self.read = Attention(dim, heads)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn), nn.GELU(), nn.Linear(ffn, dim))
        self.scales = nn.Parameter(torch.ones(3, dim))
        self.norm_out = nn.LayerNorm(dim)

    def forward(
        self, cells: Float[Tensor, "m n d"], code: Float[Tensor, "n d"], slots: Float[Tensor, "m t d"], bias: Float[Tensor, "m t"] | None = None
    ) -> Float[Tensor, "m n d"]:
        """What the cells have become after reading the slots, each with its ``bias`` on the scores."""
        code = code.to(cells.dtype)
        x = self.norm_space(cells)
        cells = cells + self.scales[0] * self.space(x + code, x + code, x)
        cells = cells + self.scales[1] * self.read(self.norm_read(cells) + code, slots, slots, bias)
        cells = cells + self.scales[2] * self.ffn(self.norm_ffn(cells))
        return self.norm_out(cells)


class LevelReader(NamedTuple):
    """The parts that read at one level. Those that levels share are the same for each.

    Args:
        grid: most cells along the longer side that attend to each other; larger maps are averaged down and the change is brought back up.
    """

    project_in: nn.Module
    encoder: ObjectEncoder
    summary: nn.Module
    attention: MemoryAttention
    project_out: nn.Module
    gain: Tensor
    grid: int


def refine(
    reader: LevelReader,
    features: Float[Tensor, "b c h w"],
    image_index: Int[Tensor, " m"],
    mask_logits: Float[Tensor, "m _ _"],
    slots: Float[Tensor, "m t d"],
    *,
    bias: Float[Tensor, "m t"] | None = None,
    share: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "m c h w"]:
    """The features of each mask's image plus a learned fraction of what its cells read from the slots and from a summary of the object under the mask.

    Args:
        bias: added to the attention scores of each slot; minus infinity hides a slot.
        share: factor on each mask's change; 0 returns the features as they are.
    """
    size = (features.shape[-2], features.shape[-1])
    rows, columns = attended(size, reader.grid)
    pooled = features if (rows, columns) == size else F.adaptive_avg_pool2d(features, (rows, columns))
    seen = reader.project_in(pooled).index_select(0, image_index)
    mask = resize(mask_logits.sigmoid(), (MASK_PATCH * rows, MASK_PATCH * columns))

    cells = reader.encoder(seen, mask).flatten(1, 2)
    slots = torch.cat([slots.to(cells.dtype), _summary(reader.summary, cells, mask, rows, columns)], dim=1)
    bias = None if bias is None else F.pad(bias, (0, 1))
    read = reader.attention(cells, grid_code(rows, columns, cells.shape[-1], cells.device), slots, bias)
    change = (reader.project_out(read) * reader.gain).transpose(1, 2).unflatten(-1, (rows, columns))
    if (rows, columns) != size:
        change = F.interpolate(change, size=size, mode="bilinear", align_corners=False)
    if share is not None:
        change = change * share[:, None, None, None]
    return features.index_select(0, image_index) + change.to(features.dtype)


class Reader(nn.Module):
    """Projections in and out of each level, and between them what the levels share: object encoder, summary and attention.

    Args:
        channels: widths of the decoder's maps, one per level.
        dim: width of the slots and of the attention.
        heads, ffn: heads and MLP width of the attention.
        grid: most cells along the longer side that attend to each other.

    Raises:
        ValueError: when ``dim`` is no multiple of 4 and of ``heads``.
    """

    def __init__(self, channels: Sequence[int], *, dim: int, heads: int, ffn: int, grid: int) -> None:
        super().__init__()
        check_dim(dim, heads)
        self.grid = grid
        self.project_in = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in channels)
        self.encoder = ObjectEncoder(dim)
        self.summary = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.attention = MemoryAttention(dim, heads, ffn)
        self.project_out = nn.ModuleList(nn.Linear(dim, width) for width in channels)
        self.gains = nn.ParameterList(torch.full((width,), 0.1) for width in channels)

    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        image_index: Int[Tensor, " m"],
        mask_logits: Float[Tensor, "m _ _"],
        level: int,
        slots: Float[Tensor, "m t d"],
        *,
        bias: Float[Tensor, "m t"] | None = None,
        share: Float[Tensor, " m"] | None = None,
    ) -> Float[Tensor, "m c h w"]:
        """As :func:`refine`."""
        parts = LevelReader(
            self.project_in[level], self.encoder, self.summary, self.attention, self.project_out[level], self.gains[level], self.grid
        )
        return refine(parts, features, image_index, mask_logits, slots, bias=bias, share=share)


def check_dim(dim: int, heads: int) -> None:
    """Refuse a width that heads or the grid's code cannot divide.

    Raises:
        ValueError: when ``dim`` is no multiple of 4 and of ``heads``.
    """
    if dim % heads or dim % 4:
        raise ValueError(f"the memory's dim must be a multiple of its {heads} heads and of 4 (sine and cosine of rows and columns); found {dim}.")


def attended(size: tuple[int, int], grid: int) -> tuple[int, int]:
    """Rows and columns of the cells that attend to each other: the map's own, shrunk to at most ``grid`` along the longer side."""
    shrink = min(1.0, grid / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))


def _summary(summary: nn.Module, cells: Float[Tensor, "m n d"], mask: Float[Tensor, "m H W"], rows: int, columns: int) -> Float[Tensor, "m 1 d"]:
    share = F.adaptive_avg_pool2d(mask, (rows, columns)).flatten(1)
    share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
    return summary(share[:, None].to(cells.dtype) @ cells)


def resize(mask: Float[Tensor, "m _ _"], size: tuple[int, int]) -> Float[Tensor, "m _ _"]:
    """The mask at ``size``; a finer mask is averaged over areas, for bilinear sampling would skip small objects."""
    if mask.shape[-2] > size[0] or mask.shape[-1] > size[1]:
        return F.adaptive_avg_pool2d(mask, size)
    return F.interpolate(mask[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def grid_code(rows: int, columns: int, dim: int, device: torch.device) -> Float[Tensor, "n {dim}"]:
    """Sines and cosines of each cell's relative row and column, wavelengths from twice the grid down to a sixteenth of that."""
    quarter = dim // 4
    frequency = math.pi * 2 ** torch.linspace(0, 4, quarter, device=device)
    y, x = ((torch.arange(size, device=device) + 0.5)[:, None] / size * frequency for size in (rows, columns))
    row = torch.cat([y.sin(), y.cos()], dim=-1)[:, None].expand(-1, columns, -1)
    column = torch.cat([x.sin(), x.cos()], dim=-1)[None].expand(rows, -1, -1)
    return torch.cat([row, column], dim=-1).flatten(0, 1)
