"""The image encoders of SAM and SAM 2, from transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import Sam2VisionModel, SamVisionModel

from geopix.contracts import VisionEncoder
from geopix.encoders.bands import Bands, Inflate, normalise
from geopix.encoders.pretrained.hf import load, normalisation, read_config


class SamEncoder(VisionEncoder):
    """SAM's image encoder: a plain transformer with windowed and four global attention layers, and the neck that gives the map its mask decoder reads.

    One map of 256 channels at stride 16. An image of the trained size (1024 x 1024) gives SAM's own embeddings. For other sizes the absolute positions
    are interpolated (bicubic) to the image's grid and the relative positions of global layers (linear) to its sides, so that the trained square is
    stretched over the whole image; windows keep their size. Sides that the patch does not divide are padded at the bottom and right, after normalisation,
    with zeros, as SAM pads.

    Source: https://arxiv.org/abs/2304.02643; https://github.com/huggingface/transformers (``SamVisionModel``).

    Args:
        source: a folder or a name of the Hugging Face hub (a whole SAM, or its vision model alone), loaded in float32; or a configuration with model_type
            ``sam_vision_model``, which starts at random.
        bands: how many bands the images have, or the name of each.
        inflate: how the patch embedding comes to bands that it was not made for; see :class:`geopix.encoders.bands.Bands`.
        freeze: never train it; it then also stays in evaluation mode.
        mean: per band, subtracted from images in 0..1. When left out: from the source's preprocessor configuration, else ImageNet's; brought to the bands by
            the same mapping as the weights.
        std: per band, divides what is left; the same rule.

    Raises:
        FileNotFoundError: when the folder is not there.
        ValueError: when the source cannot be read, is of another family or lacks weights; for bands that mean nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        source: dict[str, Any] | str | Path,
        *,
        bands: int | Sequence[str] = 3,
        inflate: Inflate = "repeat",
        freeze: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        read = Bands(bands, inflate)
        config = read_config(source, ("sam_vision_model",), ("sam",), "SamEncoder")
        trunk = load(SamVisionModel, source, config, lambda key: key.startswith("vision_encoder.")).vision_encoder
        self.bands, self.band_names = read.count, read.names
        self.channels, self.strides = (config.output_channels,), (config.patch_size,)
        self.patches = trunk.patch_embed.projection
        read.inflate_convolution(self.patches)
        self.positions = trunk.pos_embed
        self.layers = trunk.layers
        self.neck = trunk.neck
        found_mean, found_std = normalisation(source)
        self.register_buffer("mean", read.values("mean", mean, found_mean), persistent=False)
        self.register_buffer("std", read.values("std", std, found_std), persistent=False)
        self.frozen = freeze
        if freeze:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> SamEncoder:
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """One map of ``ceil(side / 16)`` cells.

        Raises:
            ValueError: when the number of bands is not the encoder's.
        """
        patch = self.strides[0]
        height, width = images.shape[2:]
        state = self.patches(F.pad(normalise(images, self.mean, self.std), (0, -width % patch, 0, -height % patch))).permute(0, 2, 3, 1)
        if self.positions is not None:
            state = state + _resized(self.positions.permute(0, 3, 1, 2), state.shape[1:3]).permute(0, 2, 3, 1)
        for layer in self.layers:
            state = layer(state)
        return [self.neck(state)]


