"""Connectors that choose how many tokens an image becomes: as their originals compute, for maps of any size."""

from collections.abc import Callable

import pytest
import torch
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import nn
from transformers import Blip2Config, Blip2ForConditionalGeneration, IdeficsConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from geopix.connectors.abstractor import ConvAbstractor
from geopix.connectors.hf import QFormerConnector
from geopix.connectors.linear import LinearConnector
from geopix.connectors.resampler import PerceiverResampler
from tests.tiny import TINY


def test_the_resampler_is_the_one_of_idefics_but_for_its_activation(parity: Callable[..., None]) -> None:
    """Idefics reproduces Flamingo with ReLU where Flamingo squares it."""
    config = IdeficsConfig(vision_config={"embed_dim": 12})
    config.perceiver_config.qk_layer_norms_perceiver = False
    original = IdeficsPerceiverResampler(config, 12, depth=2, n_heads=2, head_dim=4, n_latents=5)
    connector = PerceiverResampler((12,), 12, tokens=5, depth=2, heads=2, head_dim=4)
    connector.projection = nn.Identity()
    connector.latents.data = original.latents.data
    connector.norm.load_state_dict(original.layer_norm.state_dict())
    names = {"context_layer_norm": "norm_cells", "latents_layer_norm": "norm_latents", "output_proj": "out_proj"}
    for attention, mlp, (its_attention, its_mlp) in zip(connector.attentions, connector.mlps, original.blocks, strict=True):
        state = {names.get(name.split(".")[0], name.split(".")[0]) + "." + name.split(".")[1]: x for name, x in its_attention.state_dict().items()}
        attention.load_state_dict(state)
        for place, part in ((0, its_mlp.ln), (1, its_mlp.fc), (3, its_mlp.c_proj)):
            mlp[place].load_state_dict(part.state_dict())
        mlp[2] = nn.ReLU()
    features = torch.randn(2, 12, 3, 4)
    ours, theirs = connector([features]), original(features.flatten(2).transpose(1, 2))
    parity("`PerceiverResampler`", "transformers `IdeficsPerceiverResampler`", "tokens, with its activation", ours, theirs, rtol=1.3e-6)


def test_the_q_former_is_the_way_of_blip_2(parity: Callable[..., None]) -> None:
    """Queries, transformer and projection, as ``Blip2ForConditionalGeneration`` puts them together."""
    layers = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"model_type": "opt", "hidden_size": 20, "word_embed_proj_dim": 20, "ffn_dim": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    config = Blip2Config(
        vision_config={**layers, "hidden_size": 12, "num_hidden_layers": 1, "image_size": 8, "patch_size": 4},
        qformer_config={**layers, "encoder_hidden_size": 12},
        text_config=text,
        num_query_tokens=5,
    )
    original, connector = Blip2ForConditionalGeneration(config).eval(), TINY[QFormerConnector]((12,), 20).eval()
    nn.init.normal_(original.query_tokens)
    connector.queries.data = original.query_tokens.data
    connector.qformer.load_state_dict(original.qformer.state_dict())
    connector.projection.load_state_dict(original.language_projection.state_dict())
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        cells = original.vision_model(images).last_hidden_state  # a class token and 2 x 2 patches: read here as 1 x 5 cells
        expected = original.get_image_features(images, return_dict=True).pooler_output
        ours = connector([cells.transpose(1, 2)[:, :, None]])
        parity("`QFormerConnector`", "transformers `Blip2ForConditionalGeneration`", "tokens", ours, expected, rtol=1.3e-6)


@pytest.mark.parametrize(("part", "tokens"), [(PerceiverResampler, 5), (QFormerConnector, 5), (ConvAbstractor, 9)])
@pytest.mark.parametrize("size", [(6, 6), (5, 9), (2, 2)])
def test_the_number_of_tokens_does_not_depend_on_the_image(part: type, tokens: int, size: tuple[int, int]) -> None:
    assert TINY[part]((12,), 20)([torch.randn(2, 12, *size)]).shape == (2, tokens, 20)


@pytest.mark.parametrize("stage", ["before", "after"])
def test_the_blocks_of_the_abstractor_are_timms_regnet_stages(stage: str, parity: Callable[..., None]) -> None:
    abstractor = ConvAbstractor((12,), 20, side=3, dim=8, depth=2)
    widths = {"before": (12, 8), "after": (8, 8)}[stage]
    mine, original = abstractor.get_submodule(stage), RegStage(2, *widths, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
    for parameter in original.parameters():  # norms start as ones and zeros, which would hide a swap
        nn.init.normal_(parameter)
    mine.load_state_dict(dict(zip(mine.state_dict(), original.state_dict().values(), strict=True)))
    features = torch.randn(2, widths[0], 5, 7)
    parity("`ConvAbstractor`", "timm `RegStage`", f"blocks {stage} the pooling", mine(features), original(features), rtol=1.3e-6)


def test_pooled_tokens_stand_row_by_row() -> None:
    connector = TINY[ConvAbstractor]((3,), 4).eval()
    connector.before = connector.after = connector.layers = nn.Identity()
    row = torch.arange(6.0)[:, None].expand(6, 6)
    tokens = connector([torch.stack([row, row.T, row * 0])[None]])
    assert tokens[0, :, :2].tolist() == [[y, x] for y in (0.5, 2.5, 4.5) for x in (0.5, 2.5, 4.5)]


def test_the_linear_connector_is_one_layer_per_cell() -> None:
    connector, features = LinearConnector((3,), 4), torch.randn(1, 3, 2, 5)
    torch.testing.assert_close(connector([features])[0, 7], connector.projection(features[0, :, 1, 2]))


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda: PerceiverResampler((3,), 4, tokens=0), "tokens=0"),
        (lambda: QFormerConnector((3,), 4, dim=10, heads=4), "dim=10, heads=4"),
        (lambda: ConvAbstractor((3,), 4, side=0), "side=0"),
    ],
)
def test_numbers_that_cannot_be(build, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        build()
