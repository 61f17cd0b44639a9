"""A memory of one's own: per class, a factor for each channel."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from geopix.contracts import Memory


class GainMemory(Memory):
    """Learns which channels matter to a class, and scales the image's features by that (FiLM, Perez et al. 2017, arXiv 1709.07871).

    Args:
        channels: widths of the decoder's maps, one per level.
        prompt_dim: width of the language model's states.
        classes: the vocabulary of class names, at least one.
    """

    def __init__(self, channels: Sequence[int], prompt_dim: int, *, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.classifier = nn.Linear(prompt_dim, len(classes))
        self.gains = nn.ParameterList(torch.zeros(len(classes), width) for width in channels)

    def classify(self, prompts: Float[Tensor, "m k d"]) -> Float[Tensor, "m p"]:
        """Class logits of what each prompt asks for."""
        return self.classifier(prompts.mean(1))

    def forward(
        self, features: Float[Tensor, "b c h w"], image_index: Int[Tensor, " m"], mask_logits: Float[Tensor, "m _ _"], level: int,
        *, prompts: Float[Tensor, "m k d"], class_ids: Int[Tensor, " m"],
    ) -> Float[Tensor, "m c h w"]:
        """The features of each mask's image, scaled for its class; where no class is named, for all classes, as far as the prompt means them."""
        named = F.one_hot(class_ids.clamp(min=0), len(self.classes)).to(prompts.dtype)
        share = torch.where(class_ids[:, None] < 0, self.classify(prompts).softmax(-1), named)
        return features[image_index] * (1 + share @ self.gains[level])[..., None, None]
