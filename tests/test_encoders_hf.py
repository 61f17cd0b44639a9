"""HFVisionEncoder: the hidden states of transformers' own models, at any size, with nothing kept that is not used."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Siglip2Config,
    Siglip2Model,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

from geopix.encoders.hf import HFVisionEncoder

SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
WIDE = {**SMALL, "intermediate_size": 48}
MODELS = {
    "clip_vision_model": (lambda: CLIPVisionModel(CLIPVisionConfig(**WIDE)), 1),
    "siglip_vision_model": (lambda: SiglipVisionModel(SiglipVisionConfig(**WIDE)), 0),
    "siglip2_vision_model": (lambda: Siglip2VisionModel(Siglip2VisionConfig(**WIDE, num_patches=16)), 0),
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**SMALL, mlp_ratio=2)), 1),
    "dinov2_with_registers": (lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL, mlp_ratio=2, num_register_tokens=3)), 4),
    "dinov3_vit": (lambda: DINOv3ViTModel(DINOv3ViTConfig(**WIDE, num_register_tokens=2, use_gated_mlp=True)), 3),
}


def noisy(model: PreTrainedModel) -> PreTrainedModel:
    """Random positions, norms and tokens too, which a fresh model leaves at zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def hidden_states(model: PreTrainedModel, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if isinstance(model, Siglip2VisionModel):
        patches = torch.stack([convert_image_to_patches(image, 8) for image in images])
        grid = torch.tensor([[side // 8 for side in images.shape[2:]]] * len(images))
        return model(patches, torch.ones(patches.shape[:2], dtype=torch.int64), grid, output_hidden_states=True).hidden_states
    more = {} if "dino" in model.config.model_type else {"interpolate_pos_encoding": True}
    return model(images, output_hidden_states=True, **more).hidden_states


@pytest.fixture(params=MODELS)
def original(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[PreTrainedModel, int, Path]:
    torch.manual_seed(0)
    build, prefix = MODELS[request.param]
    model = noisy(build())
    model.save_pretrained(tmp_path)
    return model, prefix, tmp_path


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (16, 40)])
def test_maps_are_the_hidden_states_of_the_original(original: tuple[PreTrainedModel, int, Path], size: tuple[int, int], parity: Callable[..., None]) -> None:
    model, prefix, folder = original
    encoder = HFVisionEncoder(folder, hidden_layers=(-4, 0, -2), mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    images = torch.rand(2, 3, *size)
    normal = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    with torch.no_grad():
        states = hidden_states(model, normal)
    assert len(states) == 5
    for level, state in zip(encoder(images), (states[1], states[0], states[3]), strict=True):
        expected = state[:, prefix:].reshape(2, size[0] // 8, size[1] // 8, 32).permute(0, 3, 1, 2)
        parity("`HFVisionEncoder`", f"transformers `{type(model).__name__}`", "hidden states", level, expected)
    assert len(encoder.layers) == 3
    kept = sum(p.numel() for p in encoder.parameters())
    assert kept < sum(p.numel() for p in model.parameters())


def test_a_whole_clip_gives_its_vision_tower(tmp_path: Path) -> None:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
    whole = noisy(CLIPModel(CLIPConfig(vision_config=WIDE, text_config={**text, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}, projection_dim=8)))
    whole.half().save_pretrained(tmp_path)
    encoder = HFVisionEncoder(str(tmp_path), hidden_layers=[-1])
    assert encoder.mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert encoder.layers[0].mlp.fc1.weight.dtype == torch.float32
    torch.testing.assert_close(encoder.layers[3].mlp.fc1.weight, whole.vision_model.encoder.layers[3].mlp.fc1.weight.float())


def test_a_llava_gives_its_vision_tower(tmp_path: Path) -> None:
    text = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
    whole = noisy(LlavaForConditionalGeneration(LlavaConfig(vision_config={**WIDE, "model_type": "clip_vision_model"}, text_config=text)))
    whole.half().save_pretrained(tmp_path)
    encoder = HFVisionEncoder(str(tmp_path), hidden_layers=[-2])
    tower = {name.rpartition("vision_tower.")[2].removeprefix("vision_model."): value for name, value in whole.state_dict().items() if "vision_tower" in name}
    torch.testing.assert_close(encoder.layers[2].mlp.fc1.weight, tower["encoder.layers.2.mlp.fc1.weight"].float())
    torch.testing.assert_close(encoder.embeddings.patch_embedding.weight, tower["embeddings.patch_embedding.weight"].float())


def test_a_whole_siglip2_gives_its_vision_tower(tmp_path: Path) -> None:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
    whole = noisy(Siglip2Model(Siglip2Config(vision_config={**WIDE, "num_patches": 16}, text_config={**text, "bos_token_id": 0, "eos_token_id": 1})))
    whole.save_pretrained(tmp_path)
    encoder = HFVisionEncoder(tmp_path, hidden_layers=[-1])
    assert encoder.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    torch.testing.assert_close(encoder.layers[3].mlp.fc1.weight, whole.vision_model.encoder.layers[3].mlp.fc1.weight)


def test_dinov3_weights_load_under_the_names_of_their_release(tmp_path: Path) -> None:
    model = noisy(MODELS["dinov3_vit"][0]())
    model.save_pretrained(tmp_path)
    released = {key.removeprefix("model."): value for key, value in load_file(tmp_path / "model.safetensors").items()}
    assert any(key.startswith("layer.0.") for key in released)
    save_file(released, tmp_path / "model.safetensors", metadata={"format": "pt"})
    encoder = HFVisionEncoder(tmp_path, hidden_layers=[-1])
    torch.testing.assert_close(encoder.layers[2].mlp.up_proj.weight, model.model.layer[2].mlp.up_proj.weight)


@pytest.mark.parametrize("kind", MODELS)
def test_other_sizes_are_padded_to_whole_patches_and_sizes_are_truthful(kind: str) -> None:
    encoder = HFVisionEncoder({"model_type": kind, **SMALL}, hidden_layers=(1, 2))
    assert (encoder.channels, encoder.strides) == ((32, 32), (8, 8))
    images = torch.rand(1, 3, 33, 23)
    mean = encoder.mean.expand(-1, 40, 24)
    same = torch.where(F.pad(torch.ones(33, 23), (0, 1, 0, 7)).bool(), F.pad(images, (0, 1, 0, 7)), mean)
    for level, padded in zip(encoder(images), encoder(same), strict=True):
        assert level.shape == (1, 32, 5, 3)
        torch.testing.assert_close(level, padded)


@pytest.mark.parametrize("kind", MODELS)
def test_everything_trainable_learns_and_frozen_stays_frozen(kind: str, tmp_path: Path) -> None:
    encoder = HFVisionEncoder({"model_type": kind, **SMALL}, hidden_layers=(1, 2), freeze=False)
    sum(level.square().mean() for level in encoder(torch.rand(2, 3, 32, 48))).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    assert encoder.layers[0].training
    frozen = HFVisionEncoder({"model_type": kind, **SMALL}, hidden_layers=(1, 2))
    torch.nn.ModuleList([frozen]).train()
    assert not any(module.training for module in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    frozen.load_state_dict(encoder.state_dict())
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(frozen(images), encoder.eval()(images))


@pytest.mark.parametrize("bands", [1, 4, 8])
@pytest.mark.parametrize("kind", ["clip_vision_model", "siglip2_vision_model", "dinov2", "dinov3_vit"])
def test_any_number_of_bands(kind: str, bands: int, tmp_path: Path) -> None:
    model = noisy(MODELS[kind][0]())
    model.save_pretrained(tmp_path)
    encoder = HFVisionEncoder(tmp_path, hidden_layers=(-1,), bands=bands, mean=[0.0] * bands, std=[1.0] * bands)
    if bands == 1:
        grey = torch.rand(1, 1, 32, 32)
        three = HFVisionEncoder(tmp_path, hidden_layers=(-1,), mean=[0.0] * 3, std=[1.0] * 3)
        torch.testing.assert_close(encoder(grey)[0], three(grey.expand(-1, 3, -1, -1))[0], atol=1e-5, rtol=1e-5)
    assert encoder(torch.rand(1, bands, 32, 32))[0].shape == (1, 32, 4, 4)
    with pytest.raises(ValueError, match=f"reads {bands} bands but the images have {bands + 1}"):
        encoder(torch.rand(1, bands + 1, 32, 32))
    with pytest.raises(ValueError, match="std needs one number per band"):
        HFVisionEncoder(tmp_path, hidden_layers=(-1,), bands=bands, std=[1.0] * 9)


@pytest.mark.parametrize("kind", MODELS)
def test_named_bands_take_their_own_kernels_and_zeros_keep_the_result(kind: str, tmp_path: Path) -> None:
    noisy(MODELS[kind][0]()).save_pretrained(tmp_path)
    plain = HFVisionEncoder(tmp_path, hidden_layers=(-1,))
    names = ["blue", "nir", "red", "green"]
    encoder = HFVisionEncoder(tmp_path, hidden_layers=(-1,), bands=names, inflate="zeros")
    assert (encoder.bands, encoder.band_names, plain.band_names) == (4, tuple(names), ())
    red, green, blue, nir = torch.rand(2, 4, 16, 24).split(1, dim=1)
    torch.testing.assert_close(encoder(torch.cat([blue, nir, red, green], 1))[0], plain(torch.cat([red, green, blue], 1))[0], atol=1e-5, rtol=1e-5)
    swapped = HFVisionEncoder(tmp_path, hidden_layers=(-1,), bands=["blue", "green", "red"], inflate="named")
    torch.testing.assert_close(swapped(torch.cat([blue, green, red], 1))[0], plain(torch.cat([red, green, blue], 1))[0], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="needs the names of the bands"):
        HFVisionEncoder(tmp_path, hidden_layers=(-1,), bands=4, inflate="named")


def test_normalisation_comes_from_the_preprocessor_configuration(tmp_path: Path) -> None:
    MODELS["dinov2"][0]().save_pretrained(tmp_path)
    default = HFVisionEncoder(tmp_path, hidden_layers=(1,), bands=4)
    assert default.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406, 0.485])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}))
    own = HFVisionEncoder(tmp_path, hidden_layers=(1,), mean=[0.0, 0.0, 1.0])
    assert own.mean.flatten().tolist() == [0.0, 0.0, 1.0]
    assert own.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        HFVisionEncoder(tmp_path / "absent", hidden_layers=(1,))
    with pytest.raises(ValueError, match="cannot read the configuration"):
        HFVisionEncoder(tmp_path, hidden_layers=(1,))
    with pytest.raises(ValueError, match=r"model_type of .*; found 'bert'"):
        HFVisionEncoder({"model_type": "bert"}, hidden_layers=(1,))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is a 'bert'"):
        HFVisionEncoder(tmp_path, hidden_layers=(1,))
    for wrong in [(), (5,), (-6,), (1, 1), (1, -4)]:
        with pytest.raises(ValueError, match="hidden_layers of this tower are -5 to 4"):
            HFVisionEncoder({"model_type": "dinov2", **SMALL}, hidden_layers=wrong)


def test_weights_that_do_not_fit_are_refused(original: tuple[PreTrainedModel, int, Path]) -> None:
    _, _, folder = original
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(ValueError, match=r"missing keys: .*4\."):
        HFVisionEncoder(folder, hidden_layers=(1,))
    stages = {"out_features": None, "out_indices": None, "stage_names": None} if "out_features" in config else {}
    (folder / "config.json").write_text(json.dumps({**config, **stages, "num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"unexpected keys: .*3\."):
        HFVisionEncoder(folder, hidden_layers=(1,))
    (folder / "config.json").write_text(json.dumps({**config, "patch_size": 4}))
    with pytest.raises(ValueError, match=r"mismatched shapes: embeddings\.patch_embedding.* for \("):
        HFVisionEncoder(folder, hidden_layers=(1,))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="git-lfs pointer"):
        HFVisionEncoder(folder, hidden_layers=(1,))
    (folder / "model.safetensors").write_bytes(b"noise" * 20)
    with pytest.raises(ValueError, match="cannot load the weights"):
        HFVisionEncoder(folder, hidden_layers=(1,))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot load the weights"):
        HFVisionEncoder(folder, hidden_layers=(1,))
