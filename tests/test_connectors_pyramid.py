"""PyramidConnector: Dense Connector over maps of one stride, and what becomes of finer and coarser ones."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from geopix.connectors.pyramid import PyramidConnector
from tests import tiny

MAPS = [torch.randn(2, 2, 12, 16), torch.randn(2, 3, 6, 8), torch.randn(2, 5, 3, 4)]


def bare(connector: PyramidConnector) -> PyramidConnector:
    """The tokens before the MLP."""
    connector.layers = nn.ModuleList(nn.Identity() for _ in connector.layers)
    return connector


def test_over_one_stride_it_is_llava_with_several_layers(parity: Callable[..., None]) -> None:
    small = {"num_attention_heads": 2, "num_hidden_layers": 4}
    vision, text = {"model_type": "clip_vision_model", "hidden_size": 6, **small}, {"model_type": "llama", "hidden_size": 12, **small}
    original = LlavaMultiModalProjector(LlavaConfig(vision_config=vision, text_config=text, vision_feature_layer=[1, 2, 4]))
    connector = PyramidConnector((6, 6, 6), 12, ratio=1)
    for place, part in ((0, original.linear_1), (2, original.linear_2)):
        connector.layers[0][place].load_state_dict(part.state_dict())
    layers = [torch.randn(2, 6, 3, 4) for _ in range(3)]
    expected = original(torch.cat([maps.flatten(2).transpose(1, 2) for maps in layers], dim=-1))
    parity("`PyramidConnector`", "transformers `LlavaMultiModalProjector`", "tokens of three layers", connector(layers), expected, rtol=1.3e-6)


def test_a_token_holds_every_number_of_the_maps_within_it() -> None:
    tokens = bare(PyramidConnector((2, 3, 5), 4))(MAPS)
    assert tokens.shape == (2, 12, 2 * 16 + 3 * 4 + 5)
    y, x = 2, 1
    within = [MAPS[0][1, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4], MAPS[1][1, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2], MAPS[2][1, :, y, x]]
    torch.testing.assert_close(tokens[1, y * 4 + x].sort().values, torch.cat([part.flatten() for part in within]).sort().values)


def test_levels_are_chosen_ordered_and_set_the_grid() -> None:
    tokens = bare(PyramidConnector((2, 3, 5), 4, levels=[-1, 1], grid=1))(MAPS)
    assert tokens.shape == (2, 48, 5 + 3)
    torch.testing.assert_close(tokens[:, 8 + 2, 5:], MAPS[1][:, :, 1, 2])
    constant = bare(PyramidConnector((2, 3, 5), 4, levels=[1, 2], grid=1))([maps * 0 + level for level, maps in enumerate(MAPS)])
    assert constant[..., 3:].eq(2).all(), "the coarser map is interpolated"


def test_a_ratio_of_one_averages_what_is_finer() -> None:
    tokens = bare(PyramidConnector((2, 3, 5), 4, ratio=1))(MAPS)
    torch.testing.assert_close(tokens[1, 4 + 2, :2], MAPS[0][1, :, 4:8, 8:12].mean((1, 2)))


def test_groups_of_tokens_follow_each_other_level_by_level() -> None:
    connector = PyramidConnector((2, 3, 5), 4, levels=[0, 2], join="tokens")
    tokens = connector(MAPS)
    assert tokens.shape == (2, 24, 4)
    torch.testing.assert_close(tokens[:, 12:], connector.layers[1](MAPS[2].flatten(2).transpose(1, 2)))
    assert PyramidConnector((2, 3, 5), 4, levels=[2, 1], join="tokens")(MAPS).shape == (2, 96, 4), "the last of the levels is the grid"


@pytest.mark.parametrize("size", [(50, 37), (9, 9), (4, 4)])
def test_maps_of_odd_images_end_in_zeros(size: tuple[int, int]) -> None:
    maps = [torch.ones(1, 2, -(-size[0] // stride), -(-size[1] // stride)) for stride in (4, 8, 16)]
    tokens = bare(PyramidConnector((2, 2, 2), 4))(maps)
    assert tokens.shape[1] == maps[2][0, 0].numel()
    assert tokens.sum() == sum(level.sum() for level in maps), "nothing is lost and nothing invented"


def test_in_its_place_in_a_model_every_map_matters() -> None:
    net = tiny.GeoPixModel(tiny.TINY[tiny.TimmEncoder](), PyramidConnector, tiny.TINY[tiny.HFLanguageModel](), tiny.TINY[tiny.DotDecoder]).eval()
    assert len(net.encoder.channels) == 2
    images = torch.rand(1, 3, 64, 64)
    seen = net.encode(images)
    assert seen.visual.shape == (1, seen.features[-1][0, 0].numel(), net.llm.dim)
    for level in range(2):
        changed = [maps + (place == level) for place, maps in enumerate(seen.features)]
        assert not torch.allclose(net.connector(changed), seen.visual)


def test_maps_that_are_coarser_than_the_ratio_says_are_refused_with_the_next_step() -> None:
    with pytest.raises(ValueError, match=r"map 0 .* 14 x 14 cells, too few for 2 x 2 .* ratio to .* 1 where they are equal"):
        PyramidConnector((2, 2), 4)([torch.randn(1, 2, 14, 14)] * 2)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"levels": [0, 3]}, r"3 maps.*\[0, 3\]"),
        ({"levels": []}, r"\[\]"),
        ({"levels": [2, -1]}, "once"),
        ({"levels": [0, 1], "grid": 2}, "grid=2"),
        ({"ratio": 0}, "ratio=0"),
    ],
)
def test_choices_that_cannot_be(options: dict, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        PyramidConnector((2, 3, 5), 4, **options)
