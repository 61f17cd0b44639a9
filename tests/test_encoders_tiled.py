"""TiledEncoder: what it stitches is what the inner encoder would see, without seams; the view for the language model does not grow with the tiles."""

import pytest
import torch
from torch import Tensor, nn

from geopix.connectors.mlp import MLPConnector
from geopix.contracts import VisionEncoder
from geopix.data.source import collate
from geopix.decoders.multi_scale import MultiScaleDecoder
from geopix.encoders.hf import HFVisionEncoder
from geopix.encoders.tiled import TiledEncoder
from geopix.llms.hf import HFLanguageModel
from geopix.model import GeoPixModel
from tests.tiny import CLIP, TINY
from tests.toys import sample


class Patches(VisionEncoder):
    """Sees no further than a cell: its maps of a tile are those of the whole image, cut out."""

    bands, channels, strides = 3, (5, 7), (4, 12)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, width, stride, stride) for width, stride in zip(self.channels, self.strides, strict=True))
        self.calls: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> list[Tensor]:
        self.calls.append(tuple(images.shape))
        bottom, right = (-side % 12 for side in images.shape[2:])
        padded = nn.functional.pad(images, (0, right, 0, bottom))
        maps = [layer(padded) for layer in self.layers]
        return [level[..., : -(-images.shape[2] // s), : -(-images.shape[3] // s)] for level, s in zip(maps, self.strides, strict=True)]


class Leaning(Patches):
    """Reads every tile as a ramp from 0 at its left to 1 at its right, so that tiles disagree as much as they can where they meet; at stride 4."""

    channels, strides = (1,), (4,)

    def forward(self, images: Tensor) -> list[Tensor]:
        rows, columns = (side // 4 for side in images.shape[2:])
        return [torch.linspace(0, 1, columns).expand(len(images), 1, rows, columns)]


@pytest.mark.parametrize("size", [(96, 96), (100, 61), (37, 180), (241, 49), (13, 7)])
@pytest.mark.parametrize("overlap", [0, 12, 20, 36])
def test_a_local_encoder_over_tiles_equals_itself_over_the_whole_image(size: tuple[int, int], overlap: int) -> None:
    inner = Patches()
    tiled = TiledEncoder(inner, tile=48, overlap=overlap, shrink=3, tiles_per_batch=3)
    images = torch.rand(2, 3, *size)
    *stitched, view = tiled(images)
    assert all(max(shape[2:]) <= max(48, -(-max(size) // 3)) for shape in inner.calls)
    assert all(shape[0] <= 3 for shape in inner.calls)
    for one, two in zip(stitched, inner(images), strict=True):
        torch.testing.assert_close(one, two)
    assert view.shape == (2, 7, -(-size[0] // 36), -(-size[1] // 36))


def test_one_tile_that_covers_the_image_equals_the_inner_encoder() -> None:
    inner = HFVisionEncoder(CLIP, hidden_layers=(-3, -2)).eval()
    tiled = TiledEncoder(inner, tile=48, overlap=16, shrink=1).eval()
    images = torch.rand(2, 3, 45, 48)
    maps = inner(images)
    for one, two in zip(tiled(images), [*maps, maps[-1]], strict=True):
        torch.testing.assert_close(one, two)


def test_a_constant_field_stays_constant_and_no_seam_shows() -> None:
    images = torch.full((1, 3, 180, 144), 0.3)
    *stitched, view = TiledEncoder(Patches(), tile=48, overlap=24, shrink=3)(images)
    for level in [*stitched, view]:
        torch.testing.assert_close(level, level[..., :1, :1].expand_as(level))
    smooth, hard = (TiledEncoder(Leaning(), tile=48, overlap=overlap, shrink=3)(images)[0] for overlap in (24, 0))
    assert hard.shape == smooth.shape == (1, 1, 45, 36)
    assert hard.diff(dim=3).abs().max() == 1
    assert smooth.diff(dim=3).abs().max() < 0.2


def test_the_view_is_the_inner_encoders_last_map_of_the_reduced_image() -> None:
    inner, images = Patches(), torch.rand(1, 3, 144, 144)
    tiled = TiledEncoder(inner, tile=48, overlap=12, shrink=3)
    assert (tiled.channels, tiled.strides) == ((5, 7, 7), (4, 12, 36))
    small = images.unflatten(3, (48, 3)).unflatten(2, (48, 3)).mean((3, 5))
    torch.testing.assert_close(tiled(images)[-1], inner(small)[-1])
    assert tiled(images)[-1].shape == inner(images[..., :48, :48])[-1].shape


def test_neighbours_are_independent_and_gradients_pass_through_the_seams() -> None:
    tiled = TiledEncoder(Patches(), tile=24, overlap=12, shrink=2, tiles_per_batch=4)
    images = torch.rand(3, 3, 60, 50, requires_grad=True)
    both = tiled(images)
    for one, two in zip(both, tiled(images[1:2]), strict=True):
        torch.testing.assert_close(one[1:2], two)
    sum(level.square().sum() for level in both).backward()
    assert (images.grad != 0).any(1).all()
    assert all(p.grad is not None for p in tiled.parameters())


def test_it_takes_its_place_in_a_model() -> None:
    encoder = TiledEncoder(HFVisionEncoder(CLIP, hidden_layers=(-3, -2)), tile=32, overlap=8, shrink=2)
    model = GeoPixModel(encoder, TINY[MLPConnector], TINY[HFLanguageModel](), TINY[MultiScaleDecoder])
    out = model(collate([sample(0, "segment/multi"), sample(1, "segment/single")]))
    assert out.drawing.mask_logits.isfinite().all()


def test_tiles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of the encoder's strides \(4, 12\); found tile=50, the nearest is 48"):
        TiledEncoder(Patches(), tile=50, shrink=1)
    with pytest.raises(ValueError, match="at most 36, a cell of 12 pixels less than the tile; found 40"):
        TiledEncoder(Patches(), tile=48, overlap=40, shrink=1)
    with pytest.raises(ValueError, match="found shrink=0"):
        TiledEncoder(Patches(), tile=48, overlap=12, shrink=0)
