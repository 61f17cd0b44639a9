"""A memory of single objects: a bounded bank of the features of real instances, of which a mask reads the most similar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from geopix.contracts import Memory
from geopix.memory.classes import class_head, class_log_weights, distinct, infer
from geopix.memory.observing import gather_over_ranks, object_means
from geopix.memory.reading import Reader

SHARPNESS = 10.0
"""How much similarity counts against the class when instances are picked: a cosine of 1 is worth a factor of e**10 in the probability of the class."""


class InstanceBank(nn.Module):
    """The latest ``size`` instances of one level, a ring: features, class ids (-1 unknown) and how many there have ever been. All are saved with the model."""

    features: Tensor
    class_ids: Tensor
    count: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(size, width))
        self.register_buffer("class_ids", torch.full((size,), -1))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @property
    def filled(self) -> Bool[Tensor, " n"]:
        """The places that hold an instance."""
        return torch.arange(len(self.features), device=self.features.device) < self.count

    def add(self, features: Float[Tensor, "n c"], class_ids: Int[Tensor, " n"]) -> None:
        """Store instances in the place of the oldest."""
        size = len(self.features)
        place = (self.count + torch.arange(len(features), device=features.device))[-size:] % size
        self.features[place] = features[-size:]
        self.class_ids[place] = class_ids[-size:]
        self.count += len(features)


class RetrievalMemory(Memory):
    """Stores instances as they are seen in training, and lets a mask's cells read the stored ones most like the object under its first mask.

    Language models read stored examples in this way (Khandelwal et al. 2020, https://arxiv.org/abs/1911.00172); reading instances in place of GeoPix's
    learned bank (arXiv 2501.06828) is ours. An instance is the mean of the decoder's map under its true mask, per level. The bank is a ring: the newest
    replace the oldest. Each rank adds at most ``per_step`` instances per step, drawn from its batch, and all ranks store those of all.

    Instances are picked by the cosine between their features and those under the first mask, and by their class: a named class is read from its own instances,
    and where none is named, each instance counts as much as :meth:`classify` infers its class from the prompt. Instances of unknown class
    count like a class drawn at random. An empty bank, or one without instances of the named class, leaves the features as they are.

    In training on a small data set an object can find itself, stored an epoch before; no such twin exists in evaluation.

    Args:
        channels: widths of the decoder's maps, one per level.
        prompt_dim: width of the language model's states.
        classes: the vocabulary of class names; empty to pick by similarity alone.
        size: most instances per level.
        nearest: instances that each mask reads.
        per_step: most instances that a rank adds in a training step.
        dim: width of the attention.
        heads, ffn: heads and MLP width of the attention.
        grid: most cells along the longer side that attend to each other; larger maps are averaged down and the change is brought back up.

    Raises:
        ValueError: when a class is named twice, ``size``, ``nearest`` or ``per_step`` is not positive, or ``dim`` is no multiple of 4 and of ``heads``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        classes: Sequence[str],
        size: int = 2048,
        nearest: int = 16,
        per_step: int = 8,
        dim: int = 64,
        heads: int = 4,
        ffn: int = 512,
        grid: int = 32,
    ) -> None:
        super().__init__()
        if min(size, nearest, per_step) < 1:
            raise ValueError(f"a RetrievalMemory needs positive numbers; found {size=}, {nearest=}, {per_step=}.")
        self.classes = distinct(classes)
        self.nearest, self.per_step = min(nearest, size), per_step
        self.banks = nn.ModuleList(InstanceBank(size, width) for width in channels)
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
        """The features of each mask's image plus a learned fraction of what its cells read from the instances that were found."""
        bank = self._level(level)
        by_class = class_log_weights(self.classify(prompts), class_ids)[:, bank.class_ids.clamp(min=0)]
        by_class = by_class.masked_fill(bank.class_ids < 0, -math.log(max(1, len(self.classes))))
        by_class = by_class.masked_fill(~bank.filled, -torch.inf)
        likeness = self._likeness(bank, object_means(features, image_index, mask_logits.sigmoid()))
        found = (SHARPNESS * likeness + by_class.detach()).topk(self.nearest).indices
        bias = by_class.gather(1, found)
        share = (bias > -torch.inf).any(1).float()
        return self.reader(features, image_index, mask_logits, level, self.project[level](bank.features[found]), bias=bias, share=share)

    @torch.no_grad()
    def observe(
        self,
        features: Mapping[int, Float[Tensor, "b _ _ _"]],
        image_index: Int[Tensor, " m"],
        masks: Bool[Tensor, "m h w"],
        class_ids: Int[Tensor, " m"],
    ) -> None:
        """Store up to ``per_step`` of these objects, drawn at random, and as many of each other rank."""
        there = masks.flatten(1).any(1)
        drawn = (there + torch.rand(len(masks), device=masks.device)).topk(min(self.per_step, len(masks))).indices
        known = class_ids[drawn] if self.classes else torch.full_like(drawn, -1)
        columns = [known.float()[:, None]]
        banks = [self._level(level) for level in range(len(self.banks))]
        for level, bank in enumerate(banks):
            offered = level in features
            means = object_means(features[level], image_index[drawn], masks[drawn]) if offered else bank.features.new_zeros(len(drawn), bank.features.shape[1])
            columns += [(there[drawn] & offered).float()[:, None], means]
        rows = torch.cat(columns, dim=1)
        rows = gather_over_ranks(F.pad(rows, (0, 0, 0, self.per_step - len(rows))))
        ids, *parts = rows.split([column.shape[1] for column in columns], dim=1)
        for bank, valid, means in zip(banks, parts[::2], parts[1::2], strict=True):
            kept = valid[:, 0] > 0
            bank.add(means[kept], ids[kept, 0].long())

    @torch.no_grad()
    def _likeness(self, bank: InstanceBank, objects: Float[Tensor, "m c"]) -> Float[Tensor, "m n"]:
        """The cosine of each object with each stored instance."""
        with torch.autocast(objects.device.type, enabled=False):
            return F.normalize(objects, dim=1) @ F.normalize(bank.features, dim=1).T

    def _level(self, level: int) -> InstanceBank:
        bank = self.banks[level]
        assert isinstance(bank, InstanceBank)
        return bank
