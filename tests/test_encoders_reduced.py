"""ReducedEncoder: the inner encoder sees the image smaller, by a factor that is the same for every image."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from geopix.contracts import VisionEncoder
from geopix.encoders.hf import HFVisionEncoder
from geopix.encoders.reduced import ReducedEncoder
from tests.tiny import CLIP


class Seen(VisionEncoder):
    """Gives the mean of each cell of 7 and of 14 pixels, and remembers what it was shown."""

    bands, channels, strides = 3, (3, 3), (7, 14)

    def forward(self, images: Tensor) -> list[Tensor]:
        self.shown = images
        bottom, right = (-side % 14 for side in images.shape[2:])
        padded = F.pad(images, (0, right, 0, bottom), mode="replicate")
        maps = [F.avg_pool2d(padded, stride) for stride in self.strides]
        return [level[..., : -(-images.shape[2] // s), : -(-images.shape[3] // s)] for level, s in zip(maps, self.strides, strict=True)]


def test_a_patch_of_14_at_stride_64_sees_1024_pixels_as_224() -> None:
    inner = Seen()
    reduced = ReducedEncoder(inner, stride=64)
    assert reduced.strides == (32, 64)
    fine, coarse = reduced(torch.rand(1, 3, 1024, 512))
    assert inner.shown.shape == (1, 3, 224, 112)
    assert fine.shape == (1, 3, 32, 16)
    assert coarse.shape == (1, 3, 16, 8)


@pytest.mark.parametrize("size", [(64, 64), (65, 128), (33, 97), (7, 500)])
def test_cells_lie_where_the_stride_says(size: tuple[int, int]) -> None:
    ramp = torch.stack(torch.meshgrid(*(torch.arange(side, dtype=torch.float32) + 0.5 for side in size), indexing="ij"))
    images = torch.cat([ramp, torch.ones(1, *size)])[None]
    coarse = ReducedEncoder(Seen(), stride=64)(images)[-1][0]
    rows, columns = coarse.shape[1:]
    assert (rows, columns) == tuple(-(-side // 64) for side in size)
    torch.testing.assert_close(coarse[2], torch.ones(rows, columns))
    for axis, side in enumerate(size):
        for cell in range(side // 64):  # whole cells, away from the border whose pixels count more
            seen = coarse[axis].select(axis, cell)
            assert (seen - (cell * 64 + 32)).abs().max() < 1.5


def test_a_factor_of_one_changes_nothing() -> None:
    torch.manual_seed(0)
    inner = HFVisionEncoder(CLIP, hidden_layers=(-3, -2))
    images = torch.rand(2, 3, 50, 41)
    for one, two in zip(ReducedEncoder(inner, stride=8)(images), inner(images), strict=True):
        assert torch.equal(one, two)


def test_thin_lines_are_averaged_and_not_skipped() -> None:
    inner = Seen()
    images = torch.zeros(1, 3, 128, 128)
    images[..., ::8] = 1
    ReducedEncoder(inner, stride=112)(images)
    assert inner.shown.std() < 0.05
    assert abs(inner.shown.mean() - 1 / 8) < 0.02


@pytest.mark.parametrize("stride", [13, 15])
def test_a_stride_that_enlarges_or_leaves_broken_strides_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=rf"found stride={stride} for the strides \(7, 14\).*Choose a multiple of 14"):
        ReducedEncoder(Seen(), stride=stride)
