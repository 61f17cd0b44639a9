"""As many visual tokens as one likes, whatever the image's size: learned latents that read the map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import Connector


class SquaredReLU(nn.Module):
    """``max(x, 0) ** 2``."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.relu(x).square()


class LatentAttention(nn.Module):
    """Latents attend to the cells and to each other at once: keys and values are both, one after the other. No layer has a bias."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_cells, self.norm_latents = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, heads * head_dim, bias=False) for _ in range(3))
        self.out_proj = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(self, latents: Float[Tensor, "b n d"], cells: Float[Tensor, "b s d"]) -> Float[Tensor, "b n d"]:
        """What each latent reads."""
        latents = self.norm_latents(latents)
        both = torch.cat([self.norm_cells(cells), latents], dim=1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.q_proj(latents), self.k_proj(both), self.v_proj(both)))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class PerceiverResampler(Connector):
    """Flamingo's Perceiver Resampler: ``tokens`` learned latents read all cells in ``depth`` blocks; a linear layer brings them to the language model.

    The latents know a cell's place only from its features, so the encoder must carry positions (a transformer's do; ``TimmEncoder(positions=True)``).

    Source: Alayrac et al. 2022, "Flamingo", section 3.1.1 and appendix A.1.1, https://arxiv.org/abs/2204.14198.

    Args:
        channels: widths of the encoder's maps, finest first; the last map is read, and its width is also that of the latents.
        out_dim: width of the language model.
        tokens: visual tokens per image.
        depth: blocks of attention and MLP.
        heads, head_dim: attention heads and the width of each.
        ffn: width of the MLP over that of the latents.

    Raises:
        ValueError: when a number is not positive.
    """

    def __init__(self, channels: Sequence[int], out_dim: int, *, tokens: int = 64, depth: int = 6, heads: int = 8, head_dim: int = 64, ffn: int = 4) -> None:
        super().__init__()
        in_dim = channels[-1]
        if min(in_dim, out_dim, tokens, depth, heads, head_dim, ffn) < 1:
            raise ValueError(f"a PerceiverResampler needs positive numbers; found {tokens=}, {depth=}, {heads=}, {head_dim=}, {ffn=}.")
        self.latents = nn.Parameter(torch.randn(tokens, in_dim))
        self.attentions = nn.ModuleList(LatentAttention(in_dim, heads, head_dim) for _ in range(depth))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, ffn * in_dim, bias=False), SquaredReLU(), nn.Linear(ffn * in_dim, in_dim, bias=False))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(in_dim)
        self.projection = nn.Linear(in_dim, out_dim)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b tokens out_dim``."""
        cells = features[-1].flatten(2).transpose(1, 2)
        latents = self.latents.to(cells.dtype).expand(len(cells), -1, -1)
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            latents = latents + attention(latents, cells)
            latents = latents + mlp(latents)
        return self.projection(self.norm(latents))
