"""MLPConnector: the two layers of LLaVA-1.5, token by token in row-major order."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from transformers import LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from geopix.connectors.mlp import MLPConnector
from geopix.contracts import ConnectorFactory


def test_each_token_is_linear_gelu_linear_of_its_cell_in_row_major_order() -> None:
    connector = MLPConnector((3, 6), 10, hidden=7)
    features = torch.randn(2, 6, 3, 5)
    tokens = connector([torch.randn(2, 3, 6, 10), features])
    assert tokens.shape == (2, 15, 10)
    first, second = connector.layers[0], connector.layers[2]
    y, x = 2, 1
    expected = F.linear(F.gelu(F.linear(features[1, :, y, x], first.weight, first.bias), approximate="none"), second.weight, second.bias)
    torch.testing.assert_close(tokens[1, y * 5 + x], expected)


def test_it_is_llavas_projector(parity: Callable[..., None]) -> None:
    small = {"num_attention_heads": 2, "num_hidden_layers": 1}
    vision, text = {"model_type": "clip_vision_model", "hidden_size": 6, **small}, {"model_type": "llama", "hidden_size": 12, **small}
    original, connector = LlavaMultiModalProjector(LlavaConfig(vision_config=vision, text_config=text)), MLPConnector((3, 6), 12)
    for place, part in ((0, original.linear_1), (2, original.linear_2)):
        connector.layers[place].load_state_dict(part.state_dict())
    features = torch.randn(2, 6, 3, 4)
    ours, theirs = connector([torch.randn(2, 3, 6, 8), features]), original(features.flatten(2).transpose(1, 2))
    parity("`MLPConnector`", "transformers `LlavaMultiModalProjector`", "tokens", ours, theirs, rtol=1.3e-6)


def test_hidden_width_defaults_to_the_language_width_and_every_parameter_learns() -> None:
    connector = MLPConnector((6,), 10)
    assert {name: tuple(p.shape) for name, p in connector.named_parameters()} == {
        "layers.0.weight": (10, 6),
        "layers.0.bias": (10,),
        "layers.2.weight": (10, 10),
        "layers.2.bias": (10,),
    }
    connector([torch.randn(1, 6, 2, 2)]).sum().backward()
    assert all(p.grad is not None for p in connector.parameters())


def test_the_class_and_a_partial_of_it_are_factories() -> None:
    for factory in (MLPConnector, partial(MLPConnector, hidden=4)):
        assert isinstance(factory, ConnectorFactory)
        assert factory((3,), 5)([torch.randn(1, 3, 2, 2)]).shape == (1, 4, 5)


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden=0"):
        MLPConnector((3,), 5, hidden=0)
