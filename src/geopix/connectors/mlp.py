"""Two linear layers between the encoder and the language model."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import Connector


class MLPConnector(Connector):
    """LLaVA-1.5's projector: linear, exact GELU, linear; one visual token per cell, row by row.

    Source: Liu et al. 2023, "Improved Baselines with Visual Instruction Tuning", section 3.3, https://arxiv.org/abs/2310.03744
    (``mlp2x_gelu`` of https://github.com/haotian-liu/LLaVA). ``layers.0`` and ``layers.2`` have the shapes and the order of its
    ``mm_projector.0`` and ``mm_projector.2``.

    Args:
        in_dim: width of the map that is read.
        out_dim: width of the language model.
        hidden: width between the two layers; ``out_dim`` when left out, as in LLaVA-1.5.

    Raises:
        ValueError: when a width is not positive.
    """

    def __init__(self, in_dim: int, out_dim: int, *, hidden: int | None = None) -> None:
        super().__init__()
        width = out_dim if hidden is None else hidden
        if min(in_dim, out_dim, width) < 1:
            raise ValueError(f"an MLPConnector needs positive widths; found in_dim={in_dim}, out_dim={out_dim}, hidden={hidden}.")
        self.layers = nn.Sequential(nn.Linear(in_dim, width), nn.GELU(), nn.Linear(width, out_dim))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b h*w out_dim``; cell ``(y, x)`` is token ``y * w + x``."""
        return self.layers(features.flatten(2).transpose(1, 2))
