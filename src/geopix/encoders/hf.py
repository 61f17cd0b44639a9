"""The vision towers of transformers: CLIP, SigLIP and DINOv2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, CLIPVisionModel, Dinov2Model, Dinov2WithRegistersModel, PreTrainedModel, SiglipVisionModel
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from geopix.contracts import VisionEncoder

_TOWERS: dict[str, type[PreTrainedModel]] = {
    "clip_vision_model": CLIPVisionModel,
    "siglip_vision_model": SiglipVisionModel,
    "dinov2": Dinov2Model,
    "dinov2_with_registers": Dinov2WithRegistersModel,
}
_PARTS = ("embeddings", "pre_layrnorm", "encoder")


class HFVisionEncoder(VisionEncoder):
    """Hidden states of a CLIP, SigLIP or DINOv2 tower as maps, all of one stride.

    State 0 is what enters the first layer (for CLIP behind its first norm) and state i is what leaves layer i, as in transformers' ``hidden_states``; no
    final norm is applied, class and register tokens are left out. Layers behind the deepest chosen state are neither run nor kept. Positions are
    interpolated to the image's grid; images whose sides the patch does not divide are padded at the bottom and right, after normalisation, with zeros.

    Source: https://github.com/huggingface/transformers; CLIP https://arxiv.org/abs/2103.00020, SigLIP https://arxiv.org/abs/2303.15343,
    DINOv2 https://arxiv.org/abs/2304.07193. GeoPix reads CLIP ViT-L/14 with ``hidden_layers=(-11, -2)`` (https://arxiv.org/abs/2501.06828).

    Args:
        source: a folder or a name of the Hugging Face hub (a tower alone, or a whole CLIP or SigLIP), loaded in float32; or a configuration with ``model_type``
            (clip_vision_model, siglip_vision_model, dinov2, dinov2_with_registers), which starts at random.
        hidden_layers: which hidden states to return, in this order; the language model reads the last one given. Negative indices count from the end.
        bands: bands of the images. For another number than the tower's own, the input channels of the patch embedding are summed for one band, else
            repeated in turn and scaled by ``own / bands``.
        freeze: never train it; it then also stays in evaluation mode.
        mean: per band, subtracted from images in 0..1. When left out: from the source's preprocessor configuration, else the family's own; averaged for one
            band, repeated in turn for more than three.
        std: per band, divides what is left; the same rule.

    Raises:
        FileNotFoundError: when the folder is not there.
        ValueError: when the source cannot be read, is of another family, lacks weights, or has no such hidden state.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        source: dict[str, Any] | str | Path,
        *,
        hidden_layers: Sequence[int],
        bands: int = 3,
        freeze: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if bands < 1:
            raise ValueError(f"an encoder reads at least one band; found bands={bands}.")
        config = _tower_config(source)
        tower: Any = _TOWERS[config.model_type](config) if isinstance(source, dict) else _load(source, config)
        count = config.num_hidden_layers + 1
        chosen = [layer + count if layer < 0 else layer for layer in hidden_layers]
        if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= layer < count for layer in chosen):
            raise ValueError(f"hidden_layers of this tower are {-count} to {count - 1}, each once, at least one; found {list(hidden_layers)}.")
        self._states = tuple(chosen)
        self.bands = bands
        self.channels = (config.hidden_size,) * len(chosen)
        self.strides = (config.patch_size,) * len(chosen)
        self.embeddings = tower.embeddings
        self.pre_norm = tower.pre_layrnorm if isinstance(tower, CLIPVisionModel) else nn.Identity()
        # DINOv2 always interpolates its positions; the other two only where asked.
        self._must_ask = isinstance(tower, CLIPVisionModel | SiglipVisionModel)
        layers = tower.encoder.layers if self._must_ask else tower.encoder.layer
        self.layers = nn.ModuleList(layers[: max(chosen)])
        self._prefix = _adapt(tower, config, bands)
        found_mean, found_std = _normalisation(source, config.model_type)
        self.register_buffer("mean", _per_band("mean", mean, found_mean, bands), persistent=False)
        self.register_buffer("std", _per_band("std", std, found_std, bands), persistent=False)
        self.frozen = freeze
        if freeze:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> HFVisionEncoder:
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """One map of ``ceil(side / patch)`` cells per chosen hidden state, in the order chosen.

        Raises:
            ValueError: when the number of bands is not the encoder's.
        """
        _, bands, height, width = images.shape
        if bands != self.bands:
            raise ValueError(f"the encoder reads {self.bands} bands but the images have {bands}; set bands={bands} or change the data.")
        patch = self.strides[0]
        normal = ((images - self.mean.to(images)) / self.std.to(images)).to(self.mean.dtype)
        padded = F.pad(normal, (0, -width % patch, 0, -height % patch))
        embedded = self.embeddings(padded, interpolate_pos_encoding=True) if self._must_ask else self.embeddings(padded)
        state = self.pre_norm(embedded)
        kept = {0: state}
        for index, layer in enumerate(self.layers, start=1):
            state = layer(state, None)
            if index in self._states:
                kept[index] = state
        grid = (padded.shape[-2] // patch, padded.shape[-1] // patch)
        return [kept[index][:, self._prefix :].transpose(1, 2).unflatten(2, grid) for index in self._states]


def _tower_config(source: dict[str, Any] | str | Path) -> Any:
    if isinstance(source, dict):
        if source.get("model_type") not in _TOWERS:
            raise ValueError(f"a configuration needs a model_type of {sorted(_TOWERS)}; found {source.get('model_type')!r}.")
        return AutoConfig.for_model(**source)
    if not Path(source).is_dir() and (isinstance(source, Path) or str(source).startswith(("/", ".", "~"))):
        raise FileNotFoundError(f"no folder {source}; give a folder written by save_pretrained, or a name of the Hugging Face hub as 'owner/name'.")
    _refuse_pointers(Path(source))
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the configuration of {str(source)!r}: {error} Give a folder, or connect to the hub.") from error
    if config.model_type in ("clip", "siglip"):
        config = config.vision_config
    if config.model_type not in _TOWERS:
        raise ValueError(f"{str(source)!r} is a {config.model_type!r}; HFVisionEncoder reads {sorted(_TOWERS)}, clip and siglip.")
    return config


def _refuse_pointers(folder: Path) -> None:
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(40).startswith(b"version https://git-lfs"):
                    raise ValueError(f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull` where it was cloned.")


def _load(source: str | Path, config: Any) -> Any:
    """The tower in float32, with every weight it uses taken from the source."""
    try:
        loaded: Any = _TOWERS[config.model_type].from_pretrained(source, config=config, dtype=torch.float32, output_loading_info=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load the weights of {str(source)!r}: {error}") from error
    tower, found = loaded
    wrong = {kind: sorted(str(key) for key in found[kind] if _used(str(key))) for kind in ("missing_keys", "unexpected_keys")}
    if any(wrong.values()):
        lists = "; ".join(f"{len(keys)} {kind.replace('_', ' ')}: {', '.join(keys[:8])}" for kind, keys in wrong.items() if keys)
        raise ValueError(f"the weights of {str(source)!r} do not fit its configuration: {lists}.")
    return tower


def _used(key: str) -> bool:
    """Whether a weight belongs to the part of a tower that is kept: not to its head, its last norm, or a text model beside it."""
    for prefix in ("vision_model.", "dinov2.", "dinov2_with_registers."):
        key = key.removeprefix(prefix)
    return key.split(".")[0] in _PARTS and not key.endswith("mask_token")


def _adapt(tower: PreTrainedModel, config: Any, bands: int) -> int:
    """Sets the patch embedding to ``bands``; returns how many tokens stand before the patches."""
    own = config.num_channels
    if isinstance(tower, CLIPVisionModel | SiglipVisionModel):
        tower.embeddings.patch_embedding = _inflate(tower.embeddings.patch_embedding, own, bands)
        return 1 if isinstance(tower, CLIPVisionModel) else 0
    if isinstance(tower, Dinov2Model | Dinov2WithRegistersModel):
        patches = tower.embeddings.patch_embeddings
        patches.projection = _inflate(patches.projection, own, bands)
        patches.num_channels = bands
        tower.embeddings.mask_token = None
    return 1 + (config.num_register_tokens if isinstance(tower, Dinov2WithRegistersModel) else 0)


def _inflate(convolution: nn.Conv2d, own: int, bands: int) -> nn.Conv2d:
    if bands == own:
        return convolution
    old = convolution.weight.detach()
    new = old.sum(1, keepdim=True) if bands == 1 else old[:, [band % own for band in range(bands)]] * own / bands
    inflated = nn.Conv2d(bands, convolution.out_channels, convolution.kernel_size, convolution.stride, bias=convolution.bias is not None)  # type: ignore[arg-type]
    inflated.weight = nn.Parameter(new)
    inflated.bias = convolution.bias
    return inflated


def _normalisation(source: dict[str, Any] | str | Path, model_type: str) -> tuple[list[float], list[float]]:
    """Mean and deviation from the source's preprocessor configuration, else those that the family was trained with."""
    found: dict[str, Any] = {}
    if not isinstance(source, dict):
        try:
            found = BaseImageProcessor.get_image_processor_dict(str(source))[0]
        except OSError:
            found = {}
    family = {
        "clip_vision_model": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
        "siglip_vision_model": (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
    }.get(model_type, (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return list(found.get("image_mean") or family[0]), list(found.get("image_std") or family[1])


def _per_band(what: str, given: Sequence[float] | None, own: Sequence[float], bands: int) -> Float[Tensor, "c 1 1"]:
    if given is None:
        given = [sum(own) / len(own)] if bands == 1 else [own[band % len(own)] for band in range(bands)]
    if len(given) != bands:
        raise ValueError(f"{what} needs one number per band, {bands}; found {list(given)}.")
    return torch.tensor([float(value) for value in given]).view(-1, 1, 1)
