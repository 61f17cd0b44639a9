"""A mask decoder of one's own: the prompt writes a small network, which is run at every cell."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from geopix.contracts import MaskDecoder, Recall
from geopix.types import Drawing


class WrittenNetDecoder(MaskDecoder):
    """Two layers per mask, with weights from its prompt, as in CondInst (Tian et al. 2020, arXiv 2003.05664).

    Args:
        channels: widths of the encoder's maps, finest first; masks have the size of the finest.
        prompt_dim: width of the language model's states.
        dim: width of both layers.
    """

    def __init__(self, channels: Sequence[int], prompt_dim: int, *, dim: int = 16) -> None:
        super().__init__()
        self.num_tokens, self.memory_channels = None, (dim,)
        self.narrow = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in channels)
        self.write = nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, dim * (dim + 2)))

    def forward(
        self, features: list[Float[Tensor, "b _ _ _"]], prompts: Float[Tensor, "m k d"], image_index: Int[Tensor, " m"], recall: Recall | None = None
    ) -> Drawing:
        """A first look; and a second one where there is a memory."""
        size = features[0].shape[-2:]
        image = torch.stack([F.interpolate(narrow(maps), size, mode="bilinear") for narrow, maps in zip(self.narrow, features, strict=True)]).sum(0)
        net = self.write(prompts.mean(1))
        first = self._run(net, image[image_index])
        if recall is None:
            return Drawing(first, image_index)
        return Drawing(self._run(net, recall(image, image_index, first, 0)), image_index, auxiliary=(first,))

    def _run(self, net: Float[Tensor, "m _"], pixels: Float[Tensor, "m c h w"]) -> Float[Tensor, "m h w"]:
        dim = pixels.shape[1]
        inner, bias, outer = net.split([dim * dim, dim, dim], 1)
        hidden = torch.einsum("mchw,mcd->mdhw", pixels, inner.unflatten(1, (dim, dim))) + bias[..., None, None]
        return torch.einsum("mdhw,md->mhw", hidden.relu(), outer)
