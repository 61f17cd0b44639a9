"""The class-wise memory with its bank as a product of two small factors: few parameters per class, and classes that share what they have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geopix.contracts import Memory
from geopix.memory.classes import class_head, class_weights, distinct, infer
from geopix.memory.reading import Reader


class LowRankMemory(Memory):
    """Slots of each class as a mixture of slots that all classes share, read as in :class:`geopix.memory.classwise.ClasswiseMemory`.

    At each level the bank of all classes is ``factors (classes x rank) @ basis (rank x slots * dim)``: a class costs ``rank`` numbers per level, and a rare
    class borrows from common ones. Bank parameters: ``levels * rank * (classes + slots * dim)``. At the defaults, with 75 classes and 2 levels, that is 66,736
    where the class-wise memory's bank has 614,400. The factorisation of GeoPix's bank (arXiv 2501.06828) is ours.

    A named class reads its own mixture; where none is named, the factors of all classes are mixed by what :meth:`classify` infers from the prompt.

    Args:
        channels: widths of the decoder's maps, one per level.
        prompt_dim: width of the language model's states.
        classes: the vocabulary of class names; empty for one memory that all masks share.
        rank: shared sets of slots per level, which classes mix.
        slots: vectors per class and level.
        dim: width of the slots and of the attention.
        heads, ffn: heads and MLP width of the attention.
        grid: most cells along the longer side that attend to each other; larger maps are averaged down and the change is brought back up.

    Raises:
        ValueError: when a class is named twice, ``rank`` is not positive, or ``dim`` is no multiple of 4 and of ``heads``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        classes: Sequence[str],
        rank: int = 8,
        slots: int = 64,
        dim: int = 64,
        heads: int = 4,
        ffn: int = 512,
        grid: int = 32,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"the rank of a LowRankMemory must be at least 1; found {rank}.")
        self.classes = distinct(classes)
        self.factors = nn.Parameter(torch.randn(max(1, len(self.classes)), len(channels), rank) * rank**-0.5)
        self.basis = nn.Parameter(torch.randn(len(channels), rank, slots, dim))
        self.classifier = class_head(prompt_dim, self.classes)
        self.reader = Reader(channels, dim=dim, heads=heads, ffn=ffn, grid=grid)

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
        """The features of each mask's image plus a learned fraction of what its cells read from the class's mixture of slots."""
        mixture = class_weights(self.classify(prompts), class_ids) @ self.factors[:, level]
        basis = self.basis[level]
        slots = (mixture @ basis.flatten(1)).unflatten(-1, basis.shape[1:])
        return self.reader(features, image_index, mask_logits, level, slots)
