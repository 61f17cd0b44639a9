"""The plain vision transformers of transformers: CLIP, SigLIP, SigLIP 2, DINOv2 and DINOv3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPVisionModel,
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
    PreTrainedModel,
    Siglip2VisionModel,
    SiglipVisionModel,
)
from transformers.utils.constants import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from geopix.contracts import VisionEncoder
from geopix.encoders.bands import Bands, Inflate, normalise
from geopix.encoders.pretrained.hf import IMAGENET, load, normalisation, read_config

_TOWERS: dict[str, type[PreTrainedModel]] = {
    "clip_vision_model": CLIPVisionModel,
    "siglip_vision_model": SiglipVisionModel,
    "siglip2_vision_model": Siglip2VisionModel,
    "dinov2": Dinov2Model,
    "dinov2_with_registers": Dinov2WithRegistersModel,
    "dinov3_vit": DINOv3ViTModel,
}
_NORMALISATION = {
    "clip_vision_model": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "siglip_vision_model": (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
    "siglip2_vision_model": (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
}
_LLAVA_TOWER = {r"^(model\.)?vision_tower\.(vision_model\.)?": ""}
_PARTS = ("embeddings", "pre_layrnorm", "encoder", "model", "layer")


class HFVisionEncoder(VisionEncoder):
    """Hidden states of a CLIP, SigLIP, SigLIP 2, DINOv2 or DINOv3 tower as maps, all of one stride.

    State 0 is what enters the first layer (for CLIP behind its first norm) and state i is what leaves layer i, as in transformers' ``hidden_states``; no
    final norm is applied, class and register tokens are left out. Layers behind the deepest chosen state are neither run nor kept. Positions are
    interpolated to the image's grid (DINOv3's are computed from it); images whose sides the patch does not divide are padded at the bottom and right,
    after normalisation, with zeros.

    SigLIP 2 comes in two kinds: weights of a fixed resolution are a SigLIP to transformers (``siglip``), NaFlex weights (``siglip2``) read patches with
    the grid they form. Here both read images; a NaFlex tower gets the whole grid of the image, of any size and proportions, without resizing.

    Source: https://github.com/huggingface/transformers; CLIP https://arxiv.org/abs/2103.00020, SigLIP https://arxiv.org/abs/2303.15343, SigLIP 2
    https://arxiv.org/abs/2502.14786, DINOv2 https://arxiv.org/abs/2304.07193, DINOv3 https://arxiv.org/abs/2508.10104. GeoPix reads CLIP ViT-L/14 with
    ``hidden_layers=(-11, -2)`` (https://arxiv.org/abs/2501.06828).

    Args:
        source: a folder or a name of the Hugging Face hub (a tower alone, or a whole CLIP, SigLIP or LLaVA), loaded in float32; or a configuration with
            ``model_type`` (clip_vision_model, siglip_vision_model, siglip2_vision_model, dinov2, dinov2_with_registers, dinov3_vit), which starts at random.
        hidden_layers: which hidden states to return, in this order; the language model reads the last one given. Negative indices count from the end.
        bands: how many bands the images have, or the name of each.
        inflate: how the patch embedding comes to bands that it was not made for; see :class:`geopix.encoders.bands.Bands`.
        freeze: never train it; it then also stays in evaluation mode.
        mean: per band, subtracted from images in 0..1. When left out: from the source's preprocessor configuration, else the family's own; brought to the
            bands by the same mapping as the weights.
        std: per band, divides what is left; the same rule.

    Raises:
        FileNotFoundError: when the folder is not there.
        ValueError: when the source cannot be read, is of another family, lacks weights, or has no such hidden state; for bands that mean nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        source: dict[str, Any] | str | Path,
        *,
        hidden_layers: Sequence[int],
        bands: int | Sequence[str] = 3,
        inflate: Inflate = "repeat",
        freeze: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        chosen = Bands(bands, inflate)
        config = read_config(source, _TOWERS, ("clip", "siglip", "siglip2", "llava", "llava_next", "vipllava"), "HFVisionEncoder")
        tower: Any = load(_TOWERS[config.model_type], source, config, _used, _LLAVA_TOWER)
        self._states = _states(hidden_layers, config.num_hidden_layers + 1)
        self.bands, self.band_names = chosen.count, chosen.names
        self.channels = (config.hidden_size,) * len(self._states)
        self.strides = (config.patch_size,) * len(self._states)
        _inflate_patches(tower, chosen, config.num_channels)
        self.embeddings = tower.embeddings
        self.pre_norm = tower.pre_layrnorm if isinstance(tower, CLIPVisionModel) else nn.Identity()
        self.rotary = tower.rope_embeddings if isinstance(tower, DINOv3ViTModel) else None
        # CLIP and SigLIP interpolate their positions only where asked; the towers of DINO always do, and SigLIP 2 is told its grid.
        self._must_ask = isinstance(tower, CLIPVisionModel | SiglipVisionModel)
        self._takes_patches = isinstance(tower, Siglip2VisionModel)
        self.layers = nn.ModuleList(_layers(tower)[: max(self._states)])
        self._prefix = 0 if isinstance(tower, SiglipVisionModel | Siglip2VisionModel) else 1
        if isinstance(tower, Dinov2WithRegistersModel | DINOv3ViTModel):
            self._prefix += config.num_register_tokens
        found_mean, found_std = normalisation(source, _NORMALISATION.get(config.model_type, IMAGENET))
        self.register_buffer("mean", chosen.values("mean", mean, found_mean), persistent=False)
        self.register_buffer("std", chosen.values("std", std, found_std), persistent=False)
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
        height, width = images.shape[2:]
        patch = self.strides[0]
        padded = F.pad(normalise(images, self.mean, self.std), (0, -width % patch, 0, -height % patch))
        grid = (padded.shape[-2] // patch, padded.shape[-1] // patch)
        state = self.pre_norm(self._embed(padded, grid))
        positions = {} if self.rotary is None else {"position_embeddings": self.rotary(padded)}
        kept = {0: state}
        for index, layer in enumerate(self.layers, start=1):
            state = layer(state, None, **positions)
            if index in self._states:
                kept[index] = state
        return [kept[index][:, self._prefix :].transpose(1, 2).unflatten(2, grid) for index in self._states]

    def _embed(self, padded: Float[Tensor, "b c h w"], grid: tuple[int, int]) -> Float[Tensor, "b n d"]:
        """Tokens that enter the tower, patches with their positions behind what stands before them."""
        if self._takes_patches:
            patch = self.strides[0]
            cells = padded.unflatten(3, (grid[1], patch)).unflatten(2, (grid[0], patch))
            return self.embeddings(cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2), torch.tensor([grid] * len(padded)))
        return self.embeddings(padded, interpolate_pos_encoding=True) if self._must_ask else self.embeddings(padded)


def _states(hidden_layers: Sequence[int], count: int) -> tuple[int, ...]:
    chosen = tuple(layer + count if layer < 0 else layer for layer in hidden_layers)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= layer < count for layer in chosen):
        raise ValueError(f"hidden_layers of this tower are {-count} to {count - 1}, each once, at least one; found {list(hidden_layers)}.")
    return chosen