class Sam2Encoder(VisionEncoder):
    """SAM 2's image encoder: Hiera and the feature pyramid behind it.

    Three maps of 256 channels at strides 4, 8 and 16, finest first, as the pyramid gives them: the two fine ones before the convolutions (``conv_s0`` and
    ``conv_s1``) with which SAM 2's mask decoder narrows them, the coarse one before the "no memory" embedding that SAM 2 adds to it for single images.

    Hiera's positions are interpolated to the image's grid, as in SAM 2, and its window positions repeated over it; SAM 2 was trained at 1024 x 1024 and
    other sizes are what that gives. Images whose sides the trunk's largest stride (32) does not divide are padded at the bottom and right, after
    normalisation, with zeros, and the maps are cropped to ``ceil(side / stride)``.

    Source: https://arxiv.org/abs/2408.00714; Hiera https://arxiv.org/abs/2306.00989; https://github.com/huggingface/transformers (``Sam2VisionModel``).

    Args:
        source: a folder or a name of the Hugging Face hub (a whole SAM 2 or 2.1, for images or video, or its vision model alone), loaded in float32; or a
            configuration with model_type ``sam2_vision_model`` (the trunk is its ``backbone_config``), which starts at random.
        bands: how many bands the images have, or the name of each.
        inflate: how the patch embedding comes to bands that it was not made for; see :class:`geopix.encoders.bands.Bands`.
        freeze: never train it; it then also stays in evaluation mode.
        mean: per band, subtracted from images in 0..1. When left out: from the source's preprocessor configuration, else ImageNet's; brought to the bands by
            the same mapping as the weights.
        std: per band, divides what is left; the same rule.

    Raises:
        FileNotFoundError: when the folder is not there.
        ValueError: when the source cannot be read, is of another family or lacks weights; for bands that mean nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        source: dict[str, Any] | str | Path,
        *,
        bands: int | Sequence[str] = 3,
        inflate: Inflate = "repeat",
        freeze: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        read = Bands(bands, inflate)
        config = read_config(source, ("sam2_vision_model",), ("sam2", "sam2_video"), "Sam2Encoder")
        trunk = config.backbone_config
        if trunk.model_type != "sam2_hiera_det_model":
            raise ValueError(f"Sam2Encoder reads the trunk sam2_hiera_det_model; found {trunk.model_type!r} in backbone_config.")
        model = load(Sam2VisionModel, source, config, _used_by_sam2, {r"^vision_encoder\.": ""})
        self.bands, self.band_names = read.count, read.names
        self.channels = (config.fpn_hidden_size,) * config.num_feature_levels
        self.strides = tuple(trunk.patch_stride[0] * trunk.query_stride[0] ** level for level in range(config.num_feature_levels))
        self._coarsest = trunk.patch_stride[0] * trunk.query_stride[0] ** trunk.num_query_pool_stages
        self._top_down = set(config.fpn_top_down_levels)
        self._ends = set(model.backbone.stage_ends)
        self.patches = model.backbone.patch_embed.projection
        read.inflate_convolution(self.patches)
        self.positions = model.backbone.pos_embed
        self.window_positions = model.backbone.pos_embed_window
        self.blocks = model.backbone.blocks
        self.laterals = model.neck.convs  # coarsest first
        found_mean, found_std = normalisation(source)
        self.register_buffer("mean", read.values("mean", mean, found_mean), persistent=False)
        self.register_buffer("std", read.values("std", std, found_std), persistent=False)
        self.frozen = freeze
        if freeze:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Sam2Encoder:
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of ``ceil(side / strides[i])`` cells, finest first.

        Raises:
            ValueError: when the number of bands is not the encoder's.
        """
        height, width = images.shape[2:]
        padded = F.pad(normalise(images, self.mean, self.std), (0, -width % self._coarsest, 0, -height % self._coarsest))
        state = self.patches(padded).permute(0, 2, 3, 1)
        rows, columns = state.shape[1:3]
        side = self.window_positions.shape[-1]
        windows = self.window_positions.tile(1, 1, -(-rows // side), -(-columns // side))[..., :rows, :columns]
        state = state + (_resized(self.positions, (rows, columns)) + windows).permute(0, 2, 3, 1)
        stages = []
        for index, block in enumerate(self.blocks):
            state = block(state)
            if index in self._ends:
                stages.append(state.permute(0, 3, 1, 2))
        maps = self._pyramid(stages)[: len(self.strides)]
        return [level[..., : -(-height // step), : -(-width // step)] for level, step in zip(maps, self.strides, strict=True)]

    def _pyramid(self, stages: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b c _ _"]]:
        """Every stage at one width, finest first; those named receive the coarser map below them."""
        maps: list[Tensor] = []
        for level, (lateral, stage) in zip(reversed(range(len(stages))), zip(self.laterals, reversed(stages), strict=True), strict=True):
            narrow = lateral(stage)
            if maps and level in self._top_down:
                narrow = narrow + F.interpolate(maps[-1].float(), scale_factor=2.0, mode="nearest").to(narrow.dtype)
            maps.append(narrow)
        return maps[::-1]


def _resized(positions: Float[Tensor, "1 c h w"], size: Sequence[int]) -> Float[Tensor, "1 c _ _"]:
    """Positions interpolated to another grid."""
    if positions.shape[2:] == torch.Size(size):
        return positions
    return F.interpolate(positions, size=tuple(size), mode="bicubic", align_corners=False)


def _used_by_sam2(key: str) -> bool:
    return key.removeprefix("vision_encoder.").startswith(("backbone.", "neck."))
