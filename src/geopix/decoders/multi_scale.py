"""GeoPix's mask decoder: one two-way transformer per scale, each guided by the mask of the scale before, with a second look through a memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from geopix.contracts import ImageRecall, MaskDecoder, Recall
from geopix.decoders.two_way_transformer import FourierPosition, TwoWayTransformer, Upscale, unfold_cells
from geopix.types import Drawing

NUM_MASK_TOKENS = 4
"""Segment Anything's mask tokens. Only the first draws; the others take part in the tokens' self-attention."""

NOTHING = -1024.0
"""Logit everywhere in a mask that is refused, as in SAM 2."""


class Neck(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU; between them the map is brought to the decoder's grid."""

    def __init__(self, in_dim: int, neck_dim: int, dim: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(in_dim, neck_dim, 3, padding=1), nn.BatchNorm2d(neck_dim), nn.ReLU())
        self.leave = nn.Sequential(nn.Conv2d(neck_dim, dim, 3, padding=1), nn.BatchNorm2d(dim), nn.ReLU())

    def forward(self, features: Float[Tensor, "b _ _ _"], size: tuple[int, int]) -> Float[Tensor, "b _ _ _"]:
        """The map at ``size``; a finer map is averaged over areas, for bilinear sampling would skip cells."""
        x = self.enter(features)
        finer = x.shape[-2] > size[0] or x.shape[-1] > size[1]
        x = F.adaptive_avg_pool2d(x, size) if finer else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return self.leave(x)


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Locator(nn.Module):
    """Where a query's object lies: scaled products of the query with cells that carry their position code.

    Nothing is drawn from it. Its own loss (:func:`geopix.losses.locate_loss`) makes prompts and cells comparable by one product.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)

    def forward(
        self, query: Float[Tensor, "m c"], image: Float[Tensor, "b c h w"], code: Float[Tensor, "n c"], image_index: Int[Tensor, " m"]
    ) -> Float[Tensor, "m h w"]:
        """A logit per cell, for a softmax over all cells of the mask's image."""
        cells = image.flatten(2).transpose(1, 2)
        keys = self.key(cells + code.to(cells.dtype)).index_select(0, image_index)
        asked = self.query(query) * query.shape[1] ** -0.5
        return (keys @ asked[..., None]).squeeze(-1).unflatten(1, image.shape[-2:])


