"""A query decoder: the states of a mask's tokens read the image where the mask drawn so far lies, layer after layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from geopix.contracts import MaskDecoder, Recall
from geopix.decoders.two_way_transformer import Projections, SelfAttention
from geopix.types import Drawing


def sine_position(rows: int, columns: int, dim: int, device: torch.device) -> Float[Tensor, "n d"]:
    """Sines and cosines of each cell's relative row (first half) and column, row by row, as DETR places cells (arXiv 2005.12872).

    Args:
        dim: width of the code, a multiple of 4.
    """
    frequency = 10000.0 ** (-torch.arange(0, dim // 2, 2, device=device) / (dim // 2))
    y, x = (2 * math.pi * torch.arange(1, size + 1, device=device)[:, None] / size * frequency for size in (rows, columns))
    y, x = (torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1) for angle in (y, x))
    return torch.cat([y[:, None].expand(-1, columns, -1), x[None].expand(rows, -1, -1)], dim=-1).flatten(0, 1)


class MaskedAttention(Projections):
    """Queries attend to those cells of their image that are allowed. Cells are projected once per image, not once per mask."""

    def cells(self, cells: Float[Tensor, "b n d"], code: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "b heads n _"], Float[Tensor, "b heads n _"]]:
        """Keys, which carry the position code, and values of every image."""
        keys, values = self._split(self.k_proj(cells + code.to(cells.dtype))), self._split(self.v_proj(cells))
        return keys.transpose(1, 2), values.transpose(1, 2)

    def forward(
        self, queries: Float[Tensor, "m t d"], keys: Float[Tensor, "m heads n _"], values: Float[Tensor, "m heads n _"], allowed: Bool[Tensor, "m n"]
    ) -> Float[Tensor, "m t d"]:
        """What the queries read; ``allowed`` holds for all queries of a mask and must not be empty."""
        read = F.scaled_dot_product_attention(self._split(self.q_proj(queries)).transpose(1, 2), keys, values, attn_mask=allowed[:, None, None])
        return self.out_proj(read.transpose(1, 2).flatten(2))


class MaskedLayer(nn.Module):
    """Masked cross-attention, self-attention among the queries of the same mask, an MLP; a norm follows each residual.

    Args:
        dim: width of queries and cells.
        heads: attention heads.
        ffn: hidden width of the MLP.
    """

    def __init__(self, dim: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.read = MaskedAttention(dim, heads, dim)
        self.norm_read = nn.LayerNorm(dim)
        self.self_attention = SelfAttention(dim, heads, dim)
        self.norm_self = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, ffn), nn.ReLU(), nn.Linear(ffn, dim))
        self.norm_mlp = nn.LayerNorm(dim)

    def forward(
        self,
        queries: Float[Tensor, "m t d"],
        query_code: Float[Tensor, "m t d"],
        cells: Float[Tensor, "b n d"],
        cell_code: Float[Tensor, "n d"],
        image_index: Int[Tensor, " m"],
        allowed: Bool[Tensor, "m n"],
    ) -> Float[Tensor, "m t d"]:
        """The queries after one look at one level; cells come per image."""
        keys, values = (x.index_select(0, image_index) for x in self.read.cells(cells, cell_code))
        queries = self.norm_read(queries + self.read(queries + query_code, keys, values, allowed))
        queries = self.norm_self(queries + self.self_attention(queries + query_code, queries))
        return self.norm_mlp(queries + self.mlp(queries))


class PixelDecoder(nn.Module):
    """A feature pyramid (Lin et al. 2017, arXiv 1612.03144): each map is added to the coarser result and smoothed, with group norms.

    Args:
        channels: widths of the encoder's maps, finest first.
        dim: width of every result.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        groups = math.gcd(32, dim)
        self.laterals = nn.ModuleList(nn.Sequential(nn.Conv2d(width, dim, 1, bias=False), nn.GroupNorm(groups, dim)) for width in channels)
        self.smooths = nn.ModuleList(nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.GroupNorm(groups, dim), nn.ReLU()) for _ in channels)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b d _ _"]]:
        """One map per map of the encoder, of the same size, finest first."""
        fused: list[Tensor] = []
        for lateral, smooth, finer in zip(reversed(self.laterals), reversed(self.smooths), reversed(features), strict=True):
            x = lateral(finer)
            if fused:
                x = x + F.interpolate(fused[-1], size=x.shape[-2:], mode="bilinear", align_corners=False)
            fused.append(smooth(x))
        return fused[::-1]


