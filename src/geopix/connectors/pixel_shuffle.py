"""Few visual tokens from a fine map: neighbouring cells become channels of one token."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import Connector


class PixelShuffleConnector(Connector):
    """InternVL's projector: ``factor x factor`` cells side by side become one token; then layer norm, linear, exact GELU, linear.

    A map of twice the resolution gives as many tokens as before, and nothing of it is averaged away. Of cell ``(y, x)`` within a token, the channels lie
    row by row: those of ``(0, 0)`` first, then ``(0, 1)``.

    Source: Chen et al. 2024, "How Far Are We to GPT-4V?" (InternVL 1.5), section 3.1, https://arxiv.org/abs/2404.16821. The layers ``layers.0``,
    ``layers.1`` and ``layers.3`` have the shapes and the order of transformers' ``InternVLMultiModalProjector``.

    Args:
        channels: widths of the encoder's maps, finest first; the last map is read.
        out_dim: width of the language model.
        factor: cells along each side of a token. Maps whose sides are no multiple are padded with zeros below and on the right.
        hidden: width between the two linear layers; ``out_dim`` when left out, as in InternVL.

    Raises:
        ValueError: when a width or the factor is not positive.
    """

    def __init__(self, channels: Sequence[int], out_dim: int, *, factor: int = 2, hidden: int | None = None) -> None:
        super().__init__()
        in_dim, width = channels[-1], out_dim if hidden is None else hidden
        if min(in_dim, out_dim, factor, width) < 1:
            raise ValueError(
                f"a PixelShuffleConnector needs positive widths and a positive factor; found channels[-1]={in_dim}, out_dim={out_dim}, "
                f"factor={factor}, hidden={hidden}."
            )
        self.factor = factor
        joined = in_dim * factor**2
        self.layers = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, width), nn.GELU(), nn.Linear(width, out_dim))

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]:
        """Tokens row by row: ``ceil(h / factor) * ceil(w / factor)`` of them."""
        side = self.factor
        rows, columns = features[-1].shape[-2:]
        padded = F.pad(features[-1], (0, -columns % side, 0, -rows % side))
        cells = padded.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 3, 5, 1)
        return self.layers(cells.flatten(3).flatten(1, 2))
