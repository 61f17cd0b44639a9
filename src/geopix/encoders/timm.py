"""Any backbone of timm as a vision encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from geopix.contracts import VisionEncoder
from geopix.encoders.bands import Bands, Inflate, normalise
from geopix.encoders.foreign import reached_leaves, read_state, state_differences

WAVES = 6
"""Wavelengths per direction of the positions that may be added to maps."""

_ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})


class TimmEncoder(VisionEncoder):
    """Feature maps of any timm backbone: convolutional pyramids, hierarchical and plain transformers.

    Maps are raw: no final norm is applied, class and register tokens are left out. Stages and blocks behind the last chosen level are removed, and
    what still cannot reach a chosen map is frozen, so that every trainable parameter receives gradients. Images whose sides the largest stride does
    not divide are padded at the bottom and right, after normalisation, with zeros, and the maps are cropped to ``ceil(side / stride)``.

    Source: https://github.com/huggingface/pytorch-image-models (``forward_intermediates``).

    Args:
        name: a name of ``timm.list_models()``, with a pretrained tag where wanted, such as ``resnet18.a1_in1k``.
        bands: how many bands the images have, or the name of each.
        inflate: how the first convolution of weights comes to bands that it was not made for; see :class:`geopix.encoders.bands.Bands`. A file
            that already has as many bands, unlike timm's own weights, is taken as it is. Convolutions whose weights are standardised undo the scale.
        levels: which maps to return, finest first, as indices into timm's ``feature_info`` (stages, or blocks of a plain transformer);
            all of them when left out. Negative indices count from the end.
        weights: ``"hub"`` for timm's own pretrained weights, or a file (.pt, .pth, .safetensors) with a state dict of the timm model or of a TimmEncoder.
            Keys of the classifier are ignored, since no classifier is built; any other difference raises. None starts at random.
        freeze: never train the backbone; it then also stays in evaluation mode. Added positions go on learning.
        image_size: side of the square image that positions and windows are made for; the pretrained one when left out. Transformers read
            other sizes too where timm can interpolate their positions. Convolutional networks read any size and refuse this argument.
        mean: per band, subtracted from images in 0..1. When left out: those of the pretrained configuration, brought to the bands by the same mapping
            as the weights.
        std: per band, divides what is left; the same rule.
        positions: add to every map a learned projection of sines of each cell's relative row and column. For convolutional backbones, which tell nobody
            where a cell lies; a transformer's embeddings do.
        options: arguments of timm's model class that change its architecture, such as ``{layers: [1, 1, 1, 1], channels: [48, 96, 192, 192]}``.

    Raises:
        FileNotFoundError: when the weights file is not there.
        ValueError: when timm does not know the name, the levels or the options, or when weights cannot be read or do not fit.
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
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        positions: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        read = Bands(bands, inflate)
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
        if config is None:
            similar = get_close_matches(name, timm.list_models(), n=5)
            raise ValueError(f"timm {timm.__version__} knows no model {name!r}; similar names: {similar}. See timm.list_models().")
        arguments, self._fixed_size = _size_arguments(name, config, image_size, options or {})
        arguments |= {"in_chans": read.count, "num_classes": 0}
        state = None if weights is None or weights == "hub" else read_state(Path(weights))
        own = state is not None and all(key.startswith(("net.", "places.")) for key in state)
        backbone = _random(name, arguments) if weights is None or own else _inflated(name, arguments, state, config, read, weights)
        chosen = _levels(name, len(backbone.feature_info), levels)
        self.channels = tuple(int(backbone.feature_info[level]["num_chs"]) for level in chosen)
        self.strides = tuple(int(backbone.feature_info[level]["reduction"]) for level in chosen)
        self._levels = backbone.prune_intermediate_layers(chosen, prune_norm=True, prune_head=True)
        self.net = backbone
        self.places = nn.ModuleList(nn.Conv2d(4 * WAVES, channels, 1) for channels in self.channels) if positions else None
        if own and state is not None:
            _load_own(self, state, weights)
        self.bands, self.band_names = read.count, read.names
        self.register_buffer("mean", read.values("mean", mean, config.mean), persistent=False)
        self.register_buffer("std", read.values("std", std, config.std), persistent=False)
        self.frozen = freeze
        self._freeze_unreached(name)
        if freeze:
            self.net.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> TimmEncoder:
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of ``channels[i]`` channels and ``ceil(side / strides[i])`` cells, finest first.

        Raises:
            ValueError: when the number of bands is not the encoder's, or a backbone of one fixed size meets another.
        """
        height, width = images.shape[2:]
        normal = normalise(images, self.mean, self.std)
        if self._fixed_size is not None and (height, width) != (self._fixed_size, self._fixed_size):
            raise ValueError(
                f"this backbone reads {self._fixed_size} x {self._fixed_size} pixels only; found {height} x {width}. Set image_size, or resize the images."
            )
        stride = max(self.strides)
        # Measured for ResNets in bfloat16 on a CPU: 1.4 times as fast with channels last, equal maps in float32; no difference for ConvNeXt.
        padded = F.pad(normal, (0, -width % stride, 0, -height % stride)).contiguous(memory_format=torch.channels_last)
        maps = self.net.forward_intermediates(padded, indices=self._levels, norm=False, output_fmt="NCHW", intermediates_only=True)
        if self.places is not None:
            maps = [level + place(waves(level.shape[2], level.shape[3], level.device).to(level.dtype)) for level, place in zip(maps, self.places, strict=True)]
        return [level[..., : -(-height // step), : -(-width // step)] for level, step in zip(maps, self.strides, strict=True)]

    def _freeze_unreached(self, name: str) -> None:
        """Runs one small image: parameters that no map depends on are frozen, and what timm states of widths and strides is checked."""
        self.eval()
        side = self._fixed_size or -(-32 // max(self.strides)) * max(self.strides)
        with torch.enable_grad():
            maps = self(torch.zeros(1, self.bands, side, side, device=self.mean.device))
        found = [(level.shape[1], level.shape[2]) for level in maps]
        stated = [(channels, side // stride) for channels, stride in zip(self.channels, self.strides, strict=True)]
        if found != stated:
            raise ValueError(f"timm states (channels, rows) {stated} for {name!r} at {side} pixels, but it gave {found}; choose other levels or options.")
        reached = reached_leaves(maps)
        for parameter in self.parameters():
            if id(parameter) not in reached:
                parameter.requires_grad_(False)


def waves(rows: int, columns: int, device: torch.device) -> Float[Tensor, "1 _ rows columns"]:
    """Sines and cosines of each cell's relative row and column, from half a wave across the map to ``2 ** (WAVES - 2)`` waves."""
    lengths = math.pi * 2.0 ** torch.arange(WAVES, device=device)[:, None]
    y, x = ((torch.arange(size, device=device) + 0.5) / size * lengths for size in (rows, columns))
    row = torch.cat([y.sin(), y.cos()])[:, :, None].expand(-1, -1, columns)
    column = torch.cat([x.sin(), x.cos()])[:, None].expand(-1, rows, -1)
    return torch.cat([row, column])[None]


