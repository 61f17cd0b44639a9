"""A connector of one's own: few visual tokens, each the mean of a window of the map."""

from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import Connector


class MeanConnector(Connector):
    """Averages the map into ``side`` x ``side`` windows and projects each to the language model's width.

    Args:
        in_dim: width of the map that is read.
        out_dim: width of the language model.
        side: windows along each side; the language model reads ``side * side`` visual tokens.
    """

    def __init__(self, in_dim: int, out_dim: int, *, side: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Conv2d(in_dim, out_dim, 1))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b side*side out_dim``, row by row."""
        return self.layers(features).flatten(2).transpose(1, 2)
