"""The cheap baseline: one pixel embedding per image, one query per mask, and their dot product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from geopix.contracts import MaskDecoder, Recall
from geopix.types import Drawing


class DotDecoder(MaskDecoder):
    """Fuses the encoder's maps top-down (Lin et al. 2017, arXiv 1612.03144) and takes the dot product of each cell with each prompt.

    Masks have the size of the encoder's finest map. Given a memory, the masks drawn from the fused map are the first look and those
    drawn from what the memory returns are the second.

    Args:
        channels: widths of the encoder's maps, finest first.
        prompt_dim: width of the language model's states.
        dim: width of the fused map and of the pixel embeddings.
        hidden: hidden width of the prompt's MLP.
    """

    def __init__(self, channels: Sequence[int], prompt_dim: int, *, dim: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.num_tokens = None
        self.memory_channels = (dim,)
        self.laterals = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in channels)
        self.smooth = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.GroupNorm(1, dim), nn.ReLU())
        self.embed = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 1))
        self.query = nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, hidden), nn.ReLU(), nn.Linear(hidden, dim + 1))

    def forward(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        prompts: Float[Tensor, "m k d"],
        image_index: Int[Tensor, " m"],
        recall: Recall | None = None,
    ) -> Drawing:
        """Masks at the size of the finest map; with a memory, ``auxiliary`` holds the first look."""
        image = self._fuse(features)
        query = self.query(prompts.mean(1))
        first = self._draw(self.embed(image).index_select(0, image_index), query)
        if recall is None:
            return Drawing(first, image_index)
        second = self._draw(self.embed(recall(image, image_index, first, 0)), query)
        return Drawing(second, image_index, auxiliary=(first,))

    def _fuse(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b _ _ _"]:
        fused = self.laterals[-1](features[-1])
        for lateral, finer in zip(reversed(self.laterals[:-1]), reversed(features[:-1]), strict=True):
            fused = lateral(finer) + F.interpolate(fused, size=finer.shape[-2:], mode="bilinear", align_corners=False)
        return self.smooth(fused)

    def _draw(self, pixels: Float[Tensor, "m c h w"], query: Float[Tensor, "m _"]) -> Float[Tensor, "m h w"]:
        dim = pixels.shape[1]
        logits = torch.einsum("mchw,mc->mhw", pixels, query[:, :dim]) * dim**-0.5
        return logits + query[:, dim, None, None]