def _size_arguments(name: str, config: Any, image_size: int | None, options: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Arguments with which the backbone reads any size where it can, and the only size it reads where it cannot."""
    if not config.fixed_input_size:
        if image_size is not None:
            raise ValueError(f"{name!r} reads images of any size: leave out image_size (found {image_size}).")
        return dict(options), None
    side = int(image_size or options.get("img_size") or config.input_size[-1])
    base = options if image_size is None else {**options, "img_size": image_size}
    for extra in _ANY_SIZE:
        with torch.device("meta"):
            if _accepts(name, {**base, **extra}):
                return {**extra, **base}, None
    return dict(base), side


def _accepts(name: str, arguments: dict[str, Any]) -> bool:
    try:
        timm.create_model(name, **arguments)
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            return False
        raise
    return True


def _random(name: str, arguments: dict[str, Any]) -> Any:
    try:
        return timm.create_model(name, **arguments)
    except (TypeError, AssertionError, RuntimeError) as error:
        raise ValueError(f"timm cannot build {name!r} with {arguments}: {error}. Check the encoder's options.") from error


def _inflated(name: str, arguments: dict[str, Any], state: dict[str, Tensor] | None, config: Any, bands: Bands, weights: str | Path | None) -> Any:
    """The backbone with weights brought to the bands: by timm where it takes channels in turn, which also knows other kinds of stems, else here."""
    own = config.input_size[0]
    stems = [config.first_conv] if isinstance(config.first_conv, str) else list(config.first_conv or [])
    wide = _random(name, arguments)
    modules = dict(wide.named_modules())
    ready = (
        state is not None
        and bands.count != own
        and all(f"{stem}.weight" in state and state[f"{stem}.weight"].shape == modules[stem].weight.shape for stem in stems)
    )
    if bands.inflate == "repeat" or ready or not bands.change(own):
        return _pretrained(name, arguments, state, config, bands.count, weights)
    if not stems or not all(isinstance(modules[stem], nn.Conv2d) and modules[stem].in_channels == bands.count for stem in stems):
        found = ", ".join(f"{stem} = {modules[stem]}" for stem in stems) or "unknown to timm"
        raise ValueError(f"the first layer of {name!r} cannot be inflated to named bands: it is {found}. Choose inflate='repeat' or another backbone.")
    full = _pretrained(name, {**arguments, "in_chans": own}, state, config, own, weights).state_dict()
    full |= {f"{stem}.weight": bands.kernels(full[f"{stem}.weight"]) for stem in stems}
    wide.load_state_dict(full)
    return wide


def _pretrained(name: str, arguments: dict[str, Any], state: dict[str, Tensor] | None, config: Any, bands: int, weights: str | Path | None) -> Any:
    """The whole backbone with weights of the hub, or of a file as a strict load: timm renames, inflates and resizes what it knows how to."""
    stems = [config.first_conv] if isinstance(config.first_conv, str) else list(config.first_conv or [])
    plain = _random(name, arguments)
    modules = dict(plain.named_modules())
    shapes = None if state is None else {key: value.shape for key, value in state.items()}
    if bands != config.input_size[0]:
        for stem in stems:
            fits = shapes is not None and shapes.get(f"{stem}.weight") == modules[stem].weight.shape
            if not fits and not (isinstance(modules[stem], nn.Conv2d) and modules[stem].in_channels == bands):
                raise ValueError(f"weights of {name!r} for {config.input_size[0]} bands cannot be adapted to {bands}: its first layer is {modules[stem]}.")
    if state is None:
        try:
            return timm.create_model(name, pretrained=True, **arguments)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"cannot load timm's weights of {name!r}: {error} Check the connection and the architecture options, or give a file as weights."
            ) from error
    heads = [config.classifier] if isinstance(config.classifier, str) else list(config.classifier or [])
    kept = {key: value for key, value in state.items() if not key.startswith(tuple(f"{head}." for head in heads))}
    overlay = {"state_dict": kept, "source": "", "classifier": None}
    try:
        model: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise ValueError(f"{weights} does not fit {name!r}: {state_differences(plain.state_dict(), kept) or error}.") from error
    model.pretrained_cfg.pop("state_dict")
    return model


def _load_own(encoder: TimmEncoder, state: dict[str, Tensor], weights: str | Path | None) -> None:
    differences = state_differences(encoder.state_dict(), state)
    if differences:
        raise ValueError(f"{weights}, written by a TimmEncoder, does not fit this one: {differences}. Give the same name, bands, levels and options.")
    encoder.load_state_dict(state)


def _levels(name: str, count: int, levels: Sequence[int] | None) -> list[int]:
    chosen = list(range(count)) if levels is None else [level + count if level < 0 else level for level in levels]
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < count:
        raise ValueError(f"levels of {name!r} are 0 to {count - 1}, ascending, each once, at least one; found {list(levels or [])}.")
    return chosen
