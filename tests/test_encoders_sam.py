"""SamEncoder and Sam2Encoder: the image embeddings of transformers' own SAM and SAM 2, at any size."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, Sam2Config, Sam2Model, Sam2VisionConfig, Sam2VisionModel, SamConfig, SamModel, SamVisionConfig, SamVisionModel

from geopix.encoders.sam.hf import Sam2Encoder, SamEncoder

SAM = {"hidden_size": 16, "output_channels": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 64, "patch_size": 8, "window_size": 3}
SAM |= {"global_attn_indexes": [1], "mlp_dim": 24}
HIERA = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [64, 64], "blocks_per_stage": [1, 2, 2, 1], "global_attention_blocks": [4]}
HIERA |= {"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 2, 2, 2], "window_size_per_stage": [4, 2, 4, 2]}
HIERA |= {"window_positional_embedding_background_size": [3, 3]}
SAM2 = {"backbone_config": HIERA, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 12}
SMALL = {
    SamEncoder: {"model_type": "sam_vision_model", **SAM},
    Sam2Encoder: {"model_type": "sam2_vision_model", **SAM2},
}
DECODER = {"hidden_size": 12, "num_attention_heads": 2, "mlp_dim": 16, "iou_head_hidden_dim": 8}
PROMPTS = {"hidden_size": 12, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
every = pytest.mark.parametrize


def noisy(model: PreTrainedModel) -> PreTrainedModel:
    """Random positions and norms too, which a fresh model leaves at zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def original(part: type, whole: bool) -> PreTrainedModel:
    torch.manual_seed(0)
    if part is SamEncoder:
        vision = {**SAM, "num_pos_feats": 6}
        config = SamConfig(vision_config=vision, prompt_encoder_config={**PROMPTS, "image_embedding_size": 8}, mask_decoder_config=DECODER)
        return noisy(SamModel(config) if whole else SamVisionModel(SamVisionConfig(**SAM)))
    config = Sam2Config(vision_config=SAM2, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER)
    return noisy(Sam2Model(config) if whole else Sam2VisionModel(Sam2VisionConfig(**SAM2)))


def maps_of(model: PreTrainedModel, images: torch.Tensor) -> list[torch.Tensor]:
    vision = model.vision_encoder if isinstance(model, SamModel | Sam2Model) else model
    with torch.no_grad():
        found = vision(images)
    return [found.last_hidden_state] if isinstance(model, SamModel | SamVisionModel) else list(found.fpn_hidden_states)


@every("whole", [True, False])
@every("part", SMALL)
def test_maps_are_those_of_the_original_at_the_trained_size(part: type, whole: bool, tmp_path: Path, parity: Callable[..., None]) -> None:
    model = original(part, whole)
    model.save_pretrained(tmp_path)
    encoder = part(tmp_path, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    images = torch.rand(2, 3, 64, 64)
    normal = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    expected = maps_of(model, normal)
    assert len(expected) == len(encoder.strides)
    for mine, theirs in zip(encoder(images), expected, strict=True):
        parity(f"`{part.__name__}`", f"transformers `{type(model).__name__}`", "maps", mine, theirs)


def test_sam2_maps_are_those_of_the_original_where_it_reads_other_sizes(tmp_path: Path, parity: Callable[..., None]) -> None:
    model = original(Sam2Encoder, True)
    model.save_pretrained(tmp_path)
    encoder = Sam2Encoder(tmp_path, mean=[0.0] * 3, std=[1.0] * 3)
    images = torch.rand(1, 3, 32, 96)
    for mine, theirs in zip(encoder(images), maps_of(model, images), strict=True):
        parity("`Sam2Encoder`", "transformers `Sam2Model`", "maps at another size", mine, theirs)


def test_sam_at_another_size_equals_the_original_with_its_positions_interpolated(tmp_path: Path, parity: Callable[..., None]) -> None:
    model = original(SamEncoder, False)
    model.save_pretrained(tmp_path)
    encoder = SamEncoder(tmp_path, mean=[0.0] * 3, std=[1.0] * 3)
    trunk = model.vision_encoder
    trunk.pos_embed = torch.nn.Parameter(F.interpolate(trunk.pos_embed.permute(0, 3, 1, 2), (6, 10), mode="bicubic").permute(0, 2, 3, 1))
    trunk.patch_embed.image_size = (48, 80)
    images = torch.rand(2, 3, 48, 80)
    compared = "map at another size, with its positions interpolated"
    parity("`SamEncoder`", "transformers `SamVisionModel`", compared, encoder(images)[0], maps_of(model, images)[0])


def test_a_sam2_for_video_gives_its_image_encoder(tmp_path: Path) -> None:
    model = original(Sam2Encoder, True)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "sam2_video"}))
    encoder = Sam2Encoder(tmp_path)
    torch.testing.assert_close(encoder.laterals[0].weight, model.vision_encoder.neck.convs[0].weight)


