"""TimmEncoder: maps are what it states, weights load fully or not at all, and everything trainable learns."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from geopix.encoders.timm import TimmEncoder

RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 20]}
VIT = {"embed_dim": 24, "depth": 4, "num_heads": 2}
TINY = {
    "resnet": ("resnet18", {"levels": (1, 2), "options": RESNET}),
    "resnet, all levels": ("resnet18", {"options": RESNET}),
    "convnext": ("convnext_atto", {"levels": (0, -2), "options": {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 20]}}),
    "mobilenet": ("mobilenetv3_small_050", {"levels": (1, 2)}),
    "hooked inside a block": ("xception41", {"levels": (0,)}),
    "channels-last maps": ("swin_tiny_patch4_window7_224", {"levels": (0, 1), "options": {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)}}),
    "plain transformer": ("vit_tiny_patch16_224", {"levels": (0, 2), "options": VIT}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"levels": (1,), "image_size": 56, "options": VIT}),
}


def tiny(kind: str, **more: object) -> TimmEncoder:
    name, arguments = TINY[kind]
    return TimmEncoder(name, **{**arguments, **more})


@pytest.mark.parametrize("kind", TINY)
def test_maps_have_the_stated_channels_and_strides_at_any_size(kind: str) -> None:
    encoder = tiny(kind).eval()
    assert list(encoder.strides) == sorted(encoder.strides)
    for height, width in [(64, 64), (65, 47), (33, 96)]:
        maps = encoder(torch.rand(2, 3, height, width))
        stated = [(2, c, -(-height // s), -(-width // s)) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
        assert [tuple(level.shape) for level in maps] == stated


@pytest.mark.parametrize("kind", TINY)
def test_every_trainable_parameter_receives_a_gradient(kind: str) -> None:
    encoder = tiny(kind)
    sum(level.square().mean() for level in encoder(torch.rand(2, 3, 48, 48))).backward()
    trainable = [(name, p) for name, p in encoder.named_parameters() if p.requires_grad]
    assert trainable
    assert [name for name, p in trainable if p.grad is None] == []


def test_parameters_that_no_map_depends_on_are_frozen_and_later_stages_removed() -> None:
    fused = TimmEncoder("hrnet_w18_small", levels=(0, 1))
    assert any(not p.requires_grad for p in fused.parameters())
    names = [name for name, _ in tiny("resnet").named_parameters()]
    assert any("layer2" in name for name in names)
    assert not any("layer3" in name or "fc" in name for name in names)
    assert not any("blocks.3" in name or name.endswith("net.norm.weight") for name, _ in tiny("plain transformer").named_parameters())


@pytest.mark.parametrize(("kind", "size"), [("resnet", 64), ("convnext", 64), ("plain transformer", 224)])
def test_maps_equal_those_of_timm_on_normalised_images(kind: str, size: int, parity: Callable[..., None]) -> None:
    name, arguments = TINY[kind]
    reference = timm.create_model(name, features_only=True, out_indices=arguments["levels"], **arguments["options"]).eval()
    original = timm.create_model(name, num_classes=0, **arguments["options"])
    encoder = tiny(kind).eval()
    source = original.state_dict()
    encoder.net.load_state_dict({key: source[key] for key in encoder.net.state_dict()})
    flat = {key.removeprefix("model."): value for key, value in reference.named_parameters()}
    with torch.no_grad():
        for key, value in flat.items():
            value.copy_(source[key if key in source else key.replace("_", ".", 1)])
    images = torch.rand(2, 3, size, size)
    mean, std = (torch.tensor(reference.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    for mine, theirs in zip(encoder(images), reference((images - mean) / std), strict=True):
        parity("`TimmEncoder`", f"timm `{name}`", "maps", mine, theirs)


@pytest.mark.parametrize("bands", [1, 4, 8])
def test_any_number_of_bands_with_weights_made_for_three(bands: int, tmp_path: Path) -> None:
    original = timm.create_model("resnet18", num_classes=5, **RESNET)
    torch.save(original.state_dict(), tmp_path / "rgb.pt")
    encoder = tiny("resnet", bands=bands, weights=tmp_path / "rgb.pt").eval()
    old, new = original.conv1.weight, encoder.net.conv1.weight
    expected = old.sum(1, keepdim=True) if bands == 1 else torch.stack([old[:, band % 3] for band in range(bands)], 1) * 3 / bands
    torch.testing.assert_close(new, expected)
    torch.testing.assert_close(encoder.net.layer1[0].conv1.weight, original.layer1[0].conv1.weight)
    assert encoder(torch.rand(1, bands, 32, 32))[0].shape[1] == 8
    assert len(encoder.mean) == len(encoder.std) == bands
    with pytest.raises(ValueError, match=f"reads {bands} bands but the images have {bands + 1}"):
        encoder(torch.rand(1, bands + 1, 32, 32))


def test_named_bands_take_their_own_kernels_and_zeros_keep_the_result(tmp_path: Path) -> None:
    original = timm.create_model("resnet18", num_classes=5, **RESNET)
    torch.save(original.state_dict(), tmp_path / "rgb.pt")
    plain = tiny("resnet", weights=tmp_path / "rgb.pt").eval()
    names = ["blue", "nir", "red", "green"]
    encoder = tiny("resnet", bands=names, inflate="zeros", weights=tmp_path / "rgb.pt").eval()
    assert (encoder.bands, encoder.band_names, plain.band_names) == (4, tuple(names), ())
    red, green, blue, nir = torch.rand(2, 4, 32, 48).split(1, dim=1)
    for one, two in zip(encoder(torch.cat([blue, nir, red, green], 1)), plain(torch.cat([red, green, blue], 1)), strict=True):
        torch.testing.assert_close(one, two)
    swapped = tiny("resnet", bands=["blue", "green", "red"], inflate="named", weights=tmp_path / "rgb.pt").eval()
    torch.testing.assert_close(swapped(torch.cat([blue, green, red], 1))[0], plain(torch.cat([red, green, blue], 1))[0])
    mean = tiny("resnet", bands=2, inflate="mean", weights=tmp_path / "rgb.pt")
    torch.testing.assert_close(mean.net.conv1.weight, original.conv1.weight.mean(1, keepdim=True).expand(-1, 2, -1, -1) * 3 / 2)
    torch.save(timm.create_model("resnet18", num_classes=5, in_chans=4, **RESNET).state_dict(), tmp_path / "four.pt")
    ready = tiny("resnet", bands=names, inflate="named", weights=tmp_path / "four.pt")
    torch.testing.assert_close(ready.net.conv1.weight, torch.load(tmp_path / "four.pt")["conv1.weight"])
    with pytest.raises(ValueError, match="needs the names of the bands"):
        tiny("resnet", bands=4, inflate="zeros")


def test_normalisation_is_the_pretrained_one_unless_given() -> None:
    assert tiny("resnet", bands=4).mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406, 0.485])
    assert tiny("resnet", bands=1).std.item() == pytest.approx((0.229 + 0.224 + 0.225) / 3)
    assert tiny("resnet", mean=[0.0, 0.0, 0.5], std=[1.0, 1.0, 2.0]).std.flatten().tolist() == [1, 1, 2]
    with pytest.raises(ValueError, match="mean needs one number per band, 3"):
        tiny("resnet", mean=[0.5])


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_own_and_timm_state_dicts_load_from_files(suffix: str, tmp_path: Path) -> None:
    images = torch.rand(1, 4, 40, 40)
    for bands, kind in [(4, "resnet"), (4, "plain transformer")]:
        first = tiny(kind, bands=bands).eval()
        file = tmp_path / f"own.{suffix}"
        save_file(first.state_dict(), file) if suffix == "safetensors" else torch.save({"state_dict": first.state_dict()}, file)
        second = tiny(kind, bands=bands, weights=file).eval()
        for mine, theirs in zip(second(images), first(images), strict=True):
            torch.testing.assert_close(mine, theirs)


def test_positions_of_another_size_are_resized_from_a_file(tmp_path: Path) -> None:
    original = timm.create_model("vit_tiny_patch16_224", **VIT)
    torch.save(original.state_dict(), tmp_path / "vit.pth")
    encoder = tiny("plain transformer", image_size=64, weights=tmp_path / "vit.pth")
    assert encoder.net.pos_embed.shape[1] == 17
    torch.testing.assert_close(encoder.net.blocks[2].mlp.fc1.weight, original.blocks[2].mlp.fc1.weight)


def test_weights_that_do_not_fit_are_refused_with_their_names(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", **RESNET).state_dict()
    state["layer1.0.extra"] = state.pop("layer1.0.bn1.weight")
    state["layer2.0.conv1.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="does not fit 'resnet18'") as error:
        tiny("resnet", weights=tmp_path / "bad.pt")
    shapes = "1 mismatched shapes: layer2.0.conv1.weight (3, 3) for (12, 8, 3, 3)"
    for part in ("1 missing keys: layer1.0.bn1.weight", "1 unexpected keys: layer1.0.extra", shapes):
        assert part in str(error.value)
    own = tiny("resnet").state_dict()
    own.pop("net.conv1.weight")
    torch.save(own, tmp_path / "own.pt")
    with pytest.raises(ValueError, match=r"missing keys: net\.conv1\.weight"):
        tiny("resnet", weights=tmp_path / "own.pt")


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file .*absent\.pt"):
        tiny("resnet", weights=tmp_path / "absent.pt")
    pointer = tmp_path / "pointer.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="git-lfs pointer"):
        tiny("resnet", weights=pointer)
    for name in ("noise.pt", "noise.safetensors"):
        (tmp_path / name).write_bytes(b"noise " * 9)
        with pytest.raises(ValueError, match="cannot read weights"):
            tiny("resnet", weights=tmp_path / name)


def test_a_frozen_encoder_stays_frozen_and_in_evaluation_mode() -> None:
    encoder = tiny("resnet", freeze=True)
    torch.nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(images)[0], encoder(images)[0])
    assert tiny("resnet").train().net.bn1.training


def test_wrong_names_levels_options_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"knows no model 'resnett18'.*resnet18"):
        TimmEncoder("resnett18")
    with pytest.raises(ValueError, match=r"levels of 'resnet18' are 0 to 4, ascending, .* found \[2, 1\]"):
        tiny("resnet", levels=(2, 1))
    with pytest.raises(ValueError, match="cannot build 'resnet18'"):
        tiny("resnet", options={"depth": 3})
    with pytest.raises(ValueError, match="leave out image_size"):
        tiny("resnet", image_size=64)
    fixed = TimmEncoder("beit_base_patch16_224", levels=(0,), image_size=32, options=VIT)
    assert fixed(torch.rand(1, 3, 32, 32))[0].shape == (1, 24, 2, 2)
    with pytest.raises(ValueError, match="reads 32 x 32 pixels only; found 48 x 32"):
        fixed(torch.rand(1, 3, 48, 32))
