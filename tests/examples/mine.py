"""A connector of one's own: few visual tokens, each the mean of a window of the map."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import Connector


class MeanConnector(Connector):
    """Averages the map into ``side`` x ``side`` windows and projects each to the language model's width.

    Args:
        channels: widths of the encoder's maps, finest first; the last map is read.
        out_dim: width of the language model.
        side: windows along each side; the language model reads ``side * side`` visual tokens.
    """

    def __init__(self, channels: Sequence[int], out_dim: int, *, side: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Conv2d(channels[-1], out_dim, 1))

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b side*side out_dim``, row by row."""
        return self.layers(features[-1]).flatten(2).transpose(1, 2)
