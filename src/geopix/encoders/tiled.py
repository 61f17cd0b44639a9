"""Any encoder over overlapping tiles of a large image, with a global view for the language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from geopix.contracts import VisionEncoder


class TiledEncoder(VisionEncoder):
    """Sees a large image twice: tile by tile for drawing, and once as a whole, reduced, for reading. GeoPixel's idea (arXiv 2501.13925), for any encoder.

    The inner encoder's maps of overlapping tiles are stitched to maps of the whole image with weights that fade towards each tile's border, so that no seam
    shows. They keep their strides. Behind them comes one more map, the one that the language model reads: the inner encoder's last map of the global view,
    which is the image reduced ``shrink`` times by averaging.

    A global view resized to one tile whatever the image would have a stride that depends on the image, and no stride could be stated. Reduced by a stated
    factor, its map has ``shrink`` times the inner encoder's last stride, for every image. Choose ``shrink`` as the side of the training images (data gives
    one size) over ``tile``: then the view is one tile, and the language model reads as many tokens as for one tile, however many tiles there are.

    Tiles lie on the grid of the coarsest map and are spread evenly; an image no larger than a tile is one tile. Those at the bottom and right end with the
    image: the inner encoder pads what its strides do not divide, there as in a whole image.

    Args:
        encoder: sees each tile, and the global view.
        tile: side of a tile in pixels; a multiple of the inner encoder's strides.
        shrink: how many times smaller than the image the global view is.
        overlap: pixels that neighbouring tiles share at least, rounded up to whole cells of the coarsest map.
        tiles_per_batch: tiles that the inner encoder sees at once. This bounds memory where no gradient is kept, as with a frozen encoder.

    Raises:
        ValueError: when the tile does not fit the strides, or its overlap leaves no step.
    """

    def __init__(self, encoder: VisionEncoder, *, tile: int, shrink: int, overlap: int = 64, tiles_per_batch: int = 16) -> None:
        super().__init__()
        cell = math.lcm(*encoder.strides)
        if tile < cell or tile % cell:
            nearest = max(cell, round(tile / cell) * cell)
            raise ValueError(f"a tile's side is a multiple of the encoder's strides {encoder.strides}; found tile={tile}, the nearest is {nearest}.")
        shared = -(-overlap // cell)
        if not 0 <= shared < tile // cell:
            raise ValueError(f"overlap is at least 0 and at most {tile - cell}, a cell of {cell} pixels less than the tile; found {overlap}.")
        if shrink < 1 or tiles_per_batch < 1:
            raise ValueError(f"shrink and tiles_per_batch are at least 1; found shrink={shrink}, tiles_per_batch={tiles_per_batch}.")
        self.encoder = encoder
        self.bands = encoder.bands
        self.channels = (*encoder.channels, encoder.channels[-1])
        self.strides = (*encoder.strides, encoder.strides[-1] * shrink)
        self.shrink = shrink
        self.tiles_per_batch = tiles_per_batch
        self._cell, self._cells, self._shared = cell, tile // cell, shared

    @property
    def cell(self) -> int:
        """That of the inner encoder: the map of the global view is read, not drawn from."""
        return self.encoder.cell

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Stitched maps of the whole image, finest first, then the global view's map."""
        height, width = images.shape[-2:]
        rows, columns = self._axis(height), self._axis(width)
        tiles = self._see([images[..., top:bottom, left:right] for top, bottom in rows for left, right in columns])
        maps = []
        for level, stride in enumerate(self.encoder.strides):
            down, along = (_places(axis, stride, self._cells * self._cell) for axis in (rows, columns))
            grid = [tile[level] for tile in tiles]
            strips = [_stitch(grid[start : start + len(columns)], along, dim=3) for start in range(0, len(grid), len(columns))]
            maps.append(_stitch(strips, down, dim=2))
        view = F.avg_pool2d(images, self.shrink, ceil_mode=True) if self.shrink > 1 else images
        return [*maps, self.encoder(view)[-1]]

    def _axis(self, side: int) -> list[tuple[int, int]]:
        """Where tiles start and end along one side, in pixels."""
        cells = -(-side // self._cell)
        count = 1 + max(0, -(-(cells - self._cells) // (self._cells - self._shared)))
        starts = [index * (cells - self._cells) // (count - 1) if count > 1 else 0 for index in range(count)]
        return [(start * self._cell, min(side, (start + self._cells) * self._cell)) for start in starts]

    def _see(self, tiles: Sequence[Float[Tensor, "b c _ _"]]) -> list[list[Tensor]]:
        """The inner encoder's maps of each tile, finest first. Tiles of all images with one size go together; up to four sizes, at the image's borders."""
        seen: list[list[Tensor]] = [[] for _ in tiles]
        for size in sorted({tile.shape[-2:] for tile in tiles}):
            places = [place for place, tile in enumerate(tiles) if tile.shape[-2:] == size]
            together = torch.cat([tiles[place] for place in places])
            chunks = [self.encoder(chunk) for chunk in together.split(self.tiles_per_batch)]
            for level in zip(*chunks, strict=True):
                for place, maps in zip(places, torch.cat(level).chunk(len(places)), strict=True):
                    seen[place].append(maps)
        return seen


@dataclass(frozen=True)
class _Places:
    """Where the cells of tiles, laid side by side along one axis, belong in the whole map, and their weights, which sum to one in every cell of it."""

    cells: list[int]
    weights: list[float]
    length: int


def _places(spans: Sequence[tuple[int, int]], stride: int, tile: int) -> _Places:
    """Cells of one level. The weight fades towards both ends of a tile as the square of a sine, and never is zero."""
    cells, fading = [], []
    for start, end in spans:
        count = -(-(end - start) // stride)
        cells += [start // stride + index for index in range(count)]
        fading += [math.sin(math.pi * (index + 0.5) * stride / tile) ** 2 for index in range(count)]
    sums = [0.0] * (max(cells) + 1)
    for cell, weight in zip(cells, fading, strict=True):
        sums[cell] += weight
    return _Places(cells, [weight / sums[cell] for cell, weight in zip(cells, fading, strict=True)], len(sums))


def _stitch(maps: Sequence[Float[Tensor, "b c _ _"]], places: _Places, dim: int) -> Float[Tensor, "b c _ _"]:
    """One map from the maps of a row, or of all rows, of tiles."""
    if len(maps) == 1:
        return maps[0]
    side_by_side = torch.cat(list(maps), dim)
    cells: Int[Tensor, " n"] = torch.tensor(places.cells, device=side_by_side.device)
    weights = side_by_side.new_tensor(places.weights).view((-1,) + (1,) * (3 - dim))
    shape = list(side_by_side.shape)
    shape[dim] = places.length
    return side_by_side.new_zeros(shape).index_add(dim, cells, side_by_side * weights)
