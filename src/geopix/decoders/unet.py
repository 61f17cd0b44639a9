"""Decoders of segmentation_models_pytorch, run once per image, with a head whose weights each prompt writes.

The decoders are the package's own modules (https://github.com/qubvel-org/segmentation_models.pytorch) with its initialisation. Two things are adapted.
What they expect, maps at strides 2, 4, 8, 16, 32, is made from whatever maps the encoder has; each class says how. And group norms take the
place of batch norms, which would let the few images of a batch change each other, and cannot train on a single image where UPerNet pools it to one cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder as FPNBody
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder as UNetBody
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder as UPerNetBody
from torch import Tensor, nn

from geopix.contracts import MaskDecoder, Recall
from geopix.types import Drawing

FPN_MAPS = 4
"""Maps that the package's FPN reads, each of twice the size of the next."""


class PromptHead(nn.Module):
    """Draws each mask from its image's map with weights written by its prompt: a scale and shift of the pixels' channels (FiLM, arXiv 1709.07871), a ReLU,
    and a product with a kernel. The pixels themselves are made once per image.

    Args:
        in_dim: width of the decoder's map.
        prompt_dim: width of the language model's states.
        dim: width of the pixels that prompts act on.
        hidden: hidden width of what reads the prompt.
    """

    def __init__(self, in_dim: int, prompt_dim: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.pixels = nn.Conv2d(in_dim, dim, 1)
        self.read = nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, hidden), nn.ReLU())
        self.write = nn.Linear(hidden, 3 * dim + 1)

    def forward(self, image: Float[Tensor, "b _ h w"], prompts: Float[Tensor, "m k d"], image_index: Int[Tensor, " m"], recall: Recall | None) -> Drawing:
        """A first look at the pixels and, given a memory, a second at what it returns for them."""
        pixels = self.pixels(image)
        written = self.write(self.read(prompts).mean(1))
        first = self._draw(pixels.index_select(0, image_index), written)
        if recall is None:
            return Drawing(first, image_index)
        return Drawing(self._draw(recall(pixels, image_index, first, 0), written), image_index, auxiliary=(first,))

    def _draw(self, pixels: Float[Tensor, "m c h w"], written: Float[Tensor, "m _"]) -> Float[Tensor, "m h w"]:
        dim = pixels.shape[1]
        scale, shift, kernel, bias = written.split([dim, dim, dim, 1], dim=1)
        seen = F.relu(pixels * (1 + scale[..., None, None]) + shift[..., None, None])
        return torch.einsum("mchw,mc->mhw", seen, kernel) * dim**-0.5 + bias[..., None]


