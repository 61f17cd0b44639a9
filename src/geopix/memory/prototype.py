"""A memory that counts instead of learning: the running mean of what objects of each class have looked like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from geopix.contracts import Memory
from geopix.memory.classes import class_head, class_log_weights, distinct, infer
from geopix.memory.observing import object_means, sum_over_ranks
from geopix.memory.reading import Reader


class Prototypes(nn.Module):
    """Mean object features of each class at one level, and how many objects each is a mean of. Both are saved with the model."""

    means: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(num_classes, width))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.long))

    def update(self, sums: Float[Tensor, "p c"], new: Float[Tensor, " p"], momentum: float) -> None:
        """Take in ``new`` objects of each class, whose features add up to ``sums``.

        The mean moves by the share of the new objects among all, so the first ones become the mean; once that share would fall below
        ``1 - momentum ** new`` it stays there, and old objects fade.
        """
        rate = torch.maximum(new / (self.counts + new).clamp(min=1), 1 - momentum**new)
        self.means += rate[:, None] * (sums / new.clamp(min=1)[:, None] - self.means)
        self.counts += new.long()


class PrototypeMemory(Memory):
    """Keeps, for each class and level, the running mean of the features of its objects, and lets a mask's cells read those of its class.

    Prototypes as means of class features come from Snell et al. 2017 (https://arxiv.org/abs/1703.05175); reading them in place of GeoPix's learned bank
    (arXiv 2501.06828) is ours. They are filled in training from true masks and true classes, summed over all ranks, never by gradients, and saved with the
    model. Objects of unknown class are not stored where there are classes.

    A named class is read directly. Where none is named, all classes are read, each as much as :meth:`classify` infers it from the prompt. The change of the
    features is scaled by the share of the read classes that has been seen at all: a class that never was leaves the features as they are.

    Args:
        channels: widths of the decoder's maps, one per level.
        prompt_dim: width of the language model's states.
        classes: the vocabulary of class names; empty for one prototype of all objects.
        momentum: what one object leaves of the old mean once there are enough of them; 0.99 remembers about a hundred objects of a class.
        dim: width of the attention.
        heads, ffn: heads and MLP width of the attention.
        grid: most cells along the longer side that attend to each other; larger maps are averaged down and the change is brought back up.

    Raises:
        ValueError: when a class is named twice, ``momentum`` is not in 0..1, or ``dim`` is no multiple of 4 and of ``heads``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        classes: Sequence[str],
        momentum: float = 0.99,
        dim: int = 64,
        heads: int = 4,
        ffn: int = 512,
        grid: int = 32,
    ) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"the momentum of a PrototypeMemory must be in 0..1; found {momentum}.")
        self.classes = distinct(classes)
        self.momentum = momentum
        self.prototypes = nn.ModuleList(Prototypes(max(1, len(self.classes)), width) for width in channels)
        self.project = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim)) for width in channels)
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
        """The features of each mask's image plus a learned fraction of what its cells read from the prototypes of its class."""
        stored = self._level(level)
        seen = stored.counts > 0
        read = class_log_weights(self.classify(prompts), class_ids).masked_fill(~seen, -torch.inf)
        # observe() changes the means before the backward pass, which needs the ones that were read
        slots = self.project[level](stored.means.clone())
        share = read.exp().sum(1)
        return self.reader(features, image_index, mask_logits, level, slots.expand(len(read), -1, -1), bias=read, share=share)

    @torch.no_grad()
    def observe(
        self,
        features: Mapping[int, Float[Tensor, "b _ _ _"]],
        image_index: Int[Tensor, " m"],
        masks: Bool[Tensor, "m h w"],
        class_ids: Int[Tensor, " m"],
    ) -> None:
        """Move the prototypes of the classes of these objects; each object counts once, whatever its size."""
        rows = class_ids if self.classes else torch.zeros_like(class_ids)
        member = (rows[:, None] == torch.arange(max(1, len(self.classes)), device=rows.device)) & masks.flatten(1).any(1)[:, None]
        levels = [self._level(level) for level in range(len(self.prototypes))]
        parts: list[Tensor] = []
        for level, stored in enumerate(levels):
            sums = torch.zeros_like(stored.means)
            offered = level in features
            if offered:
                known = member.any(1)
                means = object_means(features[level], image_index, masks)
                sums.index_add_(0, rows.clamp(min=0), means * known[:, None])
            parts += [sums, member.sum(0).float() * offered]
        summed = sum_over_ranks(torch.cat([part.flatten() for part in parts])).split([part.numel() for part in parts])
        for stored, sums, new in zip(levels, summed[::2], summed[1::2], strict=True):
            stored.update(sums.view_as(stored.means), new, self.momentum)

    def _level(self, level: int) -> Prototypes:
        stored = self.prototypes[level]
        assert isinstance(stored, Prototypes)
        return stored
