"""The query decoder: its layers, positions and masks are Mask2Former's, and what its prompts may be."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskedAttentionDecoder,
    Mask2FormerMaskedAttentionDecoderLayer,
    Mask2FormerSinePositionEmbedding,
)

from geopix.decoders.query import MaskedLayer, QueryDecoder, _allowed, sine_position

CHANNELS = (12, 20, 24)
PROMPT_DIM = 24
INDEX = torch.tensor([0, 0, 1])
DIM, HEADS, FFN, DEPTH = 16, 2, 24, 5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def maps(b: int = 2, size: tuple[int, int] = (16, 24)) -> list[Tensor]:
    return [torch.randn(b, width, -(-size[0] // 2**level), -(-size[1] // 2**level)) for level, width in enumerate(CHANNELS)]


def prompts(m: int = 3, k: int = 6) -> Tensor:
    return torch.randn(m, k, PROMPT_DIM)


def make(depth: int = DEPTH, levels: tuple[int, ...] | None = None, learned_queries: int = 0) -> QueryDecoder:
    return QueryDecoder(CHANNELS, PROMPT_DIM, dim=DIM, depth=depth, heads=HEADS, ffn=FFN, levels=levels, learned_queries=learned_queries)


def memory(features: Tensor, image_index: Tensor, mask_logits: Tensor, level: int) -> Tensor:
    inside = F.interpolate(mask_logits[:, None], size=features.shape[-2:], mode="bilinear", align_corners=False).sigmoid()
    return features[image_index] * (1 + level + inside)


# ---------------------------------------------------------------- against transformers


def config() -> Mask2FormerConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Mask2FormerConfig(hidden_dim=DIM, num_attention_heads=HEADS, dim_feedforward=FFN, decoder_layers=DEPTH + 1, mask_feature_size=DIM, dropout=0.0)


def copy_linear(ours: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    ours.weight.copy_(weight)
    if ours.bias is not None:
        ours.bias.copy_(bias)


@torch.no_grad()
def copy_layer(ours: MaskedLayer, theirs: Mask2FormerMaskedAttentionDecoderLayer) -> None:
    cross, own = theirs.cross_attn, theirs.self_attn
    cross.in_proj_bias.normal_()
    for name, weight, bias in zip("qkv", cross.in_proj_weight.chunk(3), cross.in_proj_bias.chunk(3), strict=True):
        copy_linear(ours.read.get_submodule(f"{name}_proj"), weight, bias)
        there = own.get_submodule(f"{name}_proj")
        copy_linear(ours.self_attention.get_submodule(f"{name}_proj"), there.weight, there.bias)
    copy_linear(ours.read.out_proj, cross.out_proj.weight, cross.out_proj.bias)
    copy_linear(ours.self_attention.out_proj, own.out_proj.weight, own.out_proj.bias)
    copy_linear(ours.mlp[0], theirs.fc1.weight, theirs.fc1.bias)
    copy_linear(ours.mlp[2], theirs.fc2.weight, theirs.fc2.bias)
    norms = {ours.norm_read: theirs.cross_attn_layer_norm, ours.norm_self: theirs.self_attn_layer_norm, ours.norm_mlp: theirs.final_layer_norm}
    for norm, there in norms.items():
        there.weight.normal_(1, 0.2)
        norm.load_state_dict(there.state_dict())


def test_a_layer_is_that_of_transformers(parity: Callable[..., None]) -> None:
    ours, theirs = MaskedLayer(DIM, HEADS, FFN).eval(), Mask2FormerMaskedAttentionDecoderLayer(config()).eval()
    copy_layer(ours, theirs)
    queries, code, cells, places = torch.randn(3, 4, DIM), torch.randn(3, 4, DIM), torch.randn(2, 30, DIM), torch.randn(30, DIM)
    allowed = torch.rand(3, 30) > 0.6
    with torch.no_grad():
        expected = theirs(
            queries.transpose(0, 1),
            level_index=0,
            position_embeddings=[places[:, None]],
            query_position_embeddings=code.transpose(0, 1),
            encoder_hidden_states=[cells[INDEX].transpose(0, 1)],
            encoder_attention_mask=~allowed[:, None].repeat_interleave(HEADS, 0).expand(-1, 4, -1),
        )[0].transpose(0, 1)
        found = ours(queries, code, cells, places, INDEX, allowed)
    parity("`QueryDecoder`", "transformers `Mask2FormerMaskedAttentionDecoderLayer`", "one layer", found, expected, rtol=1e-4)


def test_positions_are_those_of_transformers(parity: Callable[..., None]) -> None:
    theirs = Mask2FormerSinePositionEmbedding(DIM // 2, normalize=True)
    expected = theirs(torch.Size([1, DIM, 5, 7]), torch.device("cpu"), torch.float32)
    found = sine_position(5, 7, DIM, torch.device("cpu"))
    parity("`QueryDecoder`", "transformers `Mask2FormerSinePositionEmbedding`", "positions", found, expected[0].flatten(1).T, rtol=0)


def test_with_one_token_it_is_the_whole_decoder_of_transformers(parity: Callable[..., None]) -> None:
    ours, theirs = make(levels=(2, 1, 0)).eval(), Mask2FormerMaskedAttentionDecoder(config()).eval()
    for layer, there in zip(ours.layers, theirs.layers, strict=True):
        copy_layer(layer, there)
    with torch.no_grad():
        ours.norm.load_state_dict(theirs.layernorm.state_dict())
        for index in range(3):
            there = theirs.mask_predictor.mask_embedder.layers[index].layers[0]
            copy_linear(ours.mask_mlp[2 * index], there.weight * 3, there.bias)
            there.weight.mul_(3)
        features, asked = maps(), prompts(k=1)
        pyramid = ours.pyramid(features)
        levels = [pyramid[level] for level in ours.levels]
        queries, code = ours.ask(asked).chunk(2, -1)
        places = [sine_position(*x.shape[-2:], DIM, x.device)[:, None] for x in levels]
        cells = [(x.flatten(2).permute(2, 0, 1) + embed)[:, INDEX] for x, embed in zip(levels, ours.level_embed, strict=True)]
        expected = theirs(
            inputs_embeds=queries.transpose(0, 1),
            multi_stage_positional_embeddings=places,
            pixel_embeddings=ours.pixels(pyramid[0])[INDEX],
            encoder_hidden_states=cells,
            query_position_embeddings=code.transpose(0, 1),
            feature_size_list=[x.shape[-2:] for x in levels],
            return_dict=True,
        ).masks_queries_logits
        drawing = ours(features, asked, INDEX)
    assert len(expected) == DEPTH + 1
    shares = [float((mask > 0).float().mean()) for mask in expected]
    assert any(0.05 < share < 0.95 for share in shares), "the attention masks hide something"
    for found, there in zip((*drawing.auxiliary, drawing.mask_logits), expected, strict=True):
        parity("`QueryDecoder`", "transformers `Mask2FormerMaskedAttentionDecoder`", "masks after every layer", found, there[:, 0], atol=1e-4, rtol=1e-3)


# ---------------------------------------------------------------- what reaches the masks


@pytest.mark.parametrize("k", [1, 3, 11])
@pytest.mark.parametrize("size", [(16, 24), (11, 7)])
def test_any_number_of_tokens_and_any_size(k: int, size: tuple[int, int]) -> None:
    drawing = make()(maps(size=size), prompts(k=k), INDEX)
    assert drawing.mask_logits.shape == (3, *size)
    assert [mask.shape for mask in drawing.auxiliary] == [drawing.mask_logits.shape] * DEPTH
    assert drawing.presence is not None
    assert drawing.presence.shape == (3,)


def test_a_second_look_adds_one_mask() -> None:
    decoder, features, asked = make(), maps(), prompts()
    plain, again = decoder(features, asked, INDEX), decoder(features, asked, INDEX, memory)
    torch.testing.assert_close(again.auxiliary[-1], plain.mask_logits)
    assert len(again.auxiliary) == DEPTH + 1
    assert (again.mask_logits - plain.mask_logits).abs().amax() > 1e-3


@pytest.mark.parametrize("recall", [None, memory])
def test_every_parameter_learns(recall: object) -> None:
    decoder = make(learned_queries=2)
    drawing = decoder(maps(), prompts(), INDEX, recall)
    assert drawing.presence is not None
    (drawing.mask_logits.square().sum() + sum(mask.square().sum() for mask in drawing.auxiliary) + drawing.presence.sum()).backward()
    dead = [name for name, parameter in decoder.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0]
    assert not dead


def test_every_token_and_both_kinds_of_maps_reach_the_masks() -> None:
    decoder, features, asked = make().eval(), maps(), prompts()
    plain = decoder(features, asked, INDEX).mask_logits
    for token in range(asked.shape[1]):
        changed = asked.clone()
        changed[:, token] = torch.randn(3, PROMPT_DIM)
        assert (decoder(features, changed, INDEX).mask_logits - plain).abs().amax(dim=(1, 2)).min() > 1e-4
    for level in range(len(CHANNELS)):
        changed = [torch.randn_like(x) if index == level else x for index, x in enumerate(features)]
        assert (decoder(changed, asked, INDEX).mask_logits - plain).abs().amax(dim=(1, 2)).min() > 1e-4


def test_a_mask_hides_what_lies_outside_it_and_an_empty_one_nothing() -> None:
    logits = torch.full((2, 4, 4), -1.0)
    logits[0, :2, :2] = 1
    assert _allowed(logits, (2, 2)).tolist() == [[True, False, False, False], [True, True, True, True]]


def test_masks_of_the_same_image_do_not_see_each_other() -> None:
    decoder, features, asked = make(learned_queries=1).eval(), maps(), prompts()
    together = decoder(features, asked, INDEX).mask_logits
    torch.testing.assert_close(decoder(features, asked[1:2], INDEX[1:2]).mask_logits, together[1:2], atol=1e-5, rtol=1e-4)


def test_nothing_to_draw_still_differentiates() -> None:
    drawing = make()(maps(), prompts(m=0), INDEX[:0], memory)
    assert drawing.mask_logits.shape == (0, 16, 24)
    drawing.mask_logits.sum().backward()


def test_bf16_autocast_trains() -> None:
    decoder = make()
    with torch.autocast("cpu", torch.bfloat16):
        drawing = decoder(maps(), prompts(), INDEX, memory)
    drawing.mask_logits.float().square().sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in decoder.parameters())
    assert drawing.mask_logits.isfinite().all()


def test_one_map_is_enough() -> None:
    decoder = QueryDecoder(CHANNELS[:1], PROMPT_DIM, dim=DIM, depth=1, heads=HEADS, ffn=FFN)
    assert decoder(maps()[:1], prompts(), INDEX).mask_logits.shape == (3, 16, 24)


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="must name at least one of the encoder's 3 maps"):
        make(levels=(3,))
    with pytest.raises(ValueError, match="1 layers cannot look at 2 levels"):
        make(depth=1)
    with pytest.raises(ValueError, match="that 4 divides; found 18"):
        QueryDecoder(CHANNELS, PROMPT_DIM, dim=18)