def _used(key: str) -> bool:
    """Whether a weight belongs to the part of a tower that is kept: not to its head, its last norm, or a text model beside it."""
    for prefix in ("vision_model.", "dinov2.", "dinov2_with_registers."):
        key = key.removeprefix(prefix)
    return key.split(".")[0] in _PARTS and not key.endswith("mask_token")


def _layers(tower: Any) -> nn.ModuleList:
    if isinstance(tower, Dinov2Model | Dinov2WithRegistersModel):
        return tower.encoder.layer
    return tower.model.layer if isinstance(tower, DINOv3ViTModel) else tower.encoder.layers


def _inflate_patches(tower: Any, bands: Bands, own: int) -> None:
    """Sets the patch embedding to the bands, and drops the token that only masked pretraining reads."""
    if isinstance(tower, CLIPVisionModel | SiglipVisionModel):
        bands.inflate_convolution(tower.embeddings.patch_embedding)
        return
    if isinstance(tower, Siglip2VisionModel):
        linear = tower.embeddings.patch_embedding
        if bands.change(own):  # its columns are the pixels of a patch, each with its channels
            kernels = bands.kernels(linear.weight.unflatten(1, (-1, own)).transpose(1, 2))
            linear.weight = nn.Parameter(kernels.transpose(1, 2).flatten(1))
            linear.in_features = linear.weight.shape[1]
        return
    tower.embeddings.mask_token = None
    if isinstance(tower, DINOv3ViTModel):
        bands.inflate_convolution(tower.embeddings.patch_embeddings)
        return
    bands.inflate_convolution(tower.embeddings.patch_embeddings.projection)
    tower.embeddings.patch_embeddings.num_channels = bands.count
