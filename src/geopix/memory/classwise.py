"""GeoPix's class-wise learnable memory, as its paper describes it: slots per class and scale, read to refine the features of one mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geopix.contracts import Memory
from geopix.memory.classes import class_head, class_weights, distinct, infer
from geopix.memory.reading import LevelReader, MemoryAttention, ObjectEncoder, check_dim, refine


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
        names = self.classes = distinct(classes)
        check_dim(dim, heads)
        self.grid = grid
        self.bank = nn.Parameter(torch.randn(max(1, len(names)), len(channels), slots, dim))
        self.classifier = class_head(prompt_dim, names)
        self.project_in = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in channels)
        self.encoder = ObjectEncoder(dim)
        self.summary = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.attention = MemoryAttention(dim, heads, ffn)
        self.project_out = nn.ModuleList(nn.Linear(dim, width) for width in channels)
        self.gains = nn.ParameterList(torch.full((width,), 0.1) for width in channels)

    def classify(self, prompts: Float[Tensor, "m k d"]) -> Float[Tensor, "m p"]:
        """Class logits from the mean of each mask's prompt states."""
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
        """The features of each mask's image plus a learned fraction of what its cells read from the class's slots."""
        parts = LevelReader(
            self.project_in[level], self.encoder, self.summary, self.attention, self.project_out[level], self.gains[level], self.grid
        )
        return refine(parts, features, image_index, mask_logits, self._slots(level, prompts, class_ids))

    def _slots(self, level: int, prompts: Float[Tensor, "m k d"], class_ids: Int[Tensor, " m"]) -> Float[Tensor, "m s c"]:
        bank = self.bank[:, level]
        return (class_weights(self.classify(prompts), class_ids) @ bank.flatten(1)).unflatten(-1, bank.shape[1:])