def prepare(body: nn.Module) -> None:
    """Gives a decoder its package's initial weights, and group norms of at least four channels each for its batch norms."""
    initialize_decoder(body)
    for part in list(body.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm2d):
                width = child.num_features
                part.add_module(name, nn.GroupNorm(math.gcd(32, width, max(1, width // 4)), width))


class UNetDecoder(MaskDecoder):
    """U-Net's decoder (Ronneberger et al. 2015, arXiv 1505.04597), with a head per prompt.

    Block by block the coarsest map is brought to the size of the next finer one (nearest cell) and joined with it; any number of maps and any sizes will do.
    The skip connection at stride 2 that the package's own encoders give is not needed: beyond the encoder's finest map, blocks without a skip double the
    size ``upsamples`` times. Masks have that size. A memory is asked for the pixels that prompts act on.

    Args:
        channels: widths of the encoder's maps, finest first.
        prompt_dim: width of the language model's states.
        dim: width of the first block; each next has half of it.
        min_dim: no block is narrower. The package's default widths, 256 to 16, draw classes; a narrow encoder and prompts about place and colour want more.
        upsamples: blocks beyond the encoder's finest map.
        pixel_dim: width of the pixels that prompts act on.
        hidden: hidden width of what reads the prompt.

    Raises:
        ValueError: when ``upsamples`` is negative, or 0 over a single map.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        dim: int = 256,
        min_dim: int = 16,
        upsamples: int = 1,
        pixel_dim: int = 64,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.num_tokens = None
        self.memory_channels = (pixel_dim,)
        self.upsamples = upsamples
        if upsamples < 0 or len(channels) - 1 + upsamples < 1:
            raise ValueError(f"a U-Net over {len(channels)} of the encoder's maps needs at least one block; found upsamples {upsamples}, set it to 1 or more.")
        widths = [max(dim >> block, min_dim) for block in range(len(channels) - 1 + upsamples)]
        # The package leaves out the first width, that of the image; maps without channels stand where there is no skip.
        self.body = UNetBody([0] * max(upsamples, 1) + list(channels), widths, n_blocks=len(widths))
        prepare(self.body)
        self.head = PromptHead(widths[-1], prompt_dim, pixel_dim, hidden)

    def forward(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        prompts: Float[Tensor, "m k d"],
        image_index: Int[Tensor, " m"],
        recall: Recall | None = None,
    ) -> Drawing:
        """Masks at ``2 ** upsamples`` times the size of the finest map; with a memory, ``auxiliary`` holds the first look."""
        finest = features[0]
        rows, columns = finest.shape[-2:]
        steps = range(self.upsamples, 0, -1) if self.upsamples else (0,)
        empty = [finest.new_empty(len(finest), 0, rows << step, columns << step) for step in steps]
        return self.head(self.body([*empty, *features]), prompts, image_index, recall)


class FPNDecoder(MaskDecoder):
    """The semantic decoder of Panoptic FPN (Kirillov et al. 2019, arXiv 1901.02446), with a head per prompt.

    The package's module reads four maps, each of exactly twice the size of the next. Here: the last four of the encoder, the last one again where it has
    fewer; each is averaged or interpolated to its place in the smallest such pyramid that covers the finest of them, where it is not that size already. Masks
    have the size of that finest map. A memory is asked for the pixels that prompts act on.

    Args:
        channels: widths of the encoder's maps, finest first.
        prompt_dim: width of the language model's states.
        dim: width of the pyramid.
        segmentation_dim: width of the map that its levels are added to; a multiple of 32.
        dropout: share of that map's channels that training leaves out.
        pixel_dim: width of the pixels that prompts act on.
        hidden: hidden width of what reads the prompt.

    Raises:
        ValueError: when 32 does not divide ``segmentation_dim``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        dim: int = 256,
        segmentation_dim: int = 128,
        dropout: float = 0.2,
        pixel_dim: int = 64,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        if segmentation_dim % 32:
            raise ValueError(f"the FPN's segmentation blocks have 32 groups; found a segmentation_dim of {segmentation_dim}, choose a multiple of 32.")
        self.num_tokens = None
        self.memory_channels = (pixel_dim,)
        used = range(max(len(channels) - FPN_MAPS, 0), len(channels))
        self.maps = [min(used[0] + level, used[-1]) for level in range(FPN_MAPS)]
        self.body = FPNBody([channels[index] for index in self.maps], FPN_MAPS - 1, dim, segmentation_dim, dropout)
        prepare(self.body)
        self.head = PromptHead(self.body.out_channels, prompt_dim, pixel_dim, hidden)

    def forward(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        prompts: Float[Tensor, "m k d"],
        image_index: Int[Tensor, " m"],
        recall: Recall | None = None,
    ) -> Drawing:
        """Masks at the size of the finest map used; with a memory, ``auxiliary`` holds the first look."""
        rows, columns = features[self.maps[0]].shape[-2:]
        coarsest = 2 ** (FPN_MAPS - 1)
        rows_up, columns_up = -(-rows // coarsest) * coarsest, -(-columns // coarsest) * coarsest
        pyramid = [_resize(features[index], (rows_up >> level, columns_up >> level)) for level, index in enumerate(self.maps)]
        return self.head(_resize(self.body(pyramid), (rows, columns)), prompts, image_index, recall)


class UPerNetDecoder(MaskDecoder):
    """UPerNet's decoder (Xiao et al. 2018, arXiv 1807.10221), with a head per prompt.

    The coarsest map is pooled at four sizes and heads a feature pyramid, whose levels are all fused at the size of the finest. The package leaves out maps at
    strides 1 and 2 and reads any number of others, at any size: it is given all maps of the encoder. Masks have the size of the finest. A memory is asked for
    the pixels that prompts act on.

    Args:
        channels: widths of the encoder's maps, finest first.
        prompt_dim: width of the language model's states.
        dim: width of the pyramid.
        pixel_dim: width of the pixels that prompts act on.
        hidden: hidden width of what reads the prompt.
    """

    def __init__(self, channels: Sequence[int], prompt_dim: int, *, dim: int = 256, pixel_dim: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.num_tokens = None
        self.memory_channels = (pixel_dim,)
        self.body = UPerNetBody([0, 0, *channels], decoder_channels=dim)
        prepare(self.body)
        self.head = PromptHead(dim, prompt_dim, pixel_dim, hidden)

    def forward(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        prompts: Float[Tensor, "m k d"],
        image_index: Int[Tensor, " m"],
        recall: Recall | None = None,
    ) -> Drawing:
        """Masks at the size of the finest map; with a memory, ``auxiliary`` holds the first look."""
        return self.head(self.body([features[0], features[0], *features]), prompts, image_index, recall)


def _resize(x: Float[Tensor, "b c _ _"], size: tuple[int, int]) -> Float[Tensor, "b c _ _"]:
    """The map at ``size``: averaged over areas where that is coarser, for bilinear sampling would skip cells; interpolated where it is finer."""
    if x.shape[-2:] == size:
        return x
    coarser = x.shape[-2] > size[0] or x.shape[-1] > size[1]
    return F.adaptive_avg_pool2d(x, size) if coarser else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
