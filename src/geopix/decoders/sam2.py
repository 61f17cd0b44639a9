"""SAM 2's image decoder, prompted by a language model: the decoder of Sa2VA and GeoPixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from geopix.contracts import MaskDecoder, Recall
from geopix.decoders.multi_scale import mlp
from geopix.decoders.sam_weights import load_sam_weights
from geopix.decoders.two_way import MaskHead, map_projection, start_loud, take_best
from geopix.decoders.two_way_transformer import fold_cells
from geopix.types import Drawing

ABSENT = -1024.0
"""Logit everywhere in the mask of something that is not there; SAM 2's own value."""


class Skip(nn.Module):
    """A finer map at the width at which it joins the upscaled cells: a 1x1 convolution, as the map leaves SAM 2's pyramid."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_dim, out_dim, 1)

    def forward(self, features: Float[Tensor, "b _ _ _"], size: tuple[int, int]) -> Float[Tensor, "b _ _ 4 _"]:
        """The map at ``size``, folded to four cells each. One that is finer is averaged over areas; one that is coarser is interpolated."""
        x = self.convolution(features)
        if x.shape[-2] > size[0] or x.shape[-1] > size[1]:
            x = F.adaptive_avg_pool2d(x, size)
        elif x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return fold_cells(x.permute(0, 2, 3, 1))


class Sam2Decoder(MaskDecoder):
    """SAM 2's mask decoder for images, with the language model's states as its prompt tokens.

    It is SAM's decoder (:class:`geopix.decoders.two_way.TwoWayDecoder`) with two finer maps added while the cells are upscaled, expected IoU in 0..1, and
    a token that says whether the thing asked for is there at all. When answering (in evaluation mode) a mask whose presence logit is not above 0 is
    emptied, every logit -1024 as in SAM 2; in training, and in first looks, every mask is kept. Given a memory, the masks drawn from the projected
    coarse map are the first look and those drawn from what the memory returns are the second; the finer maps are the image's own in both.

    SAM 2's maps have strides 4, 8 and 16. Others are used as they come: the coarse map keeps its grid, masks are four times as fine, and the
    finer maps are brought to four and two times that grid. A map that is finer than needed is averaged; one that is too coarse is interpolated, which
    adds no detail. An encoder with two maps gives its finer one to both places, one with a single map gives it to all three.

    Left out: SAM 2's rule that, at answering, swaps an unstable single mask for the best of three.

    Source: Ravi et al. 2024, "SAM 2: Segment Anything in Images and Videos", https://arxiv.org/abs/2408.00714. The same decoder draws in Sa2VA
    (https://arxiv.org/abs/2501.04001) and GeoPixel (https://arxiv.org/abs/2501.13925).

    Args:
        channels: widths of the encoder's maps, finest first.
        prompt_dim: width of the language model's states.
        levels: the fine, the middle and the coarse map, as indices into ``channels``; the last three by default.
        dim: width of the decoder.
        depth, heads, mlp_dim: blocks, heads and MLP width of the transformer.
        prompt_hidden: hidden width of the prompt projection; ``prompt_dim`` by default.
        mask_dim: width of the pixel embeddings that a mask is a product with; an eighth of ``dim`` by default, as in SAM 2. A narrow decoder needs more.
        multimask: draw the three masks of an ambiguous prompt and keep the one of best expected IoU, in training too, so that only the kept one
            learns: for weights that already know three masks.
        project: bring the coarse map to ``dim`` by a 1x1 convolution and LayerNorm. By default where the widths differ; SAM 2's own maps have 256
            channels and are taken as they are.
        refuse: empty the masks of absent things when answering.
        weights: file or folder with a SAM 2, in the layout of transformers (safetensors) or Meta's (.pt); what is no mask decoder in it is not read. SAM 2
            adds a learned "no memory" vector to the coarse map and then its "no mask" embedding: their sum is loaded. The finer maps must have the
            256 channels of SAM 2's. The prompt projection and the coarse map's projection are not part of it and start at random.

    Raises:
        FileNotFoundError: when there are no weights at that path.
        ValueError: when ``levels`` are not three maps of the encoder, widths do not fit, or the weights lack tensors or hold others.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        levels: Sequence[int] | None = None,
        dim: int = 256,
        depth: int = 2,
        heads: int = 8,
        mlp_dim: int = 2048,
        prompt_hidden: int | None = None,
        mask_dim: int | None = None,
        multimask: bool = False,
        project: bool | None = None,
        refuse: bool = True,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        num_maps = len(channels)
        chosen = (-min(3, num_maps), -min(2, num_maps), -1) if levels is None else tuple(levels)
        if len(chosen) != 3 or any(not -num_maps <= index < num_maps for index in chosen):
            raise ValueError(f"levels {chosen} must name three of the encoder's {num_maps} maps (fine, middle, coarse; one may stand twice); found {channels}.")
        self.num_tokens = None
        self.memory_channels = (dim,)
        self.levels = chosen
        self.refuse = refuse
        width = dim // 8 if mask_dim is None else mask_dim
        self.fine_skip = Skip(channels[chosen[0]], width)
        self.middle_skip = Skip(channels[chosen[1]], dim // 4)
        self.image_proj = map_projection(channels[chosen[2]], dim, project)
        self.prompt_proj = mlp(prompt_dim, prompt_dim if prompt_hidden is None else prompt_hidden, dim)
        start_loud(self.prompt_proj)
        self.head = MaskHead(dim, depth=depth, heads=heads, mlp_dim=mlp_dim, mask_dim=width, multimask=multimask)
        self.presence_token = nn.Parameter(torch.randn(1, dim))
        self.presence_mlp = mlp(dim, dim, dim, 1)
        last = self.presence_mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, 2.0)  # before it has learned anything it believes the question
        if weights is not None:
            load_sam_weights(self, Path(weights), self.head.drawn, ours=("image_proj.", "prompt_proj."))

    def forward(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        prompts: Float[Tensor, "m k d"],
        image_index: Int[Tensor, " m"],
        recall: Recall | None = None,
    ) -> Drawing:
        """Masks four times as fine as the coarse map, each with its expected IoU and its presence; with a memory, ``auxiliary`` holds the first look."""
        fine, middle, coarse = (features[index] for index in self.levels)
        image = self.image_proj(coarse)
        rows, columns = image.shape[-2:]
        skips = self.fine_skip(fine, (4 * rows, 4 * columns)), self.middle_skip(middle, (2 * rows, 2 * columns))
        skips = skips[0].index_select(0, image_index), skips[1].index_select(0, image_index)
        asked = self.prompt_proj(prompts)
        asked = torch.cat([self.presence_token.expand(len(asked), -1, -1).to(asked.dtype), asked], dim=1)

        drawing = self._look(image, asked, image_index, skips, image_index)
        if recall is not None:
            first = drawing.mask_logits
            refined = recall(image, image_index, first, 0)
            drawing = replace(self._look(refined, asked, None, skips, image_index), auxiliary=(first,))
        if self.training or not self.refuse:
            return drawing
        assert drawing.presence is not None
        absent = drawing.presence <= 0
        return replace(drawing, mask_logits=drawing.mask_logits.masked_fill(absent[:, None, None], ABSENT))

    def _look(
        self,
        features: Float[Tensor, "n c h w"],
        asked: Float[Tensor, "m k c"],
        pick: Int[Tensor, " m"] | None,
        skips: tuple[Float[Tensor, "m _ _ 4 _"], Float[Tensor, "m _ _ 4 _"]],
        image_index: Int[Tensor, " m"],
    ) -> Drawing:
        masks, quality, states = self.head(features, asked, pick, skips)
        logits, expected = take_best(masks, quality)
        return Drawing(logits, image_index, presence=self.presence_mlp(states[:, 0]).squeeze(-1), quality=expected.sigmoid())
