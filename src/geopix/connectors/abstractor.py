"""A convolutional abstractor: fewer tokens that still stand where they stood."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import Connector


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each cell."""

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Each cell by itself."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    """Weighs each channel by what two 1 x 1 convolutions with SiLU between make of the map's mean (https://arxiv.org/abs/1709.01507)."""

    def __init__(self, dim: int, squeezed: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, dim, 1), nn.Sigmoid())

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The map, channel by channel louder or softer."""
        return maps * self.weigh(maps)


class RegNetBlock(nn.Module):
    """RegNet's Y block with layer norm and SiLU: 1 x 1, grouped 3 x 3, squeeze and excite, 1 x 1, beside a shortcut.

    The groups are of one channel, as in Honeybee. Weights lie in the order of timm's ``Bottleneck``.

    Source: Radosavovic et al. 2020, "Designing Network Design Spaces", https://arxiv.org/abs/2003.13678.
    """

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_dim, dim, 1, bias=False),
            LayerNorm2d(dim),
            nn.SiLU(),
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False),
            LayerNorm2d(dim),
            nn.SiLU(),
            SqueezeExcite(dim, max(round(in_dim / 4), 1)),
            nn.Conv2d(dim, dim, 1, bias=False),
            LayerNorm2d(dim),
        )
        self.shortcut = nn.Identity() if in_dim == dim else nn.Sequential(nn.Conv2d(in_dim, dim, 1, bias=False), LayerNorm2d(dim))
        self.activation = nn.SiLU()

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """A map of the same size."""
        return self.activation(self.layers(maps) + self.shortcut(maps))


class ConvAbstractor(Connector):
    """Honeybee's C-Abstractor: convolutional blocks, average pooling to ``side x side`` tokens, convolutional blocks, two linear layers.

    Its learned embeddings of a fixed number of places are left out, so that it reads maps of any size; convolutions and their borders tell where
    a cell lies.

    Source: Cha et al. 2024, "Honeybee", section 3.2, https://arxiv.org/abs/2312.06742.

    Args:
        channels: widths of the encoder's maps, finest first; the last map is read.
        out_dim: width of the language model.
        side: tokens along each side of the image.
        dim: width of the convolutional blocks.
        depth: blocks before and blocks after the pooling.

    Raises:
        ValueError: when a number is not positive.
    """

    def __init__(self, channels: Sequence[int], out_dim: int, *, side: int = 12, dim: int = 1024, depth: int = 3) -> None:
        super().__init__()
        in_dim = channels[-1]
        if min(in_dim, out_dim, side, dim, depth) < 1:
            raise ValueError(f"a ConvAbstractor needs positive numbers; found channels[-1]={in_dim}, out_dim={out_dim}, {side=}, {dim=}, {depth=}.")
        self.before = nn.Sequential(*(RegNetBlock(dim if block else in_dim, dim) for block in range(depth)))
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.after = nn.Sequential(*(RegNetBlock(dim, dim) for _ in range(depth)))
        self.layers = nn.Sequential(nn.Linear(dim, out_dim), nn.SiLU(), nn.Linear(out_dim, out_dim))

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b side*side out_dim``, row by row."""
        maps: Tensor = self.after(self.pool(self.before(features[-1])))
        return self.layers(maps.flatten(2).transpose(1, 2))
