"""Bands: numbers or names, and one stated policy for kernels and normalisation alike."""

import pytest
import torch
from torch import nn

from geopix.encoders.bands import Bands

NAMES = ["blue", "nir", "red", "green"]


def stem() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 5, 3, stride=2, padding=1)


def inflated(bands: Bands) -> tuple[nn.Conv2d, nn.Conv2d]:
    first, again = stem(), stem()
    bands.inflate_convolution(again)
    assert (again.in_channels, again.stride, again.padding) == (bands.count, (2, 2), (1, 1))
    torch.testing.assert_close(again.bias, first.bias)
    return first, again


def test_repeat_is_the_sum_for_one_band_and_kernels_in_turn_for_more() -> None:
    first, again = inflated(Bands(1))
    torch.testing.assert_close(again.weight, first.weight.sum(1, keepdim=True))
    first, again = inflated(Bands(5))
    torch.testing.assert_close(again.weight, first.weight[:, [0, 1, 2, 0, 1]] * 3 / 5)
    first, again = inflated(Bands(3))
    assert torch.equal(again.weight, first.weight)


@pytest.mark.parametrize("bands", [1, 4, NAMES])
def test_mean_gives_every_band_the_mean_kernel_so_that_grey_keeps_its_response(bands: int | list[str]) -> None:
    chosen = Bands(bands, "mean")
    first, again = inflated(chosen)
    assert torch.equal(again.weight[:, :1].expand_as(again.weight), again.weight)
    grey = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(again(grey.expand(-1, chosen.count, -1, -1)), first(grey.expand(-1, 3, -1, -1)))


def test_named_bands_take_their_own_kernels_wherever_they_stand() -> None:
    first, again = inflated(Bands(NAMES, "named"))
    expected = torch.stack([first.weight[:, 2], first.weight.mean(1), first.weight[:, 0], first.weight[:, 1]], 1) * 3 / 4
    torch.testing.assert_close(again.weight, expected)
    first, again = inflated(Bands(["blue", "green", "red"], "named"))
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(again(images.flip(1)), first(images))


def test_zeros_keep_the_result_for_red_green_and_blue() -> None:
    first, again = inflated(Bands(NAMES, "zeros"))
    images, nir = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)
    red, green, blue = images.split(1, dim=1)
    torch.testing.assert_close(again(torch.cat([blue, nir, red, green], 1)), first(images))
    assert again.weight.requires_grad


@pytest.mark.parametrize("bands", [Bands(3), Bands(5), Bands(1), Bands(NAMES, "named"), Bands(NAMES, "zeros")])
def test_inflation_works_without_storage(bands: Bands) -> None:
    with torch.device("meta"):
        again = stem()
        bands.inflate_convolution(again)
    assert again.weight.shape == (5, bands.count, 3, 3)


def test_normalisation_follows_the_same_mapping() -> None:
    own = [0.1, 0.2, 0.6]
    assert Bands(5).values("mean", None, own).flatten().tolist() == pytest.approx([0.1, 0.2, 0.6, 0.1, 0.2])
    assert Bands(1).values("mean", None, own).flatten().tolist() == pytest.approx([0.3])
    for inflate in ("named", "zeros"):
        assert Bands(NAMES, inflate).values("mean", None, own).flatten().tolist() == pytest.approx([0.6, 0.3, 0.1, 0.2])
    assert Bands(2, "mean").values("std", None, own).shape == (2, 1, 1)
    assert Bands(2).values("std", [1.0, 2.0], own).flatten().tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"std needs one number per band, 2; found \[1.0\]"):
        Bands(2).values("std", [1.0], own)


def test_names_are_kept_and_a_number_has_none() -> None:
    assert (Bands(NAMES).count, Bands(NAMES).names) == (4, tuple(NAMES))
    assert (Bands(6).count, Bands(6).names) == (6, ())


def test_bands_and_policies_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one band; found bands=0"):
        Bands(0)
    with pytest.raises(ValueError, match=r"at least one band; found bands=\[\]"):
        Bands([])
    with pytest.raises(ValueError, match=r"found the text 'red'\. Write \[red\]"):
        Bands("red")
    with pytest.raises(ValueError, match="found nir more than once"):
        Bands(["red", "nir", "nir"])
    with pytest.raises(ValueError, match="inflate is one of repeat, mean, named, zeros; found 'copy'"):
        Bands(4, "copy")
    for inflate in ("named", "zeros"):
        with pytest.raises(ValueError, match=f"inflate='{inflate}' needs the names of the bands; found bands=4"):
            Bands(4, inflate)
    with pytest.raises(ValueError, match=r"unless a band is called red, green or blue; found \['vv', 'vh'\]"):
        Bands(["vv", "vh"], "zeros")
    with pytest.raises(ValueError, match="weights were made for 4 channels"):
        Bands(NAMES, "named").kernels(torch.zeros(2, 4, 1, 1))
    with pytest.raises(ValueError, match="3 groups"):
        Bands(4).inflate_convolution(nn.Conv2d(3, 6, 1, groups=3))
