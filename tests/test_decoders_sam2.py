"""SAM 2's image decoder: equal to transformers' own on random weights, refusal of absent things, and maps that are not SAM 2's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model

from geopix.decoders.sam2 import ABSENT, Sam2Decoder, Skip
from geopix.decoders.two_way import TwoWayDecoder
from geopix.decoders.two_way_transformer import unfold_cells

DIM = 32
SMALL = {"dim": DIM, "heads": 4, "mlp_dim": 48}
INDEX = torch.tensor([0, 0, 1])
HIERA = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1, "image_size": [64, 64], "blocks_per_stage": [1, 1, 2, 1]}
HIERA |= {"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 4]}
HIERA |= {"global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4]}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def sam() -> Sam2Model:
    torch.manual_seed(1)
    vision = {"backbone_config": HIERA, "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": DIM}
    prompt = {"hidden_size": DIM, "image_size": 64, "patch_size": 16}
    mask = {"hidden_size": DIM, "mlp_dim": 48, "num_attention_heads": 4, "iou_head_hidden_dim": DIM, "dynamic_multimask_via_stability": False}
    model = Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def folder(sam: Sam2Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam2")
    sam.save_pretrained(path)
    return path


def in_metas_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that Meta's release gives to the same tensors."""
    renamed = {"shared_image_embedding.positional_embedding": "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"}
    renamed |= {"no_memory_embedding": "no_mem_embed", "prompt_encoder.point_embed.weight": "sam_prompt_encoder.point_embeddings.0.weight"}
    swaps = [("vision_encoder.", "image_encoder."), ("layer_norm_final_attn", "norm_final_attn"), ("upscale_conv1", "output_upscaling.0")]
    swaps += [("upscale_layer_norm", "output_upscaling.1"), ("upscale_conv2", "output_upscaling.3"), (".o_proj", ".out_proj")]
    out = {}
    for name, value in state.items():
        new = renamed.get(name, name)
        if new.startswith(("mask_decoder", "prompt_encoder")):
            new = "sam_" + new
        for ours, theirs in swaps:
            new = new.replace(ours, theirs)
        new = re.sub(r"layer_norm(\d)", r"norm\1", new)
        if ".mlp." in new:
            new = new.replace("proj_in", "layers.0").replace("proj_out", "layers.1")
        if "hypernetworks" in new or "iou_prediction" in new or "obj_score_head" in new:
            new = new.replace("layers.0", "layers.1").replace("proj_in", "layers.0").replace("proj_out", "layers.2")
        if "shared_embedding" not in new:
            out[new] = value
    extra = ("maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr", "no_obj_embed_spatial", "obj_ptr_proj.layers.0.weight", "mask_downsample.weight")
    return out | {name: torch.ones(1) for name in (*extra, "memory_attention.layers.0.norm1.weight", "memory_encoder.fuser.layers.0.gamma")}


def decoder_of(weights: Path, **options: object) -> Sam2Decoder:
    """A decoder whose prompts are taken as they are, as SAM 2's own prompt encoder gives them."""
    decoder = Sam2Decoder((DIM, DIM, DIM), DIM, **SMALL, weights=weights, refuse=False, **options).eval()
    assert isinstance(decoder.image_proj, nn.Identity)
    decoder.prompt_proj = nn.Identity()
    return decoder


@torch.no_grad()
def both(sam: Sam2Model, decoder: Sam2Decoder, multimask: bool) -> tuple[object, object]:
    pixels, points = torch.rand(2, 3, 64, 64), torch.rand(2, 2, 3, 2) * 64
    labels = torch.tensor([1, 0, 1]).expand(2, 2, 3)
    theirs = sam(pixel_values=pixels, input_points=points, input_labels=labels, multimask_output=multimask)
    sparse, _ = sam.get_prompt_embeddings(points, labels)
    ours = decoder(list(sam.vision_encoder(pixels).fpn_hidden_states), sparse.flatten(0, 1), torch.tensor([0, 0, 1, 1]))
    return theirs, ours


@pytest.mark.parametrize("layout", ["transformers", "meta"])
@pytest.mark.parametrize("multimask", [False, True])
def test_masks_quality_and_presence_equal_those_of_transformers(
    sam: Sam2Model, folder: Path, layout: str, multimask: bool, tmp_path: Path, parity: Callable[..., None]
) -> None:
    if layout == "meta":
        torch.save({"model": in_metas_layout(sam.state_dict())}, tmp_path / "sam2.pt")
    decoder = decoder_of(folder if layout == "transformers" else tmp_path / "sam2.pt", multimask=multimask)
    theirs, ours = both(sam, decoder, multimask)
    scores = theirs.iou_scores.flatten(0, 1)
    expected = theirs.pred_masks.flatten(0, 1)[torch.arange(4), scores.argmax(1)]
    assert expected.std() > 0.1
    assert sam.no_memory_embedding.abs().sum() > 0
    names, of = ("`Sam2Decoder`", "transformers `Sam2Model`"), ", best of three" if multimask else ""
    parity(*names, f"masks{of}", ours.mask_logits, expected, rtol=1e-4)
    parity(*names, f"IoU{of}", ours.quality, scores.amax(1), rtol=1e-4)
    parity(*names, "presence", ours.presence, theirs.object_score_logits.flatten(), rtol=1e-4)


def test_weights_of_sam_2_are_no_weights_of_sam(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"left over: mask_decoder\.conv_s0\.bias, .*mask_decoder\.obj_score_token\.weight"):
        TwoWayDecoder((DIM,), DIM, **SMALL, weights=folder)
    with pytest.raises(ValueError, match=r"of another shape: mask_decoder\.conv_s0\.weight \(4, 32, 1, 1\) for \(4, 12, 1, 1\)"):
        Sam2Decoder((12, DIM, DIM), DIM, **SMALL, weights=folder)


