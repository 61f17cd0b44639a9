"""HFBackboneEncoder: the stage maps of transformers' own backbones, at any size, with nothing kept behind the last chosen stage."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedModel,
)

from geopix.encoders.hierarchical.hf import HFBackboneEncoder

SWIN = {"embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 3, "image_size": 64}
CONVNEXT = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64}
SMALL = {"swin": SWIN, "swinv2": SWIN, "convnext": CONVNEXT, "convnextv2": CONVNEXT, "dinov3_convnext": CONVNEXT}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
every = pytest.mark.parametrize


def noisy(model: PreTrainedModel) -> PreTrainedModel:
    """Random norms and scales too, which a fresh model leaves at zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def backbone(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return noisy(AutoBackbone.from_config(AutoConfig.for_model(kind, **SMALL[kind], out_features=STAGES)))


@every("levels", [None, (0, 2), (-2,)])
@every("kind", SMALL)
def test_maps_are_those_of_the_original(kind: str, levels: tuple[int, ...] | None, tmp_path: Path, parity: Callable[..., None]) -> None:
    model = backbone(kind)
    model.save_pretrained(tmp_path)
    encoder = HFBackboneEncoder(tmp_path, levels=levels, mean=[0.0] * 3, std=[1.0] * 3)
    chosen = range(4) if levels is None else [level % 4 for level in levels]
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        theirs = model(images).feature_maps
    for mine, level in zip(encoder(images), chosen, strict=True):
        parity("`HFBackboneEncoder`", f"transformers `{type(model).__name__}`", "maps", mine, theirs[level])
    assert encoder.strides == tuple(4 * 2**level for level in chosen)
    if levels is not None:
        kept = sum(p.numel() for p in encoder.parameters())
        assert kept < sum(p.numel() for p in model.parameters()) / 1.5


@every("kind", ["swin", "swinv2", "convnext", "convnextv2"])  # transformers has no classifier of the fifth
def test_weights_of_a_classifier_load_with_plain_norms_before_the_maps(kind: str, tmp_path: Path, parity: Callable[..., None]) -> None:
    classifier = noisy(AutoModelForImageClassification.from_config(AutoConfig.for_model(kind, **SMALL[kind])))
    classifier.save_pretrained(tmp_path)
    encoder = HFBackboneEncoder(tmp_path, levels=(0, 1))
    images = torch.rand(1, 3, 64, 64)
    normal = (images - encoder.mean) / encoder.std
    if kind in ("swin", "swinv2"):
        embedded, size = classifier.base_model.embeddings(normal)
        expected = classifier.base_model.encoder.layers[0].blocks[0](embedded, size)[0].transpose(1, 2).unflatten(2, size)
    else:
        expected = classifier.base_model.encoder.stages[0](classifier.base_model.embeddings(normal))
    if kind != "swinv2":
        expected = torch.nn.functional.layer_norm(expected.permute(0, 2, 3, 1), (8,), eps=1e-5 if kind == "swin" else 1e-6).permute(0, 3, 1, 2)
    parity("`HFBackboneEncoder`", f"transformers `{type(classifier).__name__}`", "finest map", encoder(images)[0], expected)


@every("kind", SMALL)
def test_sizes_are_truthful_and_everything_trainable_learns(kind: str) -> None:
    encoder = HFBackboneEncoder({"model_type": kind, **SMALL[kind]}, levels=(0, 1, 2), freeze=False)
    maps = encoder(torch.rand(2, 3, 50, 37))
    stated = [(2, c, -(-50 // s), -(-37 // s)) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
    assert [tuple(level.shape) for level in maps] == stated
    sum(level.square().mean() for level in maps).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    frozen = HFBackboneEncoder({"model_type": kind, **SMALL[kind]}, levels=(0, 1, 2)).train()
    assert not any(module.training for module in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    frozen.load_state_dict(encoder.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(level.isfinite().all() for level in frozen(torch.rand(1, 3, 64, 64)))


@every("kind", SMALL)
def test_bands_are_inflated_by_the_stated_policy(kind: str, tmp_path: Path) -> None:
    backbone(kind).save_pretrained(tmp_path)
    plain = HFBackboneEncoder(tmp_path)
    encoder = HFBackboneEncoder(tmp_path, bands=["nir", "blue", "green", "red"], inflate="zeros")
    assert (encoder.bands, encoder.band_names) == (4, ("nir", "blue", "green", "red"))
    images = torch.rand(2, 4, 64, 64)
    for mine, theirs in zip(encoder(images), plain(images[:, 1:].flip(1)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="reads 4 bands but the images have 3"):
        encoder(images[:, 1:])


def test_sources_and_levels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        HFBackboneEncoder(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"model_type of .*; found 'resnet'"):
        HFBackboneEncoder({"model_type": "resnet"})
    for wrong in [(), (4,), (1, 0), (1, -3)]:
        with pytest.raises(ValueError, match="levels of this backbone are 0 to 3"):
            HFBackboneEncoder({"model_type": "convnext", **CONVNEXT}, levels=wrong)
    backbone("swin").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "depths": [1, 2, 2, 1]}))
    with pytest.raises(ValueError, match=r"missing keys: .*layers\.2\.blocks\.1"):
        HFBackboneEncoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot load the weights"):
        HFBackboneEncoder(tmp_path)