@every("part", SMALL)
def test_sizes_are_truthful_and_padding_stands_at_the_bottom_and_right(part: type) -> None:
    encoder = part(SMALL[part])
    images = torch.rand(1, 3, 50, 37)
    maps = encoder(images)
    stated = [(1, 12, -(-50 // stride), -(-37 // stride)) for stride in encoder.strides]
    assert [tuple(level.shape) for level in maps] == stated
    assert encoder.strides == ((8,) if part is SamEncoder else (4, 8, 16))
    step = 8 if part is SamEncoder else 32
    bottom, right = -50 % step, -37 % step
    mean = encoder.mean.expand(-1, 50 + bottom, 37 + right)
    same = torch.where(F.pad(torch.ones(50, 37), (0, right, 0, bottom)).bool(), F.pad(images, (0, right, 0, bottom)), mean)
    for level, padded in zip(maps, encoder(same), strict=True):
        torch.testing.assert_close(level, padded[..., : level.shape[2], : level.shape[3]])


@every("part", SMALL)
def test_everything_trainable_learns_and_frozen_stays_frozen(part: type) -> None:
    encoder = part(SMALL[part], freeze=False)
    sum(level.square().mean() for level in encoder(torch.rand(2, 3, 48, 64))).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    frozen = part(SMALL[part])
    torch.nn.ModuleList([frozen]).train()
    assert not any(module.training for module in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    frozen.load_state_dict(encoder.state_dict())
    images = torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(level.isfinite().all() for level in frozen(images))


@every("part", SMALL)
def test_bands_are_inflated_by_the_stated_policy(part: type, tmp_path: Path) -> None:
    original(part, True).save_pretrained(tmp_path)
    plain = part(tmp_path)
    encoder = part(tmp_path, bands=["nir", "blue", "green", "red"], inflate="zeros")
    assert encoder.band_names == ("nir", "blue", "green", "red")
    images = torch.rand(2, 4, 64, 64)
    for mine, theirs in zip(encoder(images), plain(images[:, 1:].flip(1)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    grey = part(tmp_path, bands=1, mean=[0.5], std=[0.5])
    assert grey(images[:, :1])[0].shape[1] == 12
    with pytest.raises(ValueError, match="reads 4 bands but the images have 3"):
        encoder(images[:, 1:])


@every("part", SMALL)
def test_sources_that_do_not_fit_are_refused(part: type, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        part(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"model_type of .*; found 'bert'"):
        part({"model_type": "bert"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=f"is a 'bert'; {part.__name__} reads sam"):
        part(tmp_path)
    original(part, True).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    vision = config["vision_config"]
    if part is SamEncoder:
        wrong = {**vision, "num_hidden_layers": 4}
    else:
        wrong = {**vision, "backbone_config": {**vision["backbone_config"], "blocks_per_stage": [1, 2, 2, 2]}}
    (tmp_path / "config.json").write_text(json.dumps({**config, "vision_config": wrong}))
    with pytest.raises(ValueError, match="missing keys"):
        part(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="git-lfs pointer"):
        part(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot load the weights"):
        part(tmp_path)
