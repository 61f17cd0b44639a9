"""The encoders of segmentation-models-pytorch: ResNets, MiT (SegFormer), EfficientNets, DenseNets, DPNs, VGGs, MobileOnes and others."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from geopix.contracts import VisionEncoder
from geopix.encoders.bands import Bands, Inflate, normalise
from geopix.encoders.foreign import reached_leaves, read_state, state_differences

_RGB = 3
"""Channels that all of smp's encoders are made for."""
_MULTIPLE = 32
"""Sides that every one of smp's encoders reads at every level: MiT's first stage attends to cells merged in blocks of 32 pixels."""
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class SmpEncoder(VisionEncoder):
    """Feature maps of any encoder of segmentation-models-pytorch, by smp's own numbers: level ``i`` has stride ``2**i``.

    Level 0 is never returned: there smp hands the image itself back. Modules behind the last chosen level are removed, and what still reaches no chosen
    map is frozen, so that every trainable parameter receives gradients. Images whose sides 32 does not divide are padded at the bottom and right, after
    normalisation, with zeros, and the maps are cropped to ``ceil(side / stride)``.

    Source: https://github.com/qubvel-org/segmentation_models.pytorch (``smp.encoders.get_encoder``).

    Args:
        name: a name of ``smp.encoders.get_encoder_names()``, such as ``resnet50`` or ``mit_b2``. timm's models, which smp calls ``tu-...``, are
            TimmEncoder's.
        bands: bands of the images: how many, or their names.
        inflate: how pretrained kernels for red, green and blue come to these bands; see :class:`geopix.encoders.bands.Bands`. Without weights, or with
            a file that was made for as many bands other than three, the first layer is left as it is.
        levels: which maps to return, finest first, from 1 to 5; all that are there when left out. MiT has no level 1.
        weights: one of smp's own names for this encoder, such as ``imagenet`` (from the hub); or a file (.pt, .pth, .safetensors) with a state dict of
            the smp encoder, of a whole smp model, of which the encoder is taken, or of an SmpEncoder. A classifier's keys are ignored, any other
            difference raises. None starts at random.
        freeze: never train it; it then also stays in evaluation mode.
        mean: per band, subtracted from images in 0..1. When left out: that of smp's named weights, else ImageNet's; brought to the bands like the kernels.
        std: per band, divides what is left; the same rule.

    Raises:
        FileNotFoundError: when the weights file is not there.
        ValueError: for a name, weights or level that are not there, or weights that do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        bands: int | Sequence[str] = 3,
        inflate: Inflate = "repeat",
        levels: Sequence[int] | None = None,
        weights: str | Path | None = None,
        freeze: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        read = Bands(bands, inflate)
        _check_name(name)
        widths = smp.encoders.encoders[name]["params"]["out_channels"]
        chosen = _levels(name, widths, levels)
        hub = weights in smp.encoders.encoders[name]["pretrained_settings"]
        state = None if weights is None or hub else read_state(_file(name, str(weights)))
        own = state is not None and all(key.startswith("net.") for key in state)
        depth = max(2, *chosen)  # EfficientNets refuse a depth of one
        if hub:
            net = _from_hub(name, str(weights), depth)
            scale = _preprocessing(name, str(weights))
            _inflate(net, read)
        elif state is None or own:
            net, scale = _random(name, read.count, depth), _IMAGENET
        else:
            net, scale = _from_file(name, state, read, depth, weights), _IMAGENET
        self.bands, self.band_names = read.count, read.names
        self.channels = tuple(widths[level] for level in chosen)
        self.strides = tuple(2**level for level in chosen)
        self._levels = chosen
        self.net = net
        self.register_buffer("mean", read.values("mean", mean, scale["mean"]), persistent=False)
        self.register_buffer("std", read.values("std", std, scale["std"]), persistent=False)
        self.frozen = freeze
        self._keep_what_is_used(name)
        if own and state is not None:
            differences = state_differences(self.state_dict(), state)
            if differences:
                raise ValueError(f"{weights}, written by an SmpEncoder, does not fit this one: {differences}. Give the same name, bands and levels.")
            self.load_state_dict(state)
        if freeze:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> SmpEncoder:
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of ``channels[i]`` channels and ``ceil(side / strides[i])`` cells, finest first.

        Raises:
            ValueError: when the number of bands is not the encoder's.
        """
        height, width = images.shape[2:]
        normal = normalise(images, self.mean, self.std)
        maps = self.net(F.pad(normal, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)))
        return [maps[level][..., : -(-height // step), : -(-width // step)] for level, step in zip(self._levels, self.strides, strict=True)]

    def _keep_what_is_used(self, name: str) -> None:
        """Runs one small image: modules that reach no map are removed, parameters that reach none are frozen, and smp's widths and strides are checked."""
        self.eval()
        image = torch.zeros(1, self.bands, 2 * _MULTIPLE, 3 * _MULTIPLE)
        with torch.enable_grad():
            reached = reached_leaves(self(image))
        _remove_unused(self.net, reached)
        for parameter in self.parameters():
            if id(parameter) not in reached:
                parameter.requires_grad_(False)
        with torch.no_grad():
            found = [tuple(level.shape[1:]) for level in self(image)]
        stated = [(width, image.shape[2] // stride, image.shape[3] // stride) for width, stride in zip(self.channels, self.strides, strict=True)]
        if found != stated:
            raise ValueError(f"smp states maps of {stated} for {name!r} and {tuple(image.shape)} pixels, but it gave {found}; choose other levels.")


class _Pass(nn.Module):
    """Stands where a module was removed: smp runs one stage more than asked, and throws its map away."""

    def forward(self, x: Tensor, *rest: object) -> Tensor:
        return x


def _check_name(name: str) -> None:
    names = smp.encoders.get_encoder_names()
    if name in names:
        return
    if name.startswith("tu-"):
        raise ValueError(f"{name!r} is a model of timm: use geopix.encoders.timm.TimmEncoder with name {name.removeprefix('tu-')!r}.")
    similar = get_close_matches(name, names, n=5)
    raise ValueError(f"smp {smp.__version__} knows no encoder {name!r}; similar names: {similar}. See smp.encoders.get_encoder_names().")


def _levels(name: str, widths: Sequence[int], levels: Sequence[int] | None) -> list[int]:
    there = [level for level, width in enumerate(widths) if level > 0 and width > 0]
    chosen = there if levels is None else list(levels)
    if not chosen or chosen != sorted(set(chosen)) or not set(chosen) <= set(there):
        raise ValueError(f"levels of {name!r} are {there} (level i has stride 2**i), ascending, each once, at least one; found {chosen}.")
    return chosen


def _file(name: str, weights: str) -> Path:
    """The weights as a file, unless they look like a name, which is then unknown."""
    if not Path(weights).suffix and not Path(weights).exists():
        known = list(smp.encoders.encoders[name]["pretrained_settings"])
        raise ValueError(f"smp has no weights {weights!r} for {name!r}, only {known}; or give a .pt, .pth or .safetensors file.")
    return Path(weights)


def _random(name: str, bands: int, depth: int) -> Any:
    return smp.encoders.get_encoder(name, in_channels=bands, depth=depth, weights=None)


def _from_hub(name: str, weights: str, depth: int) -> Any:
    try:
        return smp.encoders.get_encoder(name, in_channels=_RGB, depth=depth, weights=weights)
    except OSError as error:
        raise ValueError(f"cannot load smp's weights {weights!r} of {name!r}: {error} Check the connection, or give a file as weights.") from error


def _preprocessing(name: str, weights: str) -> dict[str, list[float]]:
    """Mean and deviation of named weights, for images in 0..1."""
    found = smp.encoders.get_preprocessing_params(name, weights)
    if found["input_space"] != "RGB":
        raise ValueError(f"smp's weights {weights!r} of {name!r} read {found['input_space']} images, but bands come as red, green, blue; choose other weights.")
    top = found["input_range"][1]
    return {what: [value / top for value in found[what]] for what in ("mean", "std")}


def _from_file(name: str, state: dict[str, Tensor], bands: Bands, depth: int, weights: str | Path | None) -> Any:
    """The encoder with a strict load of its own state dict or of a whole model's; made for red, green and blue, or for as many bands as are asked."""
    state = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")} or dict(state)
    net = _random(name, _RGB, depth)
    stems = [f"{path}.weight" for path, _ in _first_convolutions(net)]
    made_for_bands = bands.count != _RGB and all(stem in state and state[stem].shape[1] == bands.count for stem in stems)
    if made_for_bands:
        net = _random(name, bands.count, depth)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit {name!r}: {state_differences(net.state_dict(), state) or error}.") from error
    if not made_for_bands:
        _inflate(net, bands)
    return net


def _first_convolutions(net: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """The layers that read the image: MobileOne has two, side by side."""
    return [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Conv2d) and module.in_channels == _RGB]


def _inflate(net: nn.Module, bands: Bands) -> None:
    for _, convolution in _first_convolutions(net):
        bands.inflate_convolution(convolution)


def _remove_unused(module: nn.Module, reached: set[int]) -> None:
    """Removes modules none of whose parameters is among the reached ones; the others keep their places and names."""
    for name, child in module.named_children():
        parameters = {id(parameter) for parameter in child.parameters()}
        if parameters and reached.isdisjoint(parameters) and not isinstance(child, nn.ModuleList):
            setattr(module, name, _Pass())
        else:
            _remove_unused(child, reached)
