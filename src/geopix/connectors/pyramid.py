"""Several of the encoder's maps as visual tokens: fine detail and meaning in one token, or in tokens of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import Connector


class PyramidConnector(Connector):
    """Dense Connector's sparse channel integration, for maps of any strides: the chosen maps side by side as channels of one token, then LLaVA-1.5's MLP.

    Every map is first brought to the grid of one of them. A finer map keeps all it holds: its cells within a token become channels, as in InternVL's
    pixel shuffle. Maps of one stride (``ratio`` 1) go in as they are, which is Dense Connector itself, and LLaVA with several
    ``vision_feature_layer`` in transformers. A coarser map is interpolated, bilinearly. Borders of odd images are padded with zeros below and on the right.

    With ``join="tokens"`` each map gives its own group of tokens through an MLP of its own, one group after the other. The paper's sparse token
    integration shares one MLP, which maps of different widths cannot, and averages all but the last map to an eighth of its tokens.

    Source: Yao et al. 2024, "Dense Connector for MLLMs", https://arxiv.org/abs/2405.13800 (https://github.com/HJYao00/DenseConnector);
    pixel shuffle: InternVL 1.5, https://arxiv.org/abs/2404.16821.

    Args:
        channels: widths of the encoder's maps, finest first.
        out_dim: width of the language model.
        levels: which of the maps are read, in the order in which they are joined; all when left out.
        grid: the one of ``levels`` whose cells become tokens; the last of ``levels`` when left out.
        ratio: cells of a map along each side of one cell of the next coarser map: 2 in a pyramid, 1 where all maps have one stride. A map that is
            finer than this says is averaged; with 1 over a pyramid all finer maps are.
        join: ``channels`` makes one token of all maps, ``tokens`` a group of tokens of each map.
        hidden: width between the two linear layers; ``out_dim`` when left out, as in LLaVA-1.5.

    Raises:
        ValueError: when a level is no map of the encoder or named twice, ``grid`` is none of the levels, or a number is not positive.
    """

    def __init__(
        self,
        channels: Sequence[int],
        out_dim: int,
        *,
        levels: Sequence[int] | None = None,
        grid: int | None = None,
        ratio: int = 2,
        join: Literal["channels", "tokens"] = "channels",
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        width = out_dim if hidden is None else hidden
        if min(*channels, out_dim, ratio, width) < 1:
            raise ValueError(
                f"a PyramidConnector needs positive widths and a positive ratio; found channels={tuple(channels)}, {out_dim=}, {ratio=}, hidden={hidden}."
            )
        self.levels = _indices(levels, len(channels))
        self.grid = self.levels[-1] if grid is None else _indices([grid], len(channels))[0]
        if self.grid not in self.levels:
            raise ValueError(f"grid must be one of the levels that are read; found grid={grid} and levels={levels}. Add it to levels or choose one of them.")
        self.folds = tuple(ratio ** max(self.grid - level, 0) for level in self.levels)
        self.join = join
        widths = [channels[level] * fold**2 for level, fold in zip(self.levels, self.folds, strict=True)]
        groups = widths if join == "tokens" else [sum(widths)]
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(group, width), nn.GELU(), nn.Linear(width, out_dim)) for group in groups)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b h*w out_dim`` at the grid's ``h`` and ``w``, row by row; with ``join="tokens"`` as many once more for each further level.

        Raises:
            ValueError: when a map is coarser than ``ratio`` says.
        """
        rows, columns = features[self.grid].shape[-2:]
        groups = [self._cells(features[level], level, fold, (rows, columns)) for level, fold in zip(self.levels, self.folds, strict=True)]
        if self.join == "channels":
            groups = [torch.cat(groups, dim=-1)]
        return torch.cat([layers(group) for layers, group in zip(self.layers, groups, strict=True)], dim=1)

    def _cells(self, maps: Float[Tensor, "b c _ _"], level: int, fold: int, grid: tuple[int, int]) -> Float[Tensor, "b n _"]:
        """One row per token: the ``fold x fold`` cells of a map that lie in it."""
        sides, wanted = tuple(maps.shape[-2:]), (grid[0] * fold, grid[1] * fold)
        short = [side <= whole - fold for side, whole in zip(sides, wanted, strict=True)]
        if fold > 1 and any(short):
            raise ValueError(
                f"map {level} of the encoder has {sides[0]} x {sides[1]} cells, too few for {fold} x {fold} in each of the {grid[0]} x {grid[1]} cells of "
                f"map {self.grid}; set the connector's ratio to what lies between the encoder's strides, 1 where they are equal."
            )
        if any(short):
            maps = F.interpolate(maps, wanted, mode="bilinear")
        elif any(side > whole for side, whole in zip(sides, wanted, strict=True)):
            maps = F.adaptive_avg_pool2d(maps, wanted)
        else:
            maps = F.pad(maps, (0, wanted[1] - sides[1], 0, wanted[0] - sides[0]))
        return F.pixel_unshuffle(maps, fold).flatten(2).transpose(1, 2)


def _indices(levels: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Levels counted from the finest; negative ones count from the last."""
    chosen = range(count) if levels is None else levels
    if not chosen or any(not -count <= level < count for level in chosen):
        raise ValueError(f"the encoder gives {count} maps, 0 to {count - 1}, finest first; found the levels {list(chosen)}. Choose among these.")
    found = tuple(range(count)[level] for level in chosen)
    if len(set(found)) < len(found):
        raise ValueError(f"each level is read once; found the levels {list(chosen)} of {count} maps. Name each only once.")
    return found
