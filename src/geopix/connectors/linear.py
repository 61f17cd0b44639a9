"""One linear layer between the encoder and the language model."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import Connector


class LinearConnector(Connector):
    """LLaVA's first projector: one visual token per cell, row by row.

    Source: Liu et al. 2023, "Visual Instruction Tuning", equation 1, https://arxiv.org/abs/2304.08485.

    Args:
        in_dim: width of the map that is read.
        out_dim: width of the language model.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(in_dim, out_dim)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b h*w out_dim``; cell ``(y, x)`` is token ``y * w + x``."""
        return self.projection(features.flatten(2).transpose(1, 2))
