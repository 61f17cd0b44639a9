"""Segment Anything's mask decoder, prompted by a language model: the decoder of LISA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geopix.contracts import MaskDecoder, Recall
from geopix.decoders.multi_scale import mlp
from geopix.decoders.sam_weights import NUM_MASK_TOKENS, load_sam_weights
from geopix.decoders.two_way_transformer import FourierPosition, TwoWayTransformer, Upscale, UpscaledProducts, unfold_cells
from geopix.types import Drawing


class MapProjection(nn.Module):
    """A 1x1 convolution and LayerNorm over channels: any encoder's map at the width and scale that the neck of Segment Anything's own encoder ends with."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _ h w"]:
        """The map at the decoder's width."""
        return self.norm(self.linear(features.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def map_projection(in_dim: int, dim: int, wanted: bool | None) -> nn.Module:
    """The projection of a map; none where it is not wanted, or where nobody said and the widths agree.

    Raises:
        ValueError: when it is not wanted but the widths differ.
    """
    if wanted is False and in_dim != dim:
        raise ValueError(
            f"project is false but the encoder's map has {in_dim} channels and the decoder's dim is {dim}; set dim: {in_dim}, or leave project out."
        )
    return MapProjection(in_dim, dim) if wanted or in_dim != dim else nn.Identity()


class MaskHead(nn.Module):
    """What Segment Anything calls its mask decoder: prompt tokens and cells in, masks and their expected IoU out.

    There are always four mask tokens, which take part in the tokens' attention; the layers behind a token exist only where its mask is drawn.

    Args:
        dim: width of tokens and cells; a multiple of 4.
        depth, heads, mlp_dim: blocks, heads and MLP width of the transformer.
        mask_dim: width of the pixel embeddings that a mask is a product with.
        multimask: draw masks 1 to 3, Segment Anything's three guesses at an ambiguous prompt, instead of mask 0.

    Raises:
        ValueError: when ``dim`` is not a multiple of 4.
    """

    def __init__(self, dim: int, *, depth: int, heads: int, mlp_dim: int, mask_dim: int, multimask: bool) -> None:
        super().__init__()
        if dim % 4:
            raise ValueError(f"the decoder's dim must be a multiple of 4, because upscaled cells have a quarter of it; found {dim}.")
        self.drawn = tuple(range(1, NUM_MASK_TOKENS)) if multimask else (0,)
        self.quality_token = nn.Parameter(torch.randn(1, dim))
        self.mask_tokens = nn.Parameter(torch.randn(NUM_MASK_TOKENS, dim))
        self.no_mask = nn.Parameter(torch.randn(dim))
        self.position = FourierPosition(dim)
        self.transformer = TwoWayTransformer(dim, depth=depth, heads=heads, mlp_dim=mlp_dim)
        self.upscale = Upscale(dim, dim // 4)
        self.products = UpscaledProducts(dim // 4, mask_dim)
        self.mask_mlps = nn.ModuleList(mlp(dim, dim, dim, mask_dim) for _ in self.drawn)
        self.quality_mlp = mlp(dim, dim, dim, len(self.drawn))
        for layers in self.mask_mlps:
            start_loud(layers)

    def forward(
        self,
        features: Float[Tensor, "n c h w"],
        prompts: Float[Tensor, "m k c"],
        image_index: Int[Tensor, " m"] | None,
        skips: tuple[Float[Tensor, "m _ _ 4 _"], Float[Tensor, "m h w 4 _"]] | tuple[None, None] = (None, None),
    ) -> tuple[Float[Tensor, "m o 4*h 4*w"], Float[Tensor, "m o"], Float[Tensor, "m k c"]]:
        """Mask logits and raw IoU of every drawn mask, and what became of the prompt tokens.

        Args:
            features: per image when ``image_index`` is given, else per mask.
            skips: finer maps, folded to four cells each, that are added while upscaling: the finest, then the one half as fine.
        """
        cells = features.permute(0, 2, 3, 1)
        cells = cells + self.no_mask.to(cells.dtype)
        if image_index is not None:
            cells = cells.index_select(0, image_index)
        rows, columns = cells.shape[1:3]

        own = torch.cat([self.quality_token, self.mask_tokens])
        tokens = torch.cat([own.expand(len(prompts), -1, -1), prompts.to(own.dtype)], dim=1)
        tokens, cells = self.transformer(tokens, cells.flatten(1, 2), self.position(rows, columns))

        fine, middle = skips
        vectors = torch.stack([layers(tokens[:, 1 + index]) for index, layers in zip(self.drawn, self.mask_mlps, strict=True)], dim=1)
        upscaled = unfold_cells(self.upscale(cells.unflatten(1, (rows, columns)), middle))
        return self.products(upscaled, vectors, fine), self.quality_mlp(tokens[:, 0]), tokens[:, len(own) :]


def start_loud(layers: nn.Module) -> None:
    """Prompts as loud as the learned tokens beside them, and masks that vary: from PyTorch's own start neither has a voice for many steps."""
    for layer in layers.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


def take_best(masks: Float[Tensor, "m o h w"], quality: Float[Tensor, "m o"]) -> tuple[Float[Tensor, "m h w"], Float[Tensor, " m"]]:
    """Of the masks of each prompt the one that is expected to be the best, and how good it is expected to be."""
    rows, chosen = torch.arange(len(quality), device=quality.device), quality.argmax(1)
    return masks[rows, chosen], quality[rows, chosen]


class TwoWayDecoder(MaskDecoder):
    """Segment Anything's mask decoder with the language model's states as its prompt tokens.

    The states of a mask's tokens, any number of them, are projected to ``dim``, and each is one prompt token. One map of the encoder
    is read, at its own grid; masks are four times as fine. With SAM's encoder and ``weights`` this is the decoder of LISA, whose
    ``[SEG]`` is one token. Given a memory, the masks drawn from the projected map are the first look and those drawn from what the memory returns
    are the second.

    Sources: Kirillov et al. 2023, "Segment Anything", https://arxiv.org/abs/2304.02643; Lai et al. 2023, "LISA", https://arxiv.org/abs/2308.00692.

    Args:
        channels: widths of the encoder's maps, finest first.
        prompt_dim: width of the language model's states.
        level: which map is read, as an index into ``channels``; the last by default.
        dim: width of the decoder.
        depth, heads, mlp_dim: blocks, heads and MLP width of the transformer.
        prompt_hidden: hidden width of the prompt projection; ``prompt_dim`` by default, as in LISA.
        mask_dim: width of the pixel embeddings that a mask is a product with; an eighth of ``dim`` by default, as in SAM. A narrow decoder needs more.
        multimask: draw SAM's three masks of an ambiguous prompt and keep the one of best expected IoU, in training too, so that only the kept one
            learns: for weights that already know three masks. By default SAM's single mask is drawn, as in LISA.
        project: bring the map to ``dim`` by a 1x1 convolution and LayerNorm. By default where the widths differ; SAM's own maps have 256 channels
            and are taken as they are.
        weights: file or folder with a SAM, in Meta's layout (.pth) or that of transformers (safetensors); what is no mask decoder in it is not read.
            The prompt projection and the map's projection are not part of it and start at random. None starts everything at random.

    Raises:
        FileNotFoundError: when there are no weights at that path.
        ValueError: when ``level`` is not a map of the encoder, widths do not fit, or the weights lack tensors or hold others.
    """

    def __init__(
        self,
        channels: Sequence[int],
        prompt_dim: int,
        *,
        level: int = -1,
        dim: int = 256,
        depth: int = 2,
        heads: int = 8,
        mlp_dim: int = 2048,
        prompt_hidden: int | None = None,
        mask_dim: int | None = None,
        multimask: bool = False,
        project: bool | None = None,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if not -len(channels) <= level < len(channels):
            raise ValueError(f"level {level} must name one of the encoder's {len(channels)} maps, as an index; its widths are {tuple(channels)}.")
        self.num_tokens = None
        self.memory_channels = (dim,)
        self.level = level
        self.image_proj = map_projection(channels[level], dim, project)
        self.prompt_proj = mlp(prompt_dim, prompt_dim if prompt_hidden is None else prompt_hidden, dim)
        start_loud(self.prompt_proj)
        width = dim // 8 if mask_dim is None else mask_dim
        self.head = MaskHead(dim, depth=depth, heads=heads, mlp_dim=mlp_dim, mask_dim=width, multimask=multimask)
        if weights is not None:
            load_sam_weights(self, Path(weights), self.head.drawn, ours=("image_proj.", "prompt_proj."))

    def forward(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        prompts: Float[Tensor, "m k d"],
        image_index: Int[Tensor, " m"],
        recall: Recall | None = None,
    ) -> Drawing:
        """Masks four times as fine as the chosen map, each with the IoU that it expects (SAM's head is linear: it may leave 0..1).

        With a memory, ``auxiliary`` holds the first look.
        """
        image = self.image_proj(features[self.level])
        asked = self.prompt_proj(prompts)
        first = self._look(image, asked, image_index, image_index)
        if recall is None:
            return first
        refined = recall(image, image_index, first.mask_logits, 0)
        return replace(self._look(refined, asked, None, image_index), auxiliary=(first.mask_logits,))

    def _look(
        self, features: Float[Tensor, "n c h w"], asked: Float[Tensor, "m k c"], pick: Int[Tensor, " m"] | None, image_index: Int[Tensor, " m"]
    ) -> Drawing:
        masks, quality, _ = self.head(features, asked, pick)
        logits, expected = take_best(masks, quality)
        return Drawing(logits, image_index, quality=expected)
