"""PixelShuffleConnector: what InternVL does, on any size of map."""

from collections.abc import Callable

import pytest
import torch
from transformers.models.internvl.configuration_internvl import InternVLConfig
from transformers.models.internvl.modeling_internvl import InternVLModel, InternVLMultiModalProjector

from geopix.connectors.pixel_shuffle import PixelShuffleConnector


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_it_is_internvls_projector(factor: int, parity: Callable[..., None]) -> None:
    small = {"num_attention_heads": 2, "num_hidden_layers": 1}
    text = {"model_type": "llama", "hidden_size": 12, **small}
    config = InternVLConfig(vision_config={"hidden_size": 6, **small}, text_config=text, downsample_ratio=1 / factor)
    original, connector = InternVLMultiModalProjector(config), PixelShuffleConnector((6,), 12, factor=factor)
    for mine, its in ((0, original.layer_norm), (1, original.linear_1), (3, original.linear_2)):
        connector.layers[mine].load_state_dict(its.state_dict())
    features = torch.randn(2, 6, 8, 8)
    shuffled = InternVLModel.pixel_shuffle(None, features.permute(0, 2, 3, 1).contiguous(), 1 / factor)
    theirs = original(shuffled.flatten(1, 2))
    parity("`PixelShuffleConnector`", "transformers `InternVLMultiModalProjector`", "tokens", connector([features]), theirs, rtol=1.3e-6)


def test_a_token_holds_its_cells_row_by_row_and_the_border_is_zeros() -> None:
    connector = PixelShuffleConnector((1,), 4, factor=2)
    connector.layers = torch.nn.Identity()
    tokens = connector([torch.arange(1.0, 16.0).view(1, 1, 3, 5)])
    assert tokens.shape == (1, 6, 4)
    assert tokens[0, 1].tolist() == [3, 4, 8, 9]
    assert tokens[0, 5].tolist() == [15, 0, 0, 0]


def test_a_factor_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="factor=0"):
        PixelShuffleConnector((3,), 5, factor=0)
