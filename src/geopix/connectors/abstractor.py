"""A convolutional abstractor: fewer tokens that still stand where they stood."""

from __future__ import annotations

from jaxtyping import Float
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn

from geopix.contracts import Connector


class ConvAbstractor(Connector):
    """Honeybee's C-Abstractor: convolutional blocks, average pooling to ``side x side`` tokens, convolutional blocks, two linear layers.

    The blocks are timm's RegNet stages with layer norm and SiLU, as in the original. Its learned embeddings of a fixed number of places are left
    out, so that it reads maps of any size; convolutions and their borders tell where a cell lies.

    Source: Cha et al. 2024, "Honeybee", section 3.2, https://arxiv.org/abs/2312.06742.

    Args:
        in_dim: width of the map that is read.
        out_dim: width of the language model.
        side: tokens along each side of the image.
        dim: width of the convolutional blocks.
        depth: blocks before and blocks after the pooling.

    Raises:
        ValueError: when a number is not positive.
    """

    def __init__(self, in_dim: int, out_dim: int, *, side: int = 12, dim: int = 1024, depth: int = 3) -> None:
        super().__init__()
        if min(in_dim, out_dim, side, dim, depth) < 1:
            raise ValueError(f"a ConvAbstractor needs positive numbers; found in_dim={in_dim}, out_dim={out_dim}, {side=}, {dim=}, {depth=}.")
        self.before = RegStage(depth, in_dim, dim, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.after = RegStage(depth, dim, dim, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
        self.layers = nn.Sequential(nn.Linear(dim, out_dim), nn.SiLU(), nn.Linear(out_dim, out_dim))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b side*side out_dim``, row by row."""
        maps: Tensor = self.after(self.pool(self.before(features)))
        return self.layers(maps.flatten(2).transpose(1, 2))
