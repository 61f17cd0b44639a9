"""Two linear layers between the encoder and the language model."""

from __future__ import annotations

import math

import torch
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
        positions: tell the second layer where each cell lies, by sines of its relative row and column. For encoders without position
            embeddings of their own (convolutional ones); LLaVA's has them, and no such input.

    Raises:
        ValueError: when a width is not positive.
    """

    def __init__(self, in_dim: int, out_dim: int, *, hidden: int | None = None, positions: bool = False) -> None:
        super().__init__()
        width = out_dim if hidden is None else hidden
        if min(in_dim, out_dim, width) < 1:
            raise ValueError(f"an MLPConnector needs positive widths; found in_dim={in_dim}, out_dim={out_dim}, hidden={hidden}.")
        self.layers = nn.Sequential(nn.Linear(in_dim, width), nn.GELU(), nn.Linear(width, out_dim))
        self.place = nn.Linear(4 * _WAVES, width) if positions else None

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b h*w out_dim``; cell ``(y, x)`` is token ``y * w + x``."""
        hidden = self.layers[0](features.flatten(2).transpose(1, 2))
        if self.place is not None:
            hidden = hidden + self.place(_where(features.shape[2], features.shape[3], features.device).to(hidden.dtype))
        tokens: Tensor = self.layers[2](self.layers[1](hidden))
        return tokens


_WAVES = 8
"""Sines per direction of a cell's place."""


def _where(rows: int, columns: int, device: torch.device) -> Float[Tensor, "n _"]:
    """Sines and cosines of each cell's relative row and column, from half a wave across the image to 64 waves."""
    waves = math.pi * 2.0 ** torch.arange(_WAVES, device=device)
    y, x = ((torch.arange(size, device=device) + 0.5)[:, None] / size * waves for size in (rows, columns))
    row = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(-1, columns, -1)
    column = torch.cat([x.sin(), x.cos()], dim=1)[None].expand(rows, -1, -1)
    return torch.cat([row, column], dim=-1).flatten(0, 1)