class MultiScaleDecoder(MaskDecoder):
    """Draws each mask at several scales, coarse to fine, and sums them with learned weights.

    The wiring is that of GeoPix (arXiv 2501.06828; repository Norman-Ou/GeoPix), whose decoder comes from PixelLM (arXiv 2312.02228) and Segment
    Anything (arXiv 2304.02643). The states of a mask's tokens are projected to ``dim`` and viewed as (levels, tokens_per_level); the tokens of a level
    are fused by learned weights that all levels share. Level ``l`` works on a grid of ``grid * 2**l`` cells, multiplied by one plus the sigmoid of the
    mask of the level before. Given a memory, a level first draws a coarse mask from the image's own features, and draws again from what the
    memory returns. Unlike the release, the learned weights are registered parameters, hyper-networks that no mask uses do not exist, and level 0 also
    says in which cells it expects the object (:class:`Locator`), for a loss that teaches prompts.

    Args:
        channels: widths of the encoder's maps, finest first.
        prompt_dim: width of the language model's states.
        dim: width of the decoder.
        neck_dim: width between the two convolutions of each neck.
        grid: cells along the longer side of level 0; the shorter side keeps the aspect of the encoder's maps.
        levels: which map feeds level 0, level 1 and so on, as indices into ``channels``. By default GeoPix's two levels: the last map, then
            the one before it (or the only one again).
        tokens_per_level: segmentation tokens that each level reads.
        depth, heads, mlp_dim: blocks, heads and MLP width of each level's transformer.
        prompt_hidden: hidden width of the prompt projection; ``prompt_dim`` by default.
        mask_dim: width of the pixel embeddings that a mask is a product with; an eighth of ``dim`` by default, as in the release. A narrow decoder
            needs more: kind, colour and place must all fit in.
        pyramid: for encoders whose maps get finer from level to level: each neck brings its map to the level's own grid, where the release
            brings all to ``grid`` and upsamples them by learned layers, because its maps (CLIP's) are all equally coarse.
        recalls: the levels that take a second look through the memory; all of them by default, as in the paper. A look costs as much as the
            level itself, and the finest level costs the most.
        evidence: when answering (in evaluation mode), empty every mask whose object is expected nowhere, that is, none of whose ``where`` reaches this.
            It refuses what the language model wrongly agreed to draw, at the price of some masks that are right: choose it on validation data.
            By default all masks are drawn.

    Raises:
        ValueError: when ``levels`` is empty or names a map that the encoder does not have.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        dim: int = 256,
        neck_dim: int = 512,
        grid: int = 32,
        levels: Sequence[int] | None = None,
        tokens_per_level: int = 3,
        depth: int = 2,
        heads: int = 8,
        mlp_dim: int = 2048,
        prompt_hidden: int | None = None,
        mask_dim: int | None = None,
        pyramid: bool = False,
        recalls: Sequence[int] | None = None,
        evidence: float | None = None,
    ) -> None:
        super().__init__()
        chosen = (-1, -min(2, len(channels))) if levels is None else tuple(levels)
        if not chosen or any(not -len(channels) <= index < len(channels) for index in chosen):
            raise ValueError(f"levels {chosen} must name at least one of the encoder's {len(channels)} maps, as indices; its widths are {tuple(channels)}.")
        if dim % 8:
            raise ValueError(f"the decoder's dim must be a multiple of 8, because mask embeddings have an eighth of it; found {dim}.")
        num_levels = len(chosen)
        self.levels = chosen
        self.grid = grid
        self.tokens_per_level = tokens_per_level
        self.num_tokens = num_levels * tokens_per_level
        self.recalls = tuple(range(num_levels)) if recalls is None else tuple(recalls)
        if not set(self.recalls) <= set(range(num_levels)):
            raise ValueError(f"recalls {self.recalls} must name levels of the decoder, which has {num_levels}, counted from 0.")
        self.memory_channels = (dim,) * len(self.recalls)
        self.evidence = evidence

        hidden = prompt_dim if prompt_hidden is None else prompt_hidden
        self.prompt_proj = mlp(prompt_dim, hidden, dim)
        self.token_weights = nn.Parameter(torch.full((tokens_per_level,), 1 / tokens_per_level))
        self.level_weights = nn.Parameter(torch.full((num_levels,), 1 / num_levels))

        self.necks = nn.ModuleList(Neck(channels[index], neck_dim, dim) for index in chosen)
        self.positions = nn.ModuleList(FourierPosition(dim) for _ in chosen)
        self.transformers = nn.ModuleList(TwoWayTransformer(dim, depth=depth, heads=heads, mlp_dim=mlp_dim) for _ in chosen)
        self.quality_token = nn.Parameter(torch.randn(1, dim))
        self.mask_tokens = nn.Parameter(torch.randn(NUM_MASK_TOKENS, dim))
        self.level_embed = nn.Parameter(0.1 * torch.randn(num_levels, dim))
        self.no_mask = nn.Parameter(torch.randn(dim))

        self.upsample = Upscale(dim, dim) if num_levels > 1 and not pyramid else None
        width = dim // 8 if mask_dim is None else mask_dim
        self.output_upscale = Upscale(dim, width)
        self.mask_mlp = mlp(dim, dim, dim, width)
        self.quality_mlp = mlp(dim, dim, dim, 1)
        self.locator = Locator(dim)
        self._start()

    def _start(self) -> None:
        """Prompts as loud as the learned tokens beside them, and masks that vary: from PyTorch's own start neither has a voice for many steps."""
        for layers in (self.prompt_proj, self.mask_mlp):
            for layer in layers:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)

    def forward(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        prompts: Float[Tensor, "m k d"],
        image_index: Int[Tensor, " m"],
        recall: Recall | None = None,
    ) -> Drawing:
        """Masks at ``2 * grid * 2 ** (levels - 1)`` cells along the longer side.

        ``auxiliary`` holds each level's coarse mask (where there is a memory that reads it) and its refined mask, level by level;
        ``quality`` is the IoU, in 0..1, that the finest level expects; ``where`` has a logit for each cell of level 0.

        Raises:
            ValueError: when the prompts do not have ``num_tokens`` tokens.
        """
        queries = self._fuse(prompts)
        rows, columns = self._grid_size(features[0])
        logits: Float[Tensor, "m _ _"] | None = None
        where: Float[Tensor, "m _ _"] | None = None
        refined: list[Tensor] = []
        auxiliary: list[Tensor] = []
        for level, neck in enumerate(self.necks):
            finer = 1 if self.upsample is not None else 2**level
            image = neck(features[self.levels[level]], (rows * finer, columns * finer))
            query = queries[:, level]
            if level == 0:
                where = self.locator(query, image, self.positions[0](rows, columns), image_index)
            if isinstance(recall, ImageRecall) and level in self.recalls:
                image = recall.of_images(image, self.recalls.index(level))
            if recall is None or isinstance(recall, ImageRecall) or level not in self.recalls:
                logits, quality = self._draw(image, image_index, query, logits, level)
            else:
                coarse, _ = self._draw(image, image_index, query, logits, level)
                auxiliary.append(coarse)
                logits, quality = self._draw(recall(image, image_index, coarse, self.recalls.index(level)), None, query, logits, level)
            refined.append(logits)
            auxiliary.append(logits)
        masks = [F.interpolate(mask[:, None], size=refined[-1].shape[-2:], mode="bilinear", align_corners=False)[:, 0] for mask in refined[:-1]]
        total = torch.einsum("lmhw,l->mhw", torch.stack([*masks, refined[-1]]), self.level_weights)
        if self.evidence is not None and not self.training:
            assert where is not None
            total = total.masked_fill((where.flatten(1).amax(1) < self.evidence)[:, None, None], NOTHING)
        return Drawing(total, image_index, quality=self.quality_mlp(quality).squeeze(-1).sigmoid(), where=where, auxiliary=tuple(auxiliary))

    def _fuse(self, prompts: Float[Tensor, "m k d"]) -> Float[Tensor, "m l c"]:
        if prompts.shape[1] != self.num_tokens:
            raise ValueError(
                f"this decoder reads {self.num_tokens} segmentation tokens per mask ({len(self.levels)} levels of {self.tokens_per_level}), "
                f"but the language model gives {prompts.shape[1]}; set the model's number of segmentation tokens to {self.num_tokens}."
            )
        projected = self.prompt_proj(prompts).unflatten(1, (len(self.levels), self.tokens_per_level))
        return torch.einsum("mlkc,k->mlc", projected, self.token_weights)

    def _grid_size(self, features: Float[Tensor, "b _ h w"]) -> tuple[int, int]:
        rows, columns = features.shape[-2:]
        longer = max(rows, columns)
        return max(1, round(self.grid * rows / longer)), max(1, round(self.grid * columns / longer))

    def _draw(
        self,
        features: Float[Tensor, "n c h w"],
        image_index: Int[Tensor, " m"] | None,
        query: Float[Tensor, "m c"],
        previous: Float[Tensor, "m _ _"] | None,
        level: int,
    ) -> tuple[Float[Tensor, "m _ _"], Float[Tensor, "m c"]]:
        """Mask logits and quality token of one level; features are per image when ``image_index`` is given, else per mask."""
        cells = features.permute(0, 2, 3, 1)
        if self.upsample is not None:
            for _ in range(level):
                cells = unfold_cells(self.upsample(cells))
        no_mask = self.no_mask.to(cells.dtype)
        if previous is None:
            cells = cells + no_mask
        if image_index is not None:
            cells = cells.index_select(0, image_index)
        if previous is not None:
            cells = torch.addcmul(no_mask, cells, 1 + previous.sigmoid()[..., None].to(cells.dtype))
        rows, columns = cells.shape[1:3]

        own = torch.cat([self.quality_token, self.mask_tokens])
        tokens = torch.cat([own.expand(len(query), -1, -1), query[:, None].to(own.dtype)], dim=1) + self.level_embed[level]
        tokens, cells = self.transformers[level](tokens, cells.flatten(1, 2), self.positions[level](rows, columns))
        logits = self.output_upscale.project(cells.unflatten(1, (rows, columns)), self.mask_mlp(tokens[:, 1]))
        return unfold_cells(logits), tokens[:, 0]
