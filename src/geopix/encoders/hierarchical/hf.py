"""The backbones of transformers that halve their maps stage by stage: Swin, Swin V2, ConvNeXt, ConvNeXt V2 and DINOv3's ConvNeXt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ConvNextBackbone, ConvNextV2Backbone, DINOv3ConvNextBackbone, SwinBackbone, Swinv2Backbone

from geopix.contracts import VisionEncoder
from geopix.encoders.bands import Bands, Inflate, normalise
from geopix.encoders.pretrained.hf import load, normalisation, read_config

_Find = Callable[[Any], Any]
_FAMILIES: dict[str, tuple[Any, _Find, _Find]] = {  # the class, its first convolution, its stages
    "swin": (SwinBackbone, lambda net: net.swin.embeddings.patch_embeddings.projection, lambda net: net.swin.encoder.layers),
    "swinv2": (Swinv2Backbone, lambda net: net.embeddings.patch_embeddings.projection, lambda net: net.encoder.layers),
    "convnext": (ConvNextBackbone, lambda net: net.embeddings.patch_embeddings, lambda net: net.encoder.stages),
    "convnextv2": (ConvNextV2Backbone, lambda net: net.embeddings.patch_embeddings, lambda net: net.encoder.stages),
    "dinov3_convnext": (DINOv3ConvNextBackbone, lambda net: net.model.stages[0].downsample_layers[0], lambda net: net.model.stages),
}
_PARTS = ("embeddings", "encoder", "model", "stages")


class HFBackboneEncoder(VisionEncoder):
    """Stage maps of a hierarchical backbone of transformers: Swin, Swin V2, ConvNeXt, ConvNeXt V2 or DINOv3's ConvNeXt.

    Maps are those of transformers' ``AutoBackbone`` at strides 4, 8, 16 and 32. Swin, ConvNeXt and ConvNeXt V2 have a norm before every map; weights of a
    classifier lack it, and it then starts as plain normalisation. Stages behind the last chosen one are removed. Images whose sides the largest
    chosen stride does not divide are padded at the bottom and right, after normalisation, with zeros, and the maps are cropped to ``ceil(side / stride)``.

    Source: https://github.com/huggingface/transformers; Swin https://arxiv.org/abs/2103.14030, Swin V2 https://arxiv.org/abs/2111.09883, ConvNeXt
    https://arxiv.org/abs/2201.03545, ConvNeXt V2 https://arxiv.org/abs/2301.00808, DINOv3 https://arxiv.org/abs/2508.10104.

    Args:
        source: a folder or a name of the Hugging Face hub, loaded in float32; or a configuration with model_type (swin, swinv2, convnext, convnextv2,
            dinov3_convnext), which starts at random.
        levels: which stages to return, finest first, from 0; all of them when left out. Negative indices count from the end.
        bands: how many bands the images have, or the name of each.
        inflate: how the first convolution comes to bands that it was not made for; see :class:`geopix.encoders.bands.Bands`.
        freeze: never train it; it then also stays in evaluation mode.
        mean: per band, subtracted from images in 0..1. When left out: from the source's preprocessor configuration, else ImageNet's; brought to the bands by
            the same mapping as the weights.
        std: per band, divides what is left; the same rule.

    Raises:
        FileNotFoundError: when the folder is not there.
        ValueError: when the source cannot be read, is of another family, lacks weights or has no such stage; for bands that mean nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        source: dict[str, Any] | str | Path,
        *,
        levels: Sequence[int] | None = None,
        bands: int | Sequence[str] = 3,
        inflate: Inflate = "repeat",
        freeze: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        read = Bands(bands, inflate)
        config = read_config(source, _FAMILIES, (), "HFBackboneEncoder")
        chosen = _levels(levels, len(config.depths))
        config.set_output_features_output_indices(out_features=None, out_indices=[level + 1 for level in chosen])  # 0 is the stem
        net = _with_bands(source, config, read)
        _, first, stages = _FAMILIES[config.model_type]
        step = first(net).stride[0]
        self.bands, self.band_names = read.count, read.names
        self.channels = tuple(int(net.num_features[level + 1]) for level in chosen)
        self.strides = tuple(step * 2**level for level in chosen)
        del stages(net)[chosen[-1] + 1 :]
        if isinstance(net, SwinBackbone | Swinv2Backbone):
            stages(net)[-1].downsample = None
        if isinstance(net, SwinBackbone):
            net.swin.layernorm = nn.Identity()  # behind the last stage; no map passes it
        self.net = net
        found_mean, found_std = normalisation(source)
        self.register_buffer("mean", read.values("mean", mean, found_mean), persistent=False)
        self.register_buffer("std", read.values("std", std, found_std), persistent=False)
        self.frozen = freeze
        if freeze:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> HFBackboneEncoder:
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of ``channels[i]`` channels and ``ceil(side / strides[i])`` cells, finest first.

        Raises:
            ValueError: when the number of bands is not the encoder's.
        """
        height, width = images.shape[2:]
        stride = self.strides[-1]
        maps = self.net(F.pad(normalise(images, self.mean, self.std), (0, -width % stride, 0, -height % stride))).feature_maps
        return [level[..., : -(-height // step), : -(-width // step)] for level, step in zip(maps, self.strides, strict=True)]


def _levels(levels: Sequence[int] | None, count: int) -> list[int]:
    chosen = list(range(count)) if levels is None else [level + count if level < 0 else level for level in levels]
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < count:
        raise ValueError(f"levels of this backbone are 0 to {count - 1}, ascending, each once, at least one; found {list(levels or [])}.")
    return chosen


def _with_bands(source: dict[str, Any] | str | Path, config: Any, bands: Bands) -> Any:
    """The backbone with its weights, its first convolution made for the bands."""
    family, first, _ = _FAMILIES[config.model_type]
    net = load(family, source, config, _used)
    own = config.num_channels
    if not bands.change(own):
        return net
    state = net.state_dict()
    [name] = [name for name, module in net.named_modules() if module is first(net)]
    config.num_channels = bands.count
    wide = family(config)
    wide.load_state_dict({**state, f"{name}.weight": bands.kernels(state[f"{name}.weight"])})
    return wide


def _used(key: str) -> bool:
    """Whether a weight belongs to a stage or the stem: not to a classifier, the last norm, or the norms before maps, which a classifier lacks."""
    for prefix in ("swin.", "swinv2.", "convnext.", "convnextv2."):
        key = key.removeprefix(prefix)
    return key.split(".")[0] in _PARTS and not key.endswith(("mask_token", "relative_position_index"))
