"""SmpEncoder: the maps of segmentation-models-pytorch, at any size and for any bands; weights load fully or not at all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from geopix.encoders.smp import SmpEncoder

NAMES = ["mit_b0", "mobilenet_v2", "efficientnet-b0"]


def original(name: str, bands: int = 3) -> torch.nn.Module:
    return smp.encoders.get_encoder(name, in_channels=bands, weights=None).eval()


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_those_of_smp_on_normalised_and_padded_images(name: str, tmp_path: Path, parity: Callable[..., None]) -> None:
    reference, images = original(name), torch.rand(2, 3, 50, 70)
    torch.save(reference.state_dict(), tmp_path / "weights.pt")
    encoder = SmpEncoder(name, levels=[2, 3], weights=tmp_path / "weights.pt").eval()
    with torch.no_grad():
        theirs = reference(F.pad((images - encoder.mean) / encoder.std, (0, 26, 0, 14)))[2:4]
        mine = encoder(images)
    assert encoder.strides == (4, 8)
    assert encoder.channels == tuple(reference.out_channels[2:4])
    for one, two, size in zip(mine, theirs, [(13, 18), (7, 9)], strict=True):
        parity("`SmpEncoder`", f"segmentation-models-pytorch `{name}`", "maps", one, two[..., : size[0], : size[1]], rtol=1.3e-6)
        assert one.shape[-2:] == size


@pytest.mark.parametrize("name", NAMES)
def test_later_stages_are_gone_and_everything_left_learns(name: str) -> None:
    encoder = SmpEncoder(name, levels=[2, 3])
    kept, whole = (sum(p.numel() for p in module.parameters()) for module in (encoder, original(name)))
    assert kept < whole / 2
    sum(level.square().mean() for level in encoder(torch.rand(2, 3, 64, 64))).backward()
    assert [key for key, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.requires_grad for p in encoder.parameters())


def test_all_levels_by_default_and_one_alone() -> None:
    assert SmpEncoder("resnet18").strides == (2, 4, 8, 16, 32)
    assert SmpEncoder("mit_b0").strides == (4, 8, 16, 32)
    first = SmpEncoder("efficientnet-b0", levels=[1])
    assert [tuple(level.shape) for level in first(torch.rand(2, 3, 9, 11))] == [(2, 32, 5, 6)]


def test_bands_take_their_kernels_by_count_or_by_name(tmp_path: Path) -> None:
    reference = original("mobilenet_v2")
    torch.save(reference.state_dict(), tmp_path / "rgb.pt")
    old = reference.features[0][0].weight
    one, five = (SmpEncoder("mobilenet_v2", bands=bands, levels=[2], weights=tmp_path / "rgb.pt") for bands in (1, 5))
    torch.testing.assert_close(one.net.features[0][0].weight, old.sum(1, keepdim=True))
    torch.testing.assert_close(five.net.features[0][0].weight, old[:, [0, 1, 2, 0, 1]] * 3 / 5)
    named = SmpEncoder("mobilenet_v2", bands=["nir", "blue", "green", "red"], inflate="zeros", levels=[2], weights=tmp_path / "rgb.pt").eval()
    plain = SmpEncoder("mobilenet_v2", levels=[2], weights=tmp_path / "rgb.pt").eval()
    images = torch.rand(1, 4, 32, 32)
    torch.testing.assert_close(named(images)[0], plain(images[:, [3, 2, 1]])[0])
    assert named.mean[1:].flatten().tolist() == pytest.approx([0.406, 0.456, 0.485])
    with pytest.raises(ValueError, match="reads 5 bands but the images have 4"):
        five(images)


def test_both_first_layers_of_mobileone_take_the_bands(tmp_path: Path, parity: Callable[..., None]) -> None:
    reference, images = original("mobileone_s0"), torch.rand(1, 3, 32, 32)
    torch.save(reference.state_dict(), tmp_path / "rgb.pt")
    encoder = SmpEncoder("mobileone_s0", bands=["blue", "green", "red"], inflate="named", levels=[1], weights=tmp_path / "rgb.pt").eval()
    with torch.no_grad():
        expected = reference(((images - encoder.mean) / encoder.std).flip(1))[1]
        parity("`SmpEncoder`", "segmentation-models-pytorch `mobileone_s0`", "map of bands in another order", encoder(images)[0], expected, rtol=1.3e-6)


def test_weights_made_for_the_same_bands_load_as_they_are(tmp_path: Path) -> None:
    reference = original("mobilenet_v2", bands=4)
    torch.save(reference.state_dict(), tmp_path / "four.pt")
    encoder = SmpEncoder("mobilenet_v2", bands=4, levels=[2], weights=tmp_path / "four.pt")
    torch.testing.assert_close(encoder.net.features[0][0].weight, reference.features[0][0].weight)


def test_whole_smp_models_and_own_state_dicts_load_from_files(tmp_path: Path) -> None:
    unet = smp.Unet("mobilenet_v2", encoder_weights=None, decoder_channels=(16, 8, 8, 8, 8))
    torch.save({"state_dict": unet.state_dict()}, tmp_path / "unet.pth")
    first = SmpEncoder("mobilenet_v2", levels=[2, 4], weights=tmp_path / "unet.pth").eval()
    torch.testing.assert_close(first.net.features[8].conv[1][0].weight, unet.encoder.features[8].conv[1][0].weight)
    save_file(first.state_dict(), tmp_path / "own.safetensors")
    second = SmpEncoder("mobilenet_v2", levels=[2, 4], weights=tmp_path / "own.safetensors").eval()
    images = torch.rand(1, 3, 40, 40)
    for one, two in zip(first(images), second(images), strict=True):
        torch.testing.assert_close(one, two)
    with pytest.raises(ValueError, match=r"written by an SmpEncoder, does not fit this one: .*unexpected keys: net\.features\.10"):
        SmpEncoder("mobilenet_v2", levels=[2, 3], weights=tmp_path / "own.safetensors")


def test_weights_that_do_not_fit_are_refused_with_their_names(tmp_path: Path) -> None:
    state = original("mobilenet_v2").state_dict()
    state["classifier.1.weight"] = torch.zeros(5, 1280)
    state["features.1.extra"] = state.pop("features.0.0.weight")
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"does not fit 'mobilenet_v2': 1 missing keys: features\.0\.0\.weight; 1 unexpected keys: features\.1\.extra\."):
        SmpEncoder("mobilenet_v2", levels=[2], weights=tmp_path / "bad.pt")
    with pytest.raises(FileNotFoundError, match=r"no weights file .*absent\.pt"):
        SmpEncoder("mobilenet_v2", weights=tmp_path / "absent.pt")


def test_a_frozen_encoder_stays_frozen_and_in_evaluation_mode() -> None:
    encoder = SmpEncoder("mobilenet_v2", levels=[2], freeze=True)
    torch.nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())


def test_named_weights_bring_their_own_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"input_space": "RGB", "input_range": [0, 255], "mean": [127.5, 127.5, 127.5], "std": [51.0, 51.0, 51.0]}
    get = smp.encoders.get_encoder
    monkeypatch.setattr(smp.encoders, "get_encoder", lambda name, weights, **more: get(name, weights=None, **more))
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda name, weights: params)
    encoder = SmpEncoder("mobilenet_v2", levels=[2], weights="imagenet")
    assert (encoder.mean.flatten().tolist(), encoder.std.flatten().tolist()) == ([0.5] * 3, pytest.approx([0.2] * 3))
    assert SmpEncoder("mobilenet_v2", levels=[2], weights="imagenet", mean=[0.0, 0.0, 0.5]).mean.flatten().tolist() == [0, 0, 0.5]
    params["input_space"] = "BGR"
    with pytest.raises(ValueError, match="read BGR images"):
        SmpEncoder("mobilenet_v2", levels=[2], weights="imagenet")


def test_weights_of_the_hub_that_cannot_be_had_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", offline)
    with pytest.raises(ValueError, match="cannot load smp's weights 'imagenet' of 'resnet18': no connection"):
        SmpEncoder("resnet18", weights="imagenet")


def test_wrong_names_levels_and_weights_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"knows no encoder 'resnett50'; similar names: .*'resnet50'"):
        SmpEncoder("resnett50")
    with pytest.raises(ValueError, match=r"is a model of timm: use .*TimmEncoder with name 'convnext_tiny'"):
        SmpEncoder("tu-convnext_tiny")
    with pytest.raises(ValueError, match=r"levels of 'mit_b0' are \[2, 3, 4, 5\] .* found \[1, 2\]"):
        SmpEncoder("mit_b0", levels=[1, 2])
    with pytest.raises(ValueError, match=r"levels of 'resnet18' .* found \[0, 1\]"):
        SmpEncoder("resnet18", levels=[0, 1])
    with pytest.raises(ValueError, match=r"no weights 'imagenett' for 'resnet18', only \['imagenet', 'ssl', 'swsl'\]"):
        SmpEncoder("resnet18", weights="imagenett")