class QueryDecoder(MaskDecoder):
    """Mask2Former's masked attention, with the states of a mask's tokens as its queries.

    Mask2Former (Cheng et al. 2022, arXiv 2112.01527) as pixel-level language models use it (PSALM, arXiv 2403.14598; SegEarth-R1, arXiv 2504.09644). The
    layers look at one level after the other, coarse to fine and round again, only where the mask drawn from the layer before is positive, or everywhere
    where it is empty. A mask is drawn before the first layer and after each, as a product with the finest map of the pyramid, at that map's size.

    What differs: every prompt asks for one mask, so the queries of a mask (its token states, of any number, and learned ones where wanted) draw together,
    through one query that is their average with learned weights, and share one attention mask; with a single token this is Mask2Former's own decoder.
    Their number may be that of a description: SegEarth-R1 projects the states of a description's tokens to the one query that draws, and here they
    also read the image on the way. There is no set prediction, so no matching and no classes; the query that draws also says whether its object is there
    (:attr:`geopix.types.Drawing.presence`). The pixel decoder is a plain feature pyramid, one of those that the paper compares; its multi-scale deformable
    attention, which needs a kernel of its own to be fast, is left out.

    Given a memory, it is offered the finest map of the pyramid together with the last layer's mask, and the same query draws again from what it returns.

    Args:
        channels: widths of the encoder's maps, finest first.
        prompt_dim: width of the language model's states.
        dim: width of pyramid and queries, a multiple of 4.
        depth: number of layers.
        heads: attention heads.
        ffn: hidden width of the layers' MLPs.
        levels: maps that the layers look at in turn, as indices into ``channels``; by default all but the finest, coarsest first.
        learned_queries: queries that every mask has besides its tokens.

    Raises:
        ValueError: when ``levels`` is empty or names a map that the encoder does not have, when there are fewer layers than levels, or on a ``dim`` that
            ``heads`` or 4 do not divide.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        dim: int = 256,
        depth: int = 9,
        heads: int = 8,
        ffn: int = 2048,
        levels: Sequence[int] | None = None,
        learned_queries: int = 0,
    ) -> None:
        super().__init__()
        self.levels = tuple(levels) if levels is not None else tuple(range(len(channels) - 1, 0, -1)) or (0,)
        if not self.levels or not all(-len(channels) <= level < len(channels) for level in self.levels):
            raise ValueError(f"levels must name at least one of the encoder's {len(channels)} maps, by index; found {list(self.levels)}.")
        if depth < len(self.levels):
            raise ValueError(f"{depth} layers cannot look at {len(self.levels)} levels {list(self.levels)}; set depth to {len(self.levels)} or more.")
        if dim % 4:
            raise ValueError(f"positions are sines and cosines of rows and columns and need a dim that 4 divides; found {dim}.")
        self.num_tokens = None
        self.memory_channels = (dim,)
        self.pyramid = PixelDecoder(channels, dim)
        self.pixels = nn.Conv2d(dim, dim, 1)
        self.level_embed = nn.Parameter(torch.randn(len(self.levels), dim))
        self.ask = nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, prompt_dim), nn.ReLU(), nn.Linear(prompt_dim, 2 * dim))
        self.learned = nn.Parameter(torch.randn(learned_queries, 2 * dim)) if learned_queries else None
        self.layers = nn.ModuleList(MaskedLayer(dim, heads, ffn) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.weigh = nn.Linear(dim, 1, bias=False)
        self.mask_mlp = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.presence = nn.Linear(dim, 1)

    def forward(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        prompts: Float[Tensor, "m k d"],
        image_index: Int[Tensor, " m"],
        recall: Recall | None = None,
    ) -> Drawing:
        """Masks at the size of the finest map.

        ``auxiliary`` holds all that were drawn before, early to late: one without any look, one after each layer but the last and, with a memory,
        that of the last layer.
        """
        maps = self.pyramid(features)
        cells = [maps[level].flatten(2).transpose(1, 2) + embed for level, embed in zip(self.levels, self.level_embed, strict=True)]
        codes = [sine_position(rows, columns, dim, prompts.device) for dim, rows, columns in (maps[level].shape[1:] for level in self.levels)]
        pixels = self.pixels(maps[0]).index_select(0, image_index)
        queries, query_code = self._queries(prompts)
        query = self._together(queries)
        masks = [self._draw(query, pixels)]
        for index, layer in enumerate(self.layers):
            turn = index % len(self.levels)
            allowed = _allowed(masks[-1], maps[self.levels[turn]].shape[-2:])
            queries = layer(queries, query_code, cells[turn], codes[turn], image_index, allowed)
            query = self._together(queries)
            masks.append(self._draw(query, pixels))
        if recall is not None:
            masks.append(self._draw(query, self.pixels(recall(maps[0], image_index, masks[-1], 0))))
        return Drawing(masks[-1], image_index, presence=self.presence(query).squeeze(-1), auxiliary=tuple(masks[:-1]))

    def _queries(self, prompts: Float[Tensor, "m k d"]) -> tuple[Float[Tensor, "m t c"], Float[Tensor, "m t c"]]:
        """Queries, and the code that is added to them where they ask; both come from the prompt."""
        asked = self.ask(prompts)
        if self.learned is not None:
            asked = torch.cat([asked, self.learned.to(asked.dtype).expand(len(asked), -1, -1)], dim=1)
        queries, code = asked.chunk(2, dim=-1)
        return queries, code

    def _together(self, queries: Float[Tensor, "m t c"]) -> Float[Tensor, "m c"]:
        """The one query that draws."""
        queries = self.norm(queries)
        return (self.weigh(queries).softmax(1) * queries).sum(1)

    def _draw(self, query: Float[Tensor, "m c"], pixels: Float[Tensor, "m c h w"]) -> Float[Tensor, "m h w"]:
        return torch.einsum("mchw,mc->mhw", pixels, self.mask_mlp(query))


def _allowed(mask_logits: Float[Tensor, "m _ _"], size: tuple[int, int]) -> Bool[Tensor, "m n"]:
    """The cells of a level inside each mask; all of them where there is none."""
    inside = F.interpolate(mask_logits.detach()[:, None], size=size, mode="bilinear", align_corners=False).flatten(1) >= 0
    return inside | ~inside.any(1, keepdim=True)
