"""An open-vocabulary memory: slots that all classes share, found by what the language model knows about a class's name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from geopix.contracts import EmbedWords, Memory
from geopix.memory.classes import class_weights, distinct
from geopix.memory.reading import Reader


class LanguageKeyedMemory(Memory):
    """Groups of slots that all classes share; a class reads the groups whose addresses are similar to its key, made from its name.

    A class's key is a projection of the mean of the language model's input embeddings of its name. Nothing in the memory has a row per class: a vocabulary
    with other or more names takes the same weights, and classes with similar names read similar slots. Scoring prompts against embedded names is CLIP's
    (Radford et al. 2021, https://arxiv.org/abs/2103.00020); addressing by similarity of keys is that of key-value memories (Miller et al. 2016,
    https://arxiv.org/abs/1606.03126); the use in place of GeoPix's bank (arXiv 2501.06828) is ours. Bank parameters: ``levels * groups * slots * dim``.

    A named class reads by its own key. Where none is named, classes are mixed by :meth:`classify`, the similarity of the prompt with their keys. The embeddings
    of names are read, not trained, from here; what the language model learns changes them.

    Args:
        channels: widths of the decoder's maps, one per level.
        prompt_dim: width of the language model's states and input embeddings.
        classes: the vocabulary of class names; at least one.
        groups: groups of slots per level, each with an address.
        slots: vectors per group and level.
        dim: width of keys, slots and the attention.
        heads, ffn: heads and MLP width of the attention.
        grid: most cells along the longer side that attend to each other; larger maps are averaged down and the change is brought back up.

    Raises:
        ValueError: when no class is named or one is named twice, or ``dim`` is no multiple of 4 and of ``heads``.
    """

    open_vocabulary = True

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        classes: Sequence[str],
        groups: int = 16,
        slots: int = 64,
        dim: int = 64,
        heads: int = 4,
        ffn: int = 512,
        grid: int = 32,
    ) -> None:
        super().__init__()
        self.classes = distinct(classes)
        if not self.classes:
            raise ValueError("a LanguageKeyedMemory is keyed by class names but classes is empty; name at least one class, or use another memory.")
        self.names: Tensor | None = None
        self.key = nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, dim))
        self.query = nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, dim))
        self.addresses = nn.Parameter(torch.randn(groups, dim))
        # factors on both cosines, as logarithms; from here on unrelated keys score about 1 apart
        self.sharpness = nn.Parameter(torch.full((2,), dim**0.5).log())
        self.bank = nn.Parameter(torch.randn(len(channels), groups, slots, dim))
        self.reader = Reader(channels, dim=dim, heads=heads, ffn=ffn, grid=grid)

    @torch.no_grad()
    def know_names(self, embed_words: EmbedWords) -> None:
        """Look up the class names."""
        self.names = embed_words(self.classes)

    def classify(self, prompts: Float[Tensor, "m k d"]) -> Float[Tensor, "m p"]:
        """Class logits: the cosine between the mean of each mask's prompt states and each class's key, times a learned factor."""
        asked = F.normalize(self.query(prompts.mean(1)), dim=-1)
        return self.sharpness[0].exp() * asked @ self._keys().T

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
        """The features of each mask's image plus a learned fraction of what its cells read from the slots that its class's key finds."""
        addressed = (self.sharpness[1].exp() * self._keys() @ F.normalize(self.addresses, dim=-1).T).float().softmax(-1)
        bank = self.bank[level]
        groups = class_weights(self.classify(prompts), class_ids) @ addressed
        slots = (groups @ bank.flatten(1)).unflatten(-1, bank.shape[1:])
        return self.reader(features, image_index, mask_logits, level, slots)

    def _keys(self) -> Float[Tensor, "p c"]:
        if self.names is None:
            raise RuntimeError(
                "a LanguageKeyedMemory knows no names yet; expected know_names(llm.embed_words) before it is read. GeoPixModel calls it before each drawing."
            )
        return F.normalize(self.key(self.names), dim=-1)
