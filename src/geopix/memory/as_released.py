"""What the memory of GeoPix's released code computes: a scale and a layer norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geopix.contracts import Memory
from geopix.memory.classes import class_head, distinct, infer


class AsReleasedMemory(Memory):
    """``LayerNorm((1 + scale) * x)`` over the channels of each cell: the function that is left of GeoPix's memory in its released code.

    Of the memory of arXiv 2501.06828 the release (repository Norman-Ou/GeoPix) computes attention, slots and an encoding of the first mask, but adds none of
    it to the features. Levels of one width share one scale and one norm, which in the release are all levels. It uses neither the first mask, nor the prompt,
    nor the class: naming a class changes nothing. It is the honest control for a memory that works, and what the released weights need.

    Args:
        channels: widths of the decoder's maps, one per level.
        prompt_dim: width of the language model's states.
        classes: a vocabulary for :meth:`classify`, so that the loss on inferred classes is there as in other memories; empty for none, as in the release.

    Raises:
        ValueError: when a class is named twice.
    """

    per_image = True

    def __init__(self, channels: Sequence[int], prompt_dim: int, *, classes: Sequence[str] = ()) -> None:
        super().__init__()
        widths = list(dict.fromkeys(channels))
        self.classes = distinct(classes)
        self.shared = tuple(widths.index(width) for width in channels)
        self.scales = nn.ParameterList(torch.full((width,), 1.421) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-5) for width in widths)
        self.classifier = class_head(prompt_dim, self.classes)

    def classify(self, prompts: Float[Tensor, "m k d"]) -> Float[Tensor, "m p"]:
        """Class logits from the mean of each mask's prompt states; nothing is read by them."""
        return infer(self.classifier, prompts)

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
        """The scaled and normalised features of each mask's image, computed once per image."""
        which = self.shared[level]
        cells = features.permute(0, 2, 3, 1) * (1 + self.scales[which])
        return self.norms[which](cells).to(features.dtype).permute(0, 3, 1, 2).index_select(0, image_index)
