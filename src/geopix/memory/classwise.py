"""GeoPix's class-wise learnable memory, as its paper describes it: slots per class and scale, read to refine the features of one mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from geopix.contracts import Memory

MASK_PATCH = 4
"""Mask pixels per cell along each side, given to the mask's encoder; GeoPix's first masks are two or four times as fine as its features."""

FEW_KEYS = 256
"""Up to here attention is plain matrix products: the scores are small, and on CPUs the fused kernel's backward takes two to three times as long."""


def plain_attention(q: Float[Tensor, "*m n e"], k: Float[Tensor, "*m t e"], v: Float[Tensor, "*m t e"]) -> Float[Tensor, "*m n e"]:
    """Scaled dot-product attention as two matrix products."""
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v


class Attention(nn.Module):
    """Multi-head attention. Keys carry no bias: it adds the same to all scores of a query, which softmax ignores."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, queries: Float[Tensor, "m n d"], keys: Float[Tensor, "m t d"], values: Float[Tensor, "m t d"]) -> Float[Tensor, "m n d"]:
        """What each query reads."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.q_proj(queries), self.k_proj(keys), self.v_proj(values)))
        attend = plain_attention if keys.shape[1] <= FEW_KEYS else F.scaled_dot_product_attention
        return self.out_proj(attend(q, k, v).transpose(1, 2).flatten(2))


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

    def forward(self, cells: Float[Tensor, "m n d"], code: Float[Tensor, "n d"], slots: Float[Tensor, "m t d"]) -> Float[Tensor, "m n d"]:
        """What the cells have become after reading the slots."""
        code = code.to(cells.dtype)
        x = self.norm_space(cells)
        cells = cells + self.scales[0] * self.space(x + code, x + code, x)
        cells = cells + self.scales[1] * self.read(self.norm_read(cells) + code, slots, slots)
        cells = cells + self.scales[2] * self.ffn(self.norm_ffn(cells))
        return self.norm_out(cells)


class ClasswiseMemory(Memory):
    """Learns slots for each class and level, and lets the cells of a mask's image read those of the mask's class.

    GeoPix's memory (arXiv 2501.06828) as described: a bank queried by class and scale, a memory encoder that sees the first mask, and a memory
    attention. In the released code the bank and the first mask reach nothing; here they do. The bank holds ``slots`` vectors per class and level where
    the release holds ``slots`` whole maps, which it collapses before reading: a thousandth of its parameters.

    A named class reads its own slots. Where no class is named, the slots of all classes are mixed by what :meth:`classify` infers
    from the prompt, so the cost does not grow with the classes. The cells also see one token that sums up the object under the first mask.
    Features are changed by a learned, at first small, fraction of what was read. The bank is a parameter: equal on all ranks.

    Args:
        channels: widths of the decoder's maps, one per level.
        prompt_dim: width of the language model's states.
        classes: the vocabulary of class names; empty for one memory that all masks share.
        slots: vectors per class and level.
        dim: width of the slots and of the attention.
        heads, ffn: heads and MLP width of the attention.
        grid: most cells along the longer side that attend to each other; larger maps are averaged down and the change is brought back up.

    Raises:
        ValueError: when a class is named twice, or ``dim`` is no multiple of 4 and of ``heads``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        classes: Sequence[str],
        slots: int = 64,
        dim: int = 64,
        heads: int = 4,
        ffn: int = 512,
        grid: int = 32,
    ) -> None:
        super().__init__()
        names = tuple(classes)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each class of a memory has its own slots and must be named once; found more than once: {twice}.")
        if dim % heads or dim % 4:
            raise ValueError(f"the memory's dim must be a multiple of its {heads} heads and of 4 (sine and cosine of rows and columns); found {dim}.")
        self.classes = names
        self.grid = grid
        self.bank = nn.Parameter(torch.randn(max(1, len(names)), len(channels), slots, dim))
        self.classifier = nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, len(names))) if names else None
        self.project_in = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in channels)
        self.encoder = ObjectEncoder(dim)
        self.summary = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.attention = MemoryAttention(dim, heads, ffn)
        self.project_out = nn.ModuleList(nn.Linear(dim, width) for width in channels)
        self.gains = nn.ParameterList(torch.full((width,), 0.1) for width in channels)

    def classify(self, prompts: Float[Tensor, "m k d"]) -> Float[Tensor, "m p"]:
        """Class logits from the mean of each mask's prompt states."""
        if self.classifier is None:
            return prompts.new_zeros(len(prompts), 0)
        return self.classifier(prompts.mean(1))

    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        image_index: Int[Tensor, " m"],
        mask_logits: Float[Tensor, "m _ _"],
        level: int,
        *,
        prompts: Float[Tensor, "m k d"],
        class_ids: Int[Tensor, " m"],
    ) -> Float[Tensor, "m c h w"]:
        """The features of each mask's image plus a learned fraction of what its cells read from the class's slots."""
        size = (features.shape[-2], features.shape[-1])
        rows, columns = self._attended(size)
        pooled = features if (rows, columns) == size else F.adaptive_avg_pool2d(features, (rows, columns))
        seen = self.project_in[level](pooled).index_select(0, image_index)
        mask = resize(mask_logits.sigmoid(), (MASK_PATCH * rows, MASK_PATCH * columns))

        cells = self.encoder(seen, mask).flatten(1, 2)
        slots = torch.cat([self._slots(level, prompts, class_ids).to(cells.dtype), self._summary(cells, mask, rows, columns)], dim=1)
        read = self.attention(cells, grid_code(rows, columns, cells.shape[-1], cells.device), slots)
        change = (self.project_out[level](read) * self.gains[level]).transpose(1, 2).unflatten(-1, (rows, columns))
        if (rows, columns) != size:
            change = F.interpolate(change, size=size, mode="bilinear", align_corners=False)
        return features.index_select(0, image_index) + change.to(features.dtype)

    def _attended(self, size: tuple[int, int]) -> tuple[int, int]:
        shrink = min(1.0, self.grid / max(size))
        return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))

    def _slots(self, level: int, prompts: Float[Tensor, "m k d"], class_ids: Int[Tensor, " m"]) -> Float[Tensor, "m s c"]:
        bank = self.bank[:, level]
        if self.classifier is None:
            return bank.expand(len(prompts), -1, -1)
        inferred = self.classify(prompts).float().softmax(-1)
        named = torch.eye(len(self.classes), device=bank.device)[class_ids.clamp(min=0)]
        weights = torch.where((class_ids >= 0)[:, None], named, inferred)
        return (weights @ bank.flatten(1)).unflatten(-1, bank.shape[1:])

    def _summary(self, cells: Float[Tensor, "m n d"], mask: Float[Tensor, "m H W"], rows: int, columns: int) -> Float[Tensor, "m 1 d"]:
        share = F.adaptive_avg_pool2d(mask, (rows, columns)).flatten(1)
        share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
        return self.summary(share[:, None].to(cells.dtype) @ cells)


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
