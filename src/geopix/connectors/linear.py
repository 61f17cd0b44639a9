"""One linear layer between the encoder and the language model."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import Connector


class LinearConnector(Connector):
    """LLaVA's first projector: one visual token per cell, row by row.

    Source: Liu et al. 2023, "Visual Instruction Tuning", equation 1, https://arxiv.org/abs/2304.08485.

    Args:
        channels: widths of the encoder's maps, finest first; the last map is read.
        out_dim: width of the language model.
    """

    def __init__(self, channels: Sequence[int], out_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels[-1], out_dim)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b h*w out_dim``; cell ``(y, x)`` is token ``y * w + x``."""
        return self.projection(features[-1].flatten(2).transpose(1, 2))