def small(channels: tuple[int, ...] = (8, 12, 20), **options: object) -> Sam2Decoder:
    return Sam2Decoder(channels, 24, dim=16, heads=2, mlp_dim=32, **options)


def maps(decoder_channels: tuple[int, ...] = (8, 12, 20), size: tuple[int, int] = (24, 16)) -> list[Tensor]:
    return [torch.randn(2, width, -(-size[0] // 2**level), -(-size[1] // 2**level)) for level, width in enumerate(decoder_channels)]


def test_absent_things_are_refused_when_answering_and_only_then() -> None:
    decoder, features, prompts = small(), maps(), torch.randn(3, 2, 24)
    with torch.no_grad():
        decoder.presence_mlp[-1].bias.fill_(0)
        decoder.presence_mlp[-1].bias.fill_(-decoder(features, prompts, INDEX).presence.median())
    kept = decoder(features, prompts, INDEX)
    assert kept.mask_logits.min() > ABSENT
    answered = decoder.eval()(features, prompts, INDEX, lambda image, image_index, logits, level: image[image_index])
    absent = answered.presence <= 0
    assert 0 < absent.sum() < 3
    assert (answered.mask_logits[absent] == ABSENT).all()
    torch.testing.assert_close(answered.mask_logits[~absent], kept.mask_logits[~absent])
    assert answered.auxiliary[0].min() > ABSENT
    assert small(refuse=False).eval()(features, prompts, INDEX).mask_logits.min() > ABSENT


def test_a_fresh_decoder_believes_the_question() -> None:
    assert small().presence_mlp[-1].bias.item() > 0


@pytest.mark.parametrize(
    ("channels", "levels", "size", "expected"),
    [
        ((8, 12, 20), None, (24, 16), (24, 16)),
        ((8, 12, 20), None, (25, 13), (28, 16)),
        ((8, 12, 20), (0, 0, 1), (24, 16), (48, 32)),
        ((8, 12), None, (24, 16), (48, 32)),
        ((8,), None, (9, 5), (36, 20)),
        ((6, 8, 12, 20), None, (48, 32), (24, 16)),
    ],
)
def test_maps_of_any_number_and_size_are_used(channels: tuple[int, ...], levels: tuple[int, ...] | None, size: tuple[int, int], expected: tuple) -> None:
    decoder, features = small(channels, levels=levels).eval(), maps(channels, size)
    drawing = decoder(features, torch.randn(3, 1, 24), INDEX)
    assert drawing.mask_logits.shape == (3, *expected)
    assert drawing.presence.shape == drawing.quality.shape == (3,)
    assert ((drawing.quality > 0) & (drawing.quality < 1)).all()


def test_skips_are_exact_where_they_fit_averaged_where_finer_and_interpolated_where_coarser() -> None:
    skip, features = Skip(3, 5), torch.randn(1, 3, 8, 4)
    plain = skip.convolution(features)
    means, blown_up = nn.functional.avg_pool2d(plain, 2), nn.functional.interpolate(plain, scale_factor=2, mode="bilinear")
    for size, expected in (((8, 4), plain), ((4, 2), means), ((16, 8), blown_up)):
        torch.testing.assert_close(unfold_cells(skip(features, size)), expected.permute(0, 2, 3, 1))


def test_finer_maps_reach_the_masks() -> None:
    decoder, features, prompts = small().eval(), maps(), torch.randn(3, 1, 24)
    before = decoder(features, prompts, INDEX).mask_logits
    for index in range(3):
        changed = [torch.randn_like(x) if place == index else x for place, x in enumerate(features)]
        assert (decoder(changed, prompts, INDEX).mask_logits - before).abs().amax(dim=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("remember", [False, True])
def test_every_parameter_learns_and_the_image_is_seen_once(multimask: bool, remember: bool) -> None:
    decoder = small(multimask=multimask)
    sizes = []
    for part in (decoder.fine_skip, decoder.middle_skip, decoder.image_proj):
        part.register_forward_hook(lambda part, args, out: sizes.append(len(out)))
    recall = (lambda image, image_index, logits, level: image[image_index] + 1) if remember else None
    for best in range(len(decoder.head.drawn)):
        with torch.no_grad():
            decoder.head.quality_mlp[-1].bias.fill_(0)[best] = 3  # each of the drawn masks is the best in turn
        drawing = decoder(maps(), torch.randn(3, 6, 24), INDEX, recall)
        assert len(drawing.auxiliary) == remember
        (drawing.mask_logits.square().sum() + drawing.quality.sum() + drawing.presence.sum()).backward()
    assert sizes == [2, 2, 2] * len(decoder.head.drawn)
    dead = [name for name, parameter in decoder.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0]
    assert not dead


def test_no_masks_and_bf16() -> None:
    decoder = small()
    nothing = decoder(maps(), torch.randn(0, 2, 24), INDEX[:0], lambda image, image_index, logits, level: image[image_index])
    assert nothing.mask_logits.shape == (0, 24, 16)
    nothing.mask_logits.sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        drawing = decoder(maps(), torch.randn(3, 2, 24), INDEX, lambda image, image_index, logits, level: image[image_index])
    drawing.mask_logits.float().sum().backward()
    assert drawing.mask_logits.isfinite().all()


def test_levels_that_are_not_three_maps_are_refused() -> None:
    for levels in ((0, 1), (0, 1, 3)):
        with pytest.raises(ValueError, match=r"must name three of the encoder's 3 maps"):
            small(levels=levels)
